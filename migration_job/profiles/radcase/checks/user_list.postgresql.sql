-- quiz_attempts.user_id may stay text (guests have ids that are no UUID) while users.id is one.
SELECT u.username, u.display_name, u.role, u.last_login,
       (SELECT count(*) FROM quiz_attempts q WHERE q.user_id::text = u.id::text) AS attempts,
       (SELECT sum(q.correct::int) FROM quiz_attempts q
         WHERE q.user_id::text = u.id::text) AS correct
  FROM users u
 ORDER BY u.last_login DESC NULLS LAST, u.username COLLATE "C"
