"""A column that a few values among many have given another type: both ways out are told with their
cost, and the switch waits until the policy has chosen."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.migration import deciding
from migration_job.errors import BlockedError
from migration_job.plan.model import Finding, Plan
from migration_job.plan.policy import parse_policy
from migration_job.plan.retyped import RETYPED, require_acknowledged
from migration_job.plural import counted_doing
from tests.unit.planning import column_of, database, findings_of, plan_of

ASIDE = "tables: {stock: {columns: {note: {action: quarantine}}}}"


def stock(tmp_path: Path) -> Path:
    return database(
        tmp_path / "a.db",
        "CREATE TABLE stock (id INTEGER PRIMARY KEY, quantity INTEGER CHECK (quantity <> 0), "
        "is_active BOOLEAN, note TEXT)",
        "CREATE TABLE sale (id INTEGER PRIMARY KEY, stock INTEGER REFERENCES stock (id))",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) "
        "INSERT INTO stock SELECT i, CASE i WHEN 250 THEN 'many' ELSE i END, "
        "CASE i WHEN 260 THEN 2 ELSE i % 2 END, CASE WHEN i < 12 THEN char(0) ELSE 'x' END FROM n",
        "INSERT INTO sale VALUES (1, 250), (2, 250), (3, 7)",
    )


def retyped(plan: Plan, column: str) -> Finding:
    (found,) = [f for f in findings_of(plan, RETYPED) if f.column == column]
    return found


def test_both_ways_are_told_with_their_cost(tmp_path: Path) -> None:
    plan = plan_of(stock(tmp_path), ASIDE)
    told = retyped(plan, "quantity").message
    assert "1 value of 500 makes it text instead of integer" in told
    assert "As it is: 488 values in the ledger, 1 CHECK of it lost" in told
    assert "3 rows more set aside, 2 of them for what they refer to" in told
    assert "every value is carried bit for bit" in retyped(plan, "is_active").message


def test_what_it_says_of_setting_aside_comes_true(tmp_path: Path) -> None:
    path = stock(tmp_path)
    columns = "note: {action: quarantine}, quantity: {action: quarantine}"
    plan = plan_of(path, f"tables: {{stock: {{columns: {{{columns}}}}}}}")
    assert column_of(plan, "stock", "quantity").type == "integer"
    assert not findings_of(plan, "check-not-carried")
    (dependent,) = [f for f in findings_of(plan, "quarantined-with-parent") if f.table == "sale"]
    assert dependent.count == 3, "two of the row, one of a row that was set aside before"


def test_the_ledgers_count_leaves_out_the_rows_that_are_set_aside(tmp_path: Path) -> None:
    """Of 500 values 499 are changed; 11 of their rows are in quarantine for another column."""
    plan = plan_of(stock(tmp_path), ASIDE)
    (widened,) = findings_of(plan, "text-in-integer")
    assert widened.message.endswith("widened to text, 488 values in the ledger")


@pytest.mark.parametrize(
    "more",
    [
        "quantity: {action: widen}, is_active: {action: widen}",
        f"quantity: {{acknowledge: [{RETYPED}]}}, is_active: {{acknowledge: [{RETYPED}]}}",
    ],
)
def test_a_policy_that_speaks_of_each_column_lets_the_switch_go_on(
    tmp_path: Path, more: str
) -> None:
    path = stock(tmp_path)
    policy = f"tables: {{stock: {{columns: {{note: {{action: quarantine}}, {more}}}}}}}"
    plan = plan_of(path, ASIDE)
    with pytest.raises(BlockedError, match=r"2 columns got another type.*stock\.quantity"):
        require_acknowledged(plan.findings)
    require_acknowledged(plan_of(path, policy).findings)
    require_acknowledged(plan.findings, parse_policy(policy))
    require_acknowledged(plan.findings, parse_policy(f"acknowledge: [{RETYPED}]"))
    one = parse_policy(f"acknowledge: ['{RETYPED}:stock.quantity']")
    with pytest.raises(BlockedError, match=r"1 column got another type.*stock\.is_active"):
        require_acknowledged(plan.findings, one)


def test_values_that_are_no_few_are_the_columns_own_type(tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db",
        "CREATE TABLE t (n INTEGER)",
        "INSERT INTO t VALUES ('a'), ('b'), (1), (2)",
    )
    assert not findings_of(plan_of(path), RETYPED)


def test_a_limit_that_one_value_breaks_is_no_other_type(tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db",
        "CREATE TABLE t (v VARCHAR(3))",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20) "
        "INSERT INTO t SELECT CASE i WHEN 3 THEN 'long' ELSE 'x' END FROM n",
    )
    plan = plan_of(path)
    assert column_of(plan, "t", "v").type == "text"
    assert not findings_of(plan, RETYPED)


def test_a_stage_is_not_migrated_again_for_what_only_its_switch_waits_for() -> None:
    before = "default: widen\nacknowledge: [view-not-carried]\n"
    known = f"default: widen\nacknowledge: [view-not-carried, '{RETYPED}:a.b']\n"
    assert deciding(before) == deciding(known)
    assert deciding(f"acknowledge: [{RETYPED}]") == deciding("") == {}
    assert deciding(before) != deciding("default: widen\nacknowledge: [orphans]\n")
    assert deciding(before) != deciding(before.replace("widen", "block"))


def test_one_finding_stops_and_two_stop() -> None:
    assert counted_doing(1, "finding", "stop") == "1 finding stops"
    assert counted_doing(2, "finding", "stop") == "2 findings stop"
