"""A limit on the time that a database may take to answer.

A server-side time limit does not help where the server itself hangs or the network swallows its
answer; while SQLite's writers wait for us, nothing may hang.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator

import psycopg

from migration_job.signals import undisturbed


class _Expected:
    until: float | None = None


def expect_within(seconds: float) -> None:
    """This process is to have done what it does within ``seconds`` from now; 0: no matter when."""
    _Expected.until = time.monotonic() + seconds if seconds else None


def time_left() -> float | None:
    """Seconds that are left of that; None where it does not matter."""
    return None if _Expected.until is None else _Expected.until - time.monotonic()


@contextlib.contextmanager
def time_limit(connection: psycopg.Connection, seconds: float) -> Iterator[None]:
    """Within the block a call on ``connection`` that outlasts ``seconds`` fails with
    psycopg.OperationalError: the socket is shut down under it, and the connection is lost."""
    over = threading.Event()

    def cut() -> None:
        if not over.wait(max(seconds, 0)):
            # A duplicate, so that closing it closes nothing of libpq's.
            with (
                contextlib.suppress(OSError, psycopg.Error),
                socket.socket(fileno=os.dup(connection.fileno())) as handle,
            ):
                handle.shutdown(socket.SHUT_RDWR)

    watch = threading.Thread(target=cut, name="time-limit", daemon=True)
    with undisturbed():
        watch.start()
    try:
        yield
    finally:
        over.set()
        watch.join()
