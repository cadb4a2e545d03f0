-- The administrator's list: who was here last; users who never were come last.
SELECT u.username, u.display_name, u.role, u.last_login,
       (SELECT count(*) FROM quiz_attempts q WHERE q.user_id = u.id) AS attempts,
       (SELECT sum(q.correct) FROM quiz_attempts q WHERE q.user_id = u.id) AS correct
  FROM users u
 ORDER BY u.last_login DESC, u.username
