"""A plan with a tenant's column: where the column comes, and what cannot have one."""

from __future__ import annotations

import pytest

from migration_job.errors import BlockedError
from migration_job.plan.model import (
    ColumnPlan,
    ForeignKeyPlan,
    IndexPlan,
    Plan,
    TablePlan,
    UniquePlan,
    ViewPlan,
)
from migration_job.plan.rules import IntegerRule
from migration_job.plan.tenants import TenantColumn, with_tenant

NEW, OLD = 180000, 140000


def column(name: str) -> ColumnPlan:
    return ColumnPlan(source=name, target=name, type="integer", rule=IntegerRule())


def key(*, on_update: str = "NO ACTION", validated: bool = True) -> ForeignKeyPlan:
    return ForeignKeyPlan(
        name="k",
        columns=("p",),
        parent="parent",
        parent_columns=("id",),
        on_update=on_update,
        on_delete="SET NULL",
        validated=validated,
    )


def plan(**other: object) -> Plan:
    table = TablePlan(
        source="t",
        target="t",
        columns=(column("id"), column("p")),
        primary_key=("id",),
        uniques=(UniquePlan(name="u", columns=("p", "id")),),
        foreign_keys=(key(),),
        indexes=(
            IndexPlan(name="i", unique=True, terms=('"p" DESC',)),
            IndexPlan(name="g", unique=False, terms=('"p"',), method="gin"),
        ),
    )
    bare = TablePlan(source="bare", target="bare", columns=(column("x"),))
    table = table.model_copy(update=other)
    return Plan(profile="none", encoding="UTF-8", tables=(table, bare))


def test_the_column_comes_first_everywhere() -> None:
    table, bare = with_tenant(plan(), TenantColumn(name="T", in_schema="s"), NEW).tables
    assert table.schema_name == "s"
    assert [c.target for c in table.columns] == ["T", "id", "p"]
    assert table.columns[0].not_null
    assert table.columns[0].default == "nullif(current_setting('app.tenant', true), '')::text"
    assert table.primary_key == ("T", "id")
    assert table.uniques[0].columns == ("T", "p", "id")
    assert table.foreign_keys[0].columns == ("T", "p")
    assert table.foreign_keys[0].parent_columns == ("T", "id")
    assert table.foreign_keys[0].on_delete == 'SET NULL ("p")'
    assert [i.terms for i in table.indexes] == [('"T"', '"p" DESC'), ('"p"',)]
    assert [i.terms for i in bare.indexes] == [('"T"',)]


@pytest.mark.parametrize(
    ("made", "version", "said"),
    [
        (plan(), OLD, "foreign key k of t with ON DELETE SET NULL on PostgreSQL before 15"),
        (plan(foreign_keys=(key(on_update="SET DEFAULT"),)), NEW, "ON UPDATE SET DEFAULT"),
        (plan(foreign_keys=(key(validated=False),)), NEW, "rows whose parent is missing"),
        (plan(columns=(column("TENANT"),)), NEW, "a column tenant in table t already"),
        (plan().model_copy(update={"extensions": ("citext",)}), NEW, "extension citext"),
        (plan().model_copy(update={"after_load": ("SELECT 1",)}), NEW, "of profile none"),
        (
            plan(foreign_keys=()).model_copy(
                update={"views": (ViewPlan(source="v", target="v", query="SELECT 1"),)}
            ),
            OLD,
            "view v on PostgreSQL before 15",
        ),
    ],
)
def test_what_cannot_be_had_is_named(made: Plan, version: int, said: str) -> None:
    with pytest.raises(BlockedError) as caught:
        with_tenant(made, TenantColumn(), version)
    assert said in caught.value.message


def test_a_view_without_row_level_security_is_refused() -> None:
    view = ViewPlan(source="v", target="v", query="SELECT 1")
    made = plan().model_copy(update={"views": (view,)})
    with_tenant(made, TenantColumn(), NEW)
    with pytest.raises(BlockedError, match="without row-level security"):
        with_tenant(made, TenantColumn(row_level_security=False), NEW)
