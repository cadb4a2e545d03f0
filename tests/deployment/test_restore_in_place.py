"""The drill that matters: the data volume is lost, and one command brings the stage back from its
backups, with what the backups lack brought up from the SQLite file that followed."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from migration_job.demo.radcase import make_radcase
from tests.deployment.engine import client_or_skip, output
from tests.deployment.workshop import Workshop, require_pulumi, run

pytestmark = [
    pytest.mark.pulumi,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.xdist_group("docker"),
]

LIMIT_SECONDS = 240


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    require_pulumi()
    client = client_or_skip()
    source = tmp_path / "data" / "radcase.db"
    source.parent.mkdir()
    make_radcase(source, rows=1000, seed=13)
    made = Workshop(
        tmp_path, client, source=str(source), profile="radcase", strategy="blue-green", backup=True
    )
    done = made.up()
    assert not done.failed, done.output
    yield made
    made.clear()


def application(workshop: Workshop) -> psycopg.Connection:
    side = json.loads((workshop.connection / "database.json").read_text())["write"]
    assert side["engine"] == "postgresql"
    return psycopg.connect(
        host=side["host"],
        port=side["port"],
        dbname=side["database"],
        user=side["user"],
        password=side["password"],
        autocommit=True,
        prepare_threshold=None,
    )


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {LIMIT_SECONDS} s: {what}"
        time.sleep(0.3)


def write(workshop: Workshop, words: str) -> bool:
    """Whether the application's write was acknowledged."""
    try:
        with application(workshop) as connection:
            done = connection.execute("UPDATE cases SET diagnosis = %s", (words,))
            return done.rowcount > 0
    except psycopg.Error:
        return False


def in_sqlite(workshop: Workshop, words: str) -> bool:
    with closing(sqlite3.connect(f"file:{workshop.settings['source']}?mode=ro", uri=True)) as file:
        (left,) = file.execute(
            "SELECT count(*) FROM cases WHERE diagnosis IS NOT ?", (words,)
        ).fetchone()
    return int(left) == 0


def backed_up(workshop: Workshop) -> bool:
    container = workshop.client.containers.get(workshop.names.backup)
    said = container.exec_run(["pgbackrest", "--stanza=main", "--output=json", "info"])
    return '"type":"full"' in output(said)


def test_a_lost_volume_is_brought_back_by_one_command(workshop: Workshop) -> None:
    names = workshop.names
    until(lambda: backed_up(workshop), "the first backup")
    # It is not lost: nothing is put in its place.
    refused = run(workshop, "-m", "infra.restore", workshop.stage, "--in-place")
    assert refused.returncode == 1
    assert "to be lost, found PostgreSQL 18's data in it" in refused.stderr
    # The last words are in no archived segment: the server is gone before one is full.
    assert write(workshop, "written before")
    workshop.client.containers.get(names.backup).exec_run(["pgbackrest", "--stanza=main", "check"])
    assert write(workshop, "written last")
    until(lambda: in_sqlite(workshop, "written last"), "the last write on SQLite")
    for name in (names.postgres, names.backup):
        container = workshop.client.containers.get(name)
        container.kill()
        container.remove(force=True)
    workshop.client.volumes.get(f"{names.postgres}-data").remove()
    stopped = workshop.up()
    assert stopped.failed
    assert f"make restore STAGE={workshop.stage} INPLACE=1" in stopped.output

    done = run(workshop, "-m", "infra.restore", workshop.stage, "--in-place")
    assert done.returncode == 0, done.stderr
    again = workshop.up()
    assert not again.failed, again.output

    until(lambda: write(workshop, "written after"), "a write on the restored stage")
    until(lambda: in_sqlite(workshop, "written after"), "the way back, open again")
    with application(workshop) as connection:
        (rows,) = connection.execute("SELECT count(*) FROM cases").fetchone() or (0,)
    with closing(sqlite3.connect(str(workshop.settings["source"]))) as file:
        assert file.execute("SELECT count(*) FROM cases").fetchone() == (rows,)
    gone = workshop.destroy()
    assert not gone.failed, gone.output
    assert in_sqlite(workshop, "written after")
    assert workshop.left() == []


def test_what_the_backups_lack_is_brought_up_from_sqlite(workshop: Workshop) -> None:
    names = workshop.names
    until(lambda: backed_up(workshop), "the first backup")
    assert write(workshop, "in no backup")
    until(lambda: in_sqlite(workshop, "in no backup"), "the write on SQLite")
    for name in (names.postgres, names.backup):
        container = workshop.client.containers.get(name)
        container.kill()
        container.remove(force=True)
    workshop.client.volumes.get(f"{names.postgres}-data").remove()
    done = run(workshop, "-m", "infra.restore", workshop.stage, "--in-place")
    assert done.returncode == 0, done.stderr
    again = workshop.up()
    assert not again.failed, again.output

    def words() -> set[str]:
        try:
            with application(workshop) as connection:
                return {
                    str(word)
                    for (word,) in connection.execute("SELECT DISTINCT diagnosis FROM cases")
                }
        except psycopg.Error:
            return set()

    until(lambda: words() == {"in no backup"}, "the rows that no backup has")
