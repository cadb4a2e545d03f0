"""What every test may ask for: a PostgreSQL, a PgBouncer, SQLite files.

A fixture that this machine cannot serve skips its test with the reason.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, zip_longest
from pathlib import Path

import pytest

from migration_job.embedded import EmbeddedPgBouncer, EmbeddedPostgres
from migration_job.errors import JobError
from tests.browser import axe, browser  # noqa: F401  # fixtures for every test
from tests.servers import MAJOR, VectorPostgres

ROOT = Path(__file__).resolve().parent.parent
RADCASE = ROOT.parent / "shared" / "radcase" / "radcase.db"

MakeSqlite = Callable[..., Path]


def pytest_xdist_auto_num_workers() -> int:
    """One worker more than there are cores (`-n auto`): much of a test's time is waiting, for a
    container's health, for a lock, for a server to start."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Order the files for workers that each take a whole file at a time (`make test`), so that all
    of them are busy to the end.

    A file of stages on Docker has few tests, takes minutes and waits for its containers much of
    that time: such files go first, each followed by one that uses the processor. Short ones come
    last.
    """
    if not hasattr(config, "workerinput"):  # nobody shares the files
        return
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    stages: list[list[pytest.Item]] = []
    long: list[list[pytest.Item]] = []
    short: list[list[pytest.Item]] = []
    for tests in sorted(files.values(), key=len):
        if _has(tests, "pulumi", "docker"):
            stages.append(tests)
        elif tests[0].path.parent.name != "unit" or _has(tests, "slow"):
            long.append(tests)
        else:
            short.append(tests)
    mixed = chain.from_iterable(zip_longest(stages, reversed(long), fillvalue=[]))
    items[:] = chain.from_iterable([*mixed, *short])


def _has(tests: Sequence[pytest.Item], *markers: str) -> bool:
    return any(test.get_closest_marker(marker) for test in tests for marker in markers)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[EmbeddedPostgres]:
    """One PostgreSQL for the session (of each pytest-xdist worker), not durable."""
    try:
        server = EmbeddedPostgres(major=MAJOR, fast=True, settings={"max_connections": "100"})
        server.start()
    except JobError as error:
        pytest.skip(f"no embedded PostgreSQL: {error.message}")
    yield server
    server.close()


@pytest.fixture(scope="session")
def vector_server() -> Iterator[EmbeddedPostgres]:
    """One PostgreSQL with pgvector for the session, not durable."""
    try:
        server = VectorPostgres()
    except LookupError as error:
        pytest.skip(f"no PostgreSQL with pgvector: {error}")
    server.start()
    yield server
    server.close()


@pytest.fixture
def postgres(postgres_server: EmbeddedPostgres) -> Iterator[str]:
    """The superuser's connection string to a fresh, empty database."""
    name = f"test_{next(_numbers)}"
    yield postgres_server.create_database(name)
    postgres_server.drop_database(name)


_numbers = iter(range(1, 1_000_000))


@pytest.fixture
def pgbouncer(postgres_server: EmbeddedPostgres) -> Iterator[EmbeddedPgBouncer]:
    """A PgBouncer of the test's own before the session's server, with no alias yet."""
    try:
        pooler = EmbeddedPgBouncer(postgres_server)
        pooler.start()
    except JobError as error:
        pytest.skip(f"no embedded PgBouncer: {error.message}")
    yield pooler
    pooler.close()


@pytest.fixture
def radcase_db(tmp_path: Path) -> Path:
    """A copy of the real application's database, which is not part of the repository."""
    if not RADCASE.exists():
        pytest.skip(f"RadCase's own database is not beside this checkout ({RADCASE})")
    copy = tmp_path / "radcase.db"
    shutil.copyfile(RADCASE, copy)
    return copy


@pytest.fixture
def make_sqlite(tmp_path: Path) -> MakeSqlite:
    """``make_sqlite(script, name="source.db") -> Path``: a closed SQLite file made by a script."""

    def make(script: str, name: str = "source.db") -> Path:
        path = tmp_path / name
        connection = sqlite3.connect(path)
        try:
            connection.executescript(script)
        finally:
            connection.close()
        return path

    return make
