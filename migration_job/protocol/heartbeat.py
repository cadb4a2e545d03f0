"""Whether `sync` lives: its own report says so, or that of a process that follows many files.

Such a process writes a file of its own once a second, however many files it follows, and leaves the
file's path in each state directory (``follower``). What it has to say of one file is in that file's
``sync.json``, as ever, and as old as that file's last round.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path

from migration_job.durable import write_durably

STALE_SECONDS = 10.0
"""A `sync` that has said nothing for so long does not run."""

FOLLOWER = "follower"


def name_follower(state: Path, heartbeat: Path) -> None:
    """Leave word in a state directory of where the process that follows its file says that it
    lives. That is for people: where it cannot be written, following does not depend on it."""
    with contextlib.suppress(OSError):
        if _named(state) != heartbeat:
            write_durably(state / FOLLOWER, os.fsencode(heartbeat.absolute()), mode=0o644)


def beat(heartbeat: Path, content: dict[str, object]) -> None:
    """Say that this process lives; ``content`` is what else it says. Raises OSError."""
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    text = json.dumps({"pid": os.getpid(), "at": at, **content}, indent=1) + "\n"
    write_durably(heartbeat, text.encode(), mode=0o644)


def followers_beat(state: Path) -> tuple[int, str] | None:
    """The process that follows many files, this one among them, and when it last said so (UTC);
    None where there is none, or it has ended."""
    heartbeat = _named(state)
    if heartbeat is None:
        return None
    try:
        told = json.loads(heartbeat.read_text(encoding="utf-8"))
        return None if told["ended"] else (int(told["pid"]), str(told["at"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def lives(state: Path) -> bool:
    """Whether something follows the file of that state directory at this moment."""
    with contextlib.suppress(OSError):
        if time.time() - (state / "sync.json").stat().st_mtime < STALE_SECONDS:
            return True
    beaten = followers_beat(state)
    if beaten is None:
        return False
    return age(beaten[1]) < STALE_SECONDS


def age(at: str) -> float:
    """How long ago that was (UTC), in seconds."""
    return (datetime.now(UTC) - datetime.fromisoformat(at)).total_seconds()


def _named(state: Path) -> Path | None:
    try:
        return Path(os.fsdecode((state / FOLLOWER).read_bytes()))
    except OSError:
        return None
