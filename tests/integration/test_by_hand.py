"""docs/how-to/by-hand.md: its commands in its order, where its `migration-job.toml` is."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from migration_job.connection import PostgresSide, read_connection
from migration_job.embedded import EmbeddedPostgres
from migration_job.protocol.sync import read_report
from tests.integration.running import DONE, Ended, run
from tests.integration.test_switch import wait_for

pytestmark = pytest.mark.postgres

PAGE = (Path(__file__).resolve().parents[2] / "docs/how-to/by-hand.md").read_text("utf-8")
STEPS = {
    int(number): command.split()
    for number, command in re.findall(r"^\| (\d)\. .*?\| `migration-job (.*?)`", PAGE, re.MULTILINE)
}
"""Each step's command, as the page's table has it."""

ONLY_DURABILITY = "cannot be the target yet: durability\n"
"""The tests' server is not durable, and `check-target` says so."""

START_SECONDS = 120.0


def does(step: int) -> Ended:
    return run(*STEPS[step])


@contextlib.contextmanager
def keeps_running(step: int) -> Iterator[None]:
    """As a service does."""
    with Path("sync.log").open("w") as log:
        command = [sys.executable, "-m", "migration_job", *STEPS[step]]
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_for(_follows, "sync to follow", START_SECONDS)
            yield
        finally:
            process.terminate()
            process.wait(START_SECONDS)
    assert process.returncode == 0, Path("sync.log").read_text()


def _follows() -> bool:
    report = read_report(Path("state"))
    return report is not None and report.followed == "forward"


@pytest.fixture
def application(
    tmp_path: Path,
    postgres: str,
    postgres_server: EmbeddedPostgres,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """The directory of an application, with what the page has one write beforehand. The test is in
    the directory where the commands run."""
    place = tmp_path / "srv"
    place.mkdir()
    with contextlib.closing(sqlite3.connect(place / "app.db")) as source, source:
        source.execute("PRAGMA journal_mode = wal")
        source.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, body TEXT)")
        source.executemany("INSERT INTO notes (body) VALUES (?)", [("x",)] * 50)
    with contextlib.suppress(psycopg.errors.DuplicateObject):
        postgres_server.create_role("app", "secret")
    here = tmp_path / "here"
    (here / "secrets").mkdir(parents=True)
    (here / "secrets" / "target").write_text(postgres)
    (here / "secrets" / "target").chmod(0o600)
    told = psycopg.conninfo.conninfo_to_dict(postgres)
    side = {"host": "127.0.0.1", "port": int(str(told["port"])), "database": told["dbname"]}
    (here / "connect.json").write_text(json.dumps({**side, "user": "app", "password": "secret"}))
    (toml,) = re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (here / "migration-job.toml").write_text(toml.replace("/srv/app", str(place)))
    monkeypatch.chdir(here)
    return place


def test_its_steps_in_their_order(application: Path, postgres: str) -> None:
    looked = does(1)
    assert looked.status == DONE, looked.said
    assert "It is in policy.yaml." in looked.out
    fit = does(2)
    assert fit.status == DONE or ONLY_DURABILITY in fit.err, fit.said
    assert "about " in fit.out, "the source of the file counts"
    migrated = does(3)
    assert migrated.status == DONE, migrated.said
    with keeps_running(4):
        asked = does(5)
        assert asked.status == DONE, asked.said
        assert asked.out.startswith("serves      SQLite\n")
        switched = does(6)
        assert switched.status == DONE, switched.said
        assert does(5).out.startswith("serves      PostgreSQL, since 20")
        found = read_connection(application / "connection")
        assert found is not None
        assert isinstance(found.write, PostgresSide)
        with psycopg.connect(postgres) as target:
            target.execute("INSERT INTO notes (id, body) VALUES (900, 'written there')")
        back = does(7)
        assert back.status == DONE, back.said
        assert does(5).out.startswith("serves      SQLite\n")
    with contextlib.closing(sqlite3.connect(application / "app.db")) as source:
        assert source.execute("SELECT count(*), max(id) FROM notes").fetchone() == (51, 900)
    _nobody_else_reads(Path("report"))


def _nobody_else_reads(report: Path) -> None:
    """What tells of the data, and of the run, is its owner's."""
    modes = {p: stat.S_IMODE(p.stat().st_mode) for p in report.rglob("*") if p.is_file()}
    assert {"run.json", "report.json", "switch.json", "rollback.json"} <= {p.name for p in modes}
    assert {p: oct(mode) for p, mode in modes.items() if mode & 0o077} == {}


def test_the_command_line_wins_over_the_other_way_to_say_it(
    application: Path, postgres: str
) -> None:
    """`--target` where the file says `target-file`; and a table's over the shared one."""
    with psycopg.connect(postgres) as target:
        (name,) = target.execute("SELECT current_database()").fetchone() or ("",)
    Path("secrets/target").write_text("postgresql://nobody@127.0.0.1:1/none")
    asked = run("status", "--target", postgres)
    assert f"/{name}: " in asked.out, asked.said
    with Path("migration-job.toml").open("a") as file:
        file.write(f'[status]\ntarget = "{postgres}"\n')
    asked = run("status")
    assert f"/{name}: " in asked.out, asked.said
