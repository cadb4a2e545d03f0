"""Reads ``database.json`` again whenever it changes.

The file names two databases, one for writes and one for reads; most of the time they are the same.
It is replaced by an atomic rename, so a read sees one version or the other.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Side:
    """One database. ``settings`` holds ``path`` for SQLite; ``host``, ``port``, ``database``,
    ``user`` and ``password`` for PostgreSQL."""

    engine: str
    settings: tuple[tuple[str, Any], ...]

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Side:
        """From one of the two objects of the file."""
        plain = {k: v for k, v in data.items() if k != "engine" and not isinstance(v, dict)}
        return cls(str(data["engine"]), tuple(sorted(plain.items())))

    def get(self, name: str) -> Any:
        """A setting; KeyError where the file does not give it."""
        return dict(self.settings)[name]


@dataclass(frozen=True, slots=True)
class Version:
    """The file's content: which database takes writes, and which answers reads."""

    write: Side
    read: Side
    generation: int


class Follower:
    """The present version of a connection directory's ``database.json``.

    ``current()`` costs one ``stat`` while nothing changes. Without a file ``default`` is what
    holds: the application's own database, before a migration has ever begun. Safe for several
    threads.
    """

    def __init__(self, directory: Path | None, default: Side, *, once: bool = False) -> None:
        self._file = None if directory is None else directory / "database.json"
        self._version = Version(default, default, 0)
        self._seen: tuple[int, int, int] | None = None
        self._lock = threading.Lock()
        self._look()
        self._once = once

    def current(self) -> Version:
        """What the file says now. Under ``once``, what it said when the application started."""
        if not self._once:
            self._look()
        return self._version

    def _look(self) -> None:
        if self._file is None:
            return
        with self._lock:
            try:
                status = os.stat(self._file)  # noqa: PTH116 - the cheapest look, at each request
                seen = (status.st_ino, status.st_mtime_ns, status.st_size)
                if seen == self._seen:
                    return
                data = json.loads(self._file.read_bytes())
            except FileNotFoundError:
                # Before the first migration, or the old version was removed between the two calls.
                return
            self._version = Version(
                Side.from_json(data["write"]), Side.from_json(data["read"]), data["generation"]
            )
            self._seen = seen
