SELECT c.id, c.title, count(*) AS attempts, sum(q.correct::int) AS correct
  FROM quiz_attempts q JOIN cases c ON c.id = q.case_id
 GROUP BY c.id, c.title
HAVING count(*) >= 2
 ORDER BY CAST(sum(q.correct::int) AS double precision) / count(*), attempts DESC,
          c.id::text COLLATE "C"
 LIMIT 10
