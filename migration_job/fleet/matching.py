"""Which paths the globs of a manifest name, and what tells a file from what it was."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from migration_job.errors import InputError
from migration_job.stores.sqlite.beside import beside

BESIDE = ("-wal", "-shm", "-journal")
"""How files of SQLite's end that belong to another one."""


def matching(patterns: Sequence[str], folder: Path) -> list[str]:
    """The paths, in order, as the manifest in ``folder`` would write them. A name without a
    wildcard is one file, be it there or not. Raises InputError where there are none."""
    found: dict[str, None] = {}
    for pattern in patterns:
        if not glob.has_magic(pattern):
            found[pattern] = None
            continue
        # Not Path.glob, which takes no absolute pattern.
        for name in sorted(glob.glob(pattern, root_dir=folder, recursive=True)):  # noqa: PTH207
            if not name.endswith(BESIDE) and not (folder / name).is_dir():
                found[name.replace(os.sep, "/")] = None
    if not found:
        raise InputError(
            f"expected files that match {', '.join(patterns)}, found none in {folder}",
            advice="correct `files`; a glob begins at the manifest's directory, and ** is any "
            "number of directories",
        )
    return list(found)


def is_text(text: str) -> bool:
    """Whether it can be written in UTF-8, as every path and every name here is."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def with_log(path: Path) -> tuple[Path, Path]:
    """The file and its write-ahead log, which is beside the file that a link leads to."""
    return path, beside(path, "-wal")


def mark_of(path: Path) -> str:
    """Changes with every commit to the file: SQLite writes to it, or to its log."""
    found = []
    for file in with_log(path):
        try:
            status = file.stat()
        except OSError:
            found.append("-")
            continue
        if found and not status.st_size:
            found.append("-")  # a log without content comes with whoever looks into the file
            continue
        # The second is set by no program; but that of a log is, by SQLite as root: it gives the log
        # to the file's owner each time that it opens it.
        times = f"{status.st_mtime_ns}:{0 if found else status.st_ctime_ns}"
        found.append(f"{status.st_dev}:{status.st_ino}:{status.st_size}:{times}")
    return "" if found[0] == "-" else " ".join(found)
