"""Waiting for the source's locks, for as long as this process may.

Where no write-ahead log is in use, a writer's commit keeps readers out, a reader keeps a commit
waiting, and a program may hold its lock for as long as it likes. SQLite's own waiting grows to
100 ms between two looks, in which a busy application takes the lock again and again; this one looks
every 2 ms, everywhere: at the first read of a transaction, at its beginning and at its commit.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import apsw

POLL_SECONDS = 0.002

PATIENCE_SECONDS = 30.0
"""How long a lock is waited for where the command says nothing else."""


class _Process:
    patience = PATIENCE_SECONDS


@contextlib.contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Within the block, connections that are opened wait up to ``seconds`` for each lock."""
    before = _Process.patience
    _Process.patience = seconds
    try:
        yield
    finally:
        _Process.patience = before


def allowed() -> float:
    """How many seconds this process may wait for a lock of the source."""
    return _Process.patience


class PatientConnection(apsw.Connection):
    """A connection that waits for a lock instead of failing at once; apsw.BusyError comes out of it
    only where the lock was not to be had within its ``patience`` (seconds), or where SQLite sees
    that waiting could never end."""

    patience: float
    _since: float

    def wait_for_locks(self, seconds: float | None = None) -> None:
        """From now on wait up to ``seconds``, by default what the process is to wait."""
        self.patience = allowed() if seconds is None else seconds
        self._since = time.monotonic()
        self.set_busy_handler(self._still)

    def _still(self, looks: int) -> bool:
        now = time.monotonic()
        if looks == 0:
            self._since = now
        if now - self._since >= self.patience:
            return False
        time.sleep(POLL_SECONDS)
        return True


@contextlib.contextmanager
def waiting(connection: apsw.Connection, seconds: float) -> Iterator[None]:
    """Within the block the connection waits up to ``seconds`` for a lock; without effect on one
    that is not a :class:`PatientConnection`."""
    if not isinstance(connection, PatientConnection):
        yield
        return
    before, connection.patience = connection.patience, seconds
    try:
        yield
    finally:
        connection.patience = before
