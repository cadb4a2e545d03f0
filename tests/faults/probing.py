"""Rule 1, tried from outside: somebody writes to both sides all the time and notes who takes it.

The prober goes past the connection and past PgBouncer: what refuses it is the fence alone.

Each run takes one decision at most, so writes go from one side to the other once: once the new side
has taken a write, the old one must never take another.
"""

from __future__ import annotations

import itertools
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psycopg

MOVED = "moved to "
PAUSE = 0.02


@dataclass(frozen=True)
class Accepted:
    """A write that a side took: its id, and between which two moments."""

    side: str
    request: str
    began: float
    ended: float


class Prober:
    """Writes alternately, from :meth:`start` to :meth:`stop`. Refusals and errors are no news."""

    def __init__(self, source: Path, dsn: Callable[[], str]) -> None:
        self._source, self._dsn = source, dsn
        self._over = threading.Event()
        self._names = (f"probe-{n}" for n in itertools.count())
        self.accepted: list[Accepted] = []
        self._thread = threading.Thread(target=self._probe, name="prober")
        self._postgres: psycopg.Connection | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _probe(self) -> None:
        try:
            while not self._over.wait(PAUSE):
                self._try("sqlite", lambda request: write_sqlite(self._source, request))
                self._try("postgresql", self._write_postgres)
        finally:
            if self._postgres is not None:
                self._postgres.close()

    def _try(self, side: str, write: Callable[[str], None]) -> None:
        request = next(self._names)
        began = time.monotonic()
        try:
            write(request)
        except (sqlite3.Error, psycopg.Error):
            return
        self.accepted.append(Accepted(side, request, began, time.monotonic()))

    def _write_postgres(self, request: str) -> None:
        if self._postgres is None or self._postgres.closed:
            self._postgres = psycopg.connect(
                self._dsn(), autocommit=True, connect_timeout=2, options="-c statement_timeout=2s"
            )
        write_postgres(self._postgres, request)

    def both_open(self, new: str) -> list[str]:
        """Writes that the old side took after the new one had; ``new`` is the side that the run
        moves to."""
        first = min((a.ended for a in self.accepted if a.side == new), default=None)
        if first is None:
            return []
        return [
            f"{a.side} took {a.request} {a.began - first:.3f} s after {new} had taken a write"
            for a in self.accepted
            if a.side != new and a.began > first
        ]


def write_sqlite(source: Path, request: str) -> None:
    """One write, without waiting. Raises sqlite3.Error where it is refused."""
    connection = sqlite3.connect(source, timeout=0, isolation_level=None)
    try:
        connection.execute("INSERT INTO app_requests (id, kind) VALUES (?, 'probe')", (request,))
    finally:
        connection.close()


def write_postgres(connection: psycopg.Connection, request: str) -> None:
    """One write. Raises psycopg.Error where it is refused."""
    connection.execute("INSERT INTO app_requests (id, kind) VALUES (%s, 'probe')", (request,))
