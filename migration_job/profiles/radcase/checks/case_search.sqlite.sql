-- The search box: SQLite's LIKE ignores the case of ASCII letters.
SELECT c.id, c.title, c.diagnosis
  FROM cases c
 WHERE c.title LIKE '%ac%' OR c.diagnosis LIKE '%ac%' OR c.clinical_history LIKE '%ac%'
 ORDER BY c.id
