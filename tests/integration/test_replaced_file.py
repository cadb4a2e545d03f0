"""Another file in the place of the one that PostgreSQL follows: PostgreSQL then has the last copy
of what the file before it held, which only the operator can give up."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from migration_job.embedded import EmbeddedPostgres
from tests.integration.running import DONE, USAGE, Ended, run

NEW = "the new file's"
EXPECTED = "expected the file that PostgreSQL has followed"


class Way:
    """A source that PostgreSQL follows."""

    def __init__(self, place: Path, dsn: str) -> None:
        self.place, self.dsn, self.source = place, dsn, place / "app.db"
        self.make("the first file's")
        ended = self.migrate()
        assert ended.status == DONE, ended.said

    def make(self, word: str) -> None:
        with closing(sqlite3.connect(self.source)) as new, new:
            new.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, word TEXT)")
            new.execute("INSERT INTO t (word) VALUES (?)", [word])

    def replace(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self.source}{suffix}").unlink(missing_ok=True)
        self.make(NEW)

    def migrate(self) -> Ended:
        more = ("--live", "--state", self.place / "state", "--report", self.place / "report")
        return run("migrate", self.source, "--target", self.dsn, *more)

    def rollback(self) -> Ended:
        to = self.place / "connect-to.json"
        to.write_text(
            json.dumps({"host": "h", "port": 1, "database": "d", "user": "u", "password": "p"})
        )
        ends = ("--state", self.place / "state", "--connection", self.place / "connection")
        more = (*ends, "--connect-to", to, "--report", self.place / "report", "--release")
        return run("rollback", self.source, "--target", self.dsn, *more)

    def on_postgres(self) -> list[str]:
        with psycopg.connect(self.dsn) as target:
            return [word for (word,) in target.execute("SELECT word FROM t")]

    def on_source(self) -> list[str]:
        with closing(sqlite3.connect(self.source)) as source:
            return [name for (name,) in source.execute("SELECT name FROM sqlite_schema")]


@pytest.fixture
def way(tmp_path: Path, postgres: str) -> Way:
    return Way(tmp_path, postgres)


def refused(way: Way, found: str) -> None:
    for _ in range(2):
        ended = way.migrate()
        assert ended.status == USAGE, ended.said
        assert f"{EXPECTED} at {way.source}, found {found}" in ended.err
        assert "`migration-job release`" in ended.err
        assert way.on_postgres() == ["the first file's"]


def test_it_is_not_filled_over_until_it_is_released(way: Way) -> None:
    way.replace()
    refused(way, "one without change capture")
    assert way.on_source() == ["t"]  # nothing was written to the new file either
    released = run("release", way.source, "--state", way.place / "state")
    assert released.status == DONE, released.said
    ended = way.migrate()
    assert ended.status == DONE, ended.said
    assert way.on_postgres() == [NEW]
    way.replace()
    refused_again = way.migrate()  # the release was of the file before
    assert refused_again.status == USAGE, refused_again.said
    assert EXPECTED in refused_again.err


def test_a_file_that_another_target_follows_is_no_way_past_it(
    way: Way, postgres_server: EmbeddedPostgres
) -> None:
    way.replace()
    other = postgres_server.create_database("followed_too")
    options = ("--live", "--state", way.place / "other", "--report", way.place / "report")
    assert run("migrate", way.source, "--target", other, *options).status == DONE
    refused(way, "one with another change capture")
    postgres_server.drop_database("followed_too")


def test_a_rollback_that_releases_gives_it_up(way: Way) -> None:
    ended = way.rollback()
    assert ended.status == DONE, ended.said
    way.replace()
    ended = way.migrate()
    assert ended.status == DONE, ended.said
    assert way.on_postgres() == [NEW]


def test_the_file_itself_is_migrated_again_at_will(way: Way) -> None:
    for _ in range(2):
        ended = way.migrate()
        assert ended.status == DONE, ended.said
