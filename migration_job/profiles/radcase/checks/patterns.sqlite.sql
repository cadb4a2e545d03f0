SELECT g.name, pc.display_order, c.title
  FROM pattern_groups g
  JOIN pattern_group_cases pc ON pc.group_id = g.id
  JOIN cases c ON c.id = pc.case_id
 ORDER BY g.name, g.id, pc.display_order, c.id
