-- RadCase on PostgreSQL: the wished schema of its core tables.
--
-- Read by the planner, not run as it stands: every wish is tried against the values first. Columns
-- and tables that RadCase has besides these are planned from what they hold.

CREATE EXTENSION IF NOT EXISTS "uuid-ossp";
CREATE EXTENSION IF NOT EXISTS "pgcrypto";

-- Times default to whole seconds: as fine as SQLite's CURRENT_TIMESTAMP, so that a row written here
-- reads the same after a way back.

CREATE TABLE cases (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    title VARCHAR(500) NOT NULL,
    modality VARCHAR(50),
    body_part VARCHAR(100),
    diagnosis TEXT,
    difficulty INTEGER DEFAULT 2 CHECK (difficulty BETWEEN 1 AND 5),
    clinical_history TEXT,
    teaching_points TEXT,
    findings TEXT,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT date_trunc('second', CURRENT_TIMESTAMP),
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT date_trunc('second', CURRENT_TIMESTAMP)
);

CREATE TABLE images (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    case_id UUID NOT NULL REFERENCES cases(id) ON DELETE CASCADE,
    filename VARCHAR(255) NOT NULL,
    original_name VARCHAR(255),
    sequence INTEGER DEFAULT 0,
    annotations JSONB,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT date_trunc('second', CURRENT_TIMESTAMP)
);

CREATE INDEX idx_cases_modality ON cases(modality) WHERE modality IS NOT NULL;
CREATE INDEX idx_cases_body_part ON cases(body_part) WHERE body_part IS NOT NULL;
CREATE INDEX idx_cases_difficulty ON cases(difficulty);
CREATE INDEX idx_cases_created_at ON cases(created_at);

CREATE INDEX idx_images_case_id ON images(case_id);
CREATE INDEX idx_images_filename ON images(filename);

CREATE TABLE dicom_series (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    case_id UUID NOT NULL REFERENCES cases(id) ON DELETE CASCADE,
    series_uid VARCHAR(64) UNIQUE,
    series_description VARCHAR(255),
    modality VARCHAR(16) NOT NULL,
    num_images INTEGER DEFAULT 0 CHECK (num_images >= 0),
    folder_name VARCHAR(255) NOT NULL,
    patient_name VARCHAR(255),
    study_description VARCHAR(255),
    window_center NUMERIC(10,2),
    window_width NUMERIC(10,2),
    created_at TIMESTAMP WITH TIME ZONE DEFAULT date_trunc('second', CURRENT_TIMESTAMP),
    file_size_bytes BIGINT,
    pixel_spacing_x NUMERIC(10,6),
    pixel_spacing_y NUMERIC(10,6),
    slice_thickness NUMERIC(10,3)
);

CREATE TABLE users (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    username VARCHAR(50) UNIQUE NOT NULL,
    email VARCHAR(255) UNIQUE,
    password_hash VARCHAR(255) NOT NULL,
    display_name VARCHAR(255),
    role VARCHAR(20) DEFAULT 'resident' CHECK (role IN ('resident', 'attending', 'admin')),
    institution_id UUID,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT date_trunc('second', CURRENT_TIMESTAMP),
    last_login TIMESTAMP WITH TIME ZONE,
    is_active BOOLEAN DEFAULT TRUE
);

CREATE INDEX idx_users_username ON users(username);
CREATE INDEX idx_users_email ON users(email) WHERE email IS NOT NULL;
CREATE INDEX idx_users_institution ON users(institution_id) WHERE institution_id IS NOT NULL;
CREATE INDEX idx_users_last_login ON users(last_login) WHERE last_login IS NOT NULL;

-- The application's most frequent questions: search, a case's series, a learner's due reviews and
-- the statistics of the quiz.
CREATE INDEX idx_cases_search ON cases
    USING gin (to_tsvector('english', title || ' ' || coalesce(diagnosis, '')));
CREATE INDEX idx_dicom_series_lookup ON dicom_series(case_id, modality);
CREATE INDEX idx_user_progress_review ON user_case_progress(user_id, next_review)
    WHERE next_review IS NOT NULL;
CREATE INDEX idx_quiz_attempts_user ON quiz_attempts(user_id, attempted_at)
    WHERE user_id IS NOT NULL;
CREATE INDEX idx_quiz_attempts_case_correct ON quiz_attempts(case_id, correct);
