"""The policy that is suggested: tried, and enough wherever a policy can be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from migration_job.plan.model import Plan
from migration_job.plan.policy import Policy
from migration_job.plan.suggest import Suggestion, merge, override, suggest
from tests.unit.planning import column_of, database, plan_of
from tests.unit.test_preflight import misfits


def suggested(path: Path, base: dict[str, Any] | None = None) -> Suggestion:
    def planned(policy: Policy) -> Plan:
        return plan_of(path, yaml.safe_dump(policy.model_dump(mode="json", exclude_unset=True)))

    return suggest(planned, plan_of(path, yaml.safe_dump(base or {})), base)


def few_to_quarantine(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr("migration_job.plan.facts.MAX_SINGLED_OUT", most)


def test_it_settles_everything_and_says_so(tmp_path: Path) -> None:
    path = misfits(tmp_path)
    suggestion = suggested(path, {"default": "block"})
    assert not suggestion.remaining
    assert not plan_of(path, suggestion.text).blocked
    assert "not-json" in suggestion.text
    assert suggestion.text.startswith(
        "# The suggested policy was tried, and the plan goes through with it."
    )


@pytest.mark.parametrize(
    "base", [None, {"tables": {"BIG": {"columns": {"T": {"action": "block"}}}}}]
)
def test_text_with_nul_in_more_rows_than_quarantine_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: dict[str, Any] | None
) -> None:
    few_to_quarantine(monkeypatch, 2)
    path = database(
        tmp_path / "a.db",
        "CREATE TABLE big(id INTEGER PRIMARY KEY, t TEXT)",
        "INSERT INTO big SELECT value, 'a' || char(0) || value FROM json_each('[1, 2, 3]')",
        "CREATE TABLE ref(id INTEGER PRIMARY KEY, big INTEGER REFERENCES big(id))",
        "INSERT INTO ref VALUES (1, 1)",
    )
    suggestion = suggested(path, base)
    assert not suggestion.remaining, suggestion.text
    plan = plan_of(path, suggestion.text)
    assert column_of(plan, "big", "t").type == "bytea"
    assert plan.table("big").quarantine == ()


def test_a_policy_that_sets_too_many_aside_is_overruled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few_to_quarantine(monkeypatch, 2)
    path = database(
        tmp_path / "a.db",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, n INTEGER)",
        "INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')",
    )
    base = {"tables": {"T": {"columns": {"N": {"action": "quarantine"}}}}}
    suggestion = suggested(path, base)
    assert not suggestion.remaining, suggestion.text
    assert suggestion.data == {"tables": {"T": {"columns": {"N": {"action": "widen"}}}}}


def test_what_no_policy_settles_is_said(tmp_path: Path) -> None:
    columns = ", ".join(f"c{n} INT" for n in range(1_601))
    path = database(
        tmp_path / "a.db",
        f"CREATE TABLE x({columns})",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT)",
        "INSERT INTO t VALUES (1, 'a' || char(0))",
    )
    suggestion = suggested(path)
    assert [f.code for f in suggestion.remaining] == ["too-many-columns"]
    assert suggestion.verdict == (
        "The suggested policy was tried, and what remains that no policy settles: "
        "x too-many-columns."
    )
    assert [f.code for f in plan_of(path, suggestion.text).blocked] == ["too-many-columns"]


def test_no_policy_at_all(tmp_path: Path) -> None:
    columns = ", ".join(f"c{n} INT" for n in range(1_601))
    suggestion = suggested(database(tmp_path / "a.db", f"CREATE TABLE x({columns})"))
    assert suggestion.verdict == "No policy settles what stops this migration: x too-many-columns."


def test_nothing_to_settle(tmp_path: Path) -> None:
    path = database(tmp_path / "a.db", "CREATE TABLE t(id INTEGER PRIMARY KEY)")
    suggestion = suggested(path)
    assert suggestion.text == "# Nothing stops this migration: no entry is needed.\n"


def test_merge_keeps_and_override_replaces() -> None:
    base = {"tables": {"t": {"action": "block", "acknowledge": ["a"]}}}
    further = {"tables": {"T": {"action": "widen", "acknowledge": ["b", "a"]}}}
    assert merge(base, {"tables": {"t": {"action": "widen"}}}) == base
    assert override(base, further) == {
        "tables": {"t": {"action": "widen", "acknowledge": ["a", "b"]}}
    }
    assert override({"map": {"a": 1}}, {"map": {"A": 2}}) == {"map": {"a": 1, "A": 2}}
