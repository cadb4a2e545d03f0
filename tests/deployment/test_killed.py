"""The life of a stage under accidents: `make up` that is killed goes on when it is run again, a
volume that is lost while SQLite serves is refilled, and nothing is removed before SQLite serves.
In the end its way back is given up: it is operated and removed as PostgreSQL."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest
from docker.errors import NotFound

from infra.interrupted import cut_off
from tests.deployment import settling
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


def login(workshop: Workshop) -> str:
    with application(workshop) as connection:
        (role,) = connection.execute("SELECT current_user").fetchone() or ("",)
    return str(role)


def test_it_is_removed_by_an_explicit_word(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    settling.remove(workshop, monkeypatch)
