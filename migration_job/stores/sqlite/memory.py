"""Memory that SQLite and Python would look through again and again, or the C library keep."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager

import apsw


def stop_memory_accounting() -> None:
    """Have SQLite no longer count its memory. It counts every allocation of the process under one
    mutex, for which threads that assemble text wait: with two of them a third of their time.

    Takes effect once for a process, and only while no connection is open: for a command to call
    before anything else.
    """
    if apsw.connections():
        return
    apsw.shutdown()
    try:
        apsw.config(apsw.SQLITE_CONFIG_MEMSTATUS, False)
    finally:
        apsw.initialize()


M_ARENA_MAX = -8
MOST_ARENAS = 2


def use_few_arenas() -> None:
    """Have the GNU C library's threads share :data:`MOST_ARENAS` pools of memory. Each thread would
    have one of its own, up to eight for each core, and keep what it has freed: a fifth of the peak
    with two thousand tables. Other C libraries have none. For a command to call before it starts
    threads."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, MOST_ARENAS)


@contextmanager
def staying() -> Iterator[None]:
    """For a block whose objects stay until the process ends, such as the plan's. Python's cyclic
    collector looks through all of them each time that a quarter has been added, and ever again
    later: with thousands of tables, a quarter of the planning."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()
