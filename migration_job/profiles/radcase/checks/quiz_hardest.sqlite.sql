-- The cases that are missed most often.
SELECT c.id, c.title, count(*) AS attempts, sum(q.correct) AS correct
  FROM quiz_attempts q JOIN cases c ON c.id = q.case_id
 GROUP BY c.id, c.title
HAVING count(*) >= 2
 ORDER BY CAST(sum(q.correct) AS REAL) / count(*), attempts DESC, c.id
 LIMIT 10
