"""`upgrade` killed before, in and after each of its steps, from PostgreSQL 14 to 18 and back, while
eight writers and eight readers are on it: none of their statements fails, and nothing that was
acknowledged is lost.

A few faults, chosen at random, run with the other tests; ``FAULTS=all`` (``make faults``) runs all,
66 of them. ``FAULTS_SEED`` chooses others.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator

import psycopg
import pytest

from migration_job.errors import JobError
from migration_job.protocol.fault_points import UPGRADE_STEPS
from tests.integration import upgrading
from tests.integration.livestage import until
from tests.integration.upgrading import DATABASE, Load, Pair

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.xdist_group("faults"),
]

SEED = int(os.environ.get("FAULTS_SEED") or random.SystemRandom().randrange(10**6))
MOMENTS = ("before", "in", "after")
WRITERS = READERS = 8
FIRST_MOVE = UPGRADE_STEPS.index("upgrade.reverse")
PREPARING = [f"{when}:{step}" for step in UPGRADE_STEPS[:FIRST_MOVE] for when in MOMENTS]
MOVING = [f"{when}:{step}" for step in UPGRADE_STEPS[FIRST_MOVE:] for when in MOMENTS]


def chosen(faults: list[str], count: int) -> list[str]:
    """All of them, or some."""
    if os.environ.get("FAULTS") == "all":
        return faults
    return random.Random(SEED).sample(faults, count)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    try:
        with upgrading.pair(tmp_path_factory.mktemp("upgrade-faults")) as found:
            yield found
    except JobError as error:
        pytest.skip(f"no embedded servers of two versions: {error.message}")


def killed(servers: Pair, load: Load, fault: str, *options: str) -> None:
    """The command dies there, and the application goes on within seconds."""
    program = servers.start(*options, fault=fault)
    assert program.wait(300) == -signal.SIGKILL, f"{fault}: {program.output}"
    before = len(load.notes)
    until(lambda: len(load.notes) > before + WRITERS or bool(load.failed), f"writes after {fault}")
    assert load.failed == [], fault


def told(load: Load, kills: int, dsn: str) -> None:
    """The figures, and that they are what was promised."""
    lost = load.lost(dsn)
    print(
        f"{kills} kills: {len(load.notes):,} writes acknowledged, {load.reads:,} reads; "
        f"{len(load.failed)} failed, {len(lost)} complaints; "
        f"longest write {load.longest * 1000:,.0f} ms"
    )
    assert load.failed == []
    assert lost == []


def test_killed_in_its_preparation(servers: Pair) -> None:
    print(f"seed {SEED}")
    load, faults = Load(servers.dsn(), SEED), chosen(PREPARING, 2)
    with load.running(WRITERS, READERS):
        for fault in faults:
            killed(servers, load, fault, "--prepare-only")
            servers.run("--prepare-only")
            assert servers.serving() == "from"
            servers.run("--abandon")
            servers.empty_new()
    told(load, len(faults), servers.old.dsn_for(DATABASE))


def test_killed_in_each_step_of_a_move_there_and_back(servers: Pair) -> None:
    print(f"seed {SEED}")
    with psycopg.connect(servers.dsn(), autocommit=True, prepare_threshold=None) as session:
        session.execute("TRUNCATE audit, seen")
        session.execute("UPDATE counters SET n = 0")
    load, faults = Load(servers.dsn(), SEED + 100), chosen(MOVING, 2)
    with load.running(WRITERS, READERS):
        servers.run()
        for fault in faults:
            for options in (["--back"], []):
                served = servers.serving()
                killed(servers, load, fault, *options)
                servers.run(*options)
                assert servers.serving() != served, fault
    told(load, 2 * len(faults), servers.new.dsn_for(DATABASE))
