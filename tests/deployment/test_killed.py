"""`make up` that is killed anywhere goes on when it is run again, without words of Pulumi's about
locks and pending operations."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker.errors import NotFound

from migration_job.demo.radcase import make_radcase
from tests.deployment.engine import client_or_skip
from tests.deployment.workshop import Workshop, environment, require_pulumi

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
    make_radcase(source, rows=1000, seed=21)
    made = Workshop(tmp_path, client, source=str(source), profile="radcase", cutover="hold")
    assert made.stack.name == made.stage
    yield made
    made.clear()


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
    for name in (workshop.names.postgres, workshop.names.pooler):
        killed_at(workshop, name)
    running = begin(workshop)
    said, _ = running.communicate(timeout=600)
    assert running.returncode == 0, said
    assert "going on from there" in said
    for words in ("pending operations", "currently locked", "pulumi cancel"):
        assert words not in said
    assert workshop.client.containers.get(workshop.names.pooler).status == "running"
    assert not workshop.destroy().failed
    assert workshop.left() == []
