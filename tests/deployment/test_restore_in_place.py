"""The life of a stage that is backed up. The drill that matters: the data volume is lost, and one
command brings the stage back from its backups, with what the backups lack brought up from the
SQLite file that followed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest

from infra.execution import execute
from tests.deployment.engine import output
from tests.deployment.radcase import application, down, lose_data, rows, staged, until, up
from tests.deployment.workshop import Workshop, run

pytestmark = [
    pytest.mark.pulumi,
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.timeout(1800),
    pytest.mark.xdist_group("docker"),
]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    directory = tmp_path_factory.mktemp("restored")
    with staged(directory, seed=13, strategy="blue-green", backup=True) as made:
        up(made)
        yield made


def write(workshop: Workshop, words: str) -> bool:
    """Whether the application's write was acknowledged."""
    try:
        with application(workshop) as connection:
            done = connection.execute("UPDATE cases SET diagnosis = %s", (words,))
            return done.rowcount > 0
    except psycopg.Error:
        return False


def written(workshop: Workshop) -> set[str]:
    """What the application reads of its writes; nothing where it cannot read."""
    try:
        with application(workshop) as connection:
            found = connection.execute("SELECT DISTINCT diagnosis FROM cases")
            return {str(word) for (word,) in found}
    except psycopg.Error:
        return set()


def in_sqlite(workshop: Workshop, words: str) -> bool:
    with closing(sqlite3.connect(f"file:{workshop.settings['source']}?mode=ro", uri=True)) as file:
        (left,) = file.execute(
            "SELECT count(*) FROM cases WHERE diagnosis IS NOT ?", (words,)
        ).fetchone()
    return int(left) == 0


def backed_up(workshop: Workshop) -> bool:
    container = workshop.client.containers.get(workshop.names.backup)
    said = execute(container, ["pgbackrest", "--stanza=main", "--output=json", "info"])
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
    execute(workshop.client.containers.get(names.backup), ["pgbackrest", "--stanza=main", "check"])
    assert write(workshop, "in no backup")
    until(lambda: in_sqlite(workshop, "in no backup"), "the last write on SQLite")
    for name in (names.postgres, names.backup):
        workshop.client.containers.get(name).kill()
    lose_data(workshop, names.backup)
    stopped = workshop.up()
    assert stopped.failed
    assert f"make restore STAGE={workshop.stage} INPLACE=1" in stopped.output

    done = run(workshop, "-m", "infra.restore", workshop.stage, "--in-place")
    assert done.returncode == 0, done.stderr
    up(workshop)
    until(lambda: written(workshop) == {"in no backup"}, "the rows that no backup has")
    until(lambda: write(workshop, "written after"), "a write on the restored stage")
    until(lambda: in_sqlite(workshop, "written after"), "the way back, open again")
    with closing(sqlite3.connect(str(workshop.settings["source"]))) as file:
        assert file.execute("SELECT count(*) FROM cases").fetchone() == (rows(workshop),)


def test_its_backups_are_kept(workshop: Workshop) -> None:
    """`backup: false` stops them; a second step removes them."""
    volume = f"{workshop.names.backup}s"
    for _ in range(2):
        assert f"the backups in the volume {volume} are kept" in up(workshop, backup=False).output
        assert volume in workshop.left()
        assert workshop.names.backup not in workshop.left()
    up(workshop, deleteBackups=True)
    assert volume not in workshop.left()


def test_down_goes_back_with_what_was_written(workshop: Workshop) -> None:
    down(workshop)
    assert in_sqlite(workshop, "written after")
