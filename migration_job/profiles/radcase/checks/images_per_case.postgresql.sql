SELECT i.case_id, i.id, i.filename, i.original_name, i.sequence
  FROM images i
 ORDER BY i.case_id::text COLLATE "C", i.sequence NULLS FIRST, i.id::text COLLATE "C"
