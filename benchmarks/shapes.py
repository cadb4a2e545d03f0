"""Databases of other shapes, each of about as many bytes as the default one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random

import apsw

from benchmarks.lab import Lab
from migration_job.values import SourceValue

WIDE_COLUMNS = 150
TEXT_BYTES = 200_000
BLOB_BYTES = 500_000
SMALL_TABLES = 2_000
MANY_TABLES = f"{SMALL_TABLES:,} small tables"

WORDS = ["lung", "nodule", "mass", "opacity", "left", "right", "upper", "lower", "lobe", "with"]


def shapes(lab: Lab) -> dict[str, Callable[[], Path]]:
    """Each shape's title, and what makes its file. ``lab.rows`` scales all of them."""
    rows = lab.rows

    def file(name: str, make: Callable[[Path, int, int], None]) -> Callable[[], Path]:
        path = lab.folder / f"{name}-{rows}-{lab.seed}.db"
        return lambda: lab.made(path, lambda partial: make(partial, rows, lab.seed))

    return {
        f"wide tables ({WIDE_COLUMNS} columns)": file("wide", wide),
        f"long texts (to {TEXT_BYTES:,} bytes)": file("texts", texts),
        f"blobs (to {BLOB_BYTES:,} bytes)": file("blobs", blobs),
        MANY_TABLES: file("small", small),
        "one huge table": file("huge", huge),
    }


def wide(path: Path, rows: int, seed: int) -> None:
    """Three tables whose columns take turns in type."""
    random = Random(seed)
    kinds = ("INTEGER", "REAL", "TEXT", "TEXT", "DATETIME")
    names = [f"c{n} {kinds[n % len(kinds)]}" for n in range(WIDE_COLUMNS)]
    makers: tuple[Callable[[], SourceValue], ...] = (
        lambda: random.randrange(10**6),
        random.random,
        lambda: random.choice(WORDS),
        lambda: None,
        lambda: _time(random),
    )

    def some() -> Iterable[tuple[SourceValue, ...]]:
        for _ in range(max(rows // 25, 10)):
            yield tuple(makers[n % len(makers)]() for n in range(WIDE_COLUMNS))

    _write(
        path,
        (
            (f"CREATE TABLE wide{n} (id INTEGER PRIMARY KEY, {', '.join(names)})", f"wide{n}", some)
            for n in range(3)
        ),
    )


def texts(path: Path, rows: int, seed: int) -> None:
    """Texts with line ends, tabs, backslashes and letters beyond ASCII; most are short."""
    random = Random(seed)
    page = " ".join(
        random.choices([*WORDS, "Zürich", "5\tmm", "C:\\dicom", "end.\nNext"], k=40_000)
    )

    def some() -> Iterable[tuple[SourceValue, ...]]:
        left = rows * 190
        while left > 0:
            size = TEXT_BYTES if random.random() < 0.02 else random.randrange(200, 20_000)
            start = random.randrange(len(page) - size)
            left -= size
            yield (random.choice(WORDS), page[start : start + size], _time(random))

    _write(
        path,
        [
            (
                "CREATE TABLE reports (id INTEGER PRIMARY KEY, title TEXT, body TEXT, at DATETIME)",
                "reports",
                some,
            )
        ],
    )


def blobs(path: Path, rows: int, seed: int) -> None:
    """Bytes that do not compress."""
    random = Random(seed)

    def some() -> Iterable[tuple[SourceValue, ...]]:
        left = rows * 190
        while left > 0:
            size = random.randrange(1_000, BLOB_BYTES)
            left -= size
            yield (random.choice(WORDS), random.randbytes(size))

    _write(
        path,
        [("CREATE TABLE files (id INTEGER PRIMARY KEY, name TEXT, content BLOB)", "files", some)],
    )


def small(path: Path, rows: int, seed: int) -> None:
    """The default's number of rows, spread over many tables with a key and an index each."""
    random = Random(seed)
    each = max(rows // SMALL_TABLES, 1)

    def some() -> Iterable[tuple[SourceValue, ...]]:
        for _ in range(each):
            yield _plain(random)

    _write(
        path,
        (
            (
                f"CREATE TABLE t{n} ({PLAIN}); CREATE INDEX t{n}_made ON t{n} (made)",
                f"t{n}",
                some,
            )
            for n in range(SMALL_TABLES)
        ),
    )


def huge(path: Path, rows: int, seed: int) -> None:
    """All rows in one table, with a key and an index."""
    random = Random(seed)

    def some() -> Iterable[tuple[SourceValue, ...]]:
        for _ in range(rows):
            yield _plain(random)

    _write(
        path,
        [
            (
                f"CREATE TABLE events ({PLAIN}); CREATE INDEX events_made ON events (made)",
                "events",
                some,
            )
        ],
    )


PLAIN = (
    "id INTEGER PRIMARY KEY, who TEXT NOT NULL, score REAL, ok BOOLEAN, made DATETIME, note TEXT"
)


def _plain(random: Random) -> tuple[SourceValue, ...]:
    return (
        f"{random.getrandbits(128):032x}",
        random.random(),
        random.getrandbits(1),
        _time(random),
        " ".join(random.choices(WORDS, k=10)),
    )


def _time(random: Random) -> str:
    return (
        f"2025-{random.randrange(1, 13):02}-{random.randrange(1, 29):02} "
        f"{random.randrange(24):02}:{random.randrange(60):02}:{random.randrange(60):02}"
    )


Table = tuple[str, str, Callable[[], Iterable[tuple[SourceValue, ...]]]]


def _write(path: Path, tables: Iterable[Table]) -> None:
    """Write the tables to a new file; the first column is the rowid, which SQLite gives."""
    connection = apsw.Connection(os.fspath(path))
    connection.execute("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF")
    with connection:
        for statement, name, rows in tables:
            connection.execute(statement)
            width = len(connection.execute(f"PRAGMA table_info({name})").fetchall())
            holes = ", ".join(["NULL"] + ["?"] * (width - 1))
            connection.executemany(f"INSERT INTO {name} VALUES ({holes})", rows())
    connection.close()
