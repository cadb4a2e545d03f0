SELECT c.modality, count(*) AS attempts, sum(q.correct::int) AS correct,
       CAST(sum(q.correct::int) AS double precision) / count(*) * 100 AS accuracy
  FROM quiz_attempts q JOIN cases c ON c.id = q.case_id
 GROUP BY c.modality
