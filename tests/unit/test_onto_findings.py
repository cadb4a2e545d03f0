"""What resolves a finding where the target's tables are there already."""

from __future__ import annotations

import pytest

from migration_job.plan.findings import policy_for_column, policy_for_table
from migration_job.plan.onto_assignments import OntoFindings
from migration_job.plan.policy import Policy

ASIDE = policy_for_column("t", "c", action="quarantine")


def resolved(code: str, resolution: str, table: str = "t", column: str | None = "c") -> str:
    findings = OntoFindings(Policy(), "block")
    findings.add(code, "error", "what is wrong", table=table, column=column, resolution=resolution)
    return findings.all[0].resolution


@pytest.mark.parametrize(
    "resolution",
    [policy_for_column("t", "c", action="widen"), policy_for_column("t", "c", type="numeric")],
)
def test_no_column_gets_another_type(resolution: str) -> None:
    assert resolved("text-in-integer", resolution) == ASIDE


def test_orphans_are_set_aside() -> None:
    kept = policy_for_table("t", orphans="keep")
    assert resolved("orphans", kept, column=None) == policy_for_table("t", orphans="quarantine")


@pytest.mark.parametrize(
    "resolution",
    [
        policy_for_table("keepers", skip=True),
        policy_for_column("widened", "type:", skip=True),
        policy_for_column("t", "type", map={"widen": "keep"}),
        policy_for_table("t", rows="keep"),
    ],
)
def test_names_and_values_are_no_fields(resolution: str) -> None:
    assert resolved("no-target-table", resolution) == resolution
