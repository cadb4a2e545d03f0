"""A stage whose way back was given up is PostgreSQL: it is operated and removed as such."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from migration_job.demo.radcase import make_radcase
from tests.deployment.engine import client_or_skip
from tests.deployment.workshop import Workshop, check, require_pulumi, run

pytestmark = [
    pytest.mark.pulumi,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.xdist_group("docker"),
]


@contextmanager
def staged(directory: Path, **settings: object) -> Iterator[Workshop]:
    require_pulumi()
    client = client_or_skip()
    source = directory / "data" / "radcase.db"
    source.parent.mkdir()
    make_radcase(source, rows=1000, seed=3)
    made = Workshop(directory, client, "", source=str(source), profile="radcase", **settings)
    try:
        yield made
    finally:
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
    )


def up(workshop: Workshop, **settings: object) -> str:
    workshop.set(**settings)
    done = workshop.up()
    assert not done.failed, done.output
    return done.output


def refused(workshop: Workshop, words: str, **settings: object) -> None:
    workshop.set(**settings)
    done = workshop.up()
    assert done.failed
    assert words in done.output
    assert "Traceback" not in done.output
    with application(workshop) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize("strategy", ["blue-green", "offline"])
def test_it_is_operated_and_removed(
    tmp_path: Path, strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with staged(tmp_path, strategy=strategy, backup=strategy == "blue-green") as workshop:
        names = workshop.names
        up(workshop)
        refused(workshop, "expected the window of 48 h", cutover="settled")
        up(workshop, cutover="settled", settleAfterHours=0)
        assert names.sync not in workshop.left()
        assert (tmp_path / "state" / "report" / "archive").is_dir()
        refused(workshop, "expected `cutover: settled` to stay", cutover="switch")
        refused(workshop, "expected `cutover: settled` to stay", cutover="hold")
        up(workshop, cutover="settled")
        # Nothing of the stage needs the file any more.
        shutil.rmtree(tmp_path / "data")
        assert set(again(workshop)) == {"same"}
        for container in workshop.client.containers.list(filters={"name": names.prefix}):
            assert str(tmp_path / "data") not in str(container.attrs["Mounts"])
        said = run(workshop, "-m", "tools.status", workshop.stage)
        assert "the way back was given up" in said.stdout, said.stderr
        assert "containers run" in said.stdout
        check(workshop)
        rotated(workshop)
        kept = workshop.left()
        gone = workshop.destroy()
        assert gone.failed
        assert "its PostgreSQL is the only place" in gone.output
        assert workshop.left() == kept
        monkeypatch.setitem(os.environ, "MIGRATION_ACCEPT_LOSS", "yes")
        gone = workshop.destroy()
        assert not gone.failed, gone.output
        assert workshop.left() == []


def again(workshop: Workshop) -> dict[str, int]:
    done = workshop.up()
    assert not done.failed, done.output
    return done.changes


def rotated(workshop: Workshop) -> None:
    """As `make rotate` does it."""
    with application(workshop) as connection:
        (before,) = connection.execute("SELECT current_user").fetchone() or ("",)
    up(workshop, credentialsVersion=2)
    with application(workshop) as connection:
        (after,) = connection.execute("SELECT current_user").fetchone() or ("",)
        (rows,) = connection.execute("SELECT count(*) FROM cases").fetchone() or (0,)
    assert (before, after) == (workshop.names.application_role, workshop.names.second_role)
    assert rows > 0
    done = run(workshop, "-m", "infra.rotate", workshop.stage)
    assert done.returncode == 0, done.stderr
