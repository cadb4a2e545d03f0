"""A live application is switched, rolled back and switched again; no request fails.


Eight writers and eight readers go through the example application all the while, every other one
with new connections at each request. What is present afterwards is judged by the load's own
journal, read against the serving database itself.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from example_app.journal import compare_postgres, compare_sqlite
from example_app.load import Load
from migration_job.errors import JobError
from tests.integration.livestage import LiveStage, Program, until

pytestmark = [pytest.mark.postgres, pytest.mark.slow, pytest.mark.timeout(300)]

MORE = 200
"""Requests that each state has to serve before the next command comes."""


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[LiveStage]:
    try:
        entered = LiveStage(tmp_path).__enter__()
    except JobError as error:
        pytest.skip(f"no embedded servers: {error.message}")
    try:
        entered.begin()
        yield entered
    finally:
        entered.__exit__(None, None, None)


class Traffic:
    """The application under load."""

    def __init__(self, stage: LiveStage, seed: int) -> None:
        print(f"seed {seed}")
        self.stage = stage
        self.application, self.url = stage.start_application()
        self.load = Load(self.url, stage.live / "journal", seed=seed)
        self.load.start()

    def serves(self) -> None:
        """Wait until it has served some more requests."""
        before = self.load.so_far()[0]
        until(lambda: self.load.so_far()[0] >= before + MORE, "more requests", poll=0.05)

    def writes_to(self, engine: str) -> None:
        """Wait until it has served some more, and the connection names this side."""
        assert self.stage.named()["write"]["engine"] == engine
        self.serves()


def test_up_and_down_and_up_again_under_load(stage: LiveStage) -> None:
    traffic = Traffic(stage, seed=random.SystemRandom().randrange(10**6))
    sync: Program | None = None
    try:
        traffic.serves()
        stage.run_job("migrate", "--live")
        sync = stage.start_job("sync")
        traffic.serves()
        stage.run_job("switch")
        traffic.writes_to("postgresql")
        stage.run_job("rollback")
        traffic.writes_to("sqlite")
        # The same target again: only what has changed since is copied.
        stage.run_job("switch")
        traffic.writes_to("postgresql")
        # As `pulumi destroy` and `pulumi up` do it: nothing of the first run is left.
        stage.run_job("rollback", "--release")
        traffic.writes_to("sqlite")
        assert sync.end() == 0, sync.output
        stage.empty_target()
        stage.run_job("migrate", "--live")
        sync = stage.start_job("sync", log="sync-again")
        stage.run_job("switch")
        traffic.writes_to("postgresql")
    finally:
        result = traffic.load.stop()
        for program in (sync, traffic.application):
            if program is not None:
                program.kill()
    print(result.line())
    assert result.failures == []
    assert set(result.sides()) == {"sqlite", "postgresql"}
    found = compare_postgres(stage.live / "journal", stage.superuser_dsn())
    assert found.acknowledged == result.writes
    assert found.problems == []


def test_the_side_that_does_not_serve_is_current_too(stage: LiveStage) -> None:
    traffic = Traffic(stage, seed=random.SystemRandom().randrange(10**6))
    try:
        stage.run_job("migrate", "--live")
        stage.run_job("switch")
        traffic.writes_to("postgresql")
    finally:
        result = traffic.load.stop()
        traffic.application.kill()
    assert result.failures == []
    stage.run_job("sync", "--once")
    assert compare_sqlite(stage.live / "journal", stage.source).problems == []


def test_reads_move_first_and_writes_later(stage: LiveStage) -> None:
    """``strategy: dual-write``: each step can be undone by its opposite."""
    traffic = Traffic(stage, seed=random.SystemRandom().randrange(10**6))
    sync: Program | None = None
    try:
        stage.run_job("migrate", "--live")
        sync = stage.start_job("sync")
        stage.run_job("switch", "--reads-only")
        assert _sides(stage) == ("sqlite", "postgresql")
        traffic.serves()
        stage.run_job("rollback")
        assert _sides(stage) == ("sqlite", "sqlite")
        traffic.serves()
        stage.run_job("switch", "--reads-only")
        traffic.serves()
        stage.run_job("switch")
        assert _sides(stage) == ("postgresql", "postgresql")
        traffic.serves()
        stage.run_job("rollback", "--keep-reads")
        assert _sides(stage) == ("sqlite", "postgresql")
        traffic.serves()
    finally:
        result = traffic.load.stop()
        for program in (sync, traffic.application):
            if program is not None:
                program.kill()
    assert result.failures == []
    assert compare_sqlite(stage.live / "journal", stage.source).problems == []


def _sides(stage: LiveStage) -> tuple[str, str]:
    named = stage.named()
    return named["write"]["engine"], named["read"]["engine"]
