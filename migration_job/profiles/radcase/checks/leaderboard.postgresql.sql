SELECT u.username, x.total_xp, x.level, x.current_streak, x.longest_streak, x.last_study_date
  FROM user_xp x JOIN users u ON u.id = x.user_id
 ORDER BY x.total_xp DESC NULLS LAST, u.username COLLATE "C"
