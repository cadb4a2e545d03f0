"""Who holds a lock on the source is named by the kernel's own list."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from migration_job.stores.sqlite import fence
from migration_job.stores.sqlite.holders import LOCKS, holders

HOLD = """
import sqlite3, sys
c = sqlite3.connect(sys.argv[1], isolation_level=None)
c.execute("CREATE TABLE IF NOT EXISTS t (n)")
c.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.read()
"""


def test_lines_of_the_list(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.touch()
    inode = path.stat().st_ino
    (tmp_path / "locks").write_text(
        f"1: POSIX  ADVISORY  WRITE 4711 fd:01:{inode} 0 EOF\n"
        f"1: -> POSIX  ADVISORY  WRITE 4712 fd:01:{inode} 0 EOF\n"
        f"2: POSIX  ADVISORY  READ {os.getpid()} fd:01:{inode} 0 EOF\n"
        f"3: POSIX  ADVISORY  READ 4713 fd:01:{inode + 1} 0 EOF\n"
        f"4: OFDLCK ADVISORY  READ -1 fd:01:{inode} 0 EOF\nnonsense\n"
    )
    assert holders(path, tmp_path / "locks") == [4711]
    assert holders(path, tmp_path / "none") == []


@pytest.mark.skipif(not LOCKS.exists(), reason="the kernel has no /proc/locks")
def test_a_lock_that_does_not_end_names_its_process(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == "held\n"
        if other.pid not in holders(path):
            other.stdin.close()
            pytest.skip("this kernel does not list the locks of other processes here")
        connection = apsw.Connection(str(path))
        with pytest.raises(fence.LockedError, match=f"held by process {other.pid} "):
            fence.hold_writers(connection, limit=0.1)
        connection.close()
        other.stdin.close()
