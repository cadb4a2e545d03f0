"""An application that makes up its writes: it stands in for one that nobody can start here.

``python -m example_app.replay --sqlite FILE --connection DIR --journal DIR --changes FILE.json``
writes to whatever side ``database.json`` names, as :mod:`example_app.store` does, what the file of
changes says: a list of objects with ``what`` (words), ``sqlite`` and ``postgresql`` (one statement
each, parameters ``?``) and ``rows`` (each parameter is a number below it). The file is read again
when it changes. It ends at the end of its standard input, and prints one JSON object a line: how it
stands, and last of all what it met.
"""

from __future__ import annotations

import argparse
import json
import random
import secrets
import sqlite3
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from example_app.databases import BUSY_SECONDS, Statement, prepare_requests
from example_app.following import Follower
from example_app.journal import Journal
from example_app.store import Store, Unavailable, sqlite_side

TOLD_SECONDS = 0.2

HOW_MANY: Statement = dict.fromkeys(
    ("sqlite", "postgresql"), "SELECT count(*) FROM app_requests WHERE id = ?"
)


@dataclass(frozen=True, slots=True)
class Change:
    """One kind of change that may be made again and again."""

    what: str
    statement: Statement
    rows: int
    parameters: int

    @classmethod
    def read(cls, entry: dict[str, Any]) -> Change:
        statement = {side: str(entry[side]) for side in ("sqlite", "postgresql")}
        return cls(
            str(entry["what"]), statement, int(entry["rows"]), statement["sqlite"].count("?")
        )

    def values(self, chance: random.Random) -> list[str]:
        """Parameters of one change."""
        return [str(chance.randrange(self.rows)) for _ in range(self.parameters)]


@dataclass(slots=True)
class Met:
    """What the writers and readers met so far."""

    answered: int = 0
    failures: list[str] = field(default_factory=list)
    longest: float = 0.0
    sides: Counter[str] = field(default_factory=Counter)
    refused: dict[str, str] = field(default_factory=dict)
    """Changes that the schema itself refuses: their words, and why."""

    def to_json(self) -> dict[str, Any]:
        return {
            "answered": self.answered,
            "failed": len(self.failures),
            "failures": self.failures[:5],
            "longest": self.longest,
            "sides": dict(self.sides),
            "refused": self.refused,
        }


class Replay:
    """Writers and readers in threads, half of them with a new connection each time."""

    def __init__(self, store: Store, sqlite: Path, changes: Path, journal: Path) -> None:
        self._store, self._sqlite = store, sqlite
        self._file, self._folder = changes, journal
        self._run = secrets.token_hex(4)
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._choosing = threading.Lock()
        self._met = Met()
        self._changes: list[Change] = []
        self._read_at = 0
        self._threads: list[threading.Thread] = []

    def start(self, users: int, rate: float) -> None:
        """Begin with so many writers, which write ``rate`` times a second, and so many readers."""
        self._folder.mkdir(parents=True, exist_ok=True)
        pause = users / rate
        for number in range(users):
            for work in (self._write, self._read):
                thread = threading.Thread(target=work, args=(number, pause))
                self._threads.append(thread)
                thread.start()

    def stop(self) -> dict[str, Any]:
        """End: what has begun is waited for. What was met."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        return self._met.to_json()

    def so_far(self) -> dict[str, Any]:
        with self._lock:
            return self._met.to_json()

    # ------------------------------------------------------------------------------ threads

    def _write(self, number: int, pause: float) -> None:
        chance = random.Random(number)  # noqa: S311 - no secret
        name = f"{self._run}-{number}"
        with Journal(self._folder / f"{name}.jsonl") as journal:
            for count in range(sys.maxsize):
                if self._over.wait(pause):
                    return
                if (change := self._chosen(chance)) is None:
                    continue
                request = f"{name}-{count}"
                journal.sent(request, {"kind": change.what})
                if self._done(change, request, chance, fresh=number % 2 == 1):
                    journal.acknowledged(request)
                    self._ask(request, number)

    def _read(self, number: int, pause: float) -> None:
        while not self._over.wait(pause):
            self._ask("", number)

    def _done(self, change: Change, request: str, chance: random.Random, *, fresh: bool) -> bool:
        began = time.monotonic()
        values = change.values(chance)
        try:
            answer = self._store.write(request, "made up", change.statement, values, fresh=fresh)
        except Unavailable as error:
            self._failed(f"{change.what}: {error} after {time.monotonic() - began:.2f} s")
            return False
        except (sqlite3.Error, psycopg.Error) as error:
            self._refuse(change, error)
            return False
        self._answered(began, answer.side)
        return True

    def _ask(self, request: str, number: int) -> None:
        """Read; a write of this process's that was acknowledged has to be there."""
        began = time.monotonic()
        try:
            answer = self._store.read(HOW_MANY, [request], fresh=number % 2 == 1)
        except (Unavailable, sqlite3.Error, psycopg.Error) as error:
            self._failed(f"reading: {error} after {time.monotonic() - began:.2f} s")
            return
        self._answered(began, None)
        if request and int(answer.rows[0][0]) != 1:
            self._failed(f"write {request} was acknowledged and is there {answer.rows[0][0]} times")

    def _answered(self, began: float, side: str | None) -> None:
        with self._lock:
            self._met.answered += 1
            self._met.longest = max(self._met.longest, time.monotonic() - began)
            if side is not None:
                self._met.sides[side] += 1

    def _failed(self, words: str) -> None:
        with self._lock:
            self._met.failures.append(words)

    def _refuse(self, change: Change, error: Exception) -> None:
        """The schema's own rules forbid it: no failure of the move, and not tried again."""
        lines = str(error).splitlines() or [type(error).__name__]
        with self._lock:
            self._met.refused[change.what] = lines[0]

    def _chosen(self, chance: random.Random) -> Change | None:
        with self._choosing:
            changed = self._file.stat().st_mtime_ns
            if changed != self._read_at:
                self._changes = [Change.read(e) for e in json.loads(self._file.read_text("utf-8"))]
                self._read_at = changed
                if self._store.follower.current().write.engine == "sqlite":
                    refused = try_out(self._sqlite, self._changes)
                    with self._lock:
                        self._met.refused.update(refused)
            possible = [one for one in self._changes if one.what not in self._met.refused]
            return chance.choice(possible) if possible else None


def try_out(file: Path, changes: Sequence[Change]) -> dict[str, str]:
    """Make each change once on SQLite, and undo it: those that it refuses, and its words."""
    refused: dict[str, str] = {}
    with closing(sqlite3.connect(file, timeout=BUSY_SECONDS, isolation_level=None)) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        for change in changes:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                continue  # somebody else writes for long: it is tried when it is made
            try:
                connection.execute(change.statement["sqlite"], ["0"] * change.parameters)
            except sqlite3.Error as error:
                refused[change.what] = str(error)
            finally:
                connection.execute("ROLLBACK")
    return refused


def main() -> int:
    parser = argparse.ArgumentParser(prog="example_app.replay", description="make up writes")
    parser.add_argument("--sqlite", type=Path, required=True)
    parser.add_argument("--connection", type=Path, required=True)
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("--changes", type=Path, required=True)
    parser.add_argument("--rate", type=float, default=25.0, help="writes per second of all")
    parser.add_argument("--users", type=int, default=4)
    options = parser.parse_args()
    prepare_requests(options.sqlite)
    follower = Follower(options.connection, sqlite_side(options.sqlite))
    store = Store(follower)
    replay = Replay(store, options.sqlite, options.changes, options.journal)
    replay.start(options.users, options.rate)
    over = threading.Event()

    def wait_for_the_end() -> None:
        sys.stdin.read()
        over.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    while not over.wait(TOLD_SECONDS):
        print(json.dumps(replay.so_far()), flush=True)
    met = replay.stop()
    store.close()
    print(json.dumps(met), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
