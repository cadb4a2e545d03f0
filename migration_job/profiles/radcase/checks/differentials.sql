-- Differential diagnosis practice.
SELECT c.body_part, c.modality, avg(d.score) AS mean_score, count(*) AS attempts
  FROM differential_attempts d JOIN cases c ON c.id = d.case_id
 GROUP BY c.body_part, c.modality
