"""The application's store: where to write and read, and what to do when that moves.

A request that is told to try again (the data has moved, the database does not answer, the fate of a
COMMIT is not known) is tried again at the side that ``database.json`` names by then, under the same
request id, until its deadline. That, and reading the file again, is all that an application needs
to be switched without a failed request.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from example_app.databases import Row, Session, Statement, TryAgain, connect
from example_app.following import Follower, Side

DEADLINE_SECONDS = 30.0
"""Beyond this a request fails: longer than any switch, shorter than most proxies' patience."""

FIRST_PAUSE, LONGEST_PAUSE = 0.002, 0.05
"""Seconds between tries: short, since a switch is over within some tens of milliseconds."""

Result = TypeVar("Result")


class Unavailable(Exception):
    """The deadline is over, and the last try told why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request gave: ``new`` is False where it had been done before."""

    side: str
    tries: int
    new: bool = True
    rows: Sequence[Row] = ()


class Store:
    """Safe for several threads. ``fresh`` requests open and close a connection of their own."""

    def __init__(self, follower: Follower, *, deadline: float = DEADLINE_SECONDS) -> None:
        self.follower = follower
        self._deadline = deadline
        self._idle: list[tuple[Side, Session]] = []
        self._lock = threading.Lock()

    def write(
        self, request: str, kind: str, statement: Statement, values: Sequence[str], *, fresh: bool
    ) -> Answer:
        """Do it once, however often it is asked for. Raises Unavailable."""

        def attempt(session: Session) -> bool:
            return session.write(request, kind, statement, values)

        side, tries, new = self._persist(lambda: self.follower.current().write, attempt, fresh)
        return Answer(side.engine, tries, new=new)

    def read(self, statement: Statement, values: Sequence[str], *, fresh: bool) -> Answer:
        """Rows from the side for reads. Raises Unavailable."""

        def attempt(session: Session) -> list[Row]:
            return session.read(statement, values)

        side, tries, rows = self._persist(lambda: self.follower.current().read, attempt, fresh)
        return Answer(side.engine, tries, rows=rows)

    def close(self) -> None:
        """Close what is idle; for the end of the application."""
        with self._lock:
            idle, self._idle = self._idle, []
        for _, session in idle:
            session.close()

    def _persist(
        self, choose: Callable[[], Side], attempt: Callable[[Session], Result], fresh: bool
    ) -> tuple[Side, int, Result]:
        until = time.monotonic() + self._deadline
        tries, pause = 0, FIRST_PAUSE
        while True:
            side = choose()
            tries += 1
            try:
                return side, tries, self._once(side, attempt, fresh)
            except TryAgain as reason:
                if time.monotonic() + pause > until:
                    raise Unavailable(str(reason)) from reason
            if not _moved(choose, side, within=pause):
                pause = min(pause * 2, LONGEST_PAUSE)

    def _once(self, side: Side, attempt: Callable[[Session], Result], fresh: bool) -> Result:
        session = connect(side) if fresh else self._take(side)
        try:
            result = attempt(session)
        except BaseException:
            session.close()
            raise
        if fresh:
            session.close()
        else:
            with self._lock:
                self._idle.append((side, session))
        return result

    def _take(self, side: Side) -> Session:
        with self._lock:
            stale = [s for s in self._idle if s[0] != side]
            self._idle = [s for s in self._idle if s[0] == side]
            found = self._idle.pop()[1] if self._idle else None
        for _, session in stale:
            session.close()
        return found or connect(side)


def _moved(choose: Callable[[], Side], side: Side, *, within: float) -> bool:
    """Wait until another side than ``side`` is named, for ``within`` seconds at most: a look at the
    file costs next to nothing, and a request that is told to try again waits for nothing else."""
    until = time.monotonic() + within
    while choose() == side:
        if time.monotonic() >= until:
            return False
        time.sleep(FIRST_PAUSE)
    return True


def sqlite_side(path: Path) -> Side:
    """The application's own file, where no ``database.json`` names another."""
    return Side.from_json({"engine": "sqlite", "path": str(path)})
