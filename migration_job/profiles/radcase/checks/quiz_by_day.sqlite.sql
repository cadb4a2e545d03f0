-- The trend: a day is a day in UTC, whatever the session's zone.
SELECT date(q.attempted_at) AS day, count(*) AS attempts, sum(q.correct) AS correct,
       avg(q.time_spent_ms) AS mean_ms, sum(q.xp_earned) AS xp
  FROM quiz_attempts q
 GROUP BY date(q.attempted_at)
 ORDER BY day
