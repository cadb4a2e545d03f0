-- The filters beside the list.
SELECT modality, body_part, difficulty, count(*) AS cases
  FROM cases
 GROUP BY modality, body_part, difficulty
