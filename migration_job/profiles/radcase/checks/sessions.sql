-- Finished and unfinished quiz sessions by mode.
SELECT mode, completed_at IS NULL AS unfinished, count(*) AS sessions,
       sum(total_questions) AS questions, sum(correct_count) AS correct
  FROM quiz_sessions
 GROUP BY mode, completed_at IS NULL
