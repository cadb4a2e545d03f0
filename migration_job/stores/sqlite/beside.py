"""What SQLite keeps beside a database file: its log, the log's index, its journal."""

from __future__ import annotations

import os
from pathlib import Path


def beside(file: Path, suffix: str) -> Path:
    """The file of that suffix. SQLite resolves links first, so it is beside what a link leads
    to."""
    real = Path(os.path.realpath(file))
    return real.with_name(real.name + suffix)
