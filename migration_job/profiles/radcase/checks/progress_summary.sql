-- A learner's overview.
SELECT u.username, count(p.case_id) AS cases, avg(p.ease_factor) AS ease,
       max(p.interval_days) AS longest_interval, sum(p.repetitions) AS repetitions
  FROM users u LEFT JOIN user_case_progress p ON p.user_id = u.id
 GROUP BY u.username
