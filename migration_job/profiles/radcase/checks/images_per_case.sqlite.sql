-- The viewer's stack of one case after another.
SELECT i.case_id, i.id, i.filename, i.original_name, i.sequence
  FROM images i
 ORDER BY i.case_id, i.sequence, i.id
