-- The library's first page: newest first, with tags, number of images and thumbnail.
SELECT c.id, c.title, c.modality, c.body_part, c.diagnosis, c.difficulty, c.created_at,
       (SELECT group_concat(name, ',')
          FROM (SELECT t.name FROM case_tags ct JOIN tags t ON t.id = ct.tag_id
                 WHERE ct.case_id = c.id ORDER BY t.name)) AS tags,
       (SELECT count(*) FROM images i WHERE i.case_id = c.id) AS image_count,
       (SELECT filename FROM images i WHERE i.case_id = c.id
         ORDER BY i.sequence, i.id LIMIT 1) AS thumbnail
  FROM cases c
 ORDER BY c.created_at DESC, c.id
 LIMIT 50
