"""Which processes hold locks on a SQLite file, by the kernel's own list (Linux)."""

from __future__ import annotations

import os
from pathlib import Path

from migration_job.stores.sqlite.beside import beside

LOCKS = Path("/proc/locks")

SUFFIXES = ("", "-wal", "-shm", "-journal")
"""Of the files whose locks keep others from a database."""

MOST = 3


def holders(path: Path, locks: Path = LOCKS) -> list[int]:
    """The ids of the other processes that hold a lock on the database's files, in order; none where
    the kernel does not say (another system, another container)."""
    inodes = set()
    for suffix in SUFFIXES:
        try:
            inodes.add(beside(path, suffix).stat().st_ino)
        except OSError:
            continue
    try:
        lines = locks.read_text().splitlines()
    except OSError:
        return []
    found = set()
    for line in lines:
        words = line.split()
        # `1: POSIX ADVISORY WRITE 4711 fd:01:1234 0 EOF`; `->` stands before one that waits.
        if len(words) < 8 or words[1] == "->":
            continue
        pid, inode = words[4], words[5].rpartition(":")[2]
        if pid.isdigit() and inode.isdigit() and int(inode) in inodes:
            found.add(int(pid))
    return sorted(found - {os.getpid()})


def in_words(path: Path) -> str:
    """``, held by process 4711 (node)``, as the rest of a sentence; '' where nobody is known."""
    found = holders(path)
    if not found:
        return ""
    named = ", ".join(f"{pid}{_name(pid)}" for pid in found[:MOST])
    more = f" and {len(found) - MOST} more" if len(found) > MOST else ""
    return f", held by process {named}{more}"


def _name(pid: int) -> str:
    try:
        name = Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
    return f" ({''.join(c for c in name if c.isprintable())})" if name else ""
