"""Whether what a fleet has moved is on the target as it was verified. Only reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import psycopg

from migration_job.certification import connected
from migration_job.errors import JobError
from migration_job.fleet.joining import of_json
from migration_job.fleet.manifest import Layout
from migration_job.fleet.places import dsn_of
from migration_job.phases import UNFINISHED
from migration_job.place import in_schema
from migration_job.plan.findings import some
from migration_job.plan.model import Plan
from migration_job.plan.tenants import TenantColumn
from migration_job.quoting import compose, postgres_name, postgres_relation
from migration_job.stores.postgres import records, shared_tables, untouched
from migration_job.stores.postgres.database import execute_raw, limit_waiting
from migration_job.stores.postgres.fleet_ledger import FileRow, FleetLedger
from migration_job.stores.postgres.shared_tables import Tenant
from migration_job.verify import tenants

OTHERS = "rows of tenants that are no file's"
"""What stands for the tenant of rows that nobody's file has."""


def changed(server: str, layout: Layout) -> dict[str, str]:
    """In what the target is not as the fleet left it, by tenant, in words; of the files that were
    once verified. ``server`` is the connection string of the book's database. Raises InputError
    where that holds no book of the layout."""
    with connected(server, only_read=True) as target:
        book = FleetLedger(target)
        book.require(layout)
        rows = {t: row for t, row in book.files().items() if row.certificate is not None}
        shared = book.shared()
        contents = {tenant: book.content(tenant) for tenant in rows}
    if layout != "tenant-column":
        looks = {t: _of_its_own(dsn_of(server, layout, row.place), row) for t, row in rows.items()}
        return {tenant: said for tenant, said in looks.items() if said}
    if shared is None:
        return dict.fromkeys(rows, "the tables that all files share are in no book any more")
    column = TenantColumn.model_validate_json(shared[0])
    plan = Plan.model_validate_json(shared[1])
    return _of_common_tables(in_schema(server, column.in_schema), plan, column, contents)


@dataclass(frozen=True, slots=True)
class Schemas:
    """A fleet's schemas by what applications may do in them."""

    whole: tuple[str, ...]
    """What they hold was verified."""
    begun: tuple[str, ...]
    """A file's move into them has begun again and not ended: the next run replaces what is there,
    so nobody may write there."""


def schemas(server: str) -> Schemas:
    """The schemas of all files that were once verified. ``server`` as in :func:`changed`. A file
    that fails before anything of it is moved leaves its schema whole."""
    with connected(server, only_read=True) as target:
        book = FleetLedger(target)
        layout, shared = cast("Layout", book.layout()), book.shared()
        rows = [row for row in book.files().values() if row.certificate is not None]
        query = "SELECT nspname::text FROM pg_namespace"
        there = {str(row[0]) for row in target.execute(query)}
    if layout == "tenant-column":
        # A file is verified in a schema of its own, and comes among the others in one transaction.
        common = TenantColumn.model_validate_json(shared[0]).in_schema if shared else ""
        return Schemas((common,) if rows and common in there else (), ())
    ended = {row.place: _has_ended(dsn_of(server, layout, row.place)) for row in rows}
    found = [place for place in sorted(ended) if place in there]
    return Schemas(
        tuple(place for place in found if ended[place]),
        tuple(place for place in found if not ended[place]),
    )


def _has_ended(dsn: str) -> bool:
    with connected(dsn, only_read=True) as target:
        run = records.read_run(target)
        return run is not None and run.phase not in UNFINISHED


def _of_its_own(dsn: str, row: FileRow) -> str:
    """The same of a file in a schema or a database of its own; '' where it is as it was."""
    try:
        with connected(dsn, only_read=True) as target:
            run = records.read_run(target)
            if run is None:
                return f"no records of a run in {row.place} any more"
            if run.phase not in untouched.PHASES:
                return "its application works on PostgreSQL"
            if run.plan.tables and not untouched.rows_kept(target):
                return "it was not verified to its end since, or is followed"
            return some(untouched.changes(target, run.plan))
    except JobError as error:
        return error.message


def _of_common_tables(
    dsn: str, plan: Plan, column: TenantColumn, contents: dict[str, str | None]
) -> dict[str, str]:
    """The same of files that share their tables."""
    found: dict[str, str] = {}
    with connected(dsn, only_read=True) as target:
        if gone := shared_tables.gone(target, plan.inside(column.in_schema)):
            return dict.fromkeys(contents, f"no table {some(gone)} any more")
        for value, content in contents.items():
            tenant = Tenant(value, plan, column)
            with target.transaction():
                shared_tables.act_for(target, tenant)
                there = tenants.among_others(target, plan, column.in_schema, tenant.whose)
            expected = of_json(content) or {t.target: (0, "0", "0") for t in plan.tables}
            if different := tenants.unlike(there, expected):
                found[value] = some(different)
        others = _of_others(target, plan, column, list(contents))
    return found | ({OTHERS: some(others)} if others else {})


def _of_others(
    target: psycopg.Connection, plan: Plan, column: TenantColumn, known: list[str]
) -> list[str]:
    """The tables with rows of tenants that are no file's."""
    found = []
    # Everybody queues behind what waits for a table: so it does not wait for long.
    limit_waiting(target)
    with target.transaction(force_rollback=True):
        for table in plan.tables:
            relation = postgres_relation(table.target, column.in_schema)
            if column.row_level_security:
                # The owner sees all rows while it does not bind him: in this transaction alone.
                execute_raw(
                    target,
                    compose("ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY", table=relation),
                )
            query = compose(
                "SELECT EXISTS (SELECT FROM {table} WHERE {column}::text <> ALL ($1))",
                table=relation,
                column=postgres_name(column.name),
            )
            if execute_raw(target, query, (known,)).fetchall()[0][0]:
                found.append(table.target)
    return found
