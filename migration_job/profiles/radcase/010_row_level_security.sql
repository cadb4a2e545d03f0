-- Row-level security by institution, for the application's role; the owner of the tables and the
-- migration are not subject to it. The application names its institution in each transaction, since
-- a pooled connection serves many:
--
--     BEGIN; SET LOCAL radcase.institution_id = '...'; ...; COMMIT;
--
-- Without it only the application's own user (the id 'system') and what is its is seen, and a user
-- of no institution is seen by nobody but the owner.

ALTER TABLE users ENABLE ROW LEVEL SECURITY;
CREATE POLICY by_institution ON users
    USING (id::text IN ('system', '00000000-0000-4000-8000-000000000001')
           OR institution_id::text = current_setting('radcase.institution_id', true))
    WITH CHECK (institution_id::text = current_setting('radcase.institution_id', true));

ALTER TABLE programs ENABLE ROW LEVEL SECURITY;
CREATE POLICY by_institution ON programs
    USING (institution_id::text = current_setting('radcase.institution_id', true));

-- Every table with a foreign key to users or programs follows them: a row is seen with the user, or
-- the program, that it belongs to. The policies of users and programs apply in the subquery.
DO $$
DECLARE
    reference record;
BEGIN
    FOR reference IN
        SELECT DISTINCT ON (c.conrelid)
               c.conrelid::regclass AS child, c.confrelid::regclass AS parent,
               a.attname AS child_column, p.attname AS parent_column
        FROM pg_constraint c
        JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1]
        JOIN pg_attribute p ON p.attrelid = c.confrelid AND p.attnum = c.confkey[1]
        WHERE c.contype = 'f'
          AND c.connamespace = 'public'::regnamespace
          AND c.confrelid IN ('users'::regclass, 'programs'::regclass)
          AND cardinality(c.conkey) = 1
          AND c.conrelid NOT IN ('users'::regclass, 'programs'::regclass)
        ORDER BY c.conrelid, a.attnotnull DESC, a.attnum
    LOOP
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', reference.child);
        EXECUTE format(
            'CREATE POLICY by_institution ON %s USING (%I IS NULL OR EXISTS '
            '(SELECT FROM %s AS parent WHERE parent.%I = %s.%I))',
            reference.child, reference.child_column, reference.parent,
            reference.parent_column, reference.child, reference.child_column
        );
    END LOOP;
END
$$;
