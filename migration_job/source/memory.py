"""SQLite's memory, shared by the threads that read the snapshot."""

from __future__ import annotations

import apsw


def uncounted() -> None:
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
