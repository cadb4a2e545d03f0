"""A plan whose every table has one column more: whose the row is.

The column comes first in every key, unique constraint, foreign key and ordinary index, so that
equal ids of two tenants are two rows, and a row refers to rows of its own tenant alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from migration_job.errors import BlockedError
from migration_job.plan.findings import some
from migration_job.plan.model import (
    OWN_SCHEMA,
    ColumnPlan,
    ForeignKeyPlan,
    IndexPlan,
    Plan,
    TablePlan,
)
from migration_job.plan.rules import TextRule
from migration_job.quoting import postgres_name, postgres_text
from migration_job.stores.sqlite.model import Data
from migration_job.values import fold

TenantType = Literal["text", "integer", "bigint", "uuid"]

SETTING = "app.tenant"
"""The session's setting that says for whom it acts."""

COLUMN_ACTIONS = 150000
"""PostgreSQL 15, which knows ON DELETE SET NULL of some of the columns, and views that see no more
than their reader."""

SOME_COLUMNS = ("SET NULL", "SET DEFAULT")
"""Actions that would reach the tenant's column too."""


class TenantColumn(Data):
    """The column, as the manifest says it."""

    name: str = "tenant"
    type: TenantType = "text"
    in_schema: str = OWN_SCHEMA
    """Where the tables are."""
    row_level_security: bool = True

    @property
    def present(self) -> str:
        """SQL: for whom the session acts; NULL where it does not say."""
        return f"nullif(current_setting({postgres_text(SETTING)}, true), '')::{self.type}"


def with_tenant(plan: Plan, column: TenantColumn, version: int) -> Plan:
    """The plan with the column, for tables in the column's schema on a server of that version.
    Raises BlockedError with everything in it that cannot be had under one."""
    reasons = list(refusals(plan, column, version))
    if reasons:
        raise BlockedError(
            f"expected a plan that layout: tenant-column can have, found {some(reasons, 8)}",
            advice="change the source or the manifest's policy, or use layout: schema-per-file, "
            "which has all of it",
        )
    inside = plan.inside(column.in_schema)
    tables = tuple(_table(table, column) for table in inside.tables)
    return inside.model_copy(update={"tables": tables})


def refusals(plan: Plan, column: TenantColumn, version: int) -> Iterator[str]:
    """What the layout cannot have, in words."""
    for table in plan.tables:
        if any(fold(c.target) == fold(column.name) for c in table.columns):
            yield f"a column {column.name} in table {table.target} already"
        for key in table.foreign_keys:
            yield from _of_key(table, key, version)
    for name in plan.extensions:
        yield f"extension {name}"
    for name in plan.enums:
        yield f"enum {name} of the policy"
    if plan.after_load:
        yield f"statements of profile {plan.profile}"
    for view in plan.views:
        if not column.row_level_security:
            yield f"view {view.target} without row-level security, which would mix the tenants"
        elif version < COLUMN_ACTIONS:
            yield f"view {view.target} on PostgreSQL before 15, which would mix the tenants"


def _of_key(table: TablePlan, key: ForeignKeyPlan, version: int) -> Iterator[str]:
    named = f"foreign key {key.name} of {table.target}"
    if not key.validated:
        yield f"{named} with rows whose parent is missing"
    if key.on_update in SOME_COLUMNS:
        yield f"{named} with ON UPDATE {key.on_update}"
    if key.on_delete in SOME_COLUMNS and version < COLUMN_ACTIONS:
        yield f"{named} with ON DELETE {key.on_delete} on PostgreSQL before 15"


def _table(table: TablePlan, column: TenantColumn) -> TablePlan:
    first = ColumnPlan(
        source=None,
        target=column.name,
        type=column.type,
        rule=TextRule(),
        not_null=True,
        default=column.present,
        reason="the tenant",
    )
    name = column.name
    indexes = [_index(index, name) for index in table.indexes]
    if not table.primary_key and not any(_begins(index, name) for index in indexes):
        own = f"{table.target[:40]}_{name}_idx"
        indexes.append(IndexPlan(name=own, unique=False, terms=(postgres_name(name),)))
    return table.model_copy(
        update={
            "columns": (first, *table.columns),
            "primary_key": (name, *table.primary_key) if table.primary_key else (),
            "uniques": tuple(replace(u, columns=(name, *u.columns)) for u in table.uniques),
            "foreign_keys": tuple(_key(key, name) for key in table.foreign_keys),
            "indexes": tuple(indexes),
        }
    )


def _key(key: ForeignKeyPlan, name: str) -> ForeignKeyPlan:
    action = key.on_delete
    if action in SOME_COLUMNS:
        action += f" ({', '.join(map(postgres_name, key.columns))})"
    return replace(
        key,
        columns=(name, *key.columns),
        parent_columns=(name, *key.parent_columns),
        on_delete=action,
    )


def _index(index: IndexPlan, name: str) -> IndexPlan:
    if index.method != "btree":
        return index
    return replace(index, terms=(postgres_name(name), *index.terms))


def _begins(index: IndexPlan, name: str) -> bool:
    return index.where is None and index.terms[:1] == (postgres_name(name),)
