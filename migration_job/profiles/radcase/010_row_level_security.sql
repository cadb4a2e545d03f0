-- Row-level security by institution, for the application's roles; the owner of the tables, and the
-- migration, which acts as the owner, are not subject to it. The application names its institution
-- in each transaction, since a pooled connection serves many:
--
--     BEGIN; SET LOCAL radcase.institution_id = '...'; ...; COMMIT;
--
-- A transaction that names none sees no row of an institution's. One that does also reads what is
-- the application's own user's (the id 'system'), and writes none of it.
--
-- Every table of the schema is one of three:
--   an institution's   a row is its own where its institution_id says so, or what it refers to is its
--                      own: by a foreign key, by a column that is declared below to hold such an id,
--                      and so on from parent to child. A row that refers to nobody is nobody's.
--   shared             listed below, on purpose: its policy is named shared_by_all
--   closed             everything else: row-level security without a policy shows nothing of it
-- Views show what their reader may see (security_invoker); before PostgreSQL 15 they belong to a role
-- that is subject to the policies.
DO $$
DECLARE
    -- RadCase's library, the same for every institution, and its own configuration.
    shared CONSTANT text[] := ARRAY[
        'acgme_milestones', 'ai_config', 'badges', 'case_key_findings', 'case_milestones', 'case_tags',
        'cases', 'daily_challenges', 'dicom_series', 'images', 'related_cases',
        'study_plan_templates', 'tags'];
    -- Of these a row that refers to nobody is of a shared case, for all to read: table.column.
    shared_without CONSTANT text[] := ARRAY['case_references.draft_id'];
    -- Applications of people who are nobody's yet: anybody may add one, only the owner reads them.
    letterboxes CONSTANT text[] := ARRAY['beta_signups', 'interview_requests'];
    -- Columns that hold another table's id without a foreign key, wherever they are: column, table.
    owners CONSTANT text[] := ARRAY[['user_id', 'users'], ['created_by', 'users'],
                                    ['plan_id', 'user_study_plans']];

    named CONSTANT text :=
        'nullif(current_setting(''radcase.institution_id'', true), '''')';
    -- That an institution of that id is there: its own policy shows no other.
    known CONSTANT text := CASE WHEN to_regclass('public.institutions') IS NULL
        THEN named || ' IS NOT NULL' ELSE '(SELECT count(*) FROM public.institutions) = 1' END;
    own_user CONSTANT text := '(''system'', ''00000000-0000-4000-8000-000000000001'')';
    old CONSTANT boolean := current_setting('server_version_num')::int < 150000;
    views_role CONSTANT text := left(current_database(), 57) || '_views';
    -- Where views belong to another role, the owner reads through them as itself.
    owner_too CONSTANT text := CASE WHEN old THEN format(
        ' OR (SELECT pg_catalog.pg_has_role(current_user, %L, ''USAGE''))', current_user) ELSE '' END;

    own jsonb := '{}';   -- table -> condition that a row is the institution's; chr(1): its alias
    readable text;
    condition text;
    writable text;
    tab record;
    one record;
    depth int := 0;
BEGIN
    FOR tab IN
        SELECT c.oid, c.relname FROM pg_class c
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
          AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
                          AND d.objid = c.oid AND d.deptype = 'e')
        ORDER BY c.relname
    LOOP
        EXECUTE format('ALTER TABLE public.%I ENABLE ROW LEVEL SECURITY', tab.relname);
        IF tab.relname = ANY (shared) THEN
            EXECUTE format('CREATE POLICY shared_by_all ON public.%I USING (true)', tab.relname);
        ELSIF tab.relname = ANY (letterboxes) THEN
            EXECUTE format('CREATE POLICY anybody_adds ON public.%I FOR INSERT WITH CHECK (true)',
                           tab.relname);
            IF old THEN
                EXECUTE format('CREATE POLICY owner_reads ON public.%I USING (false%s)',
                               tab.relname, owner_too);
            END IF;
        END IF;
    END LOOP;

    -- From the institution outwards: a table is protected by what was protected before it, so that
    -- no policy ever leads back to itself.
    LOOP
        SELECT c.oid, c.relname, link.* INTO tab
        FROM pg_class c
        CROSS JOIN LATERAL (
            SELECT 0 AS rank, a.attnum, NULL::name AS parent, NULL::name AS parent_column,
                   a.attname AS column_name, false AS cast_both
            FROM pg_attribute a
            WHERE a.attrelid = c.oid AND NOT a.attisdropped
              AND a.attname = CASE c.relname WHEN 'institutions' THEN 'id' ELSE 'institution_id' END
            UNION ALL
            SELECT CASE WHEN a.attnotnull THEN 1 ELSE 2 END, a.attnum, p.relname, k.attname,
                   a.attname, false
            FROM pg_constraint f
            JOIN pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = f.conkey[1]
            JOIN pg_class p ON p.oid = f.confrelid
            JOIN pg_attribute k ON k.attrelid = f.confrelid AND k.attnum = f.confkey[1]
            WHERE f.contype = 'f' AND f.conrelid = c.oid AND cardinality(f.conkey) = 1
              AND p.relnamespace = c.relnamespace AND own ? p.relname::text
            UNION ALL
            SELECT 3, a.attnum, p.relname, k.attname, a.attname, a.atttypid <> k.atttypid
            FROM generate_subscripts(owners, 1) AS i
            JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = owners[i][1]
            JOIN pg_class p ON p.relname = owners[i][2] AND p.relnamespace = c.relnamespace
            JOIN pg_attribute k ON k.attrelid = p.oid AND k.attname = 'id'
            WHERE own ? p.relname::text AND NOT a.attisdropped
        ) AS link
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
          AND NOT own ? c.relname::text
          AND c.relname <> ALL (shared) AND c.relname <> ALL (letterboxes)
        ORDER BY link.rank, c.relname, link.attnum LIMIT 1;
        EXIT WHEN NOT FOUND;
        depth := depth + 1;

        IF tab.parent IS NULL THEN
            condition := format('%s.%I::text = %s', chr(1), tab.column_name, named);
            readable := condition;
            IF tab.relname = 'users' THEN
                readable := format('%s OR %s AND %s.id::text IN %s',
                                   condition, known, chr(1), own_user);
            END IF;
        ELSE
            -- What is seen of the parent is what the parent's own policy shows.
            readable := format(
                CASE WHEN tab.cast_both
                     THEN 'EXISTS (SELECT FROM public.%1$I AS %2$I WHERE %2$I.%3$I::text = %4$s.%5$I::text'
                     ELSE 'EXISTS (SELECT FROM public.%1$I AS %2$I WHERE %2$I.%3$I = %4$s.%5$I' END,
                tab.parent, '_parent_' || depth, tab.parent_column, chr(1), tab.column_name);
            condition := format('%s AND %s)', readable,
                replace(own ->> tab.parent, chr(1), format('%I', '_parent_' || depth)));
            readable := readable || ')';
            IF tab.relname || '.' || tab.column_name = ANY (shared_without) THEN
                readable := format('%s AND %s.%I IS NULL OR %s',
                                   known, chr(1), tab.column_name, readable);
            END IF;
        END IF;

        -- Whatever else of an institution's a row refers to has to be seen by who writes it.
        writable := condition;
        FOR one IN
            SELECT a.attname AS column_name, p.relname AS parent, k.attname AS parent_column
            FROM pg_constraint f
            JOIN pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = f.conkey[1]
            JOIN pg_class p ON p.oid = f.confrelid
            JOIN pg_attribute k ON k.attrelid = f.confrelid AND k.attnum = f.confkey[1]
            WHERE f.contype = 'f' AND f.conrelid = tab.oid AND cardinality(f.conkey) = 1
              AND p.relnamespace = 'public'::regnamespace
              AND own ? p.relname::text AND a.attname IS DISTINCT FROM tab.column_name
            ORDER BY a.attnum
        LOOP
            writable := format(
                '%s AND (%s.%I IS NULL OR EXISTS (SELECT FROM public.%I AS _other '
                'WHERE _other.%I = %s.%I))',
                writable, chr(1), one.column_name, one.parent, one.parent_column, chr(1),
                one.column_name);
        END LOOP;

        own := own || jsonb_build_object(tab.relname, condition);
        readable := replace(readable, chr(1), format('%I', tab.relname)) || owner_too;
        condition := replace(condition, chr(1), format('%I', tab.relname)) || owner_too;
        writable := replace(writable, chr(1), format('%I', tab.relname)) || owner_too;
        EXECUTE format('CREATE POLICY institution_reads ON public.%I FOR SELECT USING (%s)',
                       tab.relname, readable);
        EXECUTE format('CREATE POLICY institution_adds ON public.%I FOR INSERT WITH CHECK (%s)',
                       tab.relname, writable);
        EXECUTE format('CREATE POLICY institution_changes ON public.%I FOR UPDATE USING (%s) '
                       'WITH CHECK (%s)', tab.relname, condition, writable);
        EXECUTE format('CREATE POLICY institution_removes ON public.%I FOR DELETE USING (%s)',
                       tab.relname, condition);
    END LOOP;

    -- What has no rows of its own shows other tables': as its reader.
    FOR tab IN
        SELECT c.relname, c.relkind FROM pg_class c
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('v', 'm', 'f')
          AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
                          AND d.objid = c.oid AND d.deptype = 'e')
    LOOP
        IF tab.relkind <> 'v' THEN
            RAISE EXCEPTION '% is no table and no view: no policy can keep institutions apart in it',
                tab.relname;
        ELSIF NOT old THEN
            EXECUTE format('ALTER VIEW public.%I SET (security_invoker = true)', tab.relname);
        ELSE
            IF to_regrole(quote_ident(views_role)) IS NULL THEN
                IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
                    RAISE EXCEPTION '%', format(
                        'before PostgreSQL 15 views need an owner that is subject to the policies; as '
                        'a superuser: CREATE ROLE %1$I NOLOGIN; GRANT %1$I TO %2$I',
                        views_role, current_user);
                END IF;
                EXECUTE format('CREATE ROLE %I NOLOGIN', views_role);
            END IF;
            EXECUTE format('GRANT USAGE, CREATE ON SCHEMA public TO %I', views_role);
            EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO %I',
                           views_role);
            EXECUTE format('ALTER VIEW public.%I OWNER TO %I', tab.relname, views_role);
            EXECUTE format('REVOKE CREATE ON SCHEMA public FROM %I', views_role);
        END IF;
    END LOOP;
END
$$;
