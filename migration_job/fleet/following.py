"""``fleet-sync``: one process keeps the side that does not serve current, of every live file of a
fleet.

Each file has the sync of a single one (:class:`migration_job.protocol.sync.Sync`), which a visitor
opens when there may be something to do and closes when nothing is left. Two visitors with three
sessions each, and one that asks for all, are the seven sessions that the server sees, however many
the files are. Whether a file is due is found out cheaply:

* SQLite serves: the times and sizes of the file, of its log, and of the lock that commands take
* PostgreSQL serves: one question about the queues of all schemas; for files with databases of their
  own, which of them have sessions

The looks only say when to visit. What a visit does rests on the databases' own records, as ever.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psycopg

from migration_job import last_resort
from migration_job.errors import JobError, OperationError
from migration_job.fleet.followed import Followed, Turns, Why
from migration_job.fleet.places import Places
from migration_job.place import DEFAULT_SCHEMA
from migration_job.plan.findings import some
from migration_job.plural import counted
from migration_job.protocol import heartbeat
from migration_job.protocol.lock import AtWork
from migration_job.protocol.sync import Sync
from migration_job.stores.postgres import database, fleet_queues, runlock
from migration_job.stores.postgres.fleet_ledger import SCHEMA, FleetLedger

VISITORS = 2

LOOK_SECONDS = 0.25
"""Between two looks at all files."""

QUEUE_SECONDS = 0.5
"""Between two questions about the queues on PostgreSQL."""

PEEK_SECONDS = 10.0
"""A database without sessions is looked into so often: they may come and go between two looks."""

BOOK_SECONDS = 5.0
"""Between two looks into the book for files that have come since."""

BEAT_SECONDS = 1.0

VISIT_SECONDS = 0.5
"""How long one file is worked at while others wait."""

DOWN_SECONDS = 1.0
"""Between two attempts to reach a server that is down."""

LOCK_SECONDS = 10.0
"""How long another `fleet-sync` may take to end."""

SHOWN = 50
"""Files with a problem that the heartbeat names."""

ONLY_ONE = f"{SCHEMA} sync"
"""The lock by which there is one such process a fleet."""

HEARTBEAT = "fleet-sync.json"

Say = Callable[[str], None]


@dataclass(slots=True)
class _Next:
    """When what is done at intervals is done next, on the monotonic clock."""

    book: float = 0.0
    queues: float = 0.0
    peeks: float = 0.0
    beat: float = 0.0
    connect: float = 0.0


class FleetSync:
    """The sync of all live files in a fleet's book."""

    def __init__(self, places: Places, say: Say = lambda _: None) -> None:
        self._places = places
        self._heartbeat = places.report / HEARTBEAT
        self._files: dict[str, Followed] = {}
        self._refused: dict[str, str] = {}
        """Tenants whose parts cannot be put together, and why."""
        self._control: psycopg.Connection | None = None
        self._down = ""
        self._next = _Next()
        self._turns = Turns()
        self._turn = threading.Condition()
        """Held to look at or change which files are due."""
        self._said = threading.Lock()
        self._say_one = say
        self._ended = False

    def run(self, stop: Callable[[], bool] = lambda: False, *, once: bool = False) -> None:
        """Go on until ``stop()``; with ``once`` until there is nothing left to do. Raises
        InputError where the database holds no fleet, or another process follows it; with ``once``
        also OperationError where files cannot be followed."""
        self._connect(first=True)
        visitors = [threading.Thread(target=self._visit_on) for _ in range(VISITORS)]
        try:
            for visitor in visitors:
                visitor.start()
            while not stop():
                self._look()
                if once and self._at_rest():
                    break
                with self._turn:
                    self._turn.wait(LOOK_SECONDS)
        finally:
            with self._turn:
                self._ended = True
                self._turn.notify_all()
            for visitor in visitors:
                if visitor.ident is not None:
                    visitor.join()
            self._beat()
            self._disconnect()
        if once:
            self._require_followed()

    # ------------------------------------------------------------------------------- the looks

    def _look(self) -> None:
        now = time.monotonic()
        self._connect()
        if self._control is not None:
            try:
                self._ask(self._control, now)
            except (psycopg.Error, JobError) as error:
                self._disconnect()
                self._note_down(
                    database.lost(error, "asking for the fleet").message
                    if isinstance(error, psycopg.Error)
                    else error.message
                )
        with self._turn:
            for file in self._files.values():
                file.look(now)
            self._turn.notify_all()
        if now >= self._next.beat:
            self._next.beat = now + BEAT_SECONDS
            self._beat()

    def _ask(self, control: psycopg.Connection, now: float) -> None:
        if now >= self._next.book:
            self._next.book = now + BOOK_SECONDS
            self._read_book(control)
        if now < self._next.queues:
            return
        self._next.queues = now + QUEUE_SECONDS
        there = {
            file.place: file
            for file in self._files.values()
            if file.serves_postgres and not file.settled
        }
        if not there:
            return
        why = Why.PEEK
        if self._places.manifest.layout == "schema-per-file":
            why = Why.CHANGED
            called = fleet_queues.waiting(control, sorted(there))
        elif now >= self._next.peeks:
            self._next.peeks = now + PEEK_SECONDS
            called = set(there)
        else:
            called = fleet_queues.in_use(control, sorted(there))
        with self._turn:
            for place in called:
                file = there[place]
                if not file.visiting and now >= file.not_before:
                    file.call(why, now)

    def _read_book(self, control: psycopg.Connection) -> None:
        """Take up files that have come, and let go of those that are no more in the book."""
        book = FleetLedger(control).followed()
        refused: dict[str, str] = {}
        for tenant, path, place in book:
            if tenant in self._files:
                continue
            try:
                ends = self._places.endpoints(tenant, Path(path), place)
                sync = Sync(ends, say=self._saying(tenant))
            except (JobError, OSError) as error:  # tried again: what is missing may be put there
                refused[tenant] = error.message if isinstance(error, JobError) else _words(error)
                if refused[tenant] != self._refused.get(tenant):
                    self._say(f"{tenant}: it is not followed: {refused[tenant]}")
                continue
            heartbeat.name_follower(ends.state, self._heartbeat)
            with self._turn:
                self._files[tenant] = Followed(tenant, place, ends, sync)
        self._refused = refused
        gone = set(self._files) - {tenant for tenant, _, _ in book}
        with self._turn:
            for tenant in gone:
                if not self._files[tenant].visiting:
                    del self._files[tenant]

    # ------------------------------------------------------------------------------ the visits

    def _visit_on(self) -> None:
        while True:
            file = self._take()
            if file is None:
                return
            try:
                self._visit(file)
            except Exception as error:
                self._fail(file, last_resort.sentence(error, ["fleet-sync"]))

    def _take(self) -> Followed | None:
        """The file that is to be visited first, when there is one; None at the end."""
        with self._turn:
            while not self._ended:
                due = [f for f in self._files.values() if f.why is not None and not f.visiting]
                if self._control is None:
                    # A hold has its end also where the server cannot be reached.
                    due = [f for f in due if f.hold_ends is not None]
                if due:
                    file = self._turns.next(due)
                    file.begin()
                    return file
                self._turn.wait()
            return None

    def _visit(self, file: Followed) -> None:
        try:
            if file.peeks and not self._queued(file):
                with self._turn:
                    file.pass_by()
                return
            left = file.sync.visit(VISIT_SECONDS)
        except AtWork:
            with self._turn:
                file.wait()
            return
        except JobError as error:
            self._fail(file, error.message)
            return
        except OSError as error:  # no file of details each time: a full disk goes on for long
            self._fail(file, _words(error))
            return
        with self._turn:
            file.settled = left is None
            file.end(left=bool(left))

    def _queued(self, file: Followed) -> bool:
        """Whether the file's own database has changes that are to come back."""
        own = database.connect(file.ends.dsn, purpose="migration-job fleet-sync")
        with contextlib.closing(own):
            return bool(fleet_queues.waiting(own, [DEFAULT_SCHEMA]))

    def _fail(self, file: Followed, problem: str) -> None:
        with self._turn:
            file.fail(problem)

    # ---------------------------------------------------------------------------- the server

    def _connect(self, *, first: bool = False) -> None:
        """Have the session that asks for all files; after an interruption each is visited."""
        now = time.monotonic()
        if (self._control is not None and not self._control.closed) or now < self._next.connect:
            return
        self._next.connect = now + DOWN_SECONDS
        try:
            control = database.connect(self._places.server, purpose="migration-job fleet-sync")
            try:
                for told in runlock.lock_within(control, LOCK_SECONDS if first else 0.0, ONLY_ONE):
                    self._say(told)
                database.limit_waiting(control)
                book = FleetLedger(control)
                book.require(self._places.manifest.layout)
                book.require_connections(self._places.connections)
            except BaseException:
                control.close()
                raise
        except (JobError, psycopg.Error) as error:
            if first:
                raise
            self._note_down(error.message if isinstance(error, JobError) else type(error).__name__)
            return
        if self._down:
            self._say("the server answers again")
        self._down = ""
        with self._turn:
            self._control = control
            for file in self._files.values():
                file.not_before = 0.0
                file.call(Why.TURN, now)

    def _disconnect(self) -> None:
        control, self._control = self._control, None
        if control is not None:
            with contextlib.suppress(psycopg.Error):
                control.close()

    def _note_down(self, problem: str) -> None:
        if problem != self._down:
            self._say(f"waiting: {problem}")
        self._down = problem

    # -------------------------------------------------------------------------- what is told

    def _saying(self, tenant: str) -> Say:
        return lambda text: self._say(f"{tenant}: {text}")

    def _say(self, text: str) -> None:
        with self._said:
            self._say_one(text)

    def _beat(self) -> None:
        now = time.monotonic()
        with self._turn:
            files = list(self._files.values())
            due = [now - f.since for f in files if f.why is not None]
        problems = {f.tenant: f.problem for f in files if f.problem} | self._refused
        content: dict[str, object] = {
            "files": len(files),
            "sqlite": sum(not f.serves_postgres and not f.settled for f in files),
            "postgresql": sum(f.serves_postgres and not f.settled for f in files),
            "settled": sum(f.settled for f in files),
            "due": len(due),
            "due_seconds": round(max(due, default=0.0), 3),
            "ended": self._ended,
            "problem": self._down,
            "problems": len(problems),
            "named": dict(sorted(problems.items())[:SHOWN]),
        }
        with contextlib.suppress(OSError):  # for people: following does not depend on it
            heartbeat.beat(self._heartbeat, content)

    # ---------------------------------------------------------------------------------- once

    def _at_rest(self) -> bool:
        if self._down:
            return True
        with self._turn:
            return all(
                f.settled
                or f.failures >= 1
                or (f.visits > 0 and f.why is None and not f.visiting and f.seen is not None)
                for f in self._files.values()
            )

    def _require_followed(self) -> None:
        problems = {f.tenant: f.problem for f in self._files.values() if f.problem}
        problems |= self._refused
        if self._down:
            raise OperationError(self._down)
        if problems:
            first, message = min(problems.items())
            raise OperationError(
                "expected to follow all files of the fleet, found "
                f"{counted(len(problems), 'file')} that cannot be followed: "
                f"{some(sorted(problems))}; {first}: {message}",
                advice="`migration-job fleet-status` shows what each waits for; the others are "
                "current",
            )


def _words(error: OSError) -> str:
    """The system's own words."""
    place = f": {error.filename}" if isinstance(error.filename, str) else ""
    return f"{error.strerror or type(error).__name__}{place}"
