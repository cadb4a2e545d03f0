"""What a switch waits for until the policy acknowledges it: columns that a few values have given
another type, and tables and rows that stay on the source."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from migration_job.errors import BlockedError
from migration_job.plan.chosen import ROWS_LEFT_OUT, TABLE_LEFT_OUT, is_known_dead, said_of_left
from migration_job.plan.findings import some
from migration_job.plan.model import Finding
from migration_job.plan.policy import Policy
from migration_job.plural import counted

RETYPED = "retyped-for-few"
"""Code of the finding that says so: a warning until the policy speaks of the column."""


def unacknowledged(findings: Iterable[Finding], policy: Policy | None = None) -> list[Finding]:
    """The findings of such columns that neither the plan's own policy nor this one speaks of."""
    return [
        finding
        for finding in findings
        if finding.code == RETYPED and finding.severity == "warning" and not _known(finding, policy)
    ]


def _known(finding: Finding, policy: Policy | None) -> bool:
    if policy is None or finding.table is None or finding.column is None:
        return False
    return policy.column(finding.table, finding.column).explicit or policy.accepts(
        finding.code, finding.table, finding.column, None
    )


def require_acknowledged(findings: Sequence[Finding], policy: Policy | None = None) -> None:
    """Raises BlockedError where a column was retyped for the sake of a few values, or tables or
    rows are not carried, and no policy has said that this is known."""
    _require_dead(findings, policy)
    found = unacknowledged(findings, policy)
    if not found:
        return
    names = [f"{finding.table}.{finding.column}" for finding in found]
    raise BlockedError(
        f"{counted(len(found), 'column')} got another type for the sake of a few values: "
        f"{some(names)}",
        advice="`inspect` shows both ways out and their cost. Either set the rows aside (`action: "
        "quarantine` in the policy) and run `migrate` again, or acknowledge it in the policy "
        f"(acknowledge: [{', '.join(f'{RETYPED}:{name}' for name in names[:5])}]) and give that to "
        "`switch --policy`; in a stage, the setting `policy`",
    )


def waiting(findings: Sequence[Finding]) -> list[Finding]:
    """The findings for which the switch waits until a policy acknowledges them."""
    return [*_left(findings, None), *unacknowledged(findings)]


def waited_for(findings: Sequence[Finding]) -> list[str]:
    """The same, as ``acknowledge`` names them."""
    return [
        f"{f.code}:{f.table}.{f.column}" if f.code == RETYPED else f"{f.code}:{f.table}"
        for f in waiting(findings)
    ]


def _left(findings: Iterable[Finding], policy: Policy | None) -> list[Finding]:
    return [
        finding
        for finding in findings
        if finding.code in (TABLE_LEFT_OUT, ROWS_LEFT_OUT) and not is_known_dead(finding, policy)
    ]


def _require_dead(findings: Sequence[Finding], policy: Policy | None) -> None:
    """Raises BlockedError where something stays on SQLite that nobody has declared dead."""
    left = _left(findings, policy)
    if not left:
        return
    names = ", ".join(f"'{finding.code}:{finding.table}'" for finding in left[:5])
    raise BlockedError(
        f"the application would not have what stays on SQLite: {said_of_left(left)}",
        advice="if it needs none of that any more, acknowledge it in the policy (acknowledge: "
        f"[{names}]) and give that to `switch --policy`; in a stage, the setting `policy`. Else "
        "migrate the whole of it",
    )
