"""What a verified migration did not carry as the source's schema says it: the exceptions that stand
beside "verified", in few words.

Verification proves that the values are the same. It does not say that a column kept its type, that
a constraint came along, or that every row did: each of these can be the consequence of one value.
"""

from __future__ import annotations

from migration_job.plan.chosen import ROWS_LEFT_OUT, TABLE_LEFT_OUT, TABLE_SKIPPED
from migration_job.plan.model import Plan
from migration_job.plural import counted

NAMED = 3
"""Columns that are named; the findings have them all."""

CONSTRAINTS = {
    "check-not-carried": "CHECK",
    "foreign-key-not-carried": "foreign key",
}
"""Findings of constraints that the target lacks, and what such a one is called."""


def exceptions(plan: Plan, set_aside: int) -> list[str]:
    """The exceptions, each as a clause such as ``2 columns changed type``; empty where there are
    none. ``set_aside`` is the number of rows in quarantine."""
    retyped = [
        f"{table.source}.{column.source}"
        for table in plan.tables
        for column in table.columns
        if column.reason.startswith("widened from ")
    ]
    found = []
    if retyped:
        names = ", ".join(retyped[:NAMED]) + (" and others" if len(retyped) > NAMED else "")
        found.append(f"{counted(len(retyped), 'column')} changed type ({names})")
    for code, name in CONSTRAINTS.items():
        lost = sum(finding.code == code for finding in plan.findings)
        if lost:
            found.append(f"{counted(lost, name)} lost")
    tables = sum(finding.code in (TABLE_LEFT_OUT, TABLE_SKIPPED) for finding in plan.findings)
    if tables:
        found.append(f"{counted(tables, 'table')} left out")
    rows = sum(finding.count for finding in plan.findings if finding.code == ROWS_LEFT_OUT)
    if rows:
        found.append(f"{counted(rows, 'row')} left out")
    if set_aside:
        found.append(f"{counted(set_aside, 'row')} set aside")
    return found


def with_exceptions(found: list[str]) -> str:
    """The exceptions as the end of a sentence that says verified; '' where there are none."""
    return f", with exceptions: {', '.join(found)}" if found else ""
