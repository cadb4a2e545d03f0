"""Which paths the globs of a manifest name."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from migration_job.errors import InputError

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
