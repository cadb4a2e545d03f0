"""Columns that have another type than they were declared with, for the sake of a few values.

The plan goes through with them, and nothing is lost. But the application gets texts where it had
numbers, or does without a CHECK: so a switch waits until somebody has read it. Both ways out are
told with what they cost: the wider type, and the few rows set aside.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from migration_job.plan.assignment import WIDENED, Assignment
from migration_job.plan.column_reports import count_rows, count_values
from migration_job.plan.facts import Rows
from migration_job.plan.findings import policy_to_acknowledge
from migration_job.plan.model import TablePlan
from migration_job.plan.planner.column_assignments import Assignments
from migration_job.plan.planner.context import Planning
from migration_job.plan.planner.side_by_side import Seen
from migration_job.plan.relations import Place
from migration_job.plan.retyped import RETYPED
from migration_job.plural import counted, either

MOST_FOLLOWED = 1_000
"""Rows whose dependents are counted."""


def report_retyped(
    planning: Planning, seen: Seen, assignments: Assignments, tables: Sequence[TablePlan]
) -> None:
    """A finding for each such column: a warning, or a note where the policy speaks of it."""
    plans = {plan.source: plan for plan in tables}
    for place, assignment in assignments.items():
        rows = assignment.retyped
        if rows is None:
            continue
        own = planning.policy.column(*place)
        values = seen.of(place).values
        narrow = assignment.reason.removeprefix(WIDENED)
        planning.findings.add(
            RETYPED,
            "note" if own.explicit else "warning",
            f"{count_values(rows.count)} of {values:,} {_verb(rows)} it {assignment.type} instead "
            f"of {narrow}. As it is: {_kept(planning, place, assignment, plans[place[0]])}. "
            f"With `action: quarantine`: {_aside(planning, place, rows)}, and it stays {narrow}. "
            "A switch waits until the policy chooses",
            table=place[0],
            column=place[1],
            count=rows.count,
            suggest="" if own.explicit else policy_to_acknowledge(RETYPED, ".".join(place)),
        )


def _verb(rows: Rows) -> str:
    return "makes" if rows.count == 1 else "make"


def _kept(planning: Planning, place: Place, assignment: Assignment, plan: TablePlan) -> str:
    """What the wider type costs."""
    table, column = place
    changed = planning.assigner.staying(
        planning.catalogue.table(table), column, assignment, planning.quarantine.of(table)
    )
    ledger = [f"{count_values(changed)} in the ledger"] if changed else []
    return ", ".join([*ledger, *_lost(plan, column)]) or "every value is carried bit for bit"


def _lost(plan: TablePlan, column: str) -> Iterator[str]:
    name = re.compile(rf"(?<!\w){re.escape(column)}(?!\w)", re.IGNORECASE)
    lost = sum(bool(name.search(check)) for check in plan.source_checks)
    if lost:
        yield f"{counted(lost, 'CHECK')} of it lost"


def _aside(planning: Planning, place: Place, rows: Rows) -> str:
    """What setting the rows aside costs."""
    if rows.count > len(rows.ids):
        return f"{count_rows(rows.count)} to set aside, which is more than can be"
    if rows.count > MOST_FOLLOWED:
        return f"{count_rows(rows.count)} set aside, with all that refer to them"
    own, others = planning.quarantine.further(place[0], rows.ids, planning.relations)
    referring = f", {others:,} of them for what {either(others, 'it refers', 'they refer')} to"
    return f"{count_rows(own + others)} more set aside{referring if others else ''}"
