"""Reads a schema that is there already, from PostgreSQL's system catalogues."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import psycopg
from psycopg import sql

from migration_job.errors import InputError
from migration_job.place import records_of, schema_of_session
from migration_job.plan.bookkeeping import version_columns
from migration_job.plan.model import ForeignKeyPlan
from migration_job.plan.policy import Policy
from migration_job.plan.profile import Profile
from migration_job.plan.target import (
    OutsideTable,
    TargetCheck,
    TargetColumn,
    TargetDemand,
    TargetKey,
    TargetSchema,
    TargetTable,
)
from migration_job.quoting import postgres_name

RELATIONS = """
SELECT c.relname,
       CASE c.relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'partitioned table' WHEN 'v' THEN 'view'
            WHEN 'm' THEN 'materialized view' ELSE 'foreign table' END,
       c.relispartition OR EXISTS (SELECT FROM pg_inherits h
                                   WHERE c.oid IN (h.inhrelid, h.inhparent)),
       c.relrowsecurity AND c.relforcerowsecurity, c.relpersistence = 'u',
       ARRAY(SELECT t.tgname::text FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
             WHERE t.tgrelid = c.oid AND NOT t.tgisinternal
               AND p.pronamespace IS DISTINCT FROM
                   to_regnamespace(%(records)s::text) ORDER BY 1),
       ARRAY(SELECT t.tgname::text FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
             WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgenabled IN ('A', 'R')
               AND p.pronamespace IS DISTINCT FROM
                   to_regnamespace(%(records)s::text) ORDER BY 1),
       ARRAY(SELECT r.rulename::text FROM pg_rewrite r
             WHERE r.ev_class = c.oid AND r.ev_type <> '1' AND r.ev_enabled IN ('A', 'R')
             ORDER BY 1)
FROM pg_class c
WHERE c.relnamespace = %(schema)s::text::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
  AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_class'::regclass
                  AND e.objid = c.oid AND e.deptype = 'e')
ORDER BY c.relname
"""

COLUMNS = """
WITH RECURSIVE behind (oid, base, modifier) AS (
    SELECT t.oid, t.oid, NULL::integer FROM pg_type t
    UNION ALL
    SELECT b.oid, t.typbasetype, CASE WHEN t.typtypmod >= 0 THEN t.typtypmod ELSE b.modifier END
    FROM behind b JOIN pg_type t ON t.oid = b.base WHERE t.typtype = 'd'
)
SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
       format_type(b.base, coalesce(b.modifier, a.atttypmod)),
       ARRAY(SELECT e.enumlabel::text FROM pg_enum e WHERE e.enumtypid IN (b.base, eb.base)
             ORDER BY e.enumsortorder),
       format_type(eb.base, coalesce(eb.modifier, b.modifier, a.atttypmod)),
       a.attnotnull OR d.typnotnull,
       CASE WHEN a.attgenerated = '' THEN pg_get_expr(f.adbin, f.adrelid) END,
       CASE WHEN a.attgenerated <> '' THEN pg_get_expr(f.adbin, f.adrelid) END,
       a.attidentity::text,
       ARRAY(SELECT DISTINCT s.oid::regclass::text FROM pg_class s JOIN pg_depend p
             ON s.relkind = 'S' AND (
                p.classid = 'pg_class'::regclass AND p.objid = s.oid
                AND p.refclassid = 'pg_class'::regclass AND p.refobjid = c.oid
                AND p.refobjsubid = a.attnum AND p.deptype IN ('a', 'i')
                OR p.classid = 'pg_attrdef'::regclass AND p.objid = f.oid
                AND p.refclassid = 'pg_class'::regclass AND p.refobjid = s.oid)
             ORDER BY 1)
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
JOIN pg_type d ON d.oid = a.atttypid
JOIN behind b ON b.oid = a.atttypid JOIN pg_type bt ON bt.oid = b.base AND bt.typtype <> 'd'
LEFT JOIN (behind eb JOIN pg_type et ON et.oid = eb.base AND et.typtype <> 'd')
  ON bt.typcategory = 'A' AND eb.oid = bt.typelem
LEFT JOIN pg_attrdef f ON f.adrelid = c.oid AND f.adnum = a.attnum
WHERE c.relnamespace = %(schema)s::text::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
  AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY c.relname, a.attnum
"""

KEYS = """
SELECT t.relname, x.relname, i.indisprimary,
       ARRAY(SELECT a.attname::text FROM unnest(i.indkey::smallint[]) WITH ORDINALITY AS k(n, o)
             JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.n
             WHERE k.o <= i.indnkeyatts ORDER BY k.o)
FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid JOIN pg_class x ON x.oid = i.indexrelid
WHERE t.relnamespace = %(schema)s::text::regnamespace AND i.indisunique AND i.indpred IS NULL
  AND i.indexprs IS NULL
ORDER BY t.relname, i.indisprimary DESC, x.relname
"""

DEMANDS = """
SELECT t.relname, x.relname, c.oid IS NOT NULL,
       CASE WHEN c.oid IS NULL
            THEN substr(pg_get_indexdef(i.indexrelid),
                        length(format('CREATE UNIQUE INDEX %%I ON %%I.%%I', x.relname, n.nspname,
                                      t.relname)) + 1)
            ELSE regexp_replace(pg_get_constraintdef(c.oid),
                                '( DEFERRABLE| INITIALLY DEFERRED| NOT VALID)+$', '') END,
       ARRAY(SELECT a.attname::text FROM pg_attribute a
             WHERE a.attrelid = t.oid AND a.attnum > 0 AND (a.attnum = ANY (i.indkey)
               OR EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
                          AND d.objid = i.indexrelid AND d.refclassid = 'pg_class'::regclass
                          AND d.refobjid = t.oid AND d.refobjsubid = a.attnum))
             ORDER BY a.attnum)
FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid JOIN pg_class x ON x.oid = i.indexrelid
JOIN pg_namespace n ON n.oid = t.relnamespace
LEFT JOIN pg_constraint c ON c.conindid = i.indexrelid AND c.contype = 'x'
WHERE t.relnamespace = %(schema)s::text::regnamespace AND t.relkind = 'r'
  AND (c.oid IS NOT NULL OR i.indisunique AND (
    i.indpred IS NOT NULL OR i.indexprs IS NOT NULL
    OR coalesce((to_jsonb(i) ->> 'indnullsnotdistinct')::boolean, false)
    OR EXISTS (
      SELECT FROM unnest(i.indkey::smallint[]) WITH ORDINALITY AS k (n, o)
      JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = k.n
      JOIN pg_type y ON y.oid = a.atttypid LEFT JOIN pg_collation l ON l.oid = a.attcollation
      WHERE k.o <= i.indnkeyatts AND (
        coalesce(nullif(y.typbasetype, 0), y.oid) <> ALL (ARRAY['smallint', 'integer', 'bigint',
          'text', 'varchar', 'uuid', 'bytea', 'boolean', 'date']::regtype[])
        OR NOT coalesce(l.collisdeterministic, true)
        OR EXISTS (SELECT FROM pg_attrdef f WHERE f.adrelid = t.oid AND f.adnum = a.attnum
                   AND pg_get_expr(f.adbin, f.adrelid) NOT LIKE '%%nextval(%%')))))
ORDER BY t.relname, x.relname
"""
"""Keys are here as well where equal values can have two texts (numeric, citext, inet and so on),
and where a column may have a value that the source does not give it (computed, or a default)."""

CHECKS = """
SELECT t.relname, c.conname, pg_get_expr(c.conbin, c.conrelid),
       ARRAY(SELECT a.attname::text FROM unnest(c.conkey) AS k(n)
             JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.n ORDER BY k.n)
FROM pg_constraint c JOIN pg_class t ON t.oid = c.conrelid
WHERE t.relnamespace = %(schema)s::text::regnamespace AND c.contype = 'c'
ORDER BY t.relname, c.conname
"""

DOMAINS = """
WITH RECURSIVE behind (attrelid, attname, domain) AS (
    SELECT a.attrelid, a.attname, a.atttypid FROM pg_attribute a JOIN pg_class c
    ON c.oid = a.attrelid WHERE c.relnamespace = %(schema)s::text::regnamespace
    AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT b.attrelid, b.attname, t.typbasetype
    FROM behind b JOIN pg_type t ON t.oid = b.domain WHERE t.typtype = 'd'
)
SELECT c.relname, k.conname, pg_get_expr(k.conbin, 0), b.attname
FROM behind b JOIN pg_constraint k ON k.contypid = b.domain AND k.contype = 'c'
JOIN pg_class c ON c.oid = b.attrelid
ORDER BY c.relname, b.attname, k.conname
"""

FOREIGN_KEYS = """
SELECT o.nspname, t.relname, c.conname, p.relname,
       ARRAY(SELECT a.attname::text FROM unnest(c.conkey) WITH ORDINALITY AS k(n, o)
             JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.n ORDER BY k.o),
       ARRAY(SELECT a.attname::text FROM unnest(c.confkey) WITH ORDINALITY AS k(n, o)
             JOIN pg_attribute a ON a.attrelid = c.confrelid AND a.attnum = k.n ORDER BY k.o),
       c.confupdtype::text, c.confdeltype::text, c.condeferred, c.convalidated, n.nspname
FROM pg_constraint c JOIN pg_class t ON t.oid = c.conrelid JOIN pg_class p ON p.oid = c.confrelid
JOIN pg_namespace n ON n.oid = p.relnamespace JOIN pg_namespace o ON o.oid = t.relnamespace
WHERE %(schema)s::text::regnamespace IN (t.relnamespace, p.relnamespace) AND c.contype = 'f'
  AND (c.conparentid = 0 OR p.relnamespace = t.relnamespace)
ORDER BY o.nspname, t.relname, c.conname
"""

ACTIONS = {
    "a": "NO ACTION",
    "r": "RESTRICT",
    "c": "CASCADE",
    "n": "SET NULL",
    "d": "SET DEFAULT",
}


@dataclass(slots=True)
class _Parts:
    """What belongs to one table."""

    columns: list[TargetColumn] = field(default_factory=list)
    keys: list[TargetKey] = field(default_factory=list)
    checks: list[TargetCheck] = field(default_factory=list)
    demands: list[TargetDemand] = field(default_factory=list)
    foreign_keys: list[ForeignKeyPlan] = field(default_factory=list)


def read_target(connection: psycopg.Connection, *, further: Sequence[str] = ()) -> TargetSchema:
    """The session's schema in one consistent state; ``further`` are tables that keep book of
    migrations beside the known ones."""
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        return _read(connection, schema_of_session(connection), further)


def read_schema(
    connection: psycopg.Connection,
    profile: Profile,
    policy: Policy | None,
) -> TargetSchema:
    """The schema that a load goes into. Raises InputError where it has no table, and for a profile,
    which plans a schema of its own."""
    if profile.name != "none":
        raise InputError(
            f"expected no profile with --schema existing, found {profile.name!r}",
            advice="a profile says what schema is made; leave --profile out, or load with "
            "--schema planned into an empty database",
        )
    found = read_target(connection, further=policy.bookkeeping if policy else ())
    if not any(table.kind == "table" for table in found.tables):
        raise InputError(
            f"expected the application's own tables in schema {found.name} of the target, found "
            "none",
            advice="have the application make them first (its migrations, against this database), "
            "or leave --schema existing out: then the job makes them",
        )
    return found


def _read(connection: psycopg.Connection, schema: str, further: Sequence[str]) -> TargetSchema:
    named = {
        "schema": sql.Identifier(schema).as_string(None),
        "records": postgres_name(records_of(connection)),
    }
    parts = _parts(connection, named)
    keys = _foreign_keys(connection, named)
    for (place, name), own_keys in keys.items():
        if place == schema:
            parts[name].foreign_keys += own_keys
    tables = []
    for name, kind, heirs, forced, unlogged, triggers, always, rules in connection.execute(
        RELATIONS, named
    ).fetchall():
        own = parts[name]
        tables.append(
            TargetTable(
                name=name,
                kind=kind,
                columns=tuple(own.columns),
                keys=tuple(own.keys),
                checks=tuple(own.checks),
                demands=tuple(own.demands),
                foreign_keys=tuple(own.foreign_keys),
                triggers=tuple(triggers),
                always=tuple(always),
                rules=tuple(rules),
                unlogged=unlogged,
                heirs=heirs,
                forced_rls=forced,
                rows=_count(connection, schema, name) if kind == "table" else 0,
            )
        )
    return TargetSchema(
        name=schema,
        tables=tuple(tables),
        outside=tuple(
            OutsideTable(schema_name=place, name=name, foreign_keys=tuple(those))
            for (place, name), those in keys.items()
            if place != schema
        ),
        versions=tuple(_versions(connection, schema, tables, further)),
    )


def _parts(connection: psycopg.Connection, named: Mapping[str, str]) -> defaultdict[str, _Parts]:
    """What hangs on each table, by its name."""
    parts: defaultdict[str, _Parts] = defaultdict(_Parts)
    for name, *row in connection.execute(COLUMNS, named):
        column = dict(zip(TargetColumn.model_fields, row, strict=True))
        parts[name].columns.append(TargetColumn.model_validate(column))
    for name, index, primary, columns in connection.execute(KEYS, named):
        parts[name].keys.append(TargetKey(name=index, columns=tuple(columns), primary=primary))
    for name, index, excludes, definition, columns in connection.execute(DEMANDS, named):
        parts[name].demands.append(
            TargetDemand(
                name=index,
                what="exclusion constraint" if excludes else "unique index",
                definition=definition,
                columns=tuple(columns),
            )
        )
    for name, check, expression, columns in connection.execute(CHECKS, named):
        parts[name].checks.append(
            TargetCheck(name=check, expression=expression, columns=tuple(columns))
        )
    for name, check, expression, column in connection.execute(DOMAINS, named):
        of_column = postgres_name(column).join(re.split(r"\bVALUE\b", expression))
        parts[name].checks.append(
            TargetCheck(name=check, expression=of_column, columns=(column,), of_domain=True)
        )
    return parts


def _foreign_keys(
    connection: psycopg.Connection, named: dict[str, str]
) -> dict[tuple[str, str], list[ForeignKeyPlan]]:
    """By the schema and name of the table that refers."""
    found: defaultdict[tuple[str, str], list[ForeignKeyPlan]] = defaultdict(list)
    for place, name, key, parent, columns, parent_columns, *rest in connection.execute(
        FOREIGN_KEYS, named
    ):
        found[place, name].append(
            ForeignKeyPlan(
                name=key,
                columns=tuple(columns),
                parent=parent,
                parent_columns=tuple(parent_columns),
                on_update=ACTIONS[rest[0]],
                on_delete=ACTIONS[rest[1]],
                initially_deferred=rest[2],
                validated=rest[3],
                parent_schema=rest[4],
            )
        )
    return found


def _count(connection: psycopg.Connection, schema: str, name: str) -> int:
    row = connection.execute(
        sql.SQL("SELECT count(*) FROM ONLY {}").format(sql.Identifier(schema, name))
    ).fetchone()
    return int(row[0]) if row is not None else 0


def _versions(
    connection: psycopg.Connection,
    schema: str,
    tables: Sequence[TargetTable],
    further: Sequence[str],
) -> list[tuple[str, tuple[str, ...]]]:
    found = []
    for table in tables:
        wanted = version_columns(table.name)
        if wanted is None and table.name not in further:
            continue
        there = {c.name for c in table.columns}
        if not wanted or not set(wanted) <= there:
            continue
        columns = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier(c)) for c in wanted)
        rows = connection.execute(
            sql.SQL("SELECT {} FROM {}").format(columns, sql.Identifier(schema, table.name))
        )
        found.append((table.name, tuple(sorted(" ".join(map(str, row)) for row in rows))))
    return found
