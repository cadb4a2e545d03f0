SELECT (q.attempted_at AT TIME ZONE 'UTC')::date AS day, count(*) AS attempts,
       sum(q.correct::int) AS correct, avg(q.time_spent_ms) AS mean_ms, sum(q.xp_earned) AS xp
  FROM quiz_attempts q
 GROUP BY (q.attempted_at AT TIME ZONE 'UTC')::date
 ORDER BY day NULLS FIRST
