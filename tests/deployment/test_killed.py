"""The life of a stage under accidents: `make up` that is killed goes on when it is run again, a
volume that is lost while SQLite serves is refilled, and nothing is removed before SQLite serves.
In the end its way back is given up: it is operated and removed as PostgreSQL."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker.errors import NotFound

from infra import pausing
from infra.errors import StageError
from infra.interrupted import cut_off
from tests.deployment import settling
from tests.deployment.database import query
from tests.deployment.radcase import (
    LIMIT_SECONDS,
    a_lost_server_is_no_way_back,
    application,
    lose_data,
    rows,
    staged,
    up,
)
from tests.deployment.workshop import Workshop, check, environment, run

pytestmark = [
    pytest.mark.pulumi,
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.timeout(1800),
    pytest.mark.xdist_group("docker"),
]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    directory = tmp_path_factory.mktemp("killed")
    with staged(directory, seed=21, strategy="blue-green", cutover="hold") as made:
        assert made.stack.name == made.stage
        yield made


def begin(workshop: Workshop) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["tools/stage", "up", workshop.stage],
        cwd=workshop.directory,
        env=environment(workshop),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def killed_at(workshop: Workshop, name: str) -> None:
    """Cut off, without a chance to tidy up, as soon as the engine has a container of that name."""
    running = begin(workshop)
    deadline = time.monotonic() + LIMIT_SECONDS
    try:
        while running.poll() is None:
            with contextlib.suppress(NotFound):
                workshop.client.containers.get(name)
                return
            assert time.monotonic() < deadline, name
            time.sleep(0.01)
        assert running.stdout is not None
        pytest.fail(running.stdout.read())
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        assert running.stdout is not None
        running.stdout.close()


def test_before_the_first_up_status_says_what_to_do(workshop: Workshop) -> None:
    """And leaves nothing beside the source."""
    data = Path(str(workshop.settings["source"])).parent
    before = sorted(data.iterdir())
    said = run(workshop, "-m", "tools.status", workshop.stage)
    assert said.returncode == 0, said.stderr
    assert "nothing of this stage was made yet" in said.stdout
    assert f"next        `make up STAGE={workshop.stage}`" in said.stdout
    assert sorted(data.iterdir()) == before


def test_it_goes_on_after_each_kill(workshop: Workshop) -> None:
    """Without words of Pulumi's about locks and pending operations."""
    for name in (workshop.names.postgres, workshop.names.pooler):
        killed_at(workshop, name)
    # On a busy machine the engine may have answered before the kill: nothing is pending then.
    pending = cut_off({"deployment": workshop.stack.export_stack().deployment}).resources
    running = begin(workshop)
    said, _ = running.communicate(timeout=600)
    assert running.returncode == 0, said
    assert ("continuing from there" in said) == bool(pending), said
    for words in ("pending operations", "currently locked", "pulumi cancel"):
        assert words not in said
    assert workshop.client.containers.get(workshop.names.pooler).status == "running"


def test_while_sqlite_serves_a_lost_volume_is_filled_anew(workshop: Workshop) -> None:
    lose_data(workshop)
    assert "the migration starts over" in up(workshop).output
    up(workshop, cutover="switch")
    assert rows(workshop) > 0


def test_a_way_back_that_fails_leaves_everything(workshop: Workshop) -> None:
    a_lost_server_is_no_way_back(workshop)


def test_once_settled_it_is_postgresql_for_good(workshop: Workshop) -> None:
    settling.settle(workshop)
    check(workshop)


def test_its_passwords_rotate_without_the_source(workshop: Workshop) -> None:
    """As `make rotate` does it."""
    assert login(workshop) == workshop.names.application_role
    up(workshop, credentialsVersion=2)
    assert login(workshop) == workshop.names.second_role
    assert rows(workshop) > 0
    done = run(workshop, "-m", "infra.rotate", workshop.stage)
    assert done.returncode == 0, done.stderr


def test_its_queries_are_held_without_a_job(workshop: Workshop) -> None:
    """As `make switchover` holds them where nothing of the job runs any more."""
    client, names = workshop.client, workshop.names
    leader = client.containers.get(names.postgres)
    with application(workshop) as under_way, under_way.transaction():
        under_way.execute("SELECT 1")
        with (
            pytest.raises(StageError, match="transactions to end within"),
            pausing.paused(client, names, leader),
        ):
            pytest.fail("it is not quiet")
        assert rows(workshop) > 0
    answered = threading.Event()

    def ask() -> None:
        assert rows(workshop) > 0
        answered.set()

    asks = threading.Thread(target=ask)
    with pausing.paused(client, names, leader):
        asks.start()
        waits = "SELECT count(*) FROM pg_stat_activity WHERE usename = "
        with (
            pytest.raises(StageError, match="held already"),
            pausing.paused(client, names, leader),
        ):
            pytest.fail("two at a time")
        assert query(leader, f"{waits}'{names.second_role}' AND state <> 'idle'") == "0"
        assert not answered.is_set()
    asks.join(LIMIT_SECONDS)
    assert answered.is_set()


def test_a_hold_whose_program_died_comes_to_its_end(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        pausing, "AT_LONGEST", pausing.AT_LONGEST.replace(f"{pausing.LONGEST_SECONDS}", "3")
    )
    pooler = workshop.client.containers.get(workshop.names.pooler)
    pausing._begin_the_end(pooler, mark := "/tmp/held-died")  # noqa: S108
    began = int(pausing._run(pooler, pausing.BEGIN, mark))
    assert "pausing all activity" in pausing._heard(pooler, began)
    assert rows(workshop) > 0
    assert b"continuing from PAUSE" in pooler.logs(since=began)


def login(workshop: Workshop) -> str:
    with application(workshop) as connection:
        (role,) = connection.execute("SELECT current_user").fetchone() or ("",)
    return str(role)


def test_it_is_removed_by_an_explicit_word(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    settling.remove(workshop, monkeypatch)
