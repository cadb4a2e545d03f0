"""A SQLite database like RadCase's: its 51 tables, its shapes, as many rows as wanted.

The same seed gives the same content. What a RadCase file holds in the wild is here too: the user
``system``, guests, slugs beside UUIDs, ISO times with ``Z``, 0/1 flags, JSON as text, columns added
later, fractions in an INTEGER column, ids that were used and deleted, progress written by INSERT OR
REPLACE, the write-ahead log. ``hostile`` adds what the application's own API lets in besides.

Run it by itself: ``python -m migration_job.demo.radcase FILE --rows 1500000``.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Annotated

import apsw
import typer

from migration_job.demo.hostile import add_hostile_rows
from migration_job.demo.radcase_rows import Maker
from migration_job.errors import InputError
from migration_job.plural import counted
from migration_job.quoting import compose, sqlite_table
from migration_job.stores.sqlite.catalogue import read_catalogue
from migration_job.stores.sqlite.model import Catalogue

DEFAULT_ROWS = 60_000
DEFAULT_SEED = 2026
MIN_ROWS = 1_000
DELETED_ATTEMPTS = 17
"""Quiz attempts made and deleted again, so that ``sqlite_sequence`` is beyond the largest id."""


@dataclass(frozen=True, slots=True)
class Made:
    """What was written: rows and tables in all, and the seconds it took."""

    path: Path
    tables: int
    rows: int
    seconds: float


def make_radcase(
    path: Path, *, rows: int = DEFAULT_ROWS, seed: int = DEFAULT_SEED, hostile: bool = False
) -> Made:
    """Write a database of exactly ``rows`` rows (and some more where ``hostile``) to a new file.

    Raises InputError where the file exists already or ``rows`` is below 1,000.
    """
    if path.exists():
        raise InputError(
            f"expected no file at {path}, found one", advice="choose another name, or remove it"
        )
    require_rows(rows)
    begun = time.monotonic()
    statements = _schema()
    connection = apsw.Connection(str(path))
    try:
        connection.execute("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF")
        connection.execute("PRAGMA foreign_keys = OFF; PRAGMA cache_size = -65536")
        with connection:
            for statement in statements:
                if not statement.startswith("CREATE INDEX"):
                    connection.execute(statement)
            _fill(connection, Maker(rows, seed))
            _age(connection)
            for statement in statements:
                if statement.startswith("CREATE INDEX"):
                    connection.execute(statement)
        if hostile:
            with connection:
                add_hostile_rows(connection)
        connection.execute("PRAGMA journal_mode = WAL")
        tables = [name for (name,) in connection.execute(_USER_TABLES)]
        count = sum(_count(connection, name) for name in tables)
    finally:
        connection.close()
    return Made(path, len(tables), count, time.monotonic() - begun)


def require_rows(rows: int) -> None:
    """Raises InputError where so few rows do not fill every table."""
    if rows < MIN_ROWS:
        raise InputError(
            f"expected at least {MIN_ROWS:,} rows, found {rows:,}", advice="give more with --rows"
        )


def radcase_catalogue(*more: str) -> Catalogue:
    """What a file of :func:`make_radcase` has, and what ``more`` statements add, without a file."""
    with contextlib.closing(apsw.Connection(":memory:")) as connection:
        for statement in (*_schema(), *more):
            connection.execute(statement)
        return read_catalogue(connection)


_USER_TABLES = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"


def _schema() -> list[str]:
    text = resources.files("migration_job.demo").joinpath("radcase.sql").read_text("utf-8")
    lines = (line for line in text.splitlines() if not line.startswith("--"))
    return [s.strip() for s in "\n".join(lines).split(";\n") if s.strip()]


def _count(connection: apsw.Connection, table: str) -> int:
    return int(
        connection.execute(compose("SELECT count(*) FROM {table}", table=sqlite_table(table))).get
    )


def _fill(connection: apsw.Connection, maker: Maker) -> None:
    for table, count, make in maker.tables():
        produced = islice(make(), count)
        first = next(produced, None)
        if first is None:
            continue
        marks = ", ".join("?" * len(first))
        insert = compose(
            "INSERT INTO {table} VALUES ({marks})", table=sqlite_table(table), marks=marks
        )
        connection.execute(insert, first)
        connection.executemany(insert, produced)


def _age(connection: apsw.Connection) -> None:
    """What years of use leave behind, with the number of rows unchanged."""
    connection.execute(
        "INSERT OR REPLACE INTO user_case_progress "
        "SELECT user_id, case_id, ease_factor, interval_days + 1, repetitions + 1, next_review, "
        "last_reviewed FROM user_case_progress WHERE rowid % 10 = 3"
    )
    connection.execute(
        "INSERT INTO quiz_attempts (id, case_id, correct) "
        "SELECT max(id) + ?, case_id, 0 FROM quiz_attempts",
        (DELETED_ATTEMPTS,),
    )
    connection.execute("DELETE FROM quiz_attempts WHERE id = (SELECT max(id) FROM quiz_attempts)")


def _main(
    path: Annotated[Path, typer.Argument(help="The file to make; it must not exist.")],
    rows: Annotated[int, typer.Option(help="Rows in all.")] = DEFAULT_ROWS,
    seed: Annotated[int, typer.Option(help="The same seed gives the same rows.")] = DEFAULT_SEED,
    hostile: Annotated[bool, typer.Option(help="Add what the API lets in besides.")] = False,
) -> None:
    """Make a SQLite database like RadCase's."""
    try:
        made = make_radcase(path, rows=rows, seed=seed, hostile=hostile)
    except InputError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(int(error.status)) from error
    made_rows, tables = counted(made.rows, "row"), counted(made.tables, "table")
    typer.echo(f"{made.path}: {made_rows} in {tables}, {made.seconds:.1f} s")


if __name__ == "__main__":
    typer.run(_main)
