"""Every definition of a schema as lines of text, to tell whether it is what it was.

What a dump of the schema would hold: tables with their columns, defaults and options, constraints,
indexes, triggers, policies, views, sequences without their positions, types, functions, comments
and privileges. What this job itself has added (triggers whose functions are its own) is left out.
"""

from __future__ import annotations

import psycopg
from psycopg import sql

from migration_job.place import RawCursor, records_of

LINES = """
SELECT format('%s %I: owner %s, %s, privileges %s, options %s, security %s %s, %s', c.relkind,
              c.relname, c.relowner::regrole, c.relpersistence, c.relacl, c.reloptions,
              c.relrowsecurity, c.relforcerowsecurity, obj_description(c.oid, 'pg_class'))
FROM pg_class c
WHERE c.relnamespace = $1::text::regnamespace AND c.relkind IN ('r','p','v','m','f','S','c')
UNION ALL
SELECT format('column %I.%I (%s): %s %s, collation %s, %s%s, default %s, storage %s %s, '
              'statistics %s, options %s, privileges %s, %s',
              c.relname, a.attname, rank() OVER (PARTITION BY c.oid ORDER BY a.attnum),
              format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attcollation, a.attidentity,
              a.attgenerated, pg_get_expr(d.adbin, d.adrelid), a.attstorage, a.attcompression,
              a.attstattarget, a.attoptions, a.attacl, col_description(c.oid, a.attnum))
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE c.relnamespace = $1::text::regnamespace AND c.relkind IN ('r','p','v','m','f','c')
UNION ALL
SELECT format('constraint %I on %s: %s, validated %s, %s', k.conname,
              coalesce(k.conrelid, k.contypid)::text, pg_get_constraintdef(k.oid), k.convalidated,
              obj_description(k.oid, 'pg_constraint'))
FROM pg_constraint k WHERE k.connamespace = $1::text::regnamespace
UNION ALL
SELECT format('index %s, valid %s, clustered %s, replica identity %s, %s',
              pg_get_indexdef(i.indexrelid), i.indisvalid, i.indisclustered, i.indisreplident,
              obj_description(i.indexrelid, 'pg_class'))
FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
WHERE c.relnamespace = $1::text::regnamespace
UNION ALL
SELECT format('trigger %s, enabled %s, %s', pg_get_triggerdef(t.oid), t.tgenabled,
              obj_description(t.oid, 'pg_trigger'))
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_proc p ON p.oid = t.tgfoid
WHERE c.relnamespace = $1::text::regnamespace AND NOT t.tgisinternal
  AND p.pronamespace IS DISTINCT FROM to_regnamespace($2::text)
UNION ALL
SELECT format('policy %I on %I: %s %s, roles %s, using %s, check %s', p.polname, c.relname,
              p.polcmd, p.polpermissive, p.polroles::regrole[], pg_get_expr(p.polqual, p.polrelid),
              pg_get_expr(p.polwithcheck, p.polrelid))
FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid
WHERE c.relnamespace = $1::text::regnamespace
UNION ALL
SELECT format('rule on %I: %s', c.relname, pg_get_ruledef(r.oid))
FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class
WHERE c.relnamespace = $1::text::regnamespace
UNION ALL
SELECT format('sequence %I: %s from %s by %s, %s to %s, cache %s, cycle %s', c.relname,
              format_type(s.seqtypid, NULL), s.seqstart, s.seqincrement, s.seqmin, s.seqmax,
              s.seqcache, s.seqcycle)
FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid
WHERE c.relnamespace = $1::text::regnamespace
UNION ALL
SELECT format('belongs %I to %I.%s', s.relname, t.relname, d.refobjsubid)
FROM pg_depend d JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
JOIN pg_class t ON t.oid = d.refobjid
WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass
  AND d.deptype IN ('a', 'i') AND s.relnamespace = $1::text::regnamespace
UNION ALL
SELECT format('type %I: %s, base %s, not null %s, default %s, labels %s', t.typname, t.typtype,
              format_type(t.typbasetype, t.typtypmod), t.typnotnull, t.typdefault,
              ARRAY(SELECT e.enumlabel FROM pg_enum e WHERE e.enumtypid = t.oid
                    ORDER BY e.enumsortorder))
FROM pg_type t
WHERE t.typnamespace = $1::text::regnamespace AND t.typtype IN ('d', 'e', 'r', 'm')
UNION ALL
SELECT format('routine %s: %s, owner %s, privileges %s', p.oid::regprocedure,
              CASE WHEN p.prokind = 'a' THEN p.prosrc ELSE pg_get_functiondef(p.oid) END,
              p.proowner::regrole, p.proacl)
FROM pg_proc p WHERE p.pronamespace = $1::text::regnamespace
UNION ALL
SELECT format('inherits %s from %s', h.inhrelid::regclass, h.inhparent::regclass)
FROM pg_inherits h JOIN pg_class c ON c.oid = h.inhrelid
WHERE c.relnamespace = $1::text::regnamespace
UNION ALL
SELECT format('statistics %s', pg_get_statisticsobjdef(s.oid))
FROM pg_statistic_ext s WHERE s.stxnamespace = $1::text::regnamespace
ORDER BY 1
"""


def read_definitions(connection: psycopg.Connection, schema: str) -> tuple[str, ...]:
    """Every definition of the schema, sorted; equal tuples, equal schemas."""
    named = sql.Identifier(schema).as_string(None)
    own = sql.Identifier(records_of(connection)).as_string(None)
    with RawCursor(connection) as cursor:
        return tuple(str(row[0]) for row in cursor.execute(LINES, [named, own]))


def changed(before: tuple[str, ...], after: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """The lines that are gone, and those that are new."""
    return sorted(set(before) - set(after)), sorted(set(after) - set(before))
