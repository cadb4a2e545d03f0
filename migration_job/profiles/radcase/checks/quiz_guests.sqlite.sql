-- Guests have no user; they must not be counted as somebody's.
SELECT CASE WHEN q.user_id IS NULL THEN "guest" ELSE "user" END AS who,
       count(*) AS attempts, sum(q.correct) AS correct
  FROM quiz_attempts q
 GROUP BY who
