"""Where each file of a fleet stands: what the book, the file itself and `fleet-sync` say of it.
Only reads, and needs no lock."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import apsw

from migration_job.errors import JobError
from migration_job.fleet.following import HEARTBEAT
from migration_job.fleet.manifest import Live
from migration_job.fleet.places import state_of
from migration_job.phases import Phase
from migration_job.plural import counted
from migration_job.protocol import heartbeat, lease
from migration_job.protocol.sync import read_report
from migration_job.stores.postgres.fleet_ledger import FileRow
from migration_job.stores.sqlite import fence
from migration_job.stores.sqlite.database import looking

CUT = 60
"""Characters of a problem in the table; `--json` has all."""


@dataclass(slots=True)
class Standing:
    """One file."""

    path: str
    place: str
    state: str
    """The book's (``planned``, ``moving``, ``failed``, ``stopped``, ``verified``) where no capture
    is on the file; else ``caught up``, ``switched`` or ``settled``."""
    serves: str = "SQLite"
    """``PostgreSQL`` after the switch; ``unknown`` where the file cannot be read."""
    behind: int | None = None
    """Changes that the other side did not have when they were last counted; None: not counted."""
    switched_at: str = ""
    held: str = ""
    """By whom, why and until when its traffic is held."""
    problem: str = ""


def standings(
    rows: dict[str, FileRow], live: Live, folder: Path, tenants: Collection[str] | None = None
) -> dict[str, Standing]:
    """By tenant; ``folder`` is the manifest's. ``tenants`` are patterns of those that are asked
    for; None: all."""
    return {
        tenant: _standing(row, state_of(live, folder, tenant))
        for tenant, row in rows.items()
        if not tenants or any(fnmatchcase(tenant, pattern) for pattern in tenants)
    }


def matching(tenants: Collection[str], pattern: str) -> set[str]:
    """The tenant of that name; else those that the pattern matches."""
    return {pattern} if pattern in tenants else {t for t in tenants if fnmatchcase(t, pattern)}


def _standing(row: FileRow, state: Path) -> Standing:
    found = Standing(row.path, row.place, row.state)
    if row.state in ("failed", "stopped"):
        found.problem = (row.message or row.state).splitlines()[0]
    try:
        with looking(row.path) as source:
            capture = fence.read_state(source)
            last = fence.last_position(source) if capture is not None else 0
    except (JobError, apsw.Error, OSError) as error:
        found.serves = "unknown"
        found.problem = error.message if isinstance(error, JobError) else str(error)
        return found
    if capture is not None:
        _add_capture(found, capture)
        if not capture.settled:
            _add_following(found, state, last)
    return found


def _add_capture(found: Standing, capture: fence.SourceState) -> None:
    """What the file says of itself."""
    found.state = Phase.SWITCHED if capture.closed else Phase.CAUGHT_UP
    if capture.settled:
        found.state = Phase.SETTLED
    if capture.closed:
        found.serves, found.switched_at = "PostgreSQL", capture.switched_at or ""


def _add_following(found: Standing, state: Path, last: int) -> None:
    """What `fleet-sync` says of it, and who holds its traffic; ``last`` is the log's position."""
    report = read_report(state) if state.exists() else None
    back = found.serves == "PostgreSQL"
    if report is not None:
        found.problem = found.problem or report.problem
        if report.followed == ("back" if back else "forward"):
            found.behind = report.behind if back else max(0, last - report.position)
    try:
        held = lease.read_lease(state)
    except JobError as error:
        found.problem = found.problem or error.message
    else:
        found.held = "" if held is None else str(held)


def follower_line(report: Path) -> str:
    """What `fleet-sync` last said of itself, in words."""
    told = _told(report)
    if told is None:
        return "fleet-sync  has not run"
    age = heartbeat.age(str(told["at"]))
    if age > heartbeat.STALE_SECONDS:
        return f"fleet-sync  does not run: last heartbeat {age:.0f} s ago"
    down = f"; waiting: {told['problem']}" if told["problem"] else ""
    problems = int(told["problems"])
    bad = f", {counted(problems, 'file')} with a problem" if problems else ""
    return (
        f"fleet-sync  runs: {counted(int(told['files']), 'file')}, {told['sqlite']:,} served by "
        f"SQLite, {told['postgresql']:,} by PostgreSQL, {told['settled']:,} settled{bad}; "
        f"{told['due']:,} due{down}"
    )


def as_data(found: dict[str, Standing], report: Path) -> dict[str, Any]:
    """The same for programs."""
    return {
        "sync": _told(report),
        "tenants": {tenant: asdict(standing) for tenant, standing in found.items()},
    }


def table(found: dict[str, Standing]) -> list[str]:
    """A line a file, under a line of names; what is of most concern is last."""
    rows: list[Sequence[str]] = [("tenant", "state", "serves", "behind", "held or waiting for")]
    for tenant, one in sorted(found.items(), key=lambda item: (bool(item[1].problem), item[0])):
        words = one.problem or (one.held and f"held by {one.held}")
        behind = "-" if one.behind is None else f"{one.behind:,}"
        cut = words if len(words) <= CUT else f"{words[: CUT - 3]}..."
        rows.append((tenant, one.state, one.serves, behind, cut))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return ["  ".join([*map(str.ljust, row[:4], widths), row[4]]).rstrip() for row in rows]


def summary(found: dict[str, Standing]) -> str:
    """How many files are in each state, in words."""
    counts: dict[str, int] = {}
    for one in found.values():
        counts[one.state] = counts.get(one.state, 0) + 1
    parts = [f"{count:,} {state}" for state, count in sorted(counts.items())]
    return f"{counted(len(found), 'file')}: {', '.join(parts)}" if parts else "no file"


def _told(report: Path) -> dict[str, Any] | None:
    try:
        told: dict[str, Any] = json.loads((report / HEARTBEAT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return told
