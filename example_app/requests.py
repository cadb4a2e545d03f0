"""What the application does, as statements for both engines.

Where the engines differ, so do the statements: progress is written by ``INSERT OR REPLACE`` on
SQLite, as RadCase does, and by an upsert on PostgreSQL. Columns whose type may change with the
migration are compared with text, which either engine reads as the column's type.
"""

from __future__ import annotations

from example_app.databases import Statement


def _both(sql: str) -> Statement:
    return {"sqlite": sql, "postgresql": sql}


CREATE_CASE = _both(
    "INSERT INTO cases (id, title, modality, body_part, diagnosis, difficulty) "
    "VALUES (?, ?, ?, ?, ?, ?)"
)

RECORD_PROGRESS: Statement = {
    "sqlite": "INSERT OR REPLACE INTO user_case_progress "
    "(user_id, case_id, ease_factor, interval_days, repetitions, next_review, last_reviewed) "
    "VALUES (?, ?, ?, ?, ?, date('now', '+1 day'), datetime('now'))",
    "postgresql": "INSERT INTO user_case_progress "
    "(user_id, case_id, ease_factor, interval_days, repetitions, next_review, last_reviewed) "
    "VALUES (?, ?, ?, ?, ?, current_date + 1, date_trunc('second', current_timestamp)) "
    "ON CONFLICT (user_id, case_id) DO UPDATE SET ease_factor = excluded.ease_factor, "
    "interval_days = excluded.interval_days, repetitions = excluded.repetitions, "
    "next_review = excluded.next_review, last_reviewed = excluded.last_reviewed",
}

ATTEMPT_QUIZ = _both(
    "INSERT INTO quiz_attempts (case_id, correct, time_spent_ms, user_id, session_id) "
    "VALUES (?, ?, ?, ?, ?)"
)

RETITLE_CASE = _both("UPDATE cases SET title = ? WHERE id = ?")

CREATE_USER = _both("INSERT INTO users (id, username, password_hash) VALUES (?, ?, '-')")

LIST_CASES: Statement = {
    "sqlite": "SELECT id, title, modality, difficulty FROM cases "
    "ORDER BY created_at DESC, id LIMIT 20",
    "postgresql": "SELECT id::text, title, modality, difficulty::text FROM cases "
    "ORDER BY created_at DESC, id LIMIT 20",
}

GET_CASE: Statement = {
    "sqlite": "SELECT id, title, modality, difficulty FROM cases WHERE id = ?",
    "postgresql": "SELECT id::text, title, modality, difficulty::text FROM cases WHERE id = ?",
}

SEARCH_CASES: Statement = {
    "sqlite": "SELECT id, title FROM cases WHERE title LIKE '%' || ? || '%' ORDER BY id LIMIT 20",
    "postgresql": "SELECT id::text, title FROM cases WHERE title ILIKE '%' || ?::text || '%' "
    "ORDER BY id LIMIT 20",
}

GET_PROGRESS: Statement = {
    "sqlite": "SELECT case_id, repetitions FROM user_case_progress WHERE user_id = ? LIMIT 50",
    "postgresql": "SELECT case_id::text, repetitions FROM user_case_progress "
    "WHERE user_id = ? LIMIT 50",
}

STATISTICS: Statement = {
    "sqlite": "SELECT (SELECT count(*) FROM cases), count(*), "
    "sum(CASE WHEN correct = 1 THEN 1 ELSE 0 END) FROM quiz_attempts",
    "postgresql": "SELECT (SELECT count(*) FROM cases), count(*), "
    "sum(CASE WHEN correct = '1' THEN 1 ELSE 0 END) FROM quiz_attempts",
}
