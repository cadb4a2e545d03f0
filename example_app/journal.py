"""The load's own record of what was acknowledged, and its comparison with the side that serves.

One file per writer, one JSON line when a request is sent and one, brought to the disk before the
next request is sent, when it is acknowledged. The comparison reads the database itself, not the
application and not the migration job::

    python -m example_app.journal DIR (--sqlite FILE | --dsn DSN)

A request counts as present exactly once where its id is there once and so is what it did: its row,
or, where a later request of the same writer replaced that, the later one's value.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg

Query = Callable[[str], list[tuple[Any, ...]]]


class Journal:
    """One writer's journal; a context manager."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._descriptor)

    def sent(self, request: str, effect: dict[str, Any]) -> None:
        """The request is about to be sent; ``effect`` is what it is to leave behind."""
        self._append({"sent": request, **effect})

    def acknowledged(self, request: str) -> None:
        """The request was answered as done; on the disk when this returns."""
        self._append({"acknowledged": request})
        os.fdatasync(self._descriptor)

    def _append(self, line: dict[str, Any]) -> None:
        os.write(self._descriptor, json.dumps(line).encode() + b"\n")


@dataclass(slots=True)
class Written:
    """What the journals of one or more loads say."""

    sent: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The effect by request id, in the order of sending."""
    acknowledged: set[str] = field(default_factory=set)

    @classmethod
    def read(cls, directory: Path) -> Written:
        """All journals of a directory."""
        written = cls()
        for file in sorted(directory.glob("*.jsonl")):
            for line in file.read_text().splitlines():
                entry = json.loads(line)
                if "sent" in entry:
                    written.sent[entry.pop("sent")] = entry
                else:
                    written.acknowledged.add(entry["acknowledged"])
        return written


@dataclass(slots=True)
class Compared:
    """What the serving side holds of what was acknowledged; no ``problems`` is the proof."""

    acknowledged: int
    problems: list[str] = field(default_factory=list)

    def line(self) -> str:
        if not self.problems:
            return f"all {self.acknowledged:,} acknowledged writes are present exactly once"
        several = "" if len(self.problems) == 1 else "s"
        return f"{len(self.problems):,} problem{several}, the first: {self.problems[0]}"


def compare(written: Written, query: Query) -> Compared:
    """Compare with a database; ``query`` runs SQL that means the same on both engines."""
    found = Compared(len(written.acknowledged))
    _compare_requests(written, query, found.problems)
    _compare_rows(written, query, found.problems)
    _compare_values(written, query, found.problems)
    return found


def compare_requests(written: Written, query: Query) -> Compared:
    """The requests alone: each that was acknowledged is there once."""
    found = Compared(len(written.acknowledged))
    _compare_requests(written, query, found.problems)
    return found


def _compare_requests(written: Written, query: Query, problems: list[str]) -> None:
    times = Counter(str(row[0]) for row in query("SELECT id FROM app_requests"))
    for request in sorted(written.acknowledged):
        if times[request] != 1:
            what = written.sent[request]["kind"]
            problems.append(f"{what} request {request} is there {times[request]} times")


def _compare_rows(written: Written, query: Query, problems: list[str]) -> None:
    """Rows that are made once: never twice, and where acknowledged, once."""
    rows = {
        "user": Counter(str(r[0]) for r in query("SELECT id FROM users")),
        "case": Counter(str(r[0]) for r in query("SELECT id FROM cases")),
        "quiz": Counter(
            str(r[0]) for r in query("SELECT session_id FROM quiz_attempts") if r[0] is not None
        ),
    }
    for request, effect in written.sent.items():
        if effect["kind"] not in rows:
            continue
        key = request if effect["kind"] == "quiz" else effect["id"]
        times = rows[effect["kind"]][key]
        if times > 1 or (request in written.acknowledged and times != 1):
            problems.append(f"{effect['kind']} {key} is there {times} times")


def _compare_values(written: Written, query: Query, problems: list[str]) -> None:
    """Values that are replaced: the last one acknowledged, or one that was sent after it."""
    present: dict[tuple[str, ...], str] = {
        ("title", str(r[0])): str(r[1]) for r in query("SELECT id, title FROM cases")
    } | {
        ("progress", str(r[0]), str(r[1])): str(r[2])
        for r in query("SELECT user_id, case_id, repetitions FROM user_case_progress")
    }
    allowed: dict[tuple[str, ...], list[str]] = {}
    for request, effect in written.sent.items():
        for key, value in _values(effect):
            if request in written.acknowledged:
                allowed[key] = [value]
            elif key in allowed:
                allowed[key].append(value)
    for key, values in allowed.items():
        if present.get(key) not in values:
            problems.append(f"{' '.join(key)}: expected {values}, found {present.get(key)!r}")


def _values(effect: dict[str, Any]) -> Iterable[tuple[tuple[str, ...], str]]:
    if effect["kind"] in ("case", "title"):
        yield ("title", effect["id"]), effect["title"]
    elif effect["kind"] == "progress":
        yield ("progress", effect["user"], effect["case"]), str(effect["value"])


def compare_sqlite(
    directory: Path, file: Path, how: Callable[[Written, Query], Compared] = compare
) -> Compared:
    """The journals of ``directory`` against a SQLite file, which is opened for reading only."""
    connection = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)
    try:
        return how(Written.read(directory), lambda sql: connection.execute(sql).fetchall())
    finally:
        connection.close()


def compare_postgres(directory: Path, dsn: str) -> Compared:
    """The journals of ``directory`` against PostgreSQL, in one transaction."""
    with psycopg.connect(dsn) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        return compare(Written.read(directory), lambda sql: connection.execute(sql).fetchall())


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="example_app.journal", description="compare journals with the side that serves"
    )
    parser.add_argument("journal", type=Path, help="the load's --journal")
    side = parser.add_mutually_exclusive_group(required=True)
    side.add_argument("--sqlite", type=Path)
    side.add_argument("--dsn")
    options = parser.parse_args()
    if options.sqlite is not None:
        found = compare_sqlite(options.journal, options.sqlite)
    else:
        found = compare_postgres(options.journal, options.dsn)
    print(found.line())
    for problem in found.problems[1:10]:
        print(f"  {problem}")
    return 1 if found.problems else 0


if __name__ == "__main__":
    sys.exit(main())
