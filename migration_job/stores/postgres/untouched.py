"""Whether anybody has worked with a target since it was certified.

An offline run's target has no fence until the switch, so whoever can connect can write there. What
the certificate was given for is kept beside it: which versions of rows each table had, and which
objects there were. Every row version names the transaction that made it, for as long as it lives.
The number of versions of each transaction is the same later exactly where no row was inserted,
updated, deleted or truncated: a change adds versions of a transaction that the certificate had not
seen, or takes some away. No counter is asked, which could be reset, and no age, which a
transaction that began before and ended after the certificate would pass.

A run with change capture has a fence from before its certificate on, and is written to by ``sync``:
nothing is kept for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import psycopg

from migration_job.errors import InputError
from migration_job.place import records_of, schema_of_session
from migration_job.plan.model import Plan, TablePlan
from migration_job.plural import counted
from migration_job.quoting import (
    Sql,
    compose,
    joined,
    postgres_name,
    postgres_relation,
    postgres_text,
)
from migration_job.signals import undisturbed
from migration_job.stores.postgres.database import execute_raw

TABLES = """
CREATE TABLE migration.certified_rows (
    tab text PRIMARY KEY,
    rows bigint NOT NULL,
    versions text NOT NULL
);
CREATE TABLE migration.certified_objects (line text NOT NULL);
COMMENT ON TABLE migration.certified_rows IS
    'rows of each table at the certificate, and a digest of the transactions that made them';
COMMENT ON TABLE migration.certified_objects IS 'what the schema held at the certificate';
"""

AT_ONCE = 100
"""Tables that one query looks at."""

PARTS = 4
"""Into how many queries the tables are divided for each session, since some take longer."""


@dataclass(frozen=True, slots=True)
class Left:
    """A target as a run has left it."""

    rows: dict[str, tuple[int, str]]
    """By the target's name: how many rows, and a digest of the transactions that made them."""
    objects: frozenset[str]
    """Tables, columns, indexes, views and so on, in words."""


OBJECTS = """
SELECT kind || ' ' || name FROM (
    SELECT 'pg_class'::regclass AS catalogue, c.oid, c.relname::text AS name,
           CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view'
               WHEN 'f' THEN 'foreign table' WHEN 'S' THEN 'sequence' WHEN 'c' THEN 'type'
               WHEN 'i' THEN 'index' WHEN 'I' THEN 'index' ELSE 'table' END AS kind
    FROM pg_class c
    WHERE c.relnamespace = to_regnamespace(quote_ident(current_schema())) AND c.relkind <> 't'
    UNION ALL
    SELECT 'pg_class'::regclass, c.oid, format('%%s.%%s (%%s%%s)', c.relname, a.attname,
           format_type(a.atttypid, a.atttypmod), CASE WHEN a.attnotnull THEN ', not null' END),
           'column'
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
    WHERE c.relnamespace = to_regnamespace(quote_ident(current_schema()))
      AND c.relkind IN ('r', 'p') AND NOT a.attisdropped
    UNION ALL
    SELECT 'pg_class'::regclass, c.oid, format('%%s on %%s', t.tgname, c.relname), 'trigger'
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_proc p ON p.oid = t.tgfoid
    WHERE c.relnamespace = to_regnamespace(quote_ident(current_schema())) AND NOT t.tgisinternal
      AND p.pronamespace IS DISTINCT FROM to_regnamespace(%(records)s)
    UNION ALL
    SELECT 'pg_class'::regclass, c.oid, format('%%s on %%s', r.rulename, c.relname), 'rule'
    FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class
    WHERE c.relnamespace = to_regnamespace(quote_ident(current_schema()))
    UNION ALL
    SELECT 'pg_class'::regclass, c.oid, format('%%s on %%s', k.conname, c.relname), 'constraint'
    FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
    WHERE c.relnamespace = to_regnamespace(quote_ident(current_schema())) AND k.contype <> 'n'
    UNION ALL
    SELECT 'pg_class'::regclass, c.oid,
           format('%%s.%%s, which refers to %%s', c.relnamespace::regnamespace, c.relname,
                  p.relname),
           'table'
    FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
    JOIN pg_class p ON p.oid = k.confrelid
    WHERE p.relnamespace = to_regnamespace(quote_ident(current_schema()))
      AND c.relnamespace <> p.relnamespace
    UNION ALL
    SELECT 'pg_class'::regclass, c.oid, format('%%s on %%s', p.polname, c.relname), 'policy'
    FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid
    WHERE c.relnamespace = to_regnamespace(quote_ident(current_schema()))
    UNION ALL
    SELECT 'pg_proc'::regclass, p.oid, p.oid::regprocedure::text, 'function' FROM pg_proc p
    WHERE p.pronamespace = to_regnamespace(quote_ident(current_schema()))
    UNION ALL
    SELECT 'pg_type'::regclass, t.oid, t.typname, 'type' FROM pg_type t
    WHERE t.typnamespace = to_regnamespace(quote_ident(current_schema()))
      AND t.typtype IN ('d', 'e', 'r', 'm')
    UNION ALL
    SELECT 'pg_class'::regclass, v.oid,
           format('%%s.%%s, which reads %%s', v.relnamespace::regnamespace, v.relname, t.relname),
           CASE v.relkind WHEN 'm' THEN 'materialized view' ELSE 'view' END
    FROM pg_depend d JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
    JOIN pg_class v ON v.oid = r.ev_class
    JOIN pg_class t ON d.refclassid = 'pg_class'::regclass AND t.oid = d.refobjid
    WHERE t.relnamespace = to_regnamespace(quote_ident(current_schema()))
      AND v.relnamespace <> t.relnamespace
) AS o
WHERE NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = o.catalogue AND e.objid = o.oid
                  AND e.deptype = 'e')
"""
"""What a run that starts clean would drop, or would drop with it (views and keys of others')."""


def read(
    connection: psycopg.Connection, plan: Plan, others: Sequence[psycopg.Connection] = ()
) -> Left:
    """The target as it is; ``others`` are sessions that look at its tables side by side with this
    one."""
    names = [t.target for t in _filled(plan)]
    own = {"records": postgres_name(records_of(connection))}
    there = {
        str(row[0])
        for row in connection.execute(
            "SELECT relname FROM pg_class "
            "WHERE relnamespace = to_regnamespace(quote_ident(current_schema())) "
            "AND relkind IN ('r', 'p') AND relname = ANY(%s)",
            (names,),
        )
    }
    looks = [_look(name, plan.relation(name)) for name in names if name in there]
    sessions = (connection, *others)
    size = max(1, min(AT_ONCE, len(looks) // (len(sessions) * PARTS)))
    queries = [
        joined(" UNION ALL ", looks[start : start + size]) for start in range(0, len(looks), size)
    ]
    rows = _rows(sessions, queries)
    return Left(rows, frozenset(str(row[0]) for row in connection.execute(OBJECTS, own)))


def _rows(
    sessions: Sequence[psycopg.Connection], queries: Sequence[Sql]
) -> dict[str, tuple[int, str]]:
    left = iter(queries)

    def some(session: psycopg.Connection) -> dict[str, tuple[int, str]]:
        return {
            str(name): (int(count), str(versions))
            for query in left
            for name, count, versions in execute_raw(session, query)
        }

    found: dict[str, tuple[int, str]] = {}
    with ThreadPoolExecutor(len(sessions)) as pool:
        with undisturbed():
            futures = [pool.submit(some, session) for session in sessions]
        for future in futures:
            found |= future.result()
    return found


def _filled(plan: Plan) -> list[TablePlan]:
    """What another run would empty or drop."""
    return [
        table
        for table in plan.tables
        if table.schema_name == plan.schema_name and (table.ours or table.source is not None)
    ]


def _look(name: str, relation: str) -> Sql:
    return compose(
        "SELECT {text}, coalesce(sum(n), 0), "
        "md5(coalesce(string_agg(by || ' ' || n, ',' ORDER BY by), '')) "
        "FROM (SELECT t.xmin::text AS by, count(*) AS n FROM ONLY {name} AS t "
        "GROUP BY t.xmin) AS v",
        text=postgres_text(name),
        name=relation,
    )


def keep(connection: psycopg.Connection, left: Left | None) -> None:
    """Record what the certificate is given for; None: nothing, for a target that is followed."""
    connection.execute("DELETE FROM migration.certified_rows")
    connection.execute("DELETE FROM migration.certified_objects")
    if left is None:
        return
    with connection.cursor().copy("COPY migration.certified_rows FROM STDIN") as copy:
        for name, (count, versions) in left.rows.items():
            copy.write_row((name, count, versions))
    with connection.cursor().copy("COPY migration.certified_objects FROM STDIN") as copy:
        for line in sorted(left.objects):
            copy.write_row((line,))


PHASES = ("prepared", "copied", "verified")
"""In the others the application works on the target, or has."""


def changes(connection: psycopg.Connection, plan: Plan, *, new: bool = True) -> list[str]:
    """What is not as the certificate left it, in words; [] also where nothing is kept, and where
    the application is meant to write. ``new``: also what was not there then and would be dropped
    with the run's tables; without it, whatever is gone."""
    phase = connection.execute("SELECT phase FROM migration.run").fetchone()
    if phase is None or phase[0] not in PHASES:
        return []
    kept = rows_kept(connection)
    objects = {
        str(r[0]) for r in connection.execute("SELECT line FROM migration.certified_objects")
    }
    if not kept and not objects:
        return []
    now = read(connection, plan)
    found = [line for name in kept for line in _changed(name, kept, now.rows)]
    if new and plan.existing:
        return found  # nothing of the application's own is ever dropped
    found += [f"no {line} any more" for line in sorted(objects - now.objects)]
    if new:
        found += [f"{line}, new since" for line in sorted(now.objects - objects)]
    return found


def rows_kept(connection: psycopg.Connection) -> dict[str, tuple[int, str]]:
    """The rows at the certificate, as :class:`Left` has them; {} where nothing is kept."""
    return {
        str(name): (int(count), str(versions))
        for name, count, versions in connection.execute(
            "SELECT tab, rows, versions FROM migration.certified_rows"
        )
    }


def require(connection: psycopg.Connection, name: str, kept: dict[str, tuple[int, str]]) -> None:
    """Lock a table for the rest of the transaction; raises InputError where it has other rows than
    at the certificate, of which ``kept`` is what there was."""
    relation = postgres_relation(name, schema_of_session(connection))
    there = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (relation,)).fetchone()
    if name not in kept or there is None or not there[0]:
        return
    execute_raw(connection, compose("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE", table=relation))
    _, count, versions = execute_raw(connection, _look(name, relation)).fetchall()[0]
    if (int(count), str(versions)) != kept[name]:
        raise InputError(
            f"expected {name} on the target as the verified run left it, found it written to "
            "at this moment",
            advice="the target is in use: give a new database instead. That table and "
            "those after it are as they were",
        )


def _changed(
    name: str, before: dict[str, tuple[int, str]], now: dict[str, tuple[int, str]]
) -> Iterator[str]:
    (rows, versions), there = before[name], now.get(name)
    if there is None:
        yield f"no table {name} any more"
    elif there[0] < rows:
        yield f"{counted(rows - there[0], 'row')} of {name} fewer than were certified"
    elif there[1] != versions:
        yield f"rows of {name} that were written since"
