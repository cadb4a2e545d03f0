"""Where things stand, in some ten lines, and what to do next. Only reads, and needs no lock."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import apsw
import psycopg

from migration_job.connection import PostgresSide, SqliteSide, read_connection
from migration_job.errors import InputError, JobError, OperationError
from migration_job.phases import Phase
from migration_job.place import RECORDS, records_of
from migration_job.plan.chosen import absent, narrowed
from migration_job.plan.findings import some
from migration_job.plan.model import Plan
from migration_job.plural import counted
from migration_job.protocol import lease, refusals
from migration_job.protocol.ahead import left_of
from migration_job.protocol.heartbeat import STALE_SECONDS
from migration_job.protocol.in_the_way import in_the_way
from migration_job.protocol.lock import Lock
from migration_job.protocol.refusals import Accepted
from migration_job.protocol.settle import WINDOW
from migration_job.protocol.sync import Report, read_report
from migration_job.protocol.whole_command import Known
from migration_job.quoting import compose, postgres_name
from migration_job.stores.postgres import capture as target_capture
from migration_job.stores.postgres import (
    database,
    merged,
    pair_identity,
    records,
    shape,
    target_fence,
)
from migration_job.stores.sqlite import fence, whole
from migration_job.stores.sqlite.catalogue import read_catalogue
from migration_job.stores.sqlite.database import looking, looking_as_a_writer

FRESH_SECONDS = 2.0
"""A figure older than this is told with its age: `sync` reports each second."""

QUEUE_COUNTED = 100_000
"""Changes of PostgreSQL's that are counted at most."""

SHOWN = 20
"""Rows that did not come back, named one by one."""

NOT_ASKED = "not asked (no --target)"
EMPTY = "no run of this job has filled it"
LOCKED = "its records are locked by another session at this moment; ask again"

COMPLETE = ("verified", "rolled back", "caught up")
"""Phases in which the target holds what a switch needs."""

REFUSES = "`migration-job switch` would refuse: "


@dataclass(frozen=True, slots=True)
class _Holders:
    """Who has to end before anything else is done."""

    command: str | None
    """The command that has the lock."""
    lease: lease.Lease | None
    """Of the application's traffic."""


@dataclass(frozen=True, slots=True)
class Given:
    """What `status` is given for what it says of the next command."""

    known: Known | None = None
    """None where no whole command is to be named."""
    accepted: Accepted = field(default_factory=Accepted)
    """What the last switch was given."""
    user: str | None = None
    """Whom the application is to write as."""


@dataclass(frozen=True, slots=True)
class _Source:
    problem: str = ""
    """Why it cannot be read."""
    state: fence.SourceState | None = None
    last: int = 0
    unfit: InputError | None = None
    """The same where the file is none that could be a source."""
    gaps: str = ""
    """What is not as it was of the capture, or of the schema beside it."""


@dataclass(frozen=True, slots=True)
class _Target:
    problem: str = ""
    phase: str = ""
    applied: int | None = None
    closed: bool | None = None
    queued: int = 0
    certificate: str = ""
    identity: pair_identity.Identity | None = None
    """By what it knows the source."""
    differences: int = 0
    """Rows that did not come back as they are there."""
    shown: tuple[str, ...] = ()
    """The first of them, in words."""
    records: str = RECORDS
    """The schema of the run's records there."""
    one_way: tuple[tuple[str, str], ...] = ()
    """Tables that do not come back since the schema was changed there, and why."""
    hindered: tuple[str, ...] = ()
    """What is in the way of a rollback, in words."""
    refusal: refusals.Refusal | None = None
    """Why a switch would not begin, as far as looking tells."""
    own_rows: int = 0
    """Rows that it alone has, which the switch first tries on SQLite."""

    @property
    def down(self) -> bool:
        """Whether it was asked and did not answer as it should."""
        return self.problem not in ("", NOT_ASKED, EMPTY, LOCKED)


@dataclass(frozen=True, slots=True)
class Standing:
    """Where things stand."""

    lines: list[str]
    unfit: InputError | None = None
    """What is wrong with the source, where nothing says that PostgreSQL serves: then this is no
    answer."""


def status(
    source: Path,
    *,
    dsn: str | None,
    connection: Path | None,
    state: Path | None,
    given: Given | None = None,
) -> list[str]:
    """The lines of :func:`standing`."""
    return standing(source, dsn=dsn, connection=connection, state=state, given=given).lines


def standing(
    source: Path,
    *,
    dsn: str | None,
    connection: Path | None,
    state: Path | None,
    given: Given | None = None,
) -> Standing:
    """What cannot be asked is said, not raised. With what is ``given``, the commands to be run next
    follow whole."""
    here = _look_at_source(source)
    given = given or Given()
    there = _look_at_target(dsn, source, here, given)
    folder = state or (connection / ".state" if connection is not None else None)
    report = read_report(folder) if folder is not None and folder.exists() else None
    holder = Lock(folder).holder() if folder is not None and folder.exists() else None
    certificate = NOT_ASKED if there.problem == NOT_ASKED else there.certificate[:16] or "none"
    following = _next(here, there, report, _Holders(holder, _lease(folder)), given.accepted)
    lines = [
        _serves(here, there),
        f"source      {source}: {_source_line(here, there)}",
        f"target      {'' if dsn is None else database.describe(dsn) + ': '}{_target_line(there)}",
        f"certificate {certificate}",
        f"connection  {_connection_line(connection)}",
        f"sync        {_sync_line(report, here, there)}",
        f"held        {_held_line(folder, report)}",
        f"at work     {holder or 'no command'}",
        f"way back    {_way_back(here, there)}",
        *_one_way(here, there),
        *_differences(here, there),
        *_next_lines(following, there, given),
    ]
    gone_over = there.closed is False or there.phase in (Phase.SWITCHED, Phase.SETTLED)
    return Standing(lines, None if gone_over or _leads_away(connection) else here.unfit)


def _leads_away(directory: Path | None) -> bool:
    """Whether the application is told to write to PostgreSQL."""
    try:
        found = None if directory is None else read_connection(directory)
    except JobError:
        return False
    return found is not None and isinstance(found.write, PostgresSide)


def _next_lines(what: str, there: _Target, given: Given) -> list[str]:
    """What to do next; below it what settles a refusal, and the commands that it names, whole."""
    first, *rest = what.splitlines()
    lines = [f"next        {first}", *(f"            {line}" for line in rest)]
    refusal = there.refusal if what.startswith(REFUSES) else None
    if given.known is not None:
        options = refusal.options if refusal is not None else ""
        lines += [f"            {line}" for line in given.known.commands(first, options)]
    return lines


def _look_at_source(source: Path) -> _Source:
    try:
        with looking(source) as connection:
            state = fence.read_state(connection)
            if state is None:
                return _Source()
            gaps = [*whole.application_changes(connection), *whole.own_gaps(connection)]
            found = whole.shown(gaps) or state.doubt or ""
            return _Source(state=state, last=fence.last_position(connection), gaps=found)
    except JobError as error:
        unfit = error if isinstance(error, InputError) else None
        return _Source(problem=error.message, unfit=unfit)
    except apsw.Error as error:
        return _Source(problem=f"{source} cannot be read: {error}")


def _look_at_target(dsn: str | None, source: Path, here: _Source, given: Given) -> _Target:
    if dsn is None:
        return _Target(problem=NOT_ASKED)
    try:
        target = database.connect(dsn, purpose="migration-job status")
    except JobError as error:
        return _Target(problem=error.message)
    try:
        database.limit_waiting(target)
        run = records.read_run(target)
        if run is None:
            return _Target(problem=EMPTY)
        fenced = target_capture.installed(target)
        certificate = target.execute(
            "SELECT digest FROM migration.certificate ORDER BY issued_at DESC LIMIT 1"
        ).fetchone()
        different, shown = _back_differences(target) if fenced else (0, ())
        looked = _Target(
            differences=different,
            shown=shown,
            one_way=tuple(shape.read_causes(target).items()),
            hindered=in_the_way(target, run.plan, different) if fenced else (),
            phase=run.phase,
            applied=records.applied(target),
            closed=target_fence.is_closed(target) if fenced else None,
            queued=_queued(target) if fenced else 0,
            certificate="" if certificate is None else str(certificate[0]),
            identity=pair_identity.read_identity(target),
            records=records_of(target),
        )
        if here.problem or (here.state is not None and here.state.closed):
            return looked
        if run.phase not in COMPLETE or _is_another(here, looked):
            return looked
        return replace(
            looked,
            own_rows=sum(merged.counts(target, run.plan).values()),
            refusal=_refusal(target, run.plan, source, here, given),
        )
    except psycopg.errors.LockNotAvailable:
        return _Target(problem=LOCKED)
    except psycopg.Error as error:
        return _Target(problem=f"failed while it was asked: {type(error).__name__}")
    finally:
        target.close()


def _queued(target: psycopg.Connection) -> int:
    query = "SELECT count(*) FROM (SELECT 1 FROM migration.reverse_log LIMIT %s) AS q"
    row = target.execute(query, [QUEUE_COUNTED]).fetchone()
    return 0 if row is None else int(row[0])


def _refusal(
    target: psycopg.Connection, plan: Plan, source: Path, here: _Source, given: Given
) -> refusals.Refusal | None:
    """Why a switch would not begin; None too where the source does not answer as it did."""
    try:
        with looking_as_a_writer(source) as connection:
            catalogue = read_catalogue(connection)
            if gone := absent(catalogue, plan):
                return refusals.Refusal(
                    OperationError(
                        f"expected the copied tables on the source, found no {some(gone)}",
                        advice="run `migration-job migrate` again",
                    )
                )
            both = refusals.Seen(connection, target, plan, narrowed(catalogue, plan))
            live = here.state is not None
            return refusals.found(both, given.accepted, user=given.user, live=live)
    except JobError as error:
        return refusals.Refusal(error)
    except apsw.Error:
        return None


def _back_differences(target: psycopg.Connection) -> tuple[int, tuple[str, ...]]:
    rows = target.execute(
        "SELECT message, count(*) OVER () FROM migration.back_difference "
        "ORDER BY tab, key LIMIT %s",
        (SHOWN,),
    ).fetchall()
    return (int(rows[0][1]) if rows else 0), tuple(str(row[0]) for row in rows)


def _one_way(here: _Source, there: _Target) -> list[str]:
    """The tables that a rollback would refuse for, and what to do."""
    if not there.one_way or here.state is None or not here.state.closed:
        return []
    lines = [f"            changes to table {n} do not come back: {c}" for n, c in there.one_way]
    lines.append(
        "            undo that on PostgreSQL, and all rows of the table come back again; "
        "`rollback --one-way TABLE` gives its changes up"
    )
    return lines


def _all_differences(records: str) -> str:
    """What an operator asks the target for the rest of them."""
    return compose("SELECT * FROM {records}.back_difference", records=postgres_name(records))


def _differences(here: _Source, there: _Target) -> list[str]:
    """The rows that a rollback would refuse for, and what resolves each."""
    if not there.differences or here.state is None or not here.state.closed:
        return []
    lines = [f"            {message}" for message in there.shown]
    if there.differences > len(there.shown):
        lines.append(
            f"            and {there.differences - len(there.shown):,} more: "
            f"{_all_differences(there.records)}"
        )
    lines.append(
        "            each is resolved by writing the row on PostgreSQL so that SQLite can hold it "
        "as it is, or by deleting it there; `rollback --accept-loss` gives them up"
    )
    return lines


def _is_another(here: _Source, there: _Target) -> bool:
    """Whether the file is not the one that the target knows."""
    known = there.identity
    if known is None:
        return False
    if here.state is None:
        return there.closed is False
    return here.state.capture == known.capture and here.state.token not in (
        known.token,
        known.next_token,
    )


def _serves(here: _Source, there: _Target) -> str:
    if there.closed is False and (here.problem or _is_another(here, there)):
        what = "cannot be read" if here.problem else "is not the one that was switched"
        return f"serves      PostgreSQL, by its open fence; the source {what}"
    if here.problem:
        return "serves      unknown: the source cannot be read"
    if here.state is None or not here.state.closed:
        reads = " (PostgreSQL answers reads)" if here.state and here.state.reads_moved else ""
        return f"serves      SQLite{reads}"
    return f"serves      PostgreSQL, since {here.state.switched_at}"


def _source_line(here: _Source, there: _Target) -> str:
    if here.problem:
        return here.problem
    if _is_another(here, there):
        return "NOT the file that the target follows: restored, replaced or put back"
    if here.gaps:
        return f"NOT WHOLE: {here.gaps}"
    if here.state is None:
        return "no capture on it; its changes are not followed"
    if here.state.settled:
        return "settled: archived and read-only"
    if here.state.closed:
        return "refuses writes, answers reads"
    return f"takes writes; its log is at {here.last}"


def _target_line(there: _Target) -> str:
    if there.problem:
        return there.problem
    parts = [f"phase {there.phase!r}"]
    if there.applied is not None:
        parts.append(f"holds the source's log up to {there.applied}")
    if there.closed is not None:
        parts.append("refuses writes" if there.closed else "takes writes")
    return ", ".join(parts)


def _connection_line(directory: Path | None) -> str:
    if directory is None:
        return "not asked (no --connection)"
    try:
        found = read_connection(directory)
    except JobError as error:
        return error.message
    if found is None:
        return f"{directory}: nothing there yet"
    return (
        f"{directory}: writes to {_side(found.write)}, reads from {_side(found.read)} "
        f"(generation {found.generation})"
    )


def _side(side: SqliteSide | PostgresSide) -> str:
    if isinstance(side, SqliteSide):
        return f"SQLite {side.path}"
    return f"PostgreSQL {side.host}:{side.port}/{side.database}"


def _age(at: str) -> float:
    """How long ago that was, in seconds; for ever where it never was."""
    if not at:
        return math.inf
    return (datetime.now(UTC) - datetime.fromisoformat(at)).total_seconds()


def _sync_line(report: Report | None, here: _Source, there: _Target) -> str:
    if report is None:
        return "has not run"
    if here.state is not None and here.state.settled:
        return "has ended: there is nothing left to follow"
    age = _age(report.at)
    if age > STALE_SECONDS:
        return f"does not run: last heartbeat {age:.0f} s ago; how far it is is unknown since then"
    problem = f"; waiting: {report.problem}" if report.problem else ""
    return f"runs ({report.direction}): {_behind(report, here, there)}{problem}"


def _behind(report: Report, here: _Source, there: _Target) -> str:
    """How far the other side is: counted now where both sides were asked, else as `sync` counted,
    with the time of that."""
    if not report.followed:
        return "how far the other side is was not counted yet"
    age = _age(report.measured_at)
    counted = _count(report.followed, here, there)
    if counted is None:
        ago = f", counted {age:.0f} s ago" if age > FRESH_SECONDS else ""
        return f"{_changes(report.behind)} behind, oldest {report.lag_seconds:.1f} s{ago}"
    if counted == 0:
        return "0 changes behind"
    return f"{_changes(counted)} behind, oldest at most {report.lag_seconds + age:.1f} s"


def _count(followed: str, here: _Source, there: _Target) -> int | None:
    """The changes that the other side lacks at this moment; None where a side was not asked."""
    if there.problem:
        return None
    if followed == "back":
        return there.queued
    if here.problem or here.state is None or there.applied is None:
        return None
    return max(0, here.last - there.applied)


def _changes(count: int) -> str:
    if count >= QUEUE_COUNTED:
        return f"{QUEUE_COUNTED:,} changes or more"
    return counted(count, "change")


def _held_line(folder: Path | None, report: Report | None) -> str:
    if folder is None:
        return "not asked (no --connection or --state)"
    try:
        held = lease.read_lease(folder)
    except JobError as error:
        return error.message
    if held is not None:
        over = ", which is over: `sync` ends it" if held.over else ""
        return f"by {held}{over}; `migration-job resume` ends it"
    # What `sync` last said of a lease is older than the lease's own file, which is gone here.
    fresh = report is not None and _age(report.at) <= STALE_SECONDS
    if report is not None and fresh and not lease.speaks_of_lease(report.held):
        return report.held or "no"
    return "no"


def _way_back(here: _Source, there: _Target) -> str:
    state = here.state
    if here.problem:
        return "unknown: the source cannot be read"
    if state is None or not state.closed:
        return "not needed: SQLite serves"
    if state.settled:
        return "given up by settle"
    current = f"the file is current up to {state.back_at or state.switched_at}"
    current = "; else ".join([*there.hindered, current])
    ends = ""
    if state.switched_at:
        until = datetime.fromisoformat(state.switched_at) + WINDOW
        ends = f"; the window ends {until.isoformat(timespec='minutes')}"
    to_come = f", {_changes(there.queued)} to come" if not there.problem else ""
    return f"{current}{to_come}{ends}"


def _lease(folder: Path | None) -> lease.Lease | None:
    if folder is None:
        return None
    try:
        return lease.read_lease(folder)
    except JobError:
        return None


def _next(
    here: _Source, there: _Target, report: Report | None, holders: _Holders, accepted: Accepted
) -> str:
    state = here.state
    running = report is not None and _age(report.at) <= STALE_SECONDS
    first = _first_of_all(here, there, holders)
    if first:
        return first
    if state is not None and state.settled:
        return "nothing: the migration is over"
    if state is not None and state.closed:
        return _next_switched(state, there, running)
    if there.down:
        return "bring the target back; SQLite serves meanwhile"
    if there.problem == EMPTY:
        return _to_fill(state)
    if state is not None and not running:
        return "start `migration-job sync`: the source is not followed"
    if running and report is not None and report.problem:
        return "fix what `sync` waits for (above): `switch` would refuse for it"
    return _next_followed(here, there, report if running else None, accepted)


def _to_fill(state: fence.SourceState | None) -> str:
    if state is not None:
        return "`migration-job migrate --live`"
    return "`migration-job migrate`, or `migrate --live` while the application goes on writing"


def _first_of_all(here: _Source, there: _Target, holders: _Holders) -> str:
    """What comes before anything else, whichever side serves; '' where nothing does."""
    if holders.command is not None:
        return f"wait for {holders.command}"
    if holders.lease is not None:
        return f"wait for the end of the hold by {holders.lease}, or `migration-job resume`"
    if here.problem:
        return "make the source readable, then ask again"
    if _is_another(here, there):
        return "put the right file back; or `migration-job release` and `migrate --live` again"
    if here.gaps and not (here.state and here.state.closed):
        return "`migration-job release`, then `migrate --live`: changes may be missing"
    return ""


def _next_followed(here: _Source, there: _Target, report: Report | None, accepted: Accepted) -> str:
    """While SQLite serves, nobody holds anything and nothing is known to be amiss."""
    ahead = report and left_of(report.ahead, accepted.policy, accepted.one_way)
    if there.problem and ahead:
        what = f"refuses unless this is accepted: {ahead.message}\n{ahead.advice}"
        return f"`migration-job switch` {what}"
    if there.problem and report is not None:
        return "`migration-job switch`: it verifies the remaining changes first"
    if there.problem:
        return "ask again with --target-file, to see how far the target is"
    if there.phase not in COMPLETE:
        how = "migrate" if here.state is None else "migrate --live"
        return f"`migration-job {how}` as before; it continues where it stopped"
    if there.refusal is not None:
        return f"{REFUSES}{there.refusal.error}"
    if there.own_rows:
        rows = counted(there.own_rows, "row")
        return f"`migration-job switch`: it tries on SQLite the {rows} that the target alone has"
    if here.state is None:
        return "`migration-job switch`: it verifies first that nothing was written since the copy"
    return "`migration-job switch`, or `rollback --release` to give it up"


def _next_switched(state: fence.SourceState, there: _Target, running: bool) -> str:
    if there.down:
        return "bring PostgreSQL back; if it is gone for good, `rollback --accept-loss`"
    if there.closed:
        return (
            "the decision is taken and not carried out yet: `sync` does it within seconds"
            if running
            else "run `migration-job switch` again: it finishes what was begun"
        )
    if not running:
        return "start `migration-job sync`: SQLite does not follow, so going back takes longer"
    if there.differences:
        return "resolve the rows that do not come back (above), while the way back is needed"
    if there.one_way:
        return "undo the changes of the schema (above) while the way back is needed, or accept them"
    if there.hindered:
        return "clear what is in the way of going back (above), while it is needed"
    over = state.switched_at is not None and datetime.now(UTC) - datetime.fromisoformat(
        state.switched_at
    ) > timedelta(seconds=WINDOW.total_seconds())
    return "`migration-job settle`" if over else "nothing; `migration-job rollback` goes back"
