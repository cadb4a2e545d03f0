-- Spaced repetition: what is due, the longest overdue first; NULL sorts before every date.
SELECT u.username, p.case_id, c.title, p.ease_factor, p.interval_days, p.repetitions, p.next_review
  FROM user_case_progress p
  JOIN users u ON u.id = p.user_id
  JOIN cases c ON c.id = p.case_id
 WHERE p.next_review IS NULL OR p.next_review <= '2100-01-01'
 ORDER BY p.next_review, u.username, p.case_id
