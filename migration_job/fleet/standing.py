"""Where each file of a fleet stands: what the book, the file itself and `fleet-sync` say of it; and
the target, where the file says nothing any more. Only reads, and needs no lock."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import apsw
import psycopg

from migration_job.errors import JobError
from migration_job.fleet.following import HEARTBEAT
from migration_job.fleet.manifest import Layout, Live
from migration_job.fleet.places import dsn_of, state_of
from migration_job.phases import Phase
from migration_job.plural import counted, either
from migration_job.protocol import heartbeat, lease
from migration_job.protocol.sync import Report, read_report
from migration_job.stores.postgres import capture, database, target_fence
from migration_job.stores.postgres.fleet_ledger import FileRow
from migration_job.stores.sqlite import fence
from migration_job.stores.sqlite.database import looking

Asked = Callable[[FileRow], bool | None]
"""Whether PostgreSQL serves a file's application, by the target's own records; None: not known."""

PURPOSE = "migration-job fleet"

NO_CAPTURE = "no change capture is on the file: writes to it are not followed"

NOT_SWITCHED = "the file is not the one that was switched: no change capture is on it"

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
    """``PostgreSQL`` after the switch; ``unknown`` where neither the file nor the target says
    it."""
    behind: int | None = None
    """Changes that the other side did not have when they were last counted; None: not counted."""
    switched_at: str = ""
    held: str = ""
    """By whom, why and until when its traffic is held."""
    problem: str = ""


def chosen(rows: dict[str, FileRow], tenants: Collection[str] | None) -> dict[str, FileRow]:
    """Those that are asked for by names or patterns; all where none are given."""
    if not tenants:
        return rows
    named = {tenant for pattern in tenants for tenant in matching(rows, pattern)}
    return {tenant: row for tenant, row in rows.items() if tenant in named}


def standings(
    rows: dict[str, FileRow], live: Live, folder: Path, asked: Asked
) -> dict[str, Standing]:
    """By tenant; ``folder`` is the manifest's."""
    return {
        tenant: _standing(row, state_of(live, folder, tenant), asked)
        for tenant, row in rows.items()
    }


def asking(server: str, layout: Layout) -> Asked:
    """Asks the target; ``server`` is the connection string of the book's database."""

    def ask(row: FileRow) -> bool | None:
        try:
            place = dsn_of(server, layout, row.place)
            with contextlib.closing(database.connect(place, purpose=PURPOSE)) as target:
                return capture.installed(target) and not target_fence.is_closed(target)
        except (JobError, psycopg.Error):
            return None

    return ask


def matching(tenants: Collection[str], pattern: str) -> set[str]:
    """The tenant of that name; else those that the pattern matches."""
    return {pattern} if pattern in tenants else {t for t in tenants if fnmatchcase(t, pattern)}


def _standing(row: FileRow, state: Path, asked: Asked) -> Standing:
    found = Standing(row.path, row.place, row.state)
    if row.state in ("failed", "stopped"):
        found.problem = (row.message or row.state).splitlines()[0]
    try:
        with looking(row.path) as source:
            said = fence.read_state(source)
            last = fence.last_position(source) if said is not None else 0
    except (JobError, apsw.Error, OSError) as error:
        found.serves = "unknown"
        found.problem = error.message if isinstance(error, JobError) else str(error)
        said = None
    if said is not None:
        _add_capture(found, said)
        if not said.settled:
            _add_following(found, state, last)
    elif row.certificate is not None and state.exists():  # it was followed once
        _ask_target(found, asked(row))
    return found


def _ask_target(found: Standing, serves: bool | None) -> None:
    """Which side serves where the file is not there, or not the one that was followed."""
    if serves is None:
        found.serves = "unknown"
    elif serves:
        found.serves, found.state = "PostgreSQL", Phase.SWITCHED
        found.problem = found.problem or NOT_SWITCHED
    else:  # a file that cannot be read serves nobody
        found.problem = found.problem or NO_CAPTURE


def _add_capture(found: Standing, said: fence.SourceState) -> None:
    """What the file says of itself."""
    found.state = Phase.SWITCHED if said.closed else Phase.CAUGHT_UP
    if said.settled:
        found.state = Phase.SETTLED
    if said.closed:
        found.serves, found.switched_at = "PostgreSQL", said.switched_at or ""


def _add_following(found: Standing, state: Path, last: int) -> None:
    """What `fleet-sync` says of it, and who holds its traffic; ``last`` is the log's position."""
    report = read_report(state) if state.exists() else None
    back = found.serves == "PostgreSQL"
    if report is not None:
        found.problem = found.problem or report.problem or (_no_way_back(report) if back else "")
        if back and report.followed == "back" and _is_counted(state):
            found.behind = report.behind
        elif not back and report.followed == "forward":
            found.behind = max(0, last - report.position)
    try:
        held = lease.read_lease(state)
    except JobError as error:
        found.problem = found.problem or error.message
    else:
        found.held = "" if held is None else str(held)


def _no_way_back(report: Report) -> str:
    """Why a rollback would refuse, by what was last counted; '' where it would not."""
    if report.one_way:
        return f"a rollback would refuse: {report.one_way[0]}"
    count = report.differences
    if not count:
        return ""
    how = either(count, "does not come back as it is", "do not come back as they are")
    return f"a rollback would refuse: {counted(count, 'row')} {how}"


def _is_counted(state: Path) -> bool:
    """Whether `fleet-sync` lives, which counts what is to come back: else it may be any number."""
    beaten = heartbeat.followers_beat(state)
    return beaten is not None and heartbeat.age(beaten[1]) < heartbeat.STALE_SECONDS


def follower_line(report: Path) -> str:
    """What `fleet-sync` last said of itself, in words."""
    told = _told(report)
    if told is None:
        return "fleet-sync  has not run"
    age = heartbeat.age(str(told["at"]))
    if told["ended"]:
        return f"fleet-sync  does not run: it ended {age:.0f} s ago"
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
