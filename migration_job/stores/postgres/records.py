"""The run's own records on the target: schema ``migration``.

``migration.run`` has one row: which run this target belongs to. Everything a run has made on the
target it made after that row was written, and every table (or part of one) arrives together with
its row of ``migration.progress`` and its ledger in one transaction; so a target always says
truthfully what it holds, whenever the job is cut off.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import psycopg

from migration_job.errors import InputError
from migration_job.place import records_of, schema_of_session
from migration_job.plan.findings import some
from migration_job.plan.model import Plan
from migration_job.quoting import compose, postgres_name, postgres_text
from migration_job.stores.postgres import own_schema, untouched
from migration_job.stores.postgres.database import Statement, ask_if_there, commit_durably

SERVING = frozenset({"switched", "settled"})
"""Phases in which the application writes to the target: a copy would destroy its writes."""

TABLES = """
CREATE SCHEMA migration;
CREATE TABLE migration.run (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    run_id uuid NOT NULL,
    source_path text NOT NULL,
    snapshot_sha256 text NOT NULL,
    phase text NOT NULL,
    plan text NOT NULL,
    plan_digest text NOT NULL,
    made text NOT NULL DEFAULT '[]',
    job_version text NOT NULL,
    started_at timestamp with time zone NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamp with time zone NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE migration.progress (
    tab text NOT NULL,
    step text NOT NULL,
    rows bigint NOT NULL DEFAULT 0,
    quarantined bigint NOT NULL DEFAULT 0,
    done_at timestamp with time zone NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tab, step)
);
CREATE TABLE migration.ledger (
    tab text NOT NULL,
    key text NOT NULL,
    col text NOT NULL,
    before text NOT NULL,
    after text,
    rule text NOT NULL
);
CREATE TABLE migration.quarantine (
    tab text NOT NULL,
    key text NOT NULL,
    reason text NOT NULL,
    source_row text NOT NULL,
    col text
);
CREATE INDEX ledger_row ON migration.ledger (tab, hashtextextended(key, 0));
CREATE INDEX quarantine_row ON migration.quarantine (tab, hashtextextended(key, 0));
CREATE TABLE migration.certificate (
    digest text PRIMARY KEY,
    body text NOT NULL,
    issued_at timestamp with time zone NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE migration.applied (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    position bigint NOT NULL,
    token text,
    updated_at timestamp with time zone NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON COLUMN migration.applied.token IS 'of the row at that position in the source''s log';
COMMENT ON SCHEMA migration IS
    'what moved this database here from SQLite: run, ledger, quarantine, certificate';
COMMENT ON COLUMN migration.ledger.key IS 'JSON array of the source key''s values';
COMMENT ON COLUMN migration.ledger.before IS 'the source value as JSON';
COMMENT ON COLUMN migration.ledger.after IS 'the target value as PostgreSQL input text';
COMMENT ON COLUMN migration.quarantine.source_row IS 'JSON object: column to source value';
"""
"""Keys are indexed by a hash, since a text key may be longer than an index row may be."""


@dataclass(frozen=True, slots=True)
class RunRow:
    """The row of ``migration.run``."""

    run_id: str
    source_path: str
    snapshot_sha256: str
    phase: str
    plan: Plan
    plan_digest: str
    made: tuple[str, ...]
    """``DROP`` statements for what a profile's own statements made beside tables and views."""


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One value that was not carried over bit for bit."""

    table: str
    """Source table."""
    key: str
    """:func:`migration_job.values.key_text` of the row's key."""
    column: str
    """Source column."""
    before: str
    """:func:`migration_job.values.to_text` of the source value."""
    after: str | None
    """The target value as PostgreSQL input text; None for NULL."""
    rule: str


@dataclass(frozen=True, slots=True)
class QuarantineEntry:
    """One row that was kept out of its table, whole."""

    table: str
    key: str
    reason: str
    row: str
    """JSON object: source column to :func:`migration_job.values.to_json` of its value."""
    column: str | None = None
    """The column whose value is at fault, where it is one column's."""


# ------------------------------------------------------------------------- whose target it is


def read_run(connection: psycopg.Connection) -> RunRow | None:
    """The run that the target belongs to; None for a target without this project's records."""
    query = (
        "SELECT run_id::text, source_path, snapshot_sha256, phase, plan, plan_digest, made "
        "FROM migration.run"
    )
    row = ask_if_there(connection, "migration.run", query)
    if row is None:
        return None
    return RunRow(
        run_id=row[0],
        source_path=row[1],
        snapshot_sha256=row[2],
        phase=row[3],
        plan=Plan.model_validate_json(row[4]),
        plan_digest=row[5],
        made=tuple(json.loads(row[6])),
    )


def objects(connection: psycopg.Connection) -> list[str]:
    """What the run's schema holds, as ``kind name``, without what belongs to an extension."""
    rows = connection.execute(
        """
        SELECT d.kind || ' ' || d.name FROM (
            SELECT 'pg_class'::regclass AS catalogue, c.oid, c.relname AS name,
                   CASE c.relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'table' WHEN 'v' THEN 'view'
                        WHEN 'm' THEN 'materialized view' WHEN 'f' THEN 'foreign table'
                        WHEN 'S' THEN 'sequence' ELSE 'type' END AS kind
            FROM pg_class c
            WHERE c.relnamespace = to_regnamespace(quote_ident(current_schema()))
              AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'c')
            UNION ALL
            SELECT 'pg_proc'::regclass, p.oid, p.proname, 'function' FROM pg_proc p
            WHERE p.pronamespace = to_regnamespace(quote_ident(current_schema()))
            UNION ALL
            SELECT 'pg_type'::regclass, t.oid, t.typname, 'type' FROM pg_type t
            WHERE t.typnamespace = to_regnamespace(quote_ident(current_schema()))
              AND t.typtype IN ('d','e','r')
        ) d
        WHERE NOT EXISTS (SELECT 1 FROM pg_depend e WHERE e.classid = d.catalogue
                          AND e.objid = d.oid AND e.deptype = 'e')
          AND NOT EXISTS (SELECT 1 FROM pg_depend i WHERE i.classid = d.catalogue
                          AND i.objid = d.oid AND i.deptype IN ('i', 'a'))
        ORDER BY 1
        """
    ).fetchall()
    return [row[0] for row in rows]


def refuse_touched(connection: psycopg.Connection, run: RunRow, where: str) -> None:
    """Raises InputError where anybody has worked with the target since its certificate: another run
    would begin by removing that."""
    found = untouched.changes(connection, run.plan)
    if found:
        raise InputError(
            f"expected what is at {where} as the verified run left it, found {some(found)}; "
            "another run would undo that",
            advice="give a new database as the target; or, if nothing of this one is to be "
            "kept, drop it and recreate it. Nothing was changed",
        )


def refuse_foreign(connection: psycopg.Connection, where: str) -> None:
    """Raises InputError where the target holds anything that no run of this job has made."""
    found = objects(connection)
    if found:
        shown = ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")
        raise InputError(
            f"expected an empty database at {where}, found {len(found)} objects in schema "
            f"{schema_of_session(connection)}: "
            f"{shown}",
            advice="give a new, empty database as the target; or, where the application has made "
            "its own tables there, --schema existing loads into them. Nothing was changed in this "
            "one",
        )
    refuse_records(connection, where)


def refuse_records(connection: psycopg.Connection, where: str) -> None:
    """Raises InputError where there is a schema named as this job's that is not its own."""
    own = postgres_name(records_of(connection))
    schema = connection.execute("SELECT to_regnamespace(%s) IS NOT NULL", (own,)).fetchone()
    if schema is not None and schema[0]:
        raise InputError(
            f"expected no schema named {records_of(connection)} at {where}, found one that "
            "holds no run of this job",
            advice="give another database as the target, or drop that schema if nothing uses it; "
            "nothing was changed in this one",
        )


# --------------------------------------------------------------------------- the run's course


def begin(
    connection: psycopg.Connection,
    *,
    run_id: str,
    source_path: str,
    snapshot_sha256: str,
    plan: Plan,
    job_version: str,
) -> None:
    """Make the records, in one transaction; the target is this run's own from here on."""
    with connection.transaction():
        made = not plan.existing and own_schema.make(connection, plan.schema_name)
        connection.execute(TABLES)
        connection.execute(untouched.TABLES)
        if made:
            mark(connection, "", own_schema.STEP)
        connection.execute(
            "INSERT INTO migration.run (run_id, source_path, snapshot_sha256, phase, plan, "
            "plan_digest, job_version) VALUES (%s, %s, %s, 'prepared', %s, %s, %s)",
            (
                run_id,
                source_path,
                snapshot_sha256,
                plan.model_dump_json(),
                plan.digest(),
                job_version,
            ),
        )


def drop_everything(connection: psycopg.Connection, run: RunRow) -> None:
    """Remove what ``run`` made, and nothing else, in one transaction for each table and the
    records last, so that a cut in between leaves a target that is still this run's own. Raises
    InputError at a table that was written to since the certificate."""
    for view in reversed(run.plan.views):
        connection.execute(
            compose("DROP VIEW IF EXISTS {view} CASCADE", view=run.plan.relation(view.target))
        )
    kept = untouched.rows_kept(connection) if run.phase in untouched.PHASES else {}
    for table in filter(lambda table: table.ours, run.plan.tables):
        with connection.transaction():
            untouched.require(connection, table.target, kept)
            connection.execute(
                compose("DROP TABLE IF EXISTS {table} CASCADE", table=table.relation)
            )
    for statement in run.made:
        connection.execute(statement)
    if ("", own_schema.STEP) in done(connection):
        own_schema.drop(connection, run.plan.schema_name)
    connection.execute(
        compose(
            "DROP SCHEMA IF EXISTS {schema} CASCADE", schema=postgres_name(records_of(connection))
        )
    )


def set_phase(connection: psycopg.Connection, phase: str) -> None:
    """Record the phase, durably."""
    commit_durably(
        connection,
        ("UPDATE migration.run SET phase = %s, updated_at = clock_timestamp()", (phase,)),
    )


def distrust(connection: psycopg.Connection) -> None:
    """Record that what was copied did not verify, so that the next attempt starts clean."""
    with connection.transaction():
        connection.execute("UPDATE migration.run SET plan_digest = ''")


def mark(connection: psycopg.Connection, table: str, step: str) -> None:
    """Record a step of a table as done; call it in the step's own transaction."""
    mark_all(connection, [Mark(table, step)])


@dataclass(frozen=True, slots=True)
class Mark:
    """A step of a table that is done."""

    table: str
    step: str
    rows: int = 0
    quarantined: int = 0


def mark_all(connection: psycopg.Connection, marks: Sequence[Mark]) -> None:
    """Record steps as done; call it in their own transaction."""
    connection.execute(
        "INSERT INTO migration.progress (tab, step, rows, quarantined) "
        "SELECT * FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::bigint[])",
        (
            [mark.table for mark in marks],
            [mark.step for mark in marks],
            [mark.rows for mark in marks],
            [mark.quarantined for mark in marks],
        ),
    )


def marking(marks: Sequence[Mark]) -> str:
    """The statement that records steps as done, for their own transaction."""
    rows = (
        f"({postgres_text(m.table)}, {postgres_text(m.step)}, {m.rows}, {m.quarantined})"
        for m in marks
    )
    return compose(
        "INSERT INTO migration.progress (tab, step, rows, quarantined) VALUES {rows}",
        rows=", ".join(rows),
    )


def sum_up(connection: psycopg.Connection, table: str, step: str) -> None:
    """Record a step as done whose rows are those of all the table's steps before it; call it in a
    transaction."""
    connection.execute(
        "INSERT INTO migration.progress (tab, step, rows, quarantined) "
        "SELECT tab, %s, sum(rows), sum(quarantined) FROM migration.progress WHERE tab = %s "
        "GROUP BY tab",
        (step, table),
    )


def done(connection: psycopg.Connection) -> set[tuple[str, str]]:
    """The (table, step) pairs that are done."""
    return {(r[0], r[1]) for r in connection.execute("SELECT tab, step FROM migration.progress")}


def quarantined(connection: psycopg.Connection) -> dict[str, int]:
    """Rows in quarantine for each source table that has any."""
    return {
        r[0]: r[1]
        for r in connection.execute("SELECT tab, count(*) FROM migration.quarantine GROUP BY tab")
    }


def remember_made(connection: psycopg.Connection, before: set[str]) -> None:
    """Record how to drop the functions and types that appeared in the run's schema since ``before``
    (of :func:`loose_objects`), behind what was recorded before; in the transaction of theirs."""
    rows = connection.execute("SELECT made FROM migration.run").fetchall()
    made = [*json.loads(rows[0][0]), *sorted(loose_objects(connection) - before)]
    connection.execute("UPDATE migration.run SET made = %s", (json.dumps(made),))


def loose_objects(connection: psycopg.Connection) -> set[str]:
    """``DROP`` statements for each function, type and sequence of its own in the run's schema."""
    rows = connection.execute(
        """
        SELECT format('DROP ROUTINE IF EXISTS %s CASCADE', p.oid::regprocedure)
        FROM pg_proc p
        WHERE p.pronamespace = to_regnamespace(quote_ident(current_schema())) AND NOT EXISTS (
            SELECT 1 FROM pg_depend e WHERE e.classid = 'pg_proc'::regclass
            AND e.objid = p.oid AND e.deptype = 'e')
        UNION ALL
        SELECT format('DROP TYPE IF EXISTS %s CASCADE', t.oid::regtype)
        FROM pg_type t
        WHERE t.typnamespace = to_regnamespace(quote_ident(current_schema()))
          AND t.typtype IN ('d', 'e', 'r')
          AND NOT EXISTS (SELECT 1 FROM pg_depend e WHERE e.classid = 'pg_type'::regclass
            AND e.objid = t.oid AND e.deptype = 'e')
        UNION ALL
        SELECT format('DROP SEQUENCE IF EXISTS %s CASCADE', c.oid::regclass)
        FROM pg_class c
        WHERE c.relnamespace = to_regnamespace(quote_ident(current_schema()))
          AND c.relkind = 'S'
          AND NOT EXISTS (SELECT 1 FROM pg_depend e WHERE e.classid = 'pg_class'::regclass
            AND e.objid = c.oid AND e.deptype IN ('e', 'a', 'i'))
        """
    ).fetchall()
    return {row[0] for row in rows}


# --------------------------------------------------------------- ledger, quarantine, certificate


def add_ledger(connection: psycopg.Connection, entries: Iterator[LedgerEntry]) -> int:
    """Append entries by COPY in the open transaction; returns how many."""
    count = 0
    with (
        connection.cursor() as cursor,
        cursor.copy(
            "COPY migration.ledger (tab, key, col, before, after, rule) FROM STDIN"
        ) as copy,
    ):
        for entry in entries:
            copy.write_row(
                (entry.table, entry.key, entry.column, entry.before, entry.after, entry.rule)
            )
            count += 1
    return count


def add_quarantine(connection: psycopg.Connection, entries: Iterator[QuarantineEntry]) -> int:
    """Append rows by COPY in the open transaction; returns how many."""
    count = 0
    with (
        connection.cursor() as cursor,
        cursor.copy(
            "COPY migration.quarantine (tab, key, reason, source_row, col) FROM STDIN"
        ) as copy,
    ):
        for entry in entries:
            copy.write_row((entry.table, entry.key, entry.reason, entry.row, entry.column))
            count += 1
    return count


def ledger_statements(entries: Sequence[LedgerEntry]) -> list[Statement]:
    """What appends a few entries."""
    return _inserted(
        "ledger (tab, key, col, before, after, rule)",
        [(e.table, e.key, e.column, e.before, e.after, e.rule) for e in entries],
    )


def quarantine_statements(entries: Sequence[QuarantineEntry]) -> list[Statement]:
    """What appends a few rows."""
    return _inserted(
        "quarantine (tab, key, reason, source_row, col)",
        [(e.table, e.key, e.reason, e.row, e.column) for e in entries],
    )


def _inserted(table: str, rows: Sequence[Sequence[str | None]]) -> list[Statement]:
    if not rows:
        return []
    columns = [list(column) for column in zip(*rows, strict=True)]
    arrays = ", ".join(f"${number}::text[]" for number in range(1, len(columns) + 1))
    query = compose(
        "INSERT INTO migration.{table} SELECT * FROM unnest({arrays})", table=table, arrays=arrays
    )
    return [(query, columns)]


_NAMED = (
    "FROM unnest(%s::text[], %s::text[]) AS n(tab, key) WHERE r.tab = n.tab "
    "AND hashtextextended(r.key, 0) = hashtextextended(n.key, 0) AND r.key = n.key"
)
"""Rows of the ledger or the quarantine (``r``) by table and key, through their index."""


def tables_noted(connection: psycopg.Connection, tables: list[str]) -> set[str]:
    """Which of the tables have any row in the ledger or the quarantine."""
    rows = connection.execute(
        "SELECT t FROM unnest(%s::text[]) AS t "
        "WHERE EXISTS (SELECT FROM migration.ledger WHERE tab = t) "
        "OR EXISTS (SELECT FROM migration.quarantine WHERE tab = t)",
        (tables,),
    )
    return {str(row[0]) for row in rows}


def forget_statements(rows: list[tuple[str, str]]) -> list[Statement]:
    """What removes the ledger and quarantine of rows, ``(table, key)`` each, that are about to be
    written again."""
    if not rows:
        return []
    names = [[row[0] for row in rows], [row[1] for row in rows]]
    using = _NAMED.replace("FROM", "USING", 1).replace("%s", "$1", 1).replace("%s", "$2", 1)
    return [
        (compose("DELETE FROM migration.{name} AS r {using}", name=name, using=using), names)
        for name in ("ledger", "quarantine")
    ]


def ledger_of(
    connection: psycopg.Connection, rows: list[tuple[str, str]]
) -> set[tuple[str, str, str, str, str | None]]:
    """The ledger of the given rows, ``(table, key)`` each, as ``(table, key, column, before,
    after)``."""
    names = [[row[0] for row in rows], [row[1] for row in rows]]
    query = f"SELECT r.tab, r.key, r.col, r.before, r.after {_NAMED}"
    found = connection.execute(
        query.replace(" WHERE", ", migration.ledger AS r WHERE", 1).encode(), names
    )
    return {(r[0], r[1], r[2], r[3], r[4]) for r in found}


def quarantined_of(
    connection: psycopg.Connection, rows: list[tuple[str, str]]
) -> set[tuple[str, str]]:
    """Which of the given rows, ``(table, key)`` each, are in quarantine."""
    names = [[row[0] for row in rows], [row[1] for row in rows]]
    query = f"SELECT r.tab, r.key {_NAMED}"
    found = connection.execute(
        query.replace(" WHERE", ", migration.quarantine AS r WHERE", 1).encode(), names
    )
    return {(r[0], r[1]) for r in found}


def ledger(connection: psycopg.Connection, limit: int) -> list[LedgerEntry]:
    """The first ``limit`` entries, in a stable order."""
    rows = connection.execute(
        "SELECT tab, key, col, before, after, rule FROM migration.ledger "
        "ORDER BY tab, key, col LIMIT %s",
        (limit,),
    )
    return [LedgerEntry(*row) for row in rows]


def quarantine(connection: psycopg.Connection, limit: int) -> list[QuarantineEntry]:
    """The first ``limit`` rows, in a stable order."""
    rows = connection.execute(
        "SELECT tab, key, reason, source_row, col FROM migration.quarantine "
        "ORDER BY tab, key LIMIT %s",
        (limit,),
    )
    return [QuarantineEntry(*row) for row in rows]


def count(connection: psycopg.Connection, name: str) -> int:
    """Rows of one of the record tables."""
    row = connection.execute(
        compose("SELECT count(*) FROM migration.{name}", name=postgres_name(name))
    ).fetchone()
    return int(row[0]) if row is not None else 0


def store_certificate(connection: psycopg.Connection, digest: str, body: str, phase: str) -> None:
    """Write the certificate and the phase it stands for, durably: everything that was committed
    before with a lazy commit is on disk once this one is."""
    commit_durably(connection, *certificate_statements(digest, body, phase))


def certificate_statements(
    digest: str, body: str, phase: str, *, told: str | None = None
) -> list[Statement]:
    """What writes them, for :func:`commit_durably`; with ``told`` only where that is the source's
    next token, as far as the target knows."""
    where = "true" if told is None else "EXISTS (SELECT FROM migration.pair WHERE next_token = %s)"
    condition = () if told is None else (told,)
    insert = compose(
        "INSERT INTO migration.certificate (digest, body) SELECT %s, %s WHERE {where} "
        "ON CONFLICT (digest) DO UPDATE SET issued_at = clock_timestamp()",
        where=where,
    )
    update = compose(
        "UPDATE migration.run SET phase = %s, updated_at = clock_timestamp() WHERE {where}",
        where=where,
    )
    return [(insert, (digest, body, *condition)), (update, (phase, *condition))]


def certificate_body(connection: psycopg.Connection, digest: str) -> str | None:
    """The certificate of that digest, as JSON; None where the target has none."""
    query = "SELECT true FROM migration.certificate LIMIT 1"
    if ask_if_there(connection, "migration.certificate", query) is None:
        return None
    row = connection.execute(
        "SELECT body FROM migration.certificate WHERE digest = %s", (digest,)
    ).fetchone()
    return None if row is None else str(row[0])


def applied_statement(position: int, token: str | None) -> Statement:
    """What records the position in the source's change log up to which the target is complete, and
    the token of the log's row there."""
    return (
        "INSERT INTO migration.applied (position, token) VALUES ($1, $2) ON CONFLICT (one) "
        "DO UPDATE SET position = excluded.position, token = excluded.token, "
        "updated_at = clock_timestamp()",
        (position, token),
    )


def applied(connection: psycopg.Connection) -> int | None:
    """That position; None before the copy is complete."""
    row = connection.execute("SELECT position FROM migration.applied").fetchone()
    return None if row is None else int(row[0])
