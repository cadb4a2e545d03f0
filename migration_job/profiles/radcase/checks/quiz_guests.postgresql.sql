-- "guest" in double quotes is a string to SQLite and a column to PostgreSQL.
SELECT CASE WHEN q.user_id IS NULL THEN 'guest' ELSE 'user' END AS who,
       count(*) AS attempts, sum(q.correct::int) AS correct
  FROM quiz_attempts q
 GROUP BY who
