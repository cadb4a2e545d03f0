"""What settles a finding where the target's tables are there already."""

from __future__ import annotations

import pytest

from migration_job.plan.findings import settle_column, settle_table
from migration_job.plan.onto_decisions import OntoFindings
from migration_job.plan.policy import Policy

ASIDE = settle_column("t", "c", action="quarantine")


def settled(code: str, settle: str, table: str = "t", column: str | None = "c") -> str:
    findings = OntoFindings(Policy(), "block")
    findings.add(code, "error", "what is wrong", table=table, column=column, settle=settle)
    return findings.all[0].settle


@pytest.mark.parametrize(
    "settle",
    [settle_column("t", "c", action="widen"), settle_column("t", "c", type="numeric")],
)
def test_no_column_gets_another_type(settle: str) -> None:
    assert settled("text-in-integer", settle) == ASIDE


def test_orphans_are_set_aside() -> None:
    kept = settle_table("t", orphans="keep")
    assert settled("orphans", kept, column=None) == settle_table("t", orphans="quarantine")


@pytest.mark.parametrize(
    "settle",
    [
        settle_table("keepers", skip=True),
        settle_column("widened", "type:", skip=True),
        settle_column("t", "type", map={"widen": "keep"}),
        settle_table("t", rows="keep"),
    ],
)
def test_names_and_values_are_no_fields(settle: str) -> None:
    assert settled("no-target-table", settle) == settle
