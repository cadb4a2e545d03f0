"""Loading into tables that are the application's own, and giving them back as they were.

Nothing of the application's is altered: no table, constraint, index or trigger. Its triggers and
foreign keys are silent while rows are loaded (``session_replication_role``), and the verification
proves afterwards what they would have. What the tables held, and where their sequences stood, is
kept in schema ``migration`` in the transaction that empties them, so that :func:`undo` can put all
of it back, whenever the run was cut off.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import psycopg
from psycopg import sql

from migration_job.errors import ANEW, GOES_ON, InputError, JobError, OperationError
from migration_job.place import records_of
from migration_job.plan.findings import some
from migration_job.plan.model import Plan, TablePlan
from migration_job.quoting import postgres_name
from migration_job.stores.postgres import capture, merged, target_fence, untouched
from migration_job.stores.postgres.database import lost

TABLES = """
CREATE TABLE migration.replaced (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tab text NOT NULL,
    target_row text NOT NULL,
    same boolean NOT NULL DEFAULT false
);
CREATE TABLE migration.sequences (
    name text PRIMARY KEY,
    last_value bigint NOT NULL,
    is_called boolean NOT NULL
);
CREATE TABLE migration.definitions (line text NOT NULL);
COMMENT ON TABLE migration.replaced IS
    'rows that the application''s tables had before the load, in their order';
COMMENT ON COLUMN migration.replaced.target_row IS
    'the row as text of its table''s row type: SELECT (target_row::TABLE).* gives it back';
COMMENT ON COLUMN migration.replaced.same IS 'the source has the very same row';
COMMENT ON TABLE migration.sequences IS 'where the application''s sequences stood before the load';
COMMENT ON TABLE migration.definitions IS 'what the schema''s definitions were before the load';
"""


def silence(connection: psycopg.Connection) -> None:
    """Have triggers and foreign keys not act in this session. Raises InputError where the role may
    not, and nobody lends it the right."""
    try:
        target_fence.act_as_replica(connection)
    except InputError as error:
        raise InputError(
            "expected a role that may keep the application's triggers and foreign keys from "
            f"acting while rows are loaded, found {connection.info.user}, which may not set "
            "session_replication_role",
            advice="as a superuser, on PostgreSQL 15 and later: GRANT SET ON PARAMETER "
            f"session_replication_role TO {connection.info.user}; on 14 a superuser lends it by "
            f"the function {target_fence.REPLICA_FUNCTION}() (docs/how-to/external-database.md). "
            "Nothing was changed",
        ) from error


def require_privileges(connection: psycopg.Connection, plan: Plan) -> None:
    """Raises InputError where the role may not write to what the plan fills."""
    names = [t.target for t in filled(plan)]
    refused = connection.execute(
        "SELECT name FROM unnest(%s::text[]) AS t (name) WHERE NOT has_table_privilege("
        "format('%%I.%%I', %s::text, name), 'INSERT') OR NOT has_table_privilege("
        "format('%%I.%%I', %s::text, name), 'DELETE') OR NOT has_table_privilege("
        "format('%%I.%%I', %s::text, name), 'TRUNCATE')",
        (names, *[plan.schema_name] * 3),
    ).fetchall()
    if refused:
        shown = ", ".join(str(row[0]) for row in refused[:5])
        raise InputError(
            f"expected a role that may fill the application's tables, found "
            f"{connection.info.user}, which may not INSERT, DELETE and TRUNCATE in {shown}",
            advice="give the job the role that owns the tables (--target). Nothing was changed",
        )


def refused(connection: psycopg.Connection, plan: Plan) -> InputError | None:
    """Why this role may not load the plan, as ``migrate`` would say it; None where it may. Nothing
    stays set in the session."""
    try:
        with connection.transaction(force_rollback=True):
            silence(connection)
            require_privileges(connection, plan)
    except InputError as error:
        return error
    return None


def _named(table: TablePlan) -> sql.Identifier:
    return sql.Identifier(table.schema_name, table.target)


def filled(plan: Plan) -> list[TablePlan]:
    """The tables that get the source's rows."""
    return [table for table in plan.tables if table.source is not None]


# ---------------------------------------------------------------------------- before the load


def prepare(connection: psycopg.Connection, plan: Plan, definitions: Sequence[str]) -> None:
    """Keep what the tables hold and where the sequences stand, and empty the tables; runs in the
    transaction that makes the run's records."""
    connection.execute(TABLES)
    connection.execute(merged.TABLES)
    silence(connection)
    with connection.cursor().copy("COPY migration.definitions (line) FROM STDIN") as copy:
        for line in definitions:
            copy.write_row((line,))
    tables = filled(plan)
    if tables:
        connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(_list(tables)))
    for table in tables:
        connection.execute(
            sql.SQL(
                "INSERT INTO migration.replaced (tab, target_row) "
                "SELECT {}, (r.*)::text FROM ONLY {} AS r ORDER BY r.ctid"
            ).format(sql.Literal(table.target), _named(table))
        )
    for name in _sequences(plan):
        connection.execute(
            sql.SQL(
                "INSERT INTO migration.sequences SELECT {}, last_value, is_called FROM {}"
            ).format(sql.Literal(name), sql.SQL(name))
        )
    _empty(connection, plan)


def _sequences(plan: Plan) -> list[str]:
    return sorted({s.sequence for s in plan.sequences if s.sequence is not None})


def _list(tables: Iterable[TablePlan]) -> sql.Composed:
    return sql.SQL(", ").join(_named(table) for table in tables)


def _empty(connection: psycopg.Connection, plan: Plan) -> None:
    """Empty the tables that the plan fills; in a transaction in which triggers are silent."""
    tables = filled(plan)
    full = [table for table in tables if _has_rows(connection, table)]
    if not full:
        return
    names = [table.target for table in tables]
    outside = connection.execute(
        "SELECT EXISTS (SELECT FROM pg_constraint c JOIN pg_class p ON p.oid = c.confrelid "
        "JOIN pg_class t ON t.oid = c.conrelid WHERE c.contype = 'f' "
        "AND p.relnamespace = %s::text::regnamespace AND p.relname = ANY(%s) "
        "AND NOT (t.relnamespace = p.relnamespace AND t.relname = ANY(%s)))",
        (postgres_name(plan.schema_name), names, names),
    ).fetchone()
    if outside is not None and outside[0]:
        # PostgreSQL truncates no table that others refer to.
        for table in full:
            connection.execute(sql.SQL("DELETE FROM ONLY {}").format(_named(table)))
    else:
        only = sql.SQL(", ").join(sql.SQL("ONLY {}").format(_named(t)) for t in tables)
        connection.execute(sql.SQL("TRUNCATE {} CONTINUE IDENTITY").format(only))


def _has_rows(connection: psycopg.Connection, table: TablePlan) -> bool:
    row = connection.execute(
        sql.SQL("SELECT EXISTS (SELECT FROM ONLY {})").format(_named(table))
    ).fetchone()
    return row is not None and bool(row[0])


# ----------------------------------------------------------------------------- after the load


def mark_same(connection: psycopg.Connection, plan: Plan) -> dict[str, tuple[int, int]]:
    """Mark the kept rows that the source has as well; for each table that had rows, how many it
    had and how many of them the source has not, by the target's name."""
    held = {
        str(name) for (name,) in connection.execute("SELECT DISTINCT tab FROM migration.replaced")
    }
    for table in filled(plan):
        if table.target in held:
            connection.execute(
                sql.SQL(
                    "UPDATE migration.replaced AS k SET same = true WHERE k.tab = {} "
                    "AND NOT EXISTS (SELECT FROM migration.merged AS m WHERE m.number = k.number) "
                    "AND EXISTS "
                    "(SELECT FROM (SELECT (r.*)::text AS line FROM ONLY {} AS r) AS s "
                    "WHERE s.line = k.target_row)"
                ).format(sql.Literal(table.target), _named(table))
            )
    rows = connection.execute(
        "SELECT tab, count(*), count(*) FILTER (WHERE NOT same) FROM migration.replaced GROUP BY 1"
    ).fetchall()
    return {str(name): (int(total), int(other)) for name, total, other in rows}


# ---------------------------------------------------------------------------------- undoing


class Touched(OperationError):
    """Somebody has written to the tables since the certificate: they are left as they are."""


def undo(connection: psycopg.Connection, plan: Plan) -> None:
    """Put the target back as it was before the run, in one transaction: the tables' rows, the
    sequences' positions, and no schema ``migration``. Raises OperationError, with nothing changed,
    where the tables are not what they were, and Touched where they were written to since the run's
    certificate."""
    try:
        with connection.transaction():
            silence(connection)
            # With capture the tables have the fence of the way back by now, closed.
            capture.take_token(connection)
            if tables := filled(plan):
                connection.execute(
                    sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(_list(tables))
                )
            if found := untouched.changes(connection, plan):
                raise Touched(
                    f"expected the target as the verified run left it, found {some(found)}",
                    advice="nothing was removed there; give a new database as the target",
                )
            _empty(connection, plan)
            for table in filled(plan):
                _restore(connection, table)
            for name, last, called in connection.execute(
                "SELECT name, last_value, is_called FROM migration.sequences"
            ).fetchall():
                connection.execute(
                    "SELECT setval(%s::text::regclass, %s, %s)", (name, last, called)
                )
            connection.execute("DROP SCHEMA migration CASCADE")
    except psycopg.Error as error:
        if connection.closed:
            raise lost(error, "putting the target back") from error
        raise OperationError(
            "the target could not be put back as it was before the run: "
            f"{error.diag.message_primary or type(error).__name__}",
            advice=f"its rows of before are in {records_of(connection)}.replaced; correct the "
            "cause and run the command again. The source is untouched",
        ) from error


def undo_after(error: BaseException, connection: psycopg.Connection, plan: Plan, told: str) -> None:
    """:func:`undo` after what stopped a run, which then tells ``told``, and of no run that goes on;
    or that somebody has written to the tables, which are left as they are."""
    try:
        undo(connection, plan)
    except Touched as touched:
        told = f"{touched.message}: {touched.advice}"
    else:
        if isinstance(error, JobError):
            error.advice = error.advice.replace(GOES_ON, ANEW)
    if isinstance(error, JobError):
        error.advice = f"{error.advice}. {told}"


def _restore(connection: psycopg.Connection, table: TablePlan) -> None:
    own = [c.target for c in table.columns if c.generated is None]
    if not own:
        return
    connection.execute(
        sql.SQL(
            "INSERT INTO {} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM "
            "(SELECT number, target_row::{} AS r FROM migration.replaced WHERE tab = {}) AS k "
            "ORDER BY k.number"
        ).format(
            _named(table),
            sql.SQL(", ").join(map(sql.Identifier, own)),
            sql.SQL(", ").join(sql.SQL("(k.r).{}").format(sql.Identifier(c)) for c in own),
            _named(table),
            sql.Literal(table.target),
        )
    )
