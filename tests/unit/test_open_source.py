"""Opening a file to write to it, as those do that follow it."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from migration_job.errors import InputError
from migration_job.stores.sqlite import fence


def held(path: Path) -> int:
    """How often this process has it open."""
    count = 0
    for entry in Path("/proc/self/fd").iterdir():
        try:
            count += os.readlink(entry) == os.fspath(path)  # noqa: PTH115 - a pipe's is no path
        except OSError:
            continue
    return count


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are counted in /proc")
def test_a_damaged_file_that_is_tried_again_is_not_kept_open(tmp_path: Path) -> None:
    """`fleet-sync` tries such a file again every half minute."""
    path = tmp_path.resolve() / "a.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (name TEXT UNIQUE)")
    path.write_bytes(path.read_bytes().replace(b"sqlite_autoindex", b"sqlitX_autoindex"))
    for _ in range(3):
        with pytest.raises(InputError, match="damaged"):
            fence.open_source(path)
    assert held(path) == 0
