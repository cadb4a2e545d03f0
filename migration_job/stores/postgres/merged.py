"""Rows of the application's own tables that stay beside the source's: ``rows: merge``.

They are those whose key no row of the source has. The load empties the tables and keeps what they
held; once the source's rows are there, these are put back from what was kept, and their keys are
written down in ``migration.merged``. As long as they stand there the verification leaves these rows
out of what it compares with the source, and a row of the source that comes by that key later takes
the place. When PostgreSQL opens, they become the first entries of the way back, in the very
transaction that opens it: from then on they are rows like any other and go to SQLite.
"""

from __future__ import annotations

from collections.abc import Iterator

import psycopg

from migration_job.errors import OperationError
from migration_job.place import has_record
from migration_job.plan.model import Plan, TablePlan
from migration_job.plural import counted
from migration_job.quoting import compose, postgres_name, postgres_text
from migration_job.stores.postgres import records
from migration_job.stores.postgres.capture import key_columns, key_of, numbered
from migration_job.stores.postgres.database import Statement

TABLES = """
CREATE TABLE migration.merged (
    tab text NOT NULL,
    number bigint NOT NULL REFERENCES migration.replaced,
    key text[] NOT NULL,
    PRIMARY KEY (tab, number)
);
COMMENT ON TABLE migration.merged IS
    'the rows of migration.replaced that stay beside the source''s, and their keys';
"""

STEP = "rows that stay"


def merging(plan: Plan) -> list[tuple[int, TablePlan]]:
    """The tables in which rows of the target's own stay, with their numbers on the way back."""
    return [(number, table) for number, table in numbered(plan) if table.merge]


def put_back(connection: psycopg.Connection, plan: Plan, done: set[tuple[str, str]]) -> None:
    """Put the rows that stay back into their tables, in one transaction that notes it; nothing
    where ``done`` says so. The session's triggers are silent. Raises OperationError where a
    constraint of the table's does not allow one of them beside the source's, or one has no key."""
    if not merging(plan) or ("", STEP) in done:
        return
    with connection.transaction():
        for _, table in merging(plan):
            _put_back(connection, table)
            for statement in _sequences(plan, table):
                connection.execute(statement.encode())
        records.mark(connection, "", STEP)


def _put_back(connection: psycopg.Connection, table: TablePlan) -> None:
    keys = key_columns(table)
    parts = {
        "key": key_of("r", table),
        "missing": " OR ".join(f"r.{postgres_name(c)} IS NULL" for c in keys),
        "table": table.relation,
        "tab": postgres_text(table.target),
        "same": " AND ".join(f"t.{postgres_name(c)} = r.{postgres_name(c)}" for c in keys),
    }
    own = ", ".join(postgres_name(c.target) for c in table.columns if c.generated is None)
    values = ", ".join(
        f"(k.whole).{postgres_name(c.target)}" for c in table.columns if c.generated is None
    )
    here = compose(
        """
SELECT k.number, {key} AS key, {missing} AS missing
FROM (SELECT number, target_row::{table} AS whole FROM migration.replaced WHERE tab = {tab}) AS k
CROSS JOIN LATERAL (SELECT (k.whole).*) AS r
WHERE NOT EXISTS (SELECT FROM ONLY {table} AS t WHERE {same})
""",
        **parts,
    )
    found = connection.execute(
        compose("SELECT count(*) FROM ({here}) AS s WHERE missing", here=here).encode()
    ).fetchone()
    if found is not None and found[0]:
        raise OperationError(
            f"expected a key ({', '.join(keys)}) in every row of {table.target} that is to stay, "
            f"found none in {counted(int(found[0]), 'row')}",
            advice="give these rows a key on the target, or have the table replaced (rows: replace "
            "in the policy)",
        )
    note = compose(
        "INSERT INTO migration.merged (tab, number, key) SELECT {tab}, number, key "
        "FROM ({here}) AS s",
        here=here,
        **parts,
    )
    back = compose(
        "INSERT INTO {table} ({own}) OVERRIDING SYSTEM VALUE SELECT {values} FROM "
        "(SELECT k.number, k.target_row::{table} AS whole FROM migration.replaced AS k "
        "JOIN migration.merged AS m ON m.number = k.number WHERE m.tab = {tab}) AS k "
        "ORDER BY k.number",
        own=own,
        values=values,
        **parts,
    )
    try:
        connection.execute(note.encode())
        connection.execute(back.encode())
    except psycopg.errors.IntegrityError as error:
        raise OperationError(
            f"a row that the target has of its own in {table.target} cannot stay beside the "
            f"source's: {error.diag.message_primary}; {error.diag.message_detail or 'no detail'}",
            advice="one of both has to change, or the table is replaced or kept as a whole (rows: "
            "replace or rows: keep in the policy)",
        ) from error


def _sequences(plan: Plan, table: TablePlan) -> Iterator[str]:
    """What raises the table's sequences beyond the keys of the rows that stay."""
    for one in plan.sequences:
        if one.table == table.target and one.sequence is not None:
            yield compose(
                "SELECT setval({text}, h.high) FROM {sequence} AS s, "
                "(SELECT max({column})::bigint AS high FROM ONLY {table}) AS h "
                "WHERE h.high > s.last_value OR h.high = s.last_value AND NOT s.is_called",
                text=postgres_text(one.sequence),
                sequence=one.sequence,
                column=postgres_name(one.column),
                table=table.relation,
            )


def counts(connection: psycopg.Connection, plan: Plan) -> dict[str, int]:
    """How many rows of its own each table has beside the source's, by the target's name."""
    if not merging(plan) or not has_record(connection, "merged"):
        return {}
    rows = connection.execute("SELECT tab, count(*) FROM migration.merged GROUP BY tab")
    return {str(name): int(count) for name, count in rows.fetchall()}


def keys(connection: psycopg.Connection, plan: TablePlan) -> list[tuple[str, ...]]:
    """The keys of the rows of its own that a table has, as texts."""
    rows = connection.execute(
        "SELECT key FROM migration.merged WHERE tab = %s ORDER BY number", (plan.target,)
    )
    return [tuple(key) for (key,) in rows.fetchall()]


def told(found: dict[str, int]) -> str:
    """Those counts in words."""
    return ", ".join(f"{counted(count, 'row')} of {name}" for name, count in sorted(found.items()))


def hand_over(plan: Plan) -> list[Statement]:
    """What makes the rows that stay the first entries of the way back, however often it is run."""
    tables = merging(plan)
    if not tables:
        return []
    numbers = " ".join(f"WHEN {postgres_text(t.target)} THEN {n}" for n, t in tables)
    return [
        (
            compose(
                "WITH gone AS (DELETE FROM migration.merged RETURNING tab, key) "
                "INSERT INTO migration.reverse_log (tab, key) "
                "SELECT CASE tab {numbers} END, key FROM gone",
                numbers=numbers,
            ),
            (),
        )
    ]
