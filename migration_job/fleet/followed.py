"""One file of a fleet as `fleet-sync` knows it between two visits, and whether it is due."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum

from migration_job.errors import JobError
from migration_job.phases import Phase
from migration_job.protocol import lease
from migration_job.protocol.settings import Endpoints
from migration_job.protocol.sync import Sync
from migration_job.stores.sqlite.beside import beside

TURN_SECONDS = 1800.0
"""Each file is visited so often, whatever the looks say."""

RETRY_SECONDS = 0.5
LONGEST_RETRY_SECONDS = 30.0
"""After a failure, twice as long each time."""

FAIR_SHARE = 2
"""One visit in so many goes to whoever has waited longest, whatever for."""

AGAIN_SECONDS = 0.2
"""Until a file is visited again whose visit was not enough: others come first."""

TICK_NS = 20_000_000
"""Two writes within a tick of the kernel's clock leave one time; what is younger is looked at
again."""

COARSE_TICK_NS = 2_000_000_000
"""The same on file systems that keep full seconds."""

Mark = tuple[tuple[int, int, int, int] | None, ...]


class Why(IntEnum):
    """Why a file is to be visited; the lower comes first."""

    CHANGED = 0
    PEEK = 1
    """Its database has sessions, which may have written."""
    TURN = 2


@dataclass(slots=True)
class Followed:
    """One file."""

    tenant: str
    place: str
    ends: Endpoints
    sync: Sync
    seen: Mark | None = None
    """What the file and its log were like when nothing was left to do; None: not known."""
    locked: Mark | None = None
    """The same of the lock that commands take."""
    why: Why | None = Why.TURN
    since: float = field(default_factory=time.monotonic)
    """When it became due."""
    not_before: float = 0.0
    turn_at: float = 0.0
    hold_ends: float | None = None
    """When a hold of its traffic ends."""
    visiting: bool = False
    visits: int = 0
    failures: int = 0
    problem: str = ""
    settled: bool = False
    _watched: tuple[str, ...] = ()
    peeks: bool = False
    """Whether the visit that began only has to be made where PostgreSQL has changes."""
    _before: Mark = ()
    _first: tuple[int, float] = (0, 0.0)

    def __post_init__(self) -> None:
        source = self.ends.source
        self._watched = (os.fspath(source), os.fspath(beside(source, "-wal")))
        # A file that is written to before its first visit has that one at once; else those come
        # first that were written to last.
        self.seen, self.locked = _marks(self._watched), self._lock()
        newest = max((one[0] for one in self.seen if one is not None), default=0)
        self._first = (0, -newest / 1e9)

    @property
    def order(self) -> tuple[int, int, float]:
        """By which files that are due are visited, the least first (but see :class:`Turns`)."""
        why = Why.TURN if self.why is None else self.why
        if why is Why.TURN and not self.visits:
            return (why, *self._first)
        return (why, 1, self.since)

    @property
    def serves_postgres(self) -> bool:
        """Whether PostgreSQL served at the last visit."""
        return self.sync.report.phase == Phase.SWITCHED

    def look(self, now: float) -> None:
        """Find out, cheaply, whether there may be something to do."""
        if self.visiting or self.settled or now < self.not_before:
            return
        held_on = self.hold_ends is None or now < self.hold_ends
        as_it_was = _marks(self._watched) == self.seen and self._lock() == self.locked
        if self.failures or not held_on or not as_it_was:
            self.call(Why.CHANGED, now)
        elif now >= self.turn_at:
            self.call(Why.TURN, now)

    def call(self, why: Why, now: float) -> None:
        """Have it visited."""
        if self.why is None or why < self.why:
            self.why = why
            self.since = now

    def begin(self) -> None:
        """A visit begins."""
        self.peeks = self.why is Why.PEEK
        self.why, self.visiting = None, True
        source = self.ends.source  # a link may lead elsewhere by now
        self._watched = (os.fspath(source), os.fspath(beside(source, "-wal")))
        self._before = _marks(self._watched)
        if _young(self._before):
            self._before = ()

    def end(self, *, left: bool) -> None:
        """A visit went well; ``left``: there was more to do than it had time for."""
        now = time.monotonic()
        # What this process has written itself is looked at once more: it cannot be told apart.
        self.seen = self._before if _marks(self._watched) == self._before and not left else None
        self.locked = self._lock()
        if self.sync.others_since():
            self.locked = None
        self.not_before = now + AGAIN_SECONDS if left else 0.0
        self.turn_at = now + TURN_SECONDS
        self.hold_ends = self._hold(now)
        self.visits += 1
        self.failures, self.problem = 0, ""
        self.visiting = False

    def pass_by(self) -> None:
        """There was nothing to visit it for."""
        self.visiting = False

    def wait(self) -> None:
        """A command has the lock: it is asked for again soon."""
        self.seen = None
        self.not_before = time.monotonic() + RETRY_SECONDS
        self.visiting = False

    def fail(self, problem: str) -> bool:
        """A visit failed; whether the problem is another than before."""
        new = problem != self.problem
        self.problem = problem
        self.failures += 1
        delay = min(LONGEST_RETRY_SECONDS, RETRY_SECONDS * 2.0 ** min(self.failures, 10))
        self.not_before = time.monotonic() + delay
        self.visiting = False
        return new

    def _lock(self) -> Mark:
        return _marks((os.fspath(self.ends.state / "work.lock"),))

    def _hold(self, now: float) -> float | None:
        try:
            held = lease.read_lease(self.ends.state)
        except JobError:
            return now + RETRY_SECONDS
        if held is None:
            return None
        left = datetime.fromisoformat(held.until) - datetime.now(UTC)
        return now + max(left.total_seconds(), RETRY_SECONDS)


class Turns:
    """Which of the files that are due is visited next. Where there are more changes than visits,
    the files that nobody writes to still have theirs: their applications wait to be told of their
    connections by the first one."""

    def __init__(self) -> None:
        self._given = 0

    def next(self, due: Sequence[Followed]) -> Followed:
        """One of these, of which there is at least one."""
        self._given += 1
        if self._given % FAIR_SHARE:
            return min(due, key=lambda file: file.order)
        return min(due, key=lambda file: (file.since, file.order))


def _marks(paths: tuple[str, ...]) -> Mark:
    """Changes with every commit to the file (the first path): SQLite writes to it, or to its log.
    The file's second time is the kernel's own, which no program sets back. The log's says nothing:
    as root, SQLite gives the log to the file's owner each time that it opens it."""
    found: list[tuple[int, int, int, int] | None] = []
    for path in paths:
        try:
            status = os.stat(path)  # noqa: PTH116 - thousands of times a second
        except OSError:
            found.append(None)
        else:
            # A log without content comes and goes with whoever looks into the file.
            times = status.st_mtime_ns, 0 if found else status.st_ctime_ns
            there = (*times, status.st_size, status.st_ino)
            found.append(there if status.st_size else None)
    return tuple(found)


def _young(mark: Mark) -> bool:
    now = time.time_ns()
    return any(
        time_ > now - (TICK_NS if time_ % 1_000_000_000 else COARSE_TICK_NS)
        for one in mark
        if one is not None
        for time_ in one[:2]
    )
