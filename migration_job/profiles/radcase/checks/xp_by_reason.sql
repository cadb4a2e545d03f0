SELECT reason, count(*) AS entries, sum(amount) AS xp FROM xp_transactions GROUP BY reason
