"""Made-up fleets in which files drift, are damaged, locked or missing; and what each side holds,
read directly."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import apsw
import psycopg
from psycopg.conninfo import make_conninfo

from migration_job.quoting import postgres_name, sqlite_name
from tests.integration.fleetkit import SCHEMA, make_file

ALIKE = {
    "plain": "",
    "large": "UPDATE note SET size = 5000000000 WHERE id = 2",
    "empty": "DELETE FROM note; DELETE FROM person",
}
"""Healthy files of the schema that most have, each with its SQL."""

DRIFTED = {
    "a column more": "ALTER TABLE note ADD COLUMN colour TEXT; UPDATE note SET colour = 'red'",
    "a column less": "ALTER TABLE note DROP COLUMN score",
    "a column renamed": "ALTER TABLE note RENAME COLUMN body TO words",
    "a table more": "CREATE TABLE old (id INTEGER PRIMARY KEY, x TEXT);"
    "INSERT INTO old (x) SELECT name FROM person",
    "a table less": "DROP TABLE note",
    "a table renamed": "ALTER TABLE note RENAME TO remark",
    "another type": "CREATE TABLE other (id INTEGER PRIMARY KEY, person INTEGER, body TEXT,"
    "score REAL, size TEXT); INSERT INTO other SELECT id, person, body, score, 'n' || size FROM"
    " note; DROP TABLE note; ALTER TABLE other RENAME TO note",
}
"""Healthy files of other schemas."""


def _bytes(path: Path, dice: random.Random, low: int = 100) -> None:
    size = path.stat().st_size
    with path.open("r+b") as stream:
        for _ in range(dice.choice((1, 5, 40))):
            stream.seek(dice.randrange(low, size))
            stream.write(dice.randbytes(dice.choice((1, 4, 64)))[: size - stream.tell()])


def _header(path: Path, dice: random.Random) -> None:
    with path.open("r+b") as stream:
        stream.seek(dice.randrange(100))
        stream.write(dice.randbytes(dice.choice((1, 2, 4))))


def _pages(path: Path, dice: random.Random) -> None:
    content = path.read_bytes()
    width = int.from_bytes(content[16:18], "big")
    pages = [content[at : at + width] for at in range(0, len(content), width)]
    one, other = dice.sample(range(1, len(pages)), 2)
    pages[one], pages[other] = pages[other], pages[one]
    path.write_bytes(b"".join(pages))


def _cut(path: Path, dice: random.Random) -> None:
    os.truncate(path, dice.randrange(1, path.stat().st_size))


def _nothing(path: Path, _dice: random.Random) -> None:
    os.truncate(path, 0)


def _noise(path: Path, dice: random.Random) -> None:
    path.write_bytes(dice.choice((b"no database at all. " * 300, dice.randbytes(9_000), b"\n")))


def _log(path: Path, dice: random.Random) -> None:
    Path(f"{path}{dice.choice(('-wal', '-journal'))}").write_bytes(dice.randbytes(5_000))


def _gone(path: Path, _dice: random.Random) -> None:
    path.unlink()


BROKEN: dict[str, Callable[[Path, random.Random], None]] = {
    "bytes changed": _bytes,
    "the header changed": _header,
    "pages swapped": _pages,
    "cut off": _cut,
    "0 bytes": _nothing,
    "no database": _noise,
    "noise in its log": _log,
    "missing": _gone,
}

NOTHING = ("0 bytes", "no database", "missing")
"""Ways to be broken that leave nothing to move."""


@dataclass
class File:
    """One file of the fleet, and what is to be expected of it."""

    name: str
    path: Path
    schema: str
    """A key of :data:`ALIKE` or :data:`DRIFTED`."""
    whole: Path
    """A copy as it was before it was broken."""
    journal: str
    broken: str = ""
    """A key of :data:`BROKEN`, ``locked``, or '' for one that is healthy."""
    followed: bool = False
    """Whether it is in use and was moved before it was broken."""
    holder: apsw.Connection | None = field(default=None, repr=False)
    """Who has the file locked."""

    @classmethod
    def made(cls, folder: Path, number: int, schema: str, dice: random.Random) -> File:
        """A healthy one."""
        name = f"t{number}"
        path = folder / "in" / f"{name}.db"
        more = (ALIKE | DRIFTED)[schema]
        journal = dice.choice(("WAL", "DELETE"))
        width = dice.choice((512, 1024, 4096))
        make_file(
            path,
            number,
            rows=dice.randrange(3, 59),
            schema=f"PRAGMA page_size = {width}; {SCHEMA}",
            more=f"{more}; PRAGMA journal_mode = {journal}",
        )
        whole = folder / f"{name}.whole"
        shutil.copyfile(path, whole)
        return cls(name, path, schema, whole, journal)

    def unreadable(self, *, live: bool) -> bool:
        """Whether there is nothing to be had of it. In WAL mode a writer keeps no reader out, but
        whoever adds the capture."""
        captures = live and not self.followed
        locked = self.broken == "locked" and (captures or self.journal == "DELETE")
        return locked or self.broken in NOTHING

    @property
    def alike(self) -> bool:
        return self.schema in ALIKE

    def break_(self, how: str, dice: random.Random) -> None:
        """Damage it, take it away, or keep it locked."""
        self.broken = how
        if how == "locked":
            self.holder = apsw.Connection(os.fspath(self.path))
            self.holder.execute("BEGIN EXCLUSIVE")
        else:
            BROKEN[how](self.path, dice)

    def mend(self) -> None:
        """As it was before it was broken."""
        if self.holder is not None:
            self.holder.close()
            self.holder = None
        elif self.broken:
            for beside in ("-wal", "-shm", "-journal"):
                Path(f"{self.path}{beside}").unlink(missing_ok=True)
            shutil.copyfile(self.whole, self.path)
        self.broken = ""

    def keep(self) -> None:
        """Have :meth:`mend` lead back to what the file holds now, which nobody has open."""
        with contextlib.closing(apsw.Connection(os.fspath(self.path))) as source:
            source.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        shutil.copyfile(self.path, self.whole)


Rows = dict[str, list[tuple[Any, ...]]]
"""By table; in an order of the test's own, in values that both sides have."""


def on_sqlite(path: Path) -> tuple[Rows, dict[str, list[str]]]:
    """The application's tables, and the columns of each. Raises apsw.Error or UnicodeError where
    the file cannot be read. With apsw, which shares its locks with the job's."""
    source = apsw.Connection(os.fspath(path), flags=apsw.SQLITE_OPEN_READONLY)
    with contextlib.closing(source):
        columns: dict[str, list[str]] = {}
        for (name,) in source.execute(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' "
            "ESCAPE '\\' AND name NOT LIKE '\\_migration%' ESCAPE '\\'"
        ):
            told = source.execute("SELECT name FROM pragma_table_info(?)", (name,))
            columns[str(name)] = [str(column) for (column,) in told]
        rows = {
            table: _plain(source.execute(f"SELECT {_listed(names)} FROM {sqlite_name(table)}"))
            for table, names in columns.items()
        }
    return rows, columns


def _listed(names: list[str]) -> str:
    return ", ".join(map(postgres_name, names))


def on_postgres(
    dsn: str, schema: str, columns: dict[str, list[str]], where: str = "", database: str = ""
) -> Rows:
    """The same tables on the target; ``where`` chooses a tenant's rows."""
    with psycopg.connect(make_conninfo(dsn, dbname=database) if database else dsn) as target:
        named = postgres_name(schema)
        return {
            table: _plain(
                target.execute(
                    f"SELECT {_listed(names)} FROM {named}.{postgres_name(table)} {where}".encode()
                )
            )
            for table, names in columns.items()
        }


def _plain(rows: Any) -> list[tuple[Any, ...]]:
    return sorted((tuple(map(_value, row)) for row in rows), key=repr)


def _value(value: object) -> object:
    if isinstance(value, bool | int | float | Decimal):
        return float(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
    return bytes(value) if isinstance(value, memoryview) else value


def complaints(path: Path) -> list[str]:
    """What SQLite's own check says of the file's pages and indexes, not of its values."""
    with contextlib.closing(apsw.Connection(os.fspath(path))) as source:
        said = [str(line) for (line,) in source.execute("PRAGMA integrity_check")]
    values = ("ok", "NULL value in", "CHECK constraint failed", "non-unique entry")
    return [line for line in said if not line.startswith(values) and " value in " not in line]
