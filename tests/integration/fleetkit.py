"""Made-up files of a fleet, and an independent look at where they went."""

from __future__ import annotations

import json
import random
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from migration_job.quoting import postgres_name
from tests.integration.running import Ended, run

SCHEMA = """
CREATE TABLE person (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, active BOOLEAN NOT NULL, made DATETIME);
CREATE TABLE note (
    id INTEGER PRIMARY KEY, person INTEGER NOT NULL REFERENCES person (id) ON DELETE CASCADE,
    body TEXT, score REAL, size INTEGER);
CREATE INDEX note_person ON note (person);
"""

TABLES = ("person", "note")


def make_file(
    path: Path, seed: int, *, rows: int = 12, schema: str = SCHEMA, more: str = ""
) -> None:
    """One tenant's file; ``more`` is SQL that drifts from what the others have."""
    random_ = random.Random(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(schema)
        for number in range(1, rows + 1):
            connection.execute(
                "INSERT INTO person (id, name, active, made) VALUES (?, ?, ?, ?)",
                (number, f"p{number} of {seed}", number % 2, f"2025-01-02 03:04:{number:02}"),
            )
            connection.execute(
                "INSERT INTO note (id, person, body, score, size) VALUES (?, ?, ?, ?, ?)",
                (
                    *(number, random_.randrange(1, number + 1), f"öl {seed}\t{number}"),
                    *(random_.random(), random_.randrange(1, 100_000)),
                ),
            )
        connection.executescript(more)


def damage(path: Path, seed: int) -> None:
    """Overwrite a page in the middle of the file with noise."""
    random_ = random.Random(seed)
    with path.open("r+b") as stream:
        size = path.stat().st_size
        stream.seek((size // 4096 // 2) * 4096)
        stream.write(random_.randbytes(4096))


@dataclass(frozen=True)
class Kit:
    """A fleet's folder and its target."""

    folder: Path
    dsn: str

    @property
    def report(self) -> Path:
        return self.folder / "report"

    def manifest(self, text: str) -> Path:
        path = self.folder / "manifest.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    def words(self, manifest: Path, *more: str) -> list[str]:
        """The command's arguments."""
        target = ("--target", self.dsn, "--report", str(self.report))
        return ["fleet", str(manifest), *target, *more]

    def run(self, manifest: Path, *more: str) -> Ended:
        return run(*self.words(manifest, *more))

    def told(self) -> Any:
        """What fleet.json says."""
        return json.loads((self.report / "fleet.json").read_text(encoding="utf-8"))

    def states(self) -> dict[str, str]:
        return {tenant: file["state"] for tenant, file in self.told()["files"].items()}

    def ask(self, query: str, *, database: str | None = None) -> list[tuple[Any, ...]]:
        dsn = self.dsn if database is None else make_conninfo(self.dsn, dbname=database)
        with psycopg.connect(dsn, autocommit=True) as target:
            return target.execute(query.encode()).fetchall()

    def do(self, *statements: str) -> None:
        """Each by itself."""
        with psycopg.connect(self.dsn, autocommit=True) as target:
            for statement in statements:
                target.execute(statement.encode())

    def types(self, schema: str, table: str = "note") -> dict[str, str]:
        """Each column's type there."""
        return dict(
            self.ask(
                "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
                f"WHERE attrelid = '{postgres_name(schema)}.{table}'::regclass AND attnum > 0"
            )
        )


def as_sqlite_has_it(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Each table's rows, as :func:`as_the_target_has_it` would give them."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return {
            "person": connection.execute(
                "SELECT id, name, active, made FROM person ORDER BY id"
            ).fetchall(),
            "note": connection.execute(
                "SELECT id, person, body, score, size FROM note ORDER BY id"
            ).fetchall(),
        }


def as_the_target_has_it(
    kit: Kit, schema: str, database: str | None = None
) -> dict[str, list[tuple[Any, ...]]]:
    """Each table's rows on the target in SQLite's values, read by queries of the test's own."""
    named = postgres_name(schema)
    return {
        "person": kit.ask(
            "SELECT id, name, active::int, "
            "to_char(made AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') "
            f"FROM {named}.person ORDER BY id",
            database=database,
        ),
        "note": kit.ask(
            f"SELECT id, person, body, score, size FROM {named}.note ORDER BY id",
            database=database,
        ),
    }
