-- created_at may be NULL: SQLite takes NULL for the smallest value, PostgreSQL for the largest.
SELECT c.id, c.title, c.modality, c.body_part, c.diagnosis, c.difficulty, c.created_at,
       (SELECT string_agg(t.name, ',' ORDER BY t.name COLLATE "C")
          FROM case_tags ct JOIN tags t ON t.id = ct.tag_id
         WHERE ct.case_id = c.id) AS tags,
       (SELECT count(*) FROM images i WHERE i.case_id = c.id) AS image_count,
       (SELECT filename FROM images i WHERE i.case_id = c.id
         ORDER BY i.sequence NULLS FIRST, i.id::text COLLATE "C" LIMIT 1) AS thumbnail
  FROM cases c
 ORDER BY c.created_at DESC NULLS LAST, c.id::text COLLATE "C"
 LIMIT 50
