-- Where the database has the extension citus: reference tables institutions, programs, users,
-- cases, images and tags; user_case_progress, user_xp and active_sessions distributed by user_id.
-- Where it has not, nothing is done and this is the plan.
--
-- Citus distributes a table only by a column of each of its unique keys, and RadCase's keys are ids
-- alone. What has an institution_id and nothing but its id as key (programs) therefore stays a
-- reference table, like everything that it refers to, until the application's keys hold the
-- institution. Tables whose key already begins with the owner's id are distributed by it.
DO $$
DECLARE
    present boolean := EXISTS (SELECT FROM pg_extension WHERE extname = 'citus');
    one text;
BEGIN
    -- Parents first: a reference table may refer to reference tables alone.
    FOREACH one IN ARRAY ARRAY['institutions', 'programs', 'users', 'cases', 'images', 'tags'] LOOP
        IF present AND to_regclass(one) IS NOT NULL THEN
            EXECUTE format('SELECT create_reference_table(%L)', one);
        END IF;
    END LOOP;
    FOREACH one IN ARRAY ARRAY['user_case_progress', 'user_xp', 'active_sessions'] LOOP
        IF present AND to_regclass(one) IS NOT NULL THEN
            EXECUTE format('SELECT create_distributed_table(%L, %L)', one, 'user_id');
        END IF;
    END LOOP;
END
$$;
