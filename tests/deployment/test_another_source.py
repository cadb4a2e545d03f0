"""A stage that is given another source while PostgreSQL follows the one before."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from migration_job.demo.radcase import make_radcase
from tests.deployment.radcase import down, serves, staged, up

pytestmark = [
    pytest.mark.pulumi,
    pytest.mark.docker,
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.timeout(600),
    pytest.mark.xdist_group("docker"),
]


def captured(source: Path) -> list[str]:
    """What of this job is in the file."""
    with closing(sqlite3.connect(source)) as opened:
        query = "SELECT name FROM sqlite_schema WHERE name LIKE '%migration%'"
        return [name for (name,) in opened.execute(query)]


def test_the_former_is_given_up_and_the_new_one_followed(tmp_path: Path) -> None:
    with staged(tmp_path, seed=7, strategy="blue-green", cutover="hold") as stage:
        first = Path(str(stage.settings["source"]))
        assert up(stage).outputs["rows"] == 1000
        assert captured(first)
        for name, rows, gone in (("second.db", 1100, False), ("third.db", 1200, True)):
            former = Path(str(stage.settings["source"]))
            source = former.with_name(name)
            make_radcase(source, rows=rows, seed=8)
            if gone:
                for suffix in ("", "-wal", "-shm"):
                    Path(f"{former}{suffix}").unlink(missing_ok=True)
            done = up(stage, source=str(source))
            assert "another source now" in done.output, done.output
            assert done.outputs["rows"] == rows
            assert captured(source)
            assert serves(stage) == "sqlite"
        assert captured(first) == []
        # What was captured is released, whatever the stage does from now on.
        last = source.with_name("last.db")
        make_radcase(last, rows=1300, seed=8)
        assert up(stage, source=str(last), strategy="offline").outputs["rows"] == 1300
        assert captured(source) == captured(last) == []
        down(stage)
