SELECT b.id, b.name, b.rarity, count(ub.user_id) AS earned
  FROM badges b LEFT JOIN user_badges ub ON ub.badge_id = b.id
 GROUP BY b.id, b.name, b.rarity
