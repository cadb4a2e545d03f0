-- A database shaped like RadCase's: the names and the declared types of its tables, as a file of its
-- own. Columns that the application added later are added later here too, by ALTER TABLE.

CREATE TABLE cases (
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

CREATE TABLE images (
  id TEXT PRIMARY KEY,
  case_id TEXT NOT NULL,
  filename TEXT NOT NULL,
  original_name TEXT,
  sequence INTEGER DEFAULT 0,
  annotations TEXT,
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
  FOREIGN KEY (case_id) REFERENCES cases(id) ON DELETE CASCADE
);

CREATE TABLE tags (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT UNIQUE NOT NULL
);

CREATE TABLE case_tags (
  case_id TEXT NOT NULL,
  tag_id INTEGER NOT NULL,
  PRIMARY KEY (case_id, tag_id),
  FOREIGN KEY (case_id) REFERENCES cases(id) ON DELETE CASCADE,
  FOREIGN KEY (tag_id) REFERENCES tags(id) ON DELETE CASCADE
);

CREATE TABLE quiz_attempts (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  case_id TEXT NOT NULL,
  correct INTEGER NOT NULL,
  time_spent_ms INTEGER,
  attempted_at DATETIME DEFAULT CURRENT_TIMESTAMP,
  FOREIGN KEY (case_id) REFERENCES cases(id) ON DELETE CASCADE
);

CREATE TABLE dicom_series (
  id TEXT PRIMARY KEY,
  case_id TEXT NOT NULL,
  series_uid TEXT,
  series_description TEXT,
  modality TEXT,
  num_images INTEGER DEFAULT 0,
  folder_name TEXT NOT NULL,
  patient_name TEXT,
  study_description TEXT,
  window_center REAL,
  window_width REAL,
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
  FOREIGN KEY (case_id) REFERENCES cases(id) ON DELETE CASCADE
);

CREATE TABLE users (
  id TEXT PRIMARY KEY,
  username TEXT UNIQUE NOT NULL,
  email TEXT UNIQUE,
  password_hash TEXT NOT NULL,
  display_name TEXT,
  role TEXT DEFAULT 'resident',
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
  last_login DATETIME
);

CREATE TABLE user_case_progress (
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

CREATE TABLE beta_signups (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  email TEXT NOT NULL UNIQUE,
  role TEXT NOT NULL,
  institution TEXT NOT NULL,
  specialty TEXT,
  study_time TEXT NOT NULL,
  current_tools TEXT,
  motivation TEXT NOT NULL,
  wants_interview INTEGER DEFAULT 0,
  can_refer INTEGER DEFAULT 0,
  timestamp TEXT,
  source TEXT DEFAULT 'beta-signup',
  status TEXT DEFAULT 'pending',
  notes TEXT,
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
  updated_at DATETIME DEFAULT CURRENT_TIMESTAMP
);

CREATE TABLE interview_requests (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  email TEXT NOT NULL,
  role TEXT NOT NULL,
  institution TEXT NOT NULL,
  timezone TEXT NOT NULL,
  preferred_times TEXT NOT NULL,
  platform_preference TEXT DEFAULT 'any',
  study_habits TEXT NOT NULL,
  main_challenge TEXT NOT NULL,
  additional_notes TEXT,
  timestamp TEXT,
  source TEXT DEFAULT 'interview-scheduling',
  status TEXT DEFAULT 'pending',
  scheduled_time TEXT,
  meeting_link TEXT,
  notes TEXT,
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
  updated_at DATETIME DEFAULT CURRENT_TIMESTAMP
);

CREATE TABLE sync_events (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  user_id TEXT NOT NULL,
  event_type TEXT NOT NULL,
  payload TEXT NOT NULL,
  device_id TEXT,
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
  FOREIGN KEY (user_id) REFERENCES users(id) ON DELETE CASCADE
);

CREATE TABLE push_subscriptions (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  user_id TEXT NOT NULL,
  endpoint TEXT NOT NULL UNIQUE,
  keys_p256dh TEXT NOT NULL,
  keys_auth TEXT NOT NULL,
  user_agent TEXT,
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
  FOREIGN KEY (user_id) REFERENCES users(id) ON DELETE CASCADE
);

CREATE TABLE case_key_findings (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  case_id TEXT NOT NULL,
  image_id TEXT NOT NULL,
  finding_type TEXT NOT NULL DEFAULT 'arrow',
  region_data TEXT NOT NULL,
  label TEXT NOT NULL,
  description TEXT,
  display_order INTEGER DEFAULT 0,
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
  FOREIGN KEY (case_id) REFERENCES cases(id) ON DELETE CASCADE,
  FOREIGN KEY (image_id) REFERENCES images(id) ON DELETE CASCADE
);

CREATE TABLE related_cases (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  case_id_a TEXT NOT NULL,
  case_id_b TEXT NOT NULL,
  relationship_type TEXT NOT NULL DEFAULT 'similar',
  description TEXT,
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
  UNIQUE(case_id_a, case_id_b, relationship_type),
  FOREIGN KEY (case_id_a) REFERENCES cases(id) ON DELETE CASCADE,
  FOREIGN KEY (case_id_b) REFERENCES cases(id) ON DELETE CASCADE
);

CREATE TABLE pattern_groups (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  description TEXT,
  pattern_type TEXT NOT NULL DEFAULT 'diagnosis',
  created_by TEXT,
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP
);

CREATE TABLE pattern_group_cases (
  group_id TEXT NOT NULL,
  case_id TEXT NOT NULL,
  display_order INTEGER DEFAULT 0,
  PRIMARY KEY (group_id, case_id),
  FOREIGN KEY (group_id) REFERENCES pattern_groups(id) ON DELETE CASCADE,
  FOREIGN KEY (case_id) REFERENCES cases(id) ON DELETE CASCADE
);

CREATE TABLE case_discussions (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  case_id TEXT NOT NULL,
  user_id TEXT NOT NULL,
  parent_id INTEGER,
  content TEXT NOT NULL,
  discussion_type TEXT DEFAULT 'comment',
  upvotes INTEGER DEFAULT 0,
  pinned INTEGER DEFAULT 0,
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
  updated_at DATETIME DEFAULT CURRENT_TIMESTAMP,
  FOREIGN KEY (case_id) REFERENCES cases(id) ON DELETE CASCADE,
  FOREIGN KEY (user_id) REFERENCES users(id) ON DELETE CASCADE,
  FOREIGN KEY (parent_id) REFERENCES case_discussions(id) ON DELETE CASCADE
);

CREATE TABLE discussion_upvotes (
  user_id TEXT NOT NULL,
  discussion_id INTEGER NOT NULL,
  PRIMARY KEY (user_id, discussion_id)
);

CREATE TABLE collections (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  description TEXT,
  cover_image TEXT,
  collection_type TEXT DEFAULT 'custom',
  visibility TEXT DEFAULT 'private',
  created_by TEXT NOT NULL,
  share_code TEXT UNIQUE,
  case_count INTEGER DEFAULT 0,
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
  updated_at DATETIME DEFAULT CURRENT_TIMESTAMP,
  FOREIGN KEY (created_by) REFERENCES users(id) ON DELETE CASCADE
);

CREATE TABLE collection_cases (
  collection_id TEXT NOT NULL,
  case_id TEXT NOT NULL,
  display_order INTEGER DEFAULT 0,
  added_at DATETIME DEFAULT CURRENT_TIMESTAMP,
  PRIMARY KEY (collection_id, case_id),
  FOREIGN KEY (collection_id) REFERENCES collections(id) ON DELETE CASCADE,
  FOREIGN KEY (case_id) REFERENCES cases(id) ON DELETE CASCADE
);

CREATE TABLE collection_progress (
  user_id TEXT NOT NULL,
  collection_id TEXT NOT NULL,
  case_id TEXT NOT NULL,
  completed INTEGER DEFAULT 0,
  score REAL,
  completed_at DATETIME,
  PRIMARY KEY (user_id, collection_id, case_id)
);

CREATE TABLE differential_attempts (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  user_id TEXT NOT NULL,
  case_id TEXT NOT NULL,
  user_differentials TEXT NOT NULL,
  score REAL NOT NULL,
  matched TEXT,
  missed TEXT,
  extra TEXT,
  time_spent_ms INTEGER,
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
  FOREIGN KEY (user_id) REFERENCES users(id) ON DELETE CASCADE,
  FOREIGN KEY (case_id) REFERENCES cases(id) ON DELETE CASCADE
);

CREATE TABLE user_xp (
  user_id TEXT PRIMARY KEY,
  total_xp INTEGER DEFAULT 0,
  level INTEGER DEFAULT 1,
  current_streak INTEGER DEFAULT 0,
  longest_streak INTEGER DEFAULT 0,
  last_study_date DATE,
  FOREIGN KEY (user_id) REFERENCES users(id) ON DELETE CASCADE
);

CREATE TABLE xp_transactions (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  user_id TEXT NOT NULL,
  amount INTEGER NOT NULL,
  reason TEXT NOT NULL,
  session_id TEXT,
  case_id TEXT,
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP
);

CREATE TABLE badges (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  description TEXT,
  icon TEXT,
  category TEXT,
  rarity TEXT DEFAULT 'bronze',
  criteria TEXT NOT NULL
);

CREATE TABLE user_badges (
  user_id TEXT NOT NULL,
  badge_id TEXT NOT NULL,
  earned_at DATETIME DEFAULT CURRENT_TIMESTAMP,
  PRIMARY KEY (user_id, badge_id)
);

CREATE TABLE daily_challenges (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  challenge_date DATE NOT NULL UNIQUE,
  case_ids TEXT NOT NULL,
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP
);

CREATE TABLE user_daily_challenge (
  user_id TEXT NOT NULL,
  challenge_date DATE NOT NULL,
  score INTEGER,
  total INTEGER,
  xp_earned INTEGER DEFAULT 0,
  completed_at DATETIME DEFAULT CURRENT_TIMESTAMP,
  PRIMARY KEY (user_id, challenge_date)
);

CREATE TABLE study_plan_templates (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  description TEXT,
  category TEXT,
  milestones TEXT NOT NULL,
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP
);

CREATE TABLE user_study_plans (
  id TEXT PRIMARY KEY,
  user_id TEXT NOT NULL,
  template_id TEXT,
  name TEXT NOT NULL,
  target_date DATE,
  milestones TEXT NOT NULL,
  current_milestone INTEGER DEFAULT 0,
  status TEXT DEFAULT 'active',
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
  updated_at DATETIME DEFAULT CURRENT_TIMESTAMP
);

CREATE TABLE study_plan_progress (
  plan_id TEXT NOT NULL,
  case_id TEXT NOT NULL,
  milestone_index INTEGER NOT NULL,
  attempted BOOLEAN DEFAULT 0,
  correct BOOLEAN,
  attempted_at DATETIME,
  PRIMARY KEY (plan_id, case_id)
);

CREATE TABLE quiz_sessions (
  id TEXT PRIMARY KEY,
  user_id TEXT NOT NULL,
  mode TEXT NOT NULL,
  plan_id TEXT,
  started_at DATETIME DEFAULT CURRENT_TIMESTAMP,
  completed_at DATETIME,
  total_questions INTEGER DEFAULT 0,
  correct_count INTEGER DEFAULT 0,
  xp_earned INTEGER DEFAULT 0
);

CREATE TABLE ai_config (
  key TEXT PRIMARY KEY,
  value TEXT
);

CREATE TABLE case_drafts (
  id TEXT PRIMARY KEY,
  source_report TEXT,
  source_dicom_metadata TEXT,
  generated_content TEXT,
  "references" TEXT,
  status TEXT DEFAULT 'generating',
  ai_provider TEXT,
  ai_model TEXT,
  generation_time_ms INTEGER,
  created_by TEXT,
  reviewed_by TEXT,
  review_notes TEXT,
  published_case_id TEXT,
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
  updated_at DATETIME DEFAULT CURRENT_TIMESTAMP,
  FOREIGN KEY (created_by) REFERENCES users(id),
  FOREIGN KEY (reviewed_by) REFERENCES users(id)
);

CREATE TABLE case_references (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  draft_id TEXT,
  case_id TEXT,
  source_name TEXT NOT NULL,
  source_url TEXT,
  source_type TEXT,
  quality_tier TEXT,
  quality_score INTEGER,
  citation_text TEXT,
  relevant_section TEXT,
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
  FOREIGN KEY (draft_id) REFERENCES case_drafts(id) ON DELETE CASCADE,
  FOREIGN KEY (case_id) REFERENCES cases(id) ON DELETE CASCADE
);

CREATE TABLE ai_conversations (
  id TEXT PRIMARY KEY,
  user_id TEXT NOT NULL,
  case_id TEXT,
  conversation_type TEXT DEFAULT 'chat',
  messages TEXT NOT NULL DEFAULT '[]',
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
  updated_at DATETIME DEFAULT CURRENT_TIMESTAMP,
  FOREIGN KEY (user_id) REFERENCES users(id) ON DELETE CASCADE,
  FOREIGN KEY (case_id) REFERENCES cases(id) ON DELETE SET NULL
);

CREATE TABLE weakness_analysis (
  user_id TEXT PRIMARY KEY,
  analysis_data TEXT NOT NULL DEFAULT '{}',
  weak_body_parts TEXT,
  weak_modalities TEXT,
  weak_diagnoses TEXT,
  recommended_case_ids TEXT,
  last_updated DATETIME DEFAULT CURRENT_TIMESTAMP,
  FOREIGN KEY (user_id) REFERENCES users(id) ON DELETE CASCADE
);

CREATE TABLE report_attempts (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  user_id TEXT NOT NULL,
  case_id TEXT NOT NULL,
  trainee_report TEXT NOT NULL,
  ai_feedback TEXT,
  score REAL,
  missed_findings TEXT,
  overcalls TEXT,
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
  FOREIGN KEY (user_id) REFERENCES users(id) ON DELETE CASCADE,
  FOREIGN KEY (case_id) REFERENCES cases(id) ON DELETE CASCADE
);

CREATE TABLE oral_board_sessions (
  id TEXT PRIMARY KEY,
  user_id TEXT NOT NULL,
  case_id TEXT NOT NULL,
  mode TEXT NOT NULL DEFAULT 'practice',
  status TEXT NOT NULL DEFAULT 'active',
  transcript TEXT NOT NULL DEFAULT '[]',
  evaluation TEXT,
  score REAL,
  duration_ms INTEGER,
  turn_count INTEGER DEFAULT 0,
  started_at DATETIME DEFAULT CURRENT_TIMESTAMP,
  completed_at DATETIME,
  FOREIGN KEY (user_id) REFERENCES users(id) ON DELETE CASCADE,
  FOREIGN KEY (case_id) REFERENCES cases(id) ON DELETE CASCADE
);

CREATE TABLE oral_board_annotations (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  session_id TEXT NOT NULL,
  turn_number INTEGER NOT NULL,
  annotation_type TEXT NOT NULL,
  content TEXT NOT NULL,
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
  FOREIGN KEY (session_id) REFERENCES oral_board_sessions(id) ON DELETE CASCADE
);

CREATE TABLE institutions (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  type TEXT DEFAULT 'academic',
  logo_url TEXT,
  settings TEXT DEFAULT '{}',
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP
);

CREATE TABLE programs (
  id TEXT PRIMARY KEY,
  institution_id TEXT NOT NULL,
  name TEXT NOT NULL,
  specialty TEXT DEFAULT 'diagnostic_radiology',
  accreditation_id TEXT,
  settings TEXT DEFAULT '{}',
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
  FOREIGN KEY (institution_id) REFERENCES institutions(id) ON DELETE CASCADE
);

CREATE TABLE program_members (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  program_id TEXT NOT NULL,
  user_id TEXT NOT NULL,
  role TEXT NOT NULL DEFAULT 'resident',
  pgy_year INTEGER,
  start_date DATE,
  end_date DATE,
  status TEXT DEFAULT 'active',
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
  UNIQUE(program_id, user_id),
  FOREIGN KEY (program_id) REFERENCES programs(id) ON DELETE CASCADE,
  FOREIGN KEY (user_id) REFERENCES users(id) ON DELETE CASCADE
);

CREATE TABLE acgme_milestones (
  id TEXT PRIMARY KEY,
  domain TEXT NOT NULL,
  subdomain TEXT NOT NULL,
  description TEXT NOT NULL,
  level_descriptions TEXT NOT NULL,
  body_parts TEXT,
  modalities TEXT,
  display_order INTEGER DEFAULT 0
);

CREATE TABLE case_milestones (
  case_id TEXT NOT NULL,
  milestone_id TEXT NOT NULL,
  relevance_score REAL DEFAULT 1.0,
  PRIMARY KEY (case_id, milestone_id),
  FOREIGN KEY (case_id) REFERENCES cases(id) ON DELETE CASCADE,
  FOREIGN KEY (milestone_id) REFERENCES acgme_milestones(id) ON DELETE CASCADE
);

CREATE TABLE milestone_progress (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  user_id TEXT NOT NULL,
  milestone_id TEXT NOT NULL,
  current_level REAL DEFAULT 1.0,
  evidence TEXT DEFAULT '[]',
  assessment_count INTEGER DEFAULT 0,
  last_assessed DATETIME,
  updated_at DATETIME DEFAULT CURRENT_TIMESTAMP,
  UNIQUE(user_id, milestone_id),
  FOREIGN KEY (user_id) REFERENCES users(id) ON DELETE CASCADE,
  FOREIGN KEY (milestone_id) REFERENCES acgme_milestones(id) ON DELETE CASCADE
);

CREATE TABLE milestone_assessments (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  user_id TEXT NOT NULL,
  milestone_id TEXT NOT NULL,
  assessor_id TEXT,
  level REAL NOT NULL,
  evidence_type TEXT NOT NULL,
  evidence_id TEXT,
  notes TEXT,
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
  FOREIGN KEY (user_id) REFERENCES users(id) ON DELETE CASCADE,
  FOREIGN KEY (milestone_id) REFERENCES acgme_milestones(id) ON DELETE CASCADE
);

CREATE TABLE cme_credits (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  user_id TEXT NOT NULL,
  activity_type TEXT NOT NULL,
  activity_id TEXT,
  credits REAL NOT NULL,
  category TEXT DEFAULT 'SA-CME',
  title TEXT,
  completed_at DATETIME DEFAULT CURRENT_TIMESTAMP,
  FOREIGN KEY (user_id) REFERENCES users(id) ON DELETE CASCADE
);

CREATE TABLE cohort_snapshots (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  program_id TEXT NOT NULL,
  snapshot_date DATE NOT NULL,
  pgy_year INTEGER,
  metric_type TEXT NOT NULL,
  percentiles TEXT NOT NULL,
  sample_size INTEGER,
  FOREIGN KEY (program_id) REFERENCES programs(id) ON DELETE CASCADE
);

CREATE TABLE active_sessions (
  user_id TEXT PRIMARY KEY,
  session_state TEXT NOT NULL,
  device_id TEXT,
  updated_at DATETIME DEFAULT CURRENT_TIMESTAMP,
  FOREIGN KEY (user_id) REFERENCES users(id) ON DELETE CASCADE
);

CREATE TABLE bookmarks (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  user_id TEXT NOT NULL,
  case_id TEXT NOT NULL,
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP,
  UNIQUE(user_id, case_id),
  FOREIGN KEY (user_id) REFERENCES users(id) ON DELETE CASCADE,
  FOREIGN KEY (case_id) REFERENCES cases(id) ON DELETE CASCADE
);

ALTER TABLE cases ADD COLUMN differentials TEXT;
ALTER TABLE cases ADD COLUMN student_notes TEXT;
ALTER TABLE cases ADD COLUMN fellow_notes TEXT;
ALTER TABLE cases ADD COLUMN category TEXT;
ALTER TABLE cases ADD COLUMN acgme_domains TEXT;
ALTER TABLE quiz_attempts ADD COLUMN user_id TEXT;
ALTER TABLE quiz_attempts ADD COLUMN session_id TEXT;
ALTER TABLE quiz_attempts ADD COLUMN answer_index INTEGER;
ALTER TABLE quiz_attempts ADD COLUMN correct_index INTEGER;
ALTER TABLE quiz_attempts ADD COLUMN xp_earned INTEGER DEFAULT 0;
ALTER TABLE users ADD COLUMN trainee_level TEXT DEFAULT 'resident';
ALTER TABLE users ADD COLUMN institution_id TEXT;
ALTER TABLE users ADD COLUMN program_id TEXT;
ALTER TABLE users ADD COLUMN pgy_year INTEGER;

CREATE INDEX idx_cases_modality ON cases(modality);
CREATE INDEX idx_cases_body_part ON cases(body_part);
CREATE INDEX idx_cases_difficulty ON cases(difficulty);
CREATE INDEX idx_images_case ON images(case_id);
CREATE INDEX idx_dicom_case ON dicom_series(case_id);
CREATE INDEX idx_user_progress ON user_case_progress(user_id, next_review);
CREATE INDEX idx_beta_email ON beta_signups(email);
CREATE INDEX idx_beta_status ON beta_signups(status);
CREATE INDEX idx_beta_role ON beta_signups(role);
CREATE INDEX idx_interview_email ON interview_requests(email);
CREATE INDEX idx_interview_status ON interview_requests(status);
CREATE INDEX idx_sync_user ON sync_events(user_id, created_at);
CREATE INDEX idx_sync_type ON sync_events(user_id, event_type);
CREATE INDEX idx_push_user ON push_subscriptions(user_id);
CREATE INDEX idx_program_members_program ON program_members(program_id, status);
CREATE INDEX idx_program_members_user ON program_members(user_id);
CREATE INDEX idx_milestone_progress_user ON milestone_progress(user_id);
CREATE INDEX idx_milestone_assessments_user ON milestone_assessments(user_id, milestone_id);
CREATE INDEX idx_case_milestones_case ON case_milestones(case_id);
CREATE INDEX idx_case_milestones_milestone ON case_milestones(milestone_id);
CREATE INDEX idx_cme_credits_user ON cme_credits(user_id);
CREATE INDEX idx_cohort_snapshots_program ON cohort_snapshots(program_id, snapshot_date);
CREATE INDEX idx_bookmarks_user ON bookmarks(user_id);
CREATE INDEX idx_quiz_attempts_user_date ON quiz_attempts(user_id, attempted_at);
CREATE INDEX idx_case_discussions_case_pinned ON case_discussions(case_id, pinned);
CREATE INDEX idx_collections_created_by ON collections(created_by);
CREATE INDEX idx_xp_transactions_user ON xp_transactions(user_id, created_at);
CREATE INDEX idx_collection_cases_collection ON collection_cases(collection_id, display_order);
CREATE INDEX idx_case_tags_tag ON case_tags(tag_id);
CREATE INDEX idx_quiz_attempts_session ON quiz_attempts(session_id);
CREATE INDEX idx_quiz_attempts_case ON quiz_attempts(case_id);
CREATE INDEX idx_quiz_sessions_user ON quiz_sessions(user_id);
CREATE INDEX idx_study_plan_progress_plan ON study_plan_progress(plan_id);
CREATE INDEX idx_user_study_plans_user ON user_study_plans(user_id);
CREATE INDEX idx_user_daily_challenge_user ON user_daily_challenge(user_id, challenge_date);
CREATE INDEX idx_discussion_upvotes_user ON discussion_upvotes(user_id, discussion_id);
CREATE INDEX idx_pattern_group_cases_case ON pattern_group_cases(case_id);
CREATE INDEX idx_related_cases_a ON related_cases(case_id_a);
CREATE INDEX idx_related_cases_b ON related_cases(case_id_b);
CREATE INDEX idx_case_key_findings_case ON case_key_findings(case_id, image_id);
CREATE INDEX idx_bookmarks_user_case ON bookmarks(user_id, case_id);
CREATE INDEX idx_active_sessions_user ON active_sessions(user_id);
CREATE INDEX idx_ai_conversations_user ON ai_conversations(user_id, case_id);
CREATE INDEX idx_report_attempts_user ON report_attempts(user_id);
CREATE INDEX idx_oral_board_sessions_user ON oral_board_sessions(user_id);
