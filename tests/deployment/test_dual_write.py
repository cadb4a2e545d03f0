"""`strategy: dual-write`: the application goes on writing while its stage is provisioned."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from infra.execution import execute
from migration_job.demo.radcase import make_radcase
from tests.deployment.engine import client_or_skip, output
from tests.deployment.workshop import Workshop, dsn, named, require_pulumi

pytestmark = [
    pytest.mark.pulumi,
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.xdist_group("docker"),
]

OWNER = 15432
"""A user of no rights, who owns the source; the job's containers are to run as that user."""
LIMIT_SECONDS = 120


class Application:
    """Writes to SQLite, one row a transaction, and remembers what was acknowledged."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.acknowledged: list[str] = []
        self.refused = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(30)

    def _run(self) -> None:
        connection = sqlite3.connect(self.path, timeout=20, isolation_level=None)
        connection.execute("PRAGMA foreign_keys = ON")
        (case,) = connection.execute("SELECT id FROM cases LIMIT 1").fetchone()
        number = 0
        while not self._stop.wait(0.01):
            number += 1
            name = f"written-{number}"
            try:
                connection.execute(
                    "INSERT INTO images (id, case_id, filename) VALUES "
                    "(lower(hex(randomblob(4))) || '-0000-4000-8000-' || "
                    "lower(hex(randomblob(6))), ?, ?)",
                    (case, name),
                )
            except sqlite3.DatabaseError as error:
                self.refused = str(error)
                break
            self.acknowledged.append(name)
        connection.close()


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    require_pulumi()
    client = client_or_skip()
    directory = tmp_path_factory.mktemp("dual")
    source = directory / "data" / "radcase.db"
    source.parent.mkdir()
    make_radcase(source, rows=2000, seed=23)
    if os.geteuid() == 0:
        for path in (source.parent, *source.parent.iterdir()):
            os.chown(path, OWNER, OWNER)
    made = Workshop(
        directory,
        client,
        source=str(source),
        profile="radcase",
        strategy="dual-write",
        cutover="hold",
    )
    yield made
    made.clear()


@pytest.fixture(scope="module")
def application(workshop: Workshop) -> Iterator[Application]:
    made = Application(Path(str(workshop.settings["source"])))
    made.start()
    yield made
    made.stop()


def engines(workshop: Workshop) -> tuple[str, str]:
    said = json.loads((workshop.connection / "database.json").read_text())
    return said["read"]["engine"], said["write"]["engine"]


def on_target(workshop: Workshop) -> set[str]:
    done = execute(
        workshop.client.containers.get(workshop.names.postgres),
        [
            "bash",
            "-c",
            'PGPASSWORD="$(cat /etc/postgresql/superuser-password)" psql -qAt -h '
            "/var/run/postgresql -U postgres -d radcase -c "
            "\"SELECT filename FROM images WHERE filename LIKE 'written-%'\"",
        ],
    )
    assert done.exit_code == 0, output(done)
    return set(output(done).split())


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that in time"
        time.sleep(0.1)


def set_cutover(workshop: Workshop, cutover: str) -> dict[str, object]:
    workshop.set(cutover=cutover)
    done = workshop.up()
    assert not done.failed, done.output
    return done.outputs


def test_a_busy_source_is_copied_verified_and_followed(
    workshop: Workshop, application: Application
) -> None:
    assert set_cutover(workshop, "hold")["phase"] == "verified"
    assert engines(workshop) == ("sqlite", "sqlite")
    written = set(application.acknowledged)
    assert written
    until(lambda: written <= on_target(workshop))


def test_the_job_runs_as_the_sources_owner(workshop: Workshop) -> None:
    if os.geteuid() != 0:
        pytest.skip("the source belongs to whoever runs the tests")
    sync = workshop.client.containers.get(workshop.names.sync)
    assert sync.attrs["Config"]["User"] == f"{OWNER}:{OWNER}"
    assert sync.attrs["HostConfig"]["CapAdd"] in (None, [])
    assert (workshop.connection / "database.json").stat().st_uid == OWNER


def test_reads_move_first(workshop: Workshop, application: Application) -> None:
    set_cutover(workshop, "reads")
    assert engines(workshop) == ("postgresql", "sqlite")
    before = len(application.acknowledged)
    until(lambda: len(application.acknowledged) > before)


def test_writes_move_and_none_is_lost(workshop: Workshop, application: Application) -> None:
    assert set_cutover(workshop, "switch")["phase"] == "switched"
    assert engines(workshop) == ("postgresql", "postgresql")
    until(lambda: bool(application.refused))
    assert "moved to PostgreSQL" in application.refused
    assert set(application.acknowledged) == on_target(workshop)


@contextlib.contextmanager
def clients_that_come_and_go(workshop: Workshop) -> Iterator[None]:
    """Logins at PgBouncer all the time, by the connection as it is when they begin."""
    said = named(workshop)
    ended = threading.Event()

    def come_and_go() -> None:
        while not ended.is_set():
            with contextlib.suppress(psycopg.Error), psycopg.connect(dsn(said)) as connection:
                connection.execute("SELECT 1")

    threads = [threading.Thread(target=come_and_go) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def test_hold_is_the_way_back(workshop: Workshop, application: Application) -> None:
    with clients_that_come_and_go(workshop):
        set_cutover(workshop, "hold")
    pooler = workshop.client.containers.get(workshop.names.pooler)
    assert pooler.attrs["RestartCount"] == 0, pooler.logs().decode()[-3000:]
    assert engines(workshop) == ("sqlite", "sqlite")
    again = Application(application.path)
    again.start()
    until(lambda: len(again.acknowledged) > 10)
    again.stop()
    assert not again.refused


def test_destroy_takes_the_capture_out_of_the_source(
    workshop: Workshop, application: Application
) -> None:
    done = workshop.destroy()
    assert not done.failed, done.output
    with sqlite3.connect(application.path) as source:
        left = source.execute(
            "SELECT name FROM sqlite_master WHERE name LIKE '\\_migration%' ESCAPE '\\'"
        ).fetchall()
        (kept,) = source.execute(
            "SELECT count(DISTINCT filename) FROM images WHERE filename LIKE 'written-%'"
        ).fetchone()
    assert left == []
    assert kept == len(application.acknowledged)
    assert workshop.left() == []
