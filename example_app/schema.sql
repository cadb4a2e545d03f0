-- What the application needs, in the shapes of RadCase. On a database that has these tables already
-- nothing changes.

CREATE TABLE IF NOT EXISTS users (
  id TEXT PRIMARY KEY,
  username TEXT UNIQUE NOT NULL,
  email TEXT UNIQUE,
  password_hash TEXT NOT NULL,
  display_name TEXT,
  role TEXT DEFAULT 'resident',
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
  last_login DATETIME
);

CREATE TABLE IF NOT EXISTS cases (
  id TEXT PRIMARY KEY,
  title TEXT NOT NULL,
  modality TEXT,
  body_part TEXT,
  diagnosis TEXT,
  difficulty INTEGER DEFAULT 2,
  clinical_history TEXT,
  teaching_points TEXT,
  findings TEXT,
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
  updated_at DATETIME DEFAULT CURRENT_TIMESTAMP
);

CREATE TABLE IF NOT EXISTS user_case_progress (
  user_id TEXT NOT NULL,
  case_id TEXT NOT NULL,
  ease_factor REAL DEFAULT 2.5,
  interval_days INTEGER DEFAULT 1,
  repetitions INTEGER DEFAULT 0,
  next_review DATE,
  last_reviewed DATETIME,
  PRIMARY KEY (user_id, case_id),
  FOREIGN KEY (user_id) REFERENCES users(id) ON DELETE CASCADE,
  FOREIGN KEY (case_id) REFERENCES cases(id) ON DELETE CASCADE
);

CREATE TABLE IF NOT EXISTS quiz_attempts (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  case_id TEXT NOT NULL,
  correct INTEGER NOT NULL,
  time_spent_ms INTEGER,
  attempted_at DATETIME DEFAULT CURRENT_TIMESTAMP,
  user_id TEXT,
  session_id TEXT,
  FOREIGN KEY (case_id) REFERENCES cases(id) ON DELETE CASCADE
);

-- One row for each request that has changed something, written in the same transaction: a request
-- that is sent again, because its answer was lost, is answered and not done twice.
CREATE TABLE IF NOT EXISTS app_requests (
  id TEXT PRIMARY KEY,
  kind TEXT NOT NULL,
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP
);
