"""The example application under load while its stage is brought up, taken down, brought up on a
newer PostgreSQL, and led back to the first one.

Eight writers and eight readers, every other one with new connections at each request. The
application runs beside the stage, as an operator's does: the stage comes and goes under it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from example_app.journal import compare_postgres
from example_app.load import Load
from tests.deployment.engine import client_or_skip
from tests.deployment.living import application_of
from tests.deployment.ports import free_port
from tests.deployment.workshop import Workshop, dsn, named, require_pulumi

pytestmark = [
    pytest.mark.pulumi,
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.xdist_group("docker"),
]

MORE = 300
"""Requests that each state has to serve before the next command comes."""

LIMIT_SECONDS = 120


@dataclass
class Traffic:
    load: Load
    journal: Path

    def serves(self) -> None:
        before = self.load.so_far()[0]
        until(lambda: self.load.so_far()[0] >= before + MORE)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that in time"
        time.sleep(0.05)


@pytest.fixture
def workshop(tmp_path: Path) -> Iterator[Workshop]:
    require_pulumi()
    made = Workshop(
        tmp_path,
        client_or_skip(),
        source=str(tmp_path / "data" / "app.db"),
        profile="none",
        strategy="blue-green",
        cutover="switch",
        postgresVersion=14,
        upgradePort=free_port(),
    )
    (tmp_path / "data").mkdir()
    yield made
    made.clear()


@pytest.fixture
def traffic(workshop: Workshop, tmp_path: Path) -> Iterator[Traffic]:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    with application_of(workshop) as url:
        load = Load(url, tmp_path / "journal", rate=100, seed=seed)
        load.start()
        yield Traffic(load, tmp_path / "journal")
        load.stop()


def major(workshop: Workshop) -> int:
    """Of the PostgreSQL that the application is on."""
    with psycopg.connect(dsn(named(workshop)), prepare_threshold=None) as session:
        row = session.execute("SHOW server_version_num").fetchone() or (0,)
    return int(row[0]) // 10000


def test_there_and_back_without_a_failed_request(workshop: Workshop, traffic: Traffic) -> None:
    """To PostgreSQL 14 and to SQLite; to 14 and on to 18 in one `up`, and back to 14."""
    traffic.serves()
    for what, settings, engine in (
        ("up", {}, 14),
        ("destroy", {}, "sqlite"),
        ("up", {"upgradeTo": 18, "upgradeStep": "move"}, 18),
        ("up", {"upgradeStep": "back"}, 14),
    ):
        workshop.set(**settings)
        done = workshop.up() if what == "up" else workshop.destroy()
        assert not done.failed, done.output
        assert done.outputs.get("phase") == (None if engine == "sqlite" else "switched")
        assert engine == (major(workshop) if what == "up" else named(workshop)["engine"])
        traffic.serves()
    result = traffic.load.stop()
    print(result.line())
    assert result.failures == []
    assert set(result.sides()) == {"sqlite", "postgresql"}
    found = compare_postgres(traffic.journal, dsn(named(workshop)))
    assert found.acknowledged == result.writes
    assert found.problems == []
    gone = workshop.destroy()
    assert not gone.failed, gone.output
    assert workshop.left() == []
