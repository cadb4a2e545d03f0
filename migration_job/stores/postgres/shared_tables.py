"""Tables that the files of a fleet have in common, each row with its tenant.

What is done with them for one tenant is in :mod:`migration_job.fleet.joining`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import psycopg

from migration_job.errors import InputError
from migration_job.plan.model import Plan, TablePlan
from migration_job.plan.tenants import COLUMN_ACTIONS, SETTING, TenantColumn
from migration_job.quoting import (
    as_written,
    compose,
    joined,
    postgres_name,
    postgres_relation,
    postgres_text,
)
from migration_job.stores.postgres import collation, own_schema, schema
from migration_job.stores.postgres.database import execute_raw

SEQUENCES = 0x666C_6565_7473_6571
"""The lock under which one file at a time raises the common sequences."""

POLICY = "own_tenant"


def make(connection: psycopg.Connection, plan: Plan, column: TenantColumn) -> None:
    """Make the tables of a plan that has the column; call it in a transaction, in a session whose
    schema is theirs. Raises InputError where something has one of their names."""
    own_schema.make(connection, column.in_schema)
    collate = collation.clause(connection, accepted=False)
    try:
        for table in plan.tables:
            connection.execute(schema.table_sql(table, collate).encode())
            for step in (*schema.key_steps(table), *schema.index_steps(table)):
                connection.execute(step.sql.encode())
        for table in plan.tables:
            for key in table.foreign_keys:
                connection.execute(schema.foreign_key_sql(table, key).encode())
                connection.execute(schema.validate_sql(table, key).encode())
                if not key.initially_deferred:
                    # A tenant's rows arrive table by table, and may refer to one another.
                    connection.execute(_deferrable(table, key.name).encode())
        for view in plan.views:
            invoker = " WITH (security_invoker = true)"
            with_reader = connection.info.server_version >= COLUMN_ACTIONS
            connection.execute(
                compose(
                    "CREATE VIEW {view}{invoker} AS {query}",
                    view=plan.relation(view.target),
                    invoker=as_written(invoker if with_reader else ""),
                    query=as_written(view.query),
                ).encode()
            )
        if column.row_level_security:
            for table in plan.tables:
                _secure(connection, table, column)
    except (psycopg.errors.DuplicateTable, psycopg.errors.DuplicateObject) as error:
        raise InputError(
            f"expected nothing of the fleet's names in schema {column.in_schema}, found that "
            f"{error.diag.message_primary}",
            advice="name another schema in the manifest (column: in_schema), or drop what is "
            "nobody's; nothing was changed",
        ) from error


def drop(connection: psycopg.Connection, plan: Plan) -> None:
    """Drop tables and views that no tenant has rows in."""
    for view in reversed(plan.views):
        connection.execute(
            compose("DROP VIEW IF EXISTS {view} CASCADE", view=plan.relation(view.target)).encode()
        )
    for table in plan.tables:
        connection.execute(
            compose("DROP TABLE IF EXISTS {table} CASCADE", table=table.relation).encode()
        )


def gone(connection: psycopg.Connection, plan: Plan) -> list[str]:
    """The tables that are not there."""
    return [
        table.target
        for table in plan.tables
        if connection.execute("SELECT to_regclass(%s) IS NULL", (table.relation,)).fetchone()
        == (True,)
    ]


def open_to_all(connection: psycopg.Connection, plan: Plan) -> list[str]:
    """The tables of which row-level security does not keep the tenants apart, and why."""
    found = []
    for table in plan.tables:
        row = connection.execute(
            "SELECT c.relrowsecurity, c.relforcerowsecurity, EXISTS (SELECT FROM pg_policy AS p "
            "WHERE p.polrelid = c.oid AND p.polname = %s AND p.polcmd = '*' AND p.polroles = '{0}' "
            "AND strpos(pg_get_expr(p.polqual, p.polrelid), %s) > 0) "
            "FROM pg_class AS c WHERE c.oid = to_regclass(%s)",
            (POLICY, SETTING, table.relation),
        ).fetchone()
        words = ("has it disabled", "does not force it", f"has no policy {POLICY} as it was made")
        lacks = [say for say, holds in zip(words, row or (), strict=False) if not holds]
        if lacks:
            found.append(f"{table.target} {lacks[0]}")
    return found


def _deferrable(table: TablePlan, key: str) -> str:
    return compose(
        "ALTER TABLE {table} ALTER CONSTRAINT {key} DEFERRABLE INITIALLY IMMEDIATE",
        table=table.relation,
        key=postgres_name(key),
    )


def _secure(connection: psycopg.Connection, table: TablePlan, column: TenantColumn) -> None:
    for action in ("ENABLE", "FORCE"):
        connection.execute(
            compose(
                "ALTER TABLE {table} {action} ROW LEVEL SECURITY",
                table=table.relation,
                action=action,
            ).encode()
        )
    connection.execute(
        compose(
            "CREATE POLICY {policy} ON {table} USING ({column} = {present})",
            policy=postgres_name(POLICY),
            table=table.relation,
            column=postgres_name(column.name),
            present=as_written(column.present),
        ).encode()
    )


# ------------------------------------------------------------------------------ one tenant's rows


@dataclass(frozen=True, slots=True)
class Tenant:
    """Whose rows, from where and to where."""

    value: str
    plan: Plan
    """Of the file, in its own schema."""
    column: TenantColumn

    @property
    def whose(self) -> str:
        """The condition that is true of its rows."""
        return compose(
            "{name} = {value}::{type}",
            name=postgres_name(self.column.name),
            value=postgres_text(self.value),
            type=self.column.type,
        )


def act_for(connection: psycopg.Connection, tenant: Tenant) -> None:
    """Have the transaction act for the tenant, after any other that does."""
    connection.execute(
        "SELECT set_config(%s, %s, true), pg_advisory_xact_lock(%s)",
        (SETTING, tenant.value, _lock(tenant.value)),
    )
    connection.execute("SET CONSTRAINTS ALL DEFERRED")


def clear(connection: psycopg.Connection, tenant: Tenant) -> None:
    """Remove the tenant's rows from the common tables."""
    for table in _children_first(tenant.plan.tables):
        execute_raw(
            connection,
            compose(
                "DELETE FROM {table} WHERE {whose}",
                table=postgres_relation(table.target, tenant.column.in_schema),
                whose=as_written(tenant.whose),
            ),
        )


def _children_first(tables: Sequence[TablePlan]) -> list[TablePlan]:
    """Tables in an order in which rows can be deleted: ON DELETE RESTRICT is not deferred."""
    left, order = list(reversed(tables)), list[TablePlan]()
    while left:
        keys = [(t, key) for t in left for key in t.foreign_keys if key.parent != t.target]
        parents = {key.parent for _, key in keys}
        held = {key.parent for _, key in keys if key.on_delete == "RESTRICT"}
        # In a circle only those keys count that are not deferred.
        free = sorted(left, key=lambda t: (t.target in parents) + 2 * (t.target in held))[0]
        left.remove(free)
        order.append(free)
    return order


def fill(connection: psycopg.Connection, tenant: Tenant) -> None:
    """Copy the file's rows into the common tables, and prove their foreign keys."""
    for table in tenant.plan.tables:
        execute_raw(connection, _insert(table, tenant))
    connection.execute("SET CONSTRAINTS ALL IMMEDIATE")


def _insert(table: TablePlan, tenant: Tenant) -> str:
    names = [postgres_name(c.target) for c in table.columns if c.generated is None]
    return compose(
        "INSERT INTO {into} ({column}, {names}) SELECT {value}::{type}, {names} FROM {own}",
        into=postgres_relation(table.target, tenant.column.in_schema),
        column=postgres_name(tenant.column.name),
        names=joined(", ", names),
        value=postgres_text(tenant.value),
        type=tenant.column.type,
        own=table.relation,
    )


def raise_sequences(connection: psycopg.Connection, tenant: Tenant) -> None:
    """Have the common sequences go on after the largest number that any tenant has had."""
    if not tenant.plan.sequences:
        return
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (SEQUENCES,))
    where = tenant.column.in_schema
    for sequence in tenant.plan.sequences:
        row = connection.execute(
            "SELECT pg_get_serial_sequence(%s, %s)",
            (postgres_relation(sequence.table, where), sequence.column),
        ).fetchone()
        if row is not None and row[0] is not None:
            common = sequence.model_copy(update={"sequence": str(row[0])})
            execute_raw(connection, schema.sequence_sql(common, where))


def _lock(value: str) -> int:
    digest = hashlib.sha256(b"migration-job fleet tenant " + value.encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
