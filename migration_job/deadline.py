"""A limit on the time that a database may take to answer.

A server-side time limit does not help where the server itself hangs or the network swallows its
answer; while SQLite's writers wait for us, nothing may hang.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator

import psycopg

from migration_job.signals import undisturbed


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
