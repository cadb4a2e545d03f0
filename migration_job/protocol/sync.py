"""``sync``: keeps the side that does not serve current, and finishes what others have begun.

It holds the lock round by round. Before each, it makes everything agree with the decision, so a
switch or a rollback whose process has died is completed or undone as soon as the kernel has
released the lock. It outlives restarts of both databases and of PgBouncer, and of itself: all it
knows stands in the two databases.

``STATE/sync.json`` says, once a second, what it does: see :class:`Report`.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import apsw

from migration_job.connection import write_connection
from migration_job.durable import write_durably
from migration_job.errors import JobError, OperationError
from migration_job.phases import Phase
from migration_job.plural import counted, either
from migration_job.protocol import gate_protocol, heartbeat, lease, refusals
from migration_job.protocol.catchup import catch_up, trim_log
from migration_job.protocol.content import prove_content
from migration_job.protocol.decision import truthful
from migration_job.protocol.evolve import one_way_tables
from migration_job.protocol.follow import BothOpen, follow_decision
from migration_job.protocol.lock import AtWork, Lock
from migration_job.protocol.mend import mend, prove_back
from migration_job.protocol.reverse_sync import bring_back, count_differences
from migration_job.protocol.run_context import Pair, open_pair
from migration_job.protocol.settings import Endpoints
from migration_job.protocol.tokens import Forgotten
from migration_job.protocol.whole import clear_doubt, doubtful, require_file, require_identity
from migration_job.stores.postgres.database import Locked
from migration_job.stores.sqlite import fence
from migration_job.stores.sqlite.waiting import allowed
from migration_job.stores.sqlite.whole import NotWhole

IDLE_SECONDS = 0.1
"""Between rounds that found nothing to do: a change waits so long at most to be looked at."""

LOOK_SECONDS = 1.0
"""Between looks at whether fence, alias and connection agree with the decision."""

BUSY_SECONDS = 0.1
"""How long a visit waits for a command that has the lock: other files wait for the visitor."""

RETRY_SECONDS = 0.5
"""After a failure, before the next attempt: well within the 5 s of a takeover."""

KEPT_ENTRIES = 50_000
"""Applied rows of the log that are kept all the same (a few MB): a target that fails over to a
standby which was behind by no more than these is brought up again from them."""

TRIM_AT = 2_000
"""Applied rows of the log that are worth a transaction of the source to delete."""

PROVE_SHARE = 10
"""Times as long as a comparison in full took until the next."""

Say = Callable[[str], None]


@dataclass(slots=True)
class Report:
    """What ``STATE/sync.json`` holds."""

    pid: int
    at: str
    """UTC; a heartbeat."""
    direction: str
    """``forward`` (SQLite serves), ``back`` (PostgreSQL serves), or ``waiting`` (for a cause that
    ``problem`` names)."""
    behind: int
    """Changes that the other side does not have yet, as far as known."""
    lag_seconds: float
    """How long the oldest of them has been waiting; while ``waiting``, how long it may have been
    at most."""
    position: int
    """Where the target is in the source's log."""
    rounds: int = 0
    followed: str = ""
    """The direction to which ``behind`` and ``lag_seconds`` belong: ``forward`` or ``back``; ''
    before the first round."""
    measured_at: str = ""
    """UTC: when ``behind`` was counted; '' before the first round."""
    problem: str = ""
    held: str = ""
    """Who holds the application's traffic at PgBouncer, in words: a lease, or somebody who has
    closed the alias without one; '' where nobody does."""
    whole: bool = True
    """False where the source is another file, or the capture on it is not whole."""
    phase: str = ""
    """``caught up``, ``switched``, ...: see :class:`migration_job.phases.Phase`."""
    switched_at: str = ""
    """UTC; '' while SQLite serves."""
    differences: int = 0
    """Rows of PostgreSQL's that did not come back as they are: a rollback refuses for them."""
    one_way: list[str] = field(default_factory=list)
    """Tables whose changes do not come back since PostgreSQL's schema was changed, with the cause:
    a rollback refuses for them too."""
    ahead: dict[str, Any] = field(default_factory=dict)
    """What a switch refuses for, unless it is accepted: the fields of
    :class:`migration_job.protocol.ahead.Ahead`."""


@dataclass(slots=True)
class _Lag:
    """How old the oldest unapplied change is at most: positions, and the look before each was
    first seen. Whatever is new may have come right after the look before."""

    seen: list[tuple[int, float]] = field(default_factory=list)
    looked: float | None = None

    def note(self, last: int, now: float) -> None:
        if not self.seen or last > self.seen[-1][0]:
            self.seen.append((last, now if self.looked is None else self.looked))
        self.looked = now

    def of(self, position: int, now: float) -> float:
        self.seen = [pair for pair in self.seen if pair[0] > position]
        return now - self.seen[0][1] if self.seen else 0.0


@dataclass(frozen=True, slots=True)
class _Measured:
    """When the lag was measured, on the monotonic clock, and what it was, in seconds."""

    at: float
    lag: float

    def at_most(self, now: float) -> float:
        """How old the oldest change may be by now, where none was carried since."""
        return self.lag + now - self.at


class Sync:
    """One process's sync. :meth:`run` returns when ``stop`` says so or the run is settled."""

    def __init__(self, ends: Endpoints, *, max_lag: float = 5.0, say: Say = lambda _: None) -> None:
        self._ends = ends
        self._max_lag = max_lag
        self._say = say
        self._lock = Lock(ends.state)
        self._pair: Pair | None = None
        self._lag = _Lag()
        self._back_lag = _Lag()
        self._measured = _Measured(0.0, 0.0)
        self._looked = 0.0
        self._unfollowed = ""
        self._prove_at = 0.0
        self._unpublished = False
        self._failing_since = 0.0
        self._reported = 0.0
        self._report = Report(os.getpid(), "", "waiting", 0, 0.0, 0)

    @property
    def report(self) -> Report:
        """What it says of itself; as it goes on, this changes."""
        return self._report

    def others_since(self) -> bool:
        """Whether a command has had the lock since the last round."""
        return self._lock.others_since()

    def visit(self, seconds: float) -> bool | None:
        """Do what there is to do, for about so many ``seconds``; both databases, and the console
        of PgBouncer, are closed at the end. For a process that follows many files. Gives whether
        something is left; None once the run is settled. Raises AtWork where a command has the
        lock, and the JobError of a round that failed."""
        deadline = time.monotonic() + seconds
        try:
            while True:
                try:
                    with truthful(self._ends.source, "sync"):
                        busy = self._turn(limit=BUSY_SECONDS)
                except JobError as error:
                    if not isinstance(error, AtWork):
                        self._fail(error)
                    raise
                if not busy:
                    self._reported = 0.0
                    self._publish()
                    return busy
                if time.monotonic() > deadline:
                    return True
        finally:
            self._close()
            if self._ends.given_pooler is not None:
                self._ends.given_pooler.close()

    def run(self, stop: Callable[[], bool] = lambda: False, *, once: bool = False) -> None:
        """Go on until ``stop()``; with ``once`` until there is nothing left to do. Both databases
        are closed at the end."""
        try:
            self._go_on(stop, once=once)
        finally:
            self._close()

    def _go_on(self, stop: Callable[[], bool], *, once: bool) -> None:
        while not stop():
            try:
                with truthful(self._ends.source, "sync"):
                    busy = self._turn()
            except JobError as error:
                self._fail(error)
                if once:
                    raise
                _wait(RETRY_SECONDS, stop)
                continue
            _look_ahead(self._pair, self._report)
            if busy is None:
                self._say("the run is settled; there is nothing left to keep current")
                return
            if not busy:
                if once:
                    self._reported = 0.0
                    self._publish()
                    return
                _wait(IDLE_SECONDS, stop)

    def _turn(self, *, limit: float | None = None) -> bool | None:
        """One round under the lock, which is waited for so many seconds: whether there was anything
        to do; None once it is settled."""
        with self._lock.round(limit=limit) as before:
            # Before all else: a hold has its end also where neither database can be reached.
            self._end_hold()
            pair = self._open(before)
            require_file(pair)
            state = pair.state()
            if state.settled:
                return None
            self._report.phase = Phase.SWITCHED if state.closed else Phase.CAUGHT_UP
            self._report.switched_at = state.switched_at or ""
            self._look(pair, force=before)
            busy = self._back(pair) if state.closed else self._forward(pair)
        self._failing_since = 0.0
        self._report.problem, self._report.whole = self._unfollowed, True
        self._report.rounds += 1
        self._publish()
        return busy

    def _open(self, others_before: bool) -> Pair:
        """The pair; opened again after another process had the lock, or the target went away."""
        if self._pair is not None and (others_before or self._pair.target.closed):
            self._close()
        if self._pair is None:
            self._pair = open_pair(self._ends.source, self._ends.dsn)
        return self._pair

    def _close(self) -> None:
        if self._pair is not None:
            self._pair.close()
            self._pair = None
            self._looked = 0.0

    def _end_hold(self) -> None:
        try:
            held = lease.end_expired(self._ends, self._say)
        except OperationError as error:
            self._note(error.message)
            return
        if held is not None:
            self._tell_held(lease.in_words(held))
        elif lease.speaks_of_lease(self._report.held):
            self._tell_held("")

    def _tell_held(self, words: str) -> None:
        if words != self._report.held:
            self._reported = 0.0
            self._say(words or "the application's traffic is no longer held")
        self._report.held = words

    def _look(self, pair: Pair, *, force: bool) -> None:
        now = time.monotonic()
        if not force and now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        require_identity(pair, pair.state(), followed=True)
        try:
            changed = follow_decision(pair, self._ends)
            self._look_for_holders(pair)
        except (BothOpen, Forgotten):
            raise
        except OperationError as error:
            # PgBouncer is down: what it has to be told waits, what the databases need does not.
            if error.message != self._unfollowed:
                self._say(f"waiting: {error.message}")
            self._unfollowed = error.message
            return
        self._unfollowed = ""
        while pair.told:
            self._say(pair.told.pop(0))
        gate_protocol.let_go(
            self._ends.state
        )  # of a command that died; while one lives, it has the lock
        if changed:
            side = "PostgreSQL" if pair.state().closed else "SQLite"
            self._say(f"fence, alias and connection now agree with the decision: {side} serves")

    def _look_for_holders(self, pair: Pair) -> None:
        """Say where the alias is closed by somebody else, with no lease of it."""
        if lease.speaks_of_lease(self._report.held):
            return
        state = pair.state()
        served = state.closed or state.reads_moved
        self._tell_held(lease.held_by_others(self._ends) if served else "")

    def _forward(self, pair: Pair) -> bool:
        self._lag.note(fence.last_position(pair.source), time.monotonic())
        done = catch_up(pair)
        self._report.differences, self._report.one_way = 0, []
        self._report.position = done.position
        last, now = fence.last_position(pair.source), time.monotonic()
        self._lag.note(last, now)
        self._measure("forward", last - done.position, self._lag.of(done.position, now))
        self._bound_reads(pair)
        _trim(pair, done.position)
        if done.behind == 0:
            self._prove(pair)
        return done.keys > 0

    def _measure(self, direction: str, behind: int, lag: float) -> None:
        """Report how far the other side is, as counted now."""
        self._measured = _Measured(time.monotonic(), lag)
        self._report.direction = self._report.followed = direction
        self._report.behind, self._report.lag_seconds = behind, round(lag, 3)
        self._report.measured_at = datetime.now(UTC).isoformat(timespec="milliseconds")

    def _prove(self, pair: Pair) -> None:
        """Where the schema cookie has moved, or a gap was found that is closed now: compare both
        sides in full, and seldom enough to leave most of the time to following."""
        began = time.monotonic()
        if began < self._prove_at or not doubtful(pair, pair.state()):
            return
        self._say("the source's schema was touched: comparing the content of both sides")
        try:
            clear_doubt(pair, prove_content(pair, self._ends.state))
        finally:
            took = time.monotonic() - began
            self._prove_at = time.monotonic() + PROVE_SHARE * took
        self._say(f"the content of both sides is equal; that took {took:.1f} s")

    def _bound_reads(self, pair: Pair) -> None:
        """Reads that have moved go back while the target is further behind than promised."""
        state = pair.state()
        if state.reads_moved and self._report.lag_seconds > self._max_lag:
            with fence.writing(pair.source, limit=5.0):
                fence.change_state(pair.source, reads_moved=0)
            follow_decision(pair, self._ends)
            self._say(
                f"the target is {self._report.lag_seconds:.1f} s behind, more than the "
                f"{self._max_lag:g} s promised: reads are back on SQLite"
            )

    def _back(self, pair: Pair) -> bool:
        for line in mend(pair):
            self._say(line)
        try:
            done = bring_back(pair, lock_limit=allowed())
        finally:
            for line in pair.told:
                self._say(line)
            pair.told.clear()
        self._report.one_way = list(one_way_tables(pair).values())
        if done.taken == 0 and not done.left:
            prove_back(pair)
        self._measure("back", *_queue(pair, self._back_lag))
        self._count_differences(pair)
        _trim(pair, fence.last_position(pair.source))
        return done.taken > 0 or done.left

    def _count_differences(self, pair: Pair) -> None:
        before, now = self._report.differences, count_differences(pair)
        self._report.differences = now
        if now > before:
            self._say(
                f"warning: {counted(now, 'row')} "
                f"{either(now, 'does not come back as it is', 'do not come back as they are')} "
                "on PostgreSQL, and a rollback would refuse: `migration-job status` tells which"
            )

    def _fail(self, error: JobError) -> None:
        self._note(error.message)
        self._report.direction = "waiting"
        self._report.whole = not isinstance(error, NotWhole)
        if not isinstance(error, Locked):  # the sessions are as good as before
            self._close()
        now = time.monotonic()
        if self._report.followed:
            self._report.lag_seconds = round(self._measured.at_most(now), 3)
        self._failing_since = self._failing_since or now
        if now - self._failing_since > self._max_lag:
            self._take_reads_back()
        self._publish()

    def _take_reads_back(self) -> None:
        """Reads that have moved go back to SQLite where the target cannot be followed: it may be
        gone, so this asks nothing of it."""
        with (
            contextlib.suppress(JobError, apsw.Error, OSError),
            self._lock.round(limit=BUSY_SECONDS),
        ):
            if not _unmove_reads(self._ends.source):
                return
            side = self._ends.sqlite
            write_connection(self._ends.connection, side, side, owner=self._ends.owner)
            self._say(f"the target cannot be followed for {self._max_lag:g} s: reads are on SQLite")
            if self._ends.pooler is not None:
                self._ends.pooler.close_alias(limit=5.0)

    def _note(self, problem: str) -> None:
        if self._report.problem != problem:
            self._say(f"waiting: {problem}")
        self._report.problem = problem

    def _publish(self) -> None:
        now = time.monotonic()
        if now - self._reported < 1.0 and not self._report.problem:
            return
        self._reported = now
        self._report.at = datetime.now(UTC).isoformat(timespec="milliseconds")
        content = json.dumps(asdict(self._report)).encode()
        try:
            write_durably(self._ends.state / "sync.json", content, mode=0o644)
        except OSError as error:
            # What it says is for people and for metrics: following does not depend on it.
            if not self._unpublished:
                self._say(
                    f"warning: {self._ends.state / 'sync.json'} cannot be written "
                    f"({error.strerror}): following continues, but status and metrics take it for "
                    "stopped until there is space"
                )
            self._unpublished = True
            return
        self._unpublished = False


def _look_ahead(pair: Pair | None, report: Report) -> None:
    """Report what a switch would refuse for, looked for once for each opened pair."""
    if pair is None:
        return
    if pair.refused is None:
        pair.refused = refusals.of_plan(pair)
    report.ahead = asdict(pair.refused)


def _unmove_reads(path: Path) -> bool:
    """Have reads go to the source again; whether they had moved."""
    source = fence.open_source(path)
    try:
        state = fence.read_state(source)
        if state is None or state.closed or not state.reads_moved:
            return False
        with fence.writing(source, limit=5.0):
            fence.change_state(source, reads_moved=0)
        return True
    finally:
        source.close()


def _trim(pair: Pair, position: int) -> None:
    row = pair.source.execute("SELECT min(seq) FROM _migration_log").fetchone()
    upto = position - KEPT_ENTRIES
    if row is not None and row[0] is not None and upto - int(row[0]) >= TRIM_AT:
        with contextlib.suppress(fence.LockedError):  # later will do
            trim_log(pair, upto)


def _queue(pair: Pair, lag: _Lag) -> tuple[int, float]:
    """The changes that are still to come back, and how old the oldest is, in seconds."""
    row = pair.target.execute(
        "SELECT count(*), min(id), max(id) "
        "FROM (SELECT id FROM migration.reverse_log ORDER BY id LIMIT 100000) AS queue"
    ).fetchone()
    now = time.monotonic()
    if row is None or not row[0]:
        lag.looked = now
        return 0, 0.0
    lag.note(int(row[2]), now)
    return int(row[0]), lag.of(int(row[1]) - 1, now)


def read_report(state: Path) -> Report | None:
    """What ``sync`` last said; None where it never ran here."""
    try:
        report = Report(**json.loads((state / "sync.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None
    beaten = heartbeat.followers_beat(state)
    if beaten is not None and beaten[0] == report.pid:
        report.at = max(report.at, beaten[1])
    return report


def _wait(seconds: float, stop: Callable[[], bool]) -> None:
    deadline = time.monotonic() + seconds
    while not stop() and time.monotonic() < deadline:
        time.sleep(0.02)


__all__ = ["OperationError", "Report", "Sync", "read_report"]
