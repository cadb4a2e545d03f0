-- Tags by how often they are used.
SELECT t.name, count(ct.case_id) AS cases
  FROM tags t LEFT JOIN case_tags ct ON ct.tag_id = t.id
 GROUP BY t.id, t.name
 ORDER BY cases DESC, t.name
