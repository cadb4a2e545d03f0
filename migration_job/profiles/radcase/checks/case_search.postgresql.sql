SELECT c.id, c.title, c.diagnosis
  FROM cases c
 WHERE c.title ILIKE '%ac%' OR c.diagnosis ILIKE '%ac%' OR c.clinical_history ILIKE '%ac%'
 ORDER BY c.id::text COLLATE "C"
