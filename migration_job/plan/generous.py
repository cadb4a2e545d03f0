"""Types that every value has and nobody has asked for, taken where the policy says ``generous``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from migration_job.plan.model import Finding, Plan
from migration_job.plan.policy import Policy
from migration_job.plan.suggest import TYPE_SUGGESTED, override, that_go_through, together

TYPE_TAKEN = "type-taken"


def generously(planned: Callable[[Policy], Plan], policy: Policy) -> Plan:
    """The plan with every suggested type that adds no error to it, each with a finding that says
    what was chosen."""
    plan = planned(policy)
    said = policy.model_dump(exclude_unset=True)
    suggested = [f for f in plan.findings if f.code == TYPE_SUGGESTED]

    def with_fields(data: dict[str, Any]) -> Plan:
        return planned(Policy.model_validate(data))

    taken = that_go_through(with_fields, plan, said, suggested)
    if not taken:
        return plan
    made = with_fields(override(said, together([f.suggest for f in taken])))
    notes = tuple(_note_of(finding, made) for finding in taken)
    order = {"error": 0, "warning": 1, "note": 2}
    findings = sorted((*made.findings, *notes), key=lambda f: order[f.severity])
    return made.model_copy(update={"findings": tuple(findings)})


def types_taken(plan: Plan) -> str:
    """What was taken, each column with its type; '' where nothing was."""
    taken = [f for f in plan.findings if f.code == TYPE_TAKEN]
    return ", ".join(f"{f.table}.{f.column} to {_type(f, plan)}" for f in taken)


def _note_of(suggested: Finding, plan: Plan) -> Finding:
    why = suggested.message.partition(":")[0]
    return suggested.model_copy(
        update={
            "code": TYPE_TAKEN,
            "message": f"{why}: carried as {_type(suggested, plan)}, as `types: generous` asks",
            "suggest": "",
        }
    )


def _type(finding: Finding, plan: Plan) -> str:
    columns = plan.table(str(finding.table)).columns
    return next(c.type for c in columns if c.source == finding.column)
