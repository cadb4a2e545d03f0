-- quiz_attempts.user_id may stay text (guests have ids that are no UUID) while users.id is one: no
-- index serves both, so the attempts are counted once for all users.
SELECT u.username, u.display_name, u.role, u.last_login,
       coalesce(a.attempts, 0) AS attempts,
       a.correct
  FROM users u
  LEFT JOIN (SELECT q.user_id::text AS user_id, count(*) AS attempts, sum(q.correct::int) AS correct
               FROM quiz_attempts q
              GROUP BY q.user_id::text) a ON a.user_id = u.id::text
 ORDER BY u.last_login DESC NULLS LAST, u.username COLLATE "C"
