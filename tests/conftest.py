"""What every test may ask for: a PostgreSQL, a PgBouncer, SQLite files.

A fixture that this machine cannot serve skips its test with the reason.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from migration_job.embedded import EmbeddedPgBouncer, EmbeddedPostgres
from migration_job.errors import JobError
from tests.browser import browser  # noqa: F401  # a fixture for every test
from tests.servers import MAJOR

ROOT = Path(__file__).resolve().parent.parent
RADCASE = ROOT.parent / "shared" / "radcase" / "radcase.db"

MakeSqlite = Callable[..., Path]


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
