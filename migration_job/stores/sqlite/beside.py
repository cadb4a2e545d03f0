"""What SQLite keeps beside a database file: its log, the log's index, its journal. They come and go
with the application's transactions, so that one that was there a moment ago may be none now."""

from __future__ import annotations

import os
from pathlib import Path

JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")
"""What a rollback journal begins with (https://www.sqlite.org/fileformat2.html#the_rollback_journal);
nulls in its place once it is rolled back or committed."""


def beside(file: Path, suffix: str) -> Path:
    """The file of that suffix. SQLite resolves links first, so it is beside what a link leads
    to."""
    real = Path(os.path.realpath(file))
    return real.with_name(real.name + suffix)


def size(file: Path) -> int:
    """Its bytes; 0 where it is no file, or not any more."""
    try:
        return file.stat().st_size if file.is_file() else 0
    except FileNotFoundError:
        return 0


def is_journal(file: Path) -> bool:
    """Whether it is a rollback journal that is in use, or was when its writer died; not where it is
    none any more, or cannot be read."""
    try:
        with file.open("rb") as stream:
            return stream.read(len(JOURNAL_MAGIC)) == JOURNAL_MAGIC
    except OSError:
        return False
