"""A session whose calls have a bound: none waits for a standby that is lost, nor for a server that
has fallen silent.

A server with synchronous standbys acknowledges a commit when one of them has it. Where none is
left it waits for ever, and no time limit of the server's ends that: neither ``statement_timeout``
nor ``lock_timeout`` counts there. So the session looks, by another one, what a call that takes long
waits for, and cancels that wait. PostgreSQL then calls the commit done with a warning, since it
stands on the server itself; here it is an error, since a failover would lose it.

A server that stands still, or a network that carries nothing any more, may leave the connection
as it is for hours. Where the looks cannot even connect for ``SILENT_SECONDS``, the call ends as
that of a server that is lost.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from migration_job.deadline import time_left
from migration_job.errors import GOES_ON, OperationError
from migration_job.place import DEFAULT_SCHEMA, RECORDS

COMMIT_SECONDS = 30.0
"""How long a commit may wait for a standby while nobody waits for this job. A cluster's manager
takes a standby that is lost out of ``synchronous_standby_names`` within such a time, if at all."""

SHARE = 0.6
"""How much of the time in which this process is to be heard of again a commit may take."""

SHORTEST_SECONDS = 0.2

LOOK_SECONDS = 5
"""How long the look itself may take to connect."""

SILENT_SECONDS = 60.0
"""How long a server may answer neither the call nor a new connection."""

_GIVE_UP = """
SELECT pg_cancel_backend(pid), current_setting('synchronous_standby_names')
FROM pg_stat_activity WHERE pid = %s AND wait_event = 'SyncRep'
"""
_WAITS = "SELECT FROM pg_stat_activity WHERE pid = %s AND wait_event = 'SyncRep'"


class Unconfirmed(OperationError):
    """A commit stands on the server, and no standby has confirmed it in time."""

    def __init__(self, found: str) -> None:
        super().__init__(
            f"expected a standby of the target to confirm the commit, found {found}",
            advice="the application is served as before. Bring the standby back, or take it out "
            "of synchronous_standby_names (pg_stat_replication shows who follows), then run the "
            f"command again: {GOES_ON}",
        )


class Session(psycopg.Connection[Any]):
    """A psycopg connection, of which each call raises Unconfirmed instead of waiting for a standby
    for longer than ``COMMIT_SECONDS``, or than :func:`migration_job.deadline.expect_within`
    allows."""

    schema = DEFAULT_SCHEMA
    """Where the application's tables are."""
    records = RECORDS
    """Where the run's own are (:mod:`migration_job.place`)."""

    def wait(self, gen: Any, *arguments: Any, **named: Any) -> Any:
        """Run one of psycopg's operations; every call of a connection's comes through here."""
        watch = _Watch(self)
        result = super().wait(watch.over(gen), *arguments, **named)
        if watch.gave_up:
            raise Unconfirmed(watch.gave_up)
        return result


class _Look(psycopg.Connection[Any]):
    """Of which no call waits for longer than ``LOOK_SECONDS``: the server may stand still."""

    def wait(self, gen: Any, *arguments: Any, **named: Any) -> Any:
        return super().wait(_ending(gen), *arguments, **named)


def _ending(operation: Any) -> Generator[Any, Any, Any]:
    deadline = time.monotonic() + LOOK_SECONDS

    def require_time(ready: Any) -> None:
        if not ready and time.monotonic() > deadline:
            raise psycopg.OperationalError(f"no answer within {LOOK_SECONDS} s")

    return _step_by_step(operation, require_time)


def _step_by_step(operation: Any, look: Callable[[Any], None]) -> Generator[Any, Any, Any]:
    """The same operation; ``look`` is told after each wait what can be read or written."""
    ready: Any = None
    while True:
        try:
            wanted = operation.send(ready)
        except StopIteration as done:
            return done.value
        ready = yield wanted
        look(ready)


class _Watch:
    """One operation, and whether it waits for a standby."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._began = time.monotonic()
        self._next = 0.0
        self._limit = 0.0
        self._seen = False
        self._silent_since = 0.0
        self.gave_up = ""

    def over(self, operation: Any) -> Generator[Any, Any, Any]:
        """The same operation, looked at whenever it has nothing to read or write."""

        def look(ready: Any) -> None:
            if not ready and ready is not None:
                self._idle()

        return _step_by_step(operation, look)

    def _idle(self) -> None:
        now = time.monotonic()
        if not self._limit:
            left = time_left()
            self._limit = COMMIT_SECONDS if left is None else min(COMMIT_SECONDS, SHARE * left)
            self._limit = max(self._limit, SHORTEST_SECONDS)
            self._next = self._began + self._limit / 2
        if now < self._next or self.gave_up:
            return
        # Twice, half the limit apart: a long statement's own commit has its time as well.
        self._seen = self._look(give_up=self._seen)
        self._next = time.monotonic() + self._limit / 2

    def _look(self, *, give_up: bool) -> bool:
        pid = self._session.pgconn.backend_pid
        began = time.monotonic()
        try:
            beside = self._beside()
        except psycopg.errors.ConnectionTimeout:
            self._require_sign_of_life(began)
            return self._seen
        except psycopg.Error:
            beside = None  # an answer, too
        self._silent_since = 0.0
        if beside is None:
            return self._seen
        with contextlib.suppress(psycopg.Error), beside as other:
            if not give_up:
                return bool(other.execute(_WAITS, (pid,)).fetchall())
            for _, names in other.execute(_GIVE_UP, (pid,)).fetchall():
                self.gave_up = (
                    f"none that has within {self._limit:.3g} s (synchronous_standby_names = "
                    f"{names!r}): it is on this server only"
                )
            return False
        return self._seen

    def _require_sign_of_life(self, since: float) -> None:
        """Raises psycopg's error of a lost server where this one has been silent for too long."""
        self._silent_since = self._silent_since or since
        silent = time.monotonic() - self._silent_since
        if silent < SILENT_SECONDS:
            return
        self._session.pgconn.finish()  # what it may still answer belongs to no call
        raise psycopg.OperationalError(
            f"the server accepts connections and answers none: not within {silent:.0f} s"
        )

    def _beside(self) -> _Look:
        """A plain connection to the very server that the session is on."""
        info = self._session.info
        where: dict[str, Any] = dict(info.get_parameters())
        where |= {"host": info.host, "port": info.port, "target_session_attrs": "any"}
        where.pop("hostaddr", None)
        with contextlib.suppress(psycopg.Error):
            where |= {"hostaddr": info.hostaddr} if info.hostaddr else {}
        if info.password:
            where["password"] = info.password
        where |= {"connect_timeout": LOOK_SECONDS, "application_name": "look of a job"}
        return _Look.connect(make_conninfo(**where), autocommit=True)
