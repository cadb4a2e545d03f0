"""The job, the sync, PostgreSQL and PgBouncer killed, and what PostgreSQL remembers of it taken
away, before, in and after each step of the switch and of the rollback, under load, and run again:
none of the five rules of docs/design.md breaks. The source keeps a write-ahead log, as the
profile's application does, or a rollback journal.

A quick selection runs with the other tests; ``FAULTS=all`` (``make faults``) runs every one,
``FAULTS_SEED`` chooses other moments, ``FAULTS_ROUNDS`` how often each is tried; ``FAULTS_SECONDS``
is the time for a side to serve again, 5 by default, where a machine has other work.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from migration_job.errors import JobError
from migration_job.protocol.fault_points import ROLLBACK_STEPS, SWITCH_STEPS, SYNC_STEPS
from tests.faults.faultrun import Fault, FaultRun, prepare
from tests.integration.livestage import LiveStage

pytestmark = [pytest.mark.postgres, pytest.mark.slow, pytest.mark.xdist_group("faults")]

SEED = int(os.environ.get("FAULTS_SEED", "1"))
ROUNDS = int(os.environ.get("FAULTS_ROUNDS", "2"))
VICTIMS = ("job", "sync", "postgres", "pgbouncer")
MOMENTS = ("before", "in", "after")


JOURNALS = ("delete", "truncate", "persist", "memory")

ON_SOURCE = (
    *("switch.prepare", "switch.fence", "switch.drain", "switch.decide"),
    *("rollback.prepare", "rollback.drain", "rollback.decide"),
)
"""Steps that read or write the source, so that its journal matters."""


def every_fault() -> Iterator[Fault]:
    """Each step of both directions with each victim and moment, and the sync at its own steps; and
    in each mode of the rollback journal those steps at which the source is read or written."""
    yield from _with_log()
    for journal in JOURNALS:
        for direction, steps in (("switch", SWITCH_STEPS), ("rollback", ROLLBACK_STEPS)):
            for when in MOMENTS:
                for step in steps:
                    if step in ON_SOURCE:
                        yield Fault(direction, "job", when, step, journal=journal)
                for step in OWN_STEPS[direction]:
                    yield Fault(direction, "sync", when, step, journal=journal)


def _with_log() -> Iterator[Fault]:
    for number in range(ROUNDS):
        for direction, steps in (("switch", SWITCH_STEPS), ("rollback", ROLLBACK_STEPS)):
            for step in steps:
                for victim in VICTIMS:
                    for when in MOMENTS:
                        yield Fault(direction, victim, when, step, number)
            for step in REMEMBERED if direction == "switch" else ():
                for when in ("before", "after"):
                    yield Fault(direction, "memory", when, step, number)
            for step in HELD[direction]:
                for when in ("before", "after"):
                    yield Fault(direction, "stopped holder", when, step, number)
            if direction == "switch":
                yield Fault(direction, "lost trigger", "while", "sync.forward", number)
                yield Fault(direction, "replaced file", "while", "sync.forward", number)
            yield Fault(direction, "full state directory", "while", OWN_STEPS[direction][0], number)
            own = [s for s in SYNC_STEPS if s in OWN_STEPS[direction]]
            for step in own:
                for when in MOMENTS:
                    yield Fault(direction, "sync", when, step, number)


HELD = {
    "switch": ("switch.drain", "switch.decide", "follow.alias"),
    "rollback": ("rollback.fence", "rollback.drain", "rollback.decide", "return.alias"),
}
"""Steps in which the application's writers or queries are held, or are about to be let go."""

REMEMBERED = ("switch.prepare", "switch.fence", "switch.drain", "switch.decide")
"""Steps at which the target may forget all of the run: SQLite has whatever was acknowledged. Once
the target's fence is open, what it alone has acknowledged is lost with it, which a cluster whose
commits wait for a standby does not let happen; `make cluster` tries that."""

OWN_STEPS = {"switch": ("sync.forward",), "rollback": ("sync.reverse",)}
"""What the sync does before the decision; it trims the log only after thousands of changes."""

QUICK = (
    Fault("switch", "job", "in", "switch.drain"),
    Fault("switch", "job", "in", "switch.decide"),
    Fault("switch", "job", "after", "switch.decide"),
    Fault("switch", "job", "after", "follow.open"),
    Fault("switch", "postgres", "before", "switch.decide"),
    Fault("switch", "pgbouncer", "before", "follow.alias"),
    Fault("switch", "memory", "after", "switch.decide"),
    Fault("switch", "sync", "in", "sync.forward"),
    Fault("switch", "stopped holder", "after", "switch.drain"),
    Fault("switch", "lost trigger", "while", "sync.forward"),
    Fault("switch", "replaced file", "while", "sync.forward"),
    Fault("switch", "full state directory", "while", "sync.forward"),
    Fault("rollback", "full state directory", "while", "sync.reverse"),
    Fault("rollback", "stopped holder", "before", "rollback.decide"),
    Fault("rollback", "job", "after", "rollback.pause"),
    Fault("rollback", "job", "after", "rollback.fence"),
    Fault("rollback", "job", "after", "rollback.decide"),
    Fault("rollback", "postgres", "after", "rollback.fence"),
    Fault("rollback", "pgbouncer", "after", "rollback.pause"),
    Fault("rollback", "sync", "in", "sync.reverse"),
    Fault("switch", "job", "in", "switch.decide", journal="delete"),
    Fault("switch", "job", "after", "switch.decide", journal="truncate"),
    Fault("rollback", "job", "in", "rollback.decide", journal="persist"),
    Fault("rollback", "job", "after", "rollback.drain", journal="memory"),
)

FAULTS = list(every_fault()) if os.environ.get("FAULTS") == "all" else list(QUICK)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveStage]:
    try:
        entered = LiveStage(tmp_path_factory.mktemp("faults")).__enter__()
    except JobError as error:
        pytest.skip(f"no embedded servers: {error.message}")
    try:
        yield entered
    finally:
        entered.__exit__(None, None, None)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_killed_and_run_again(stage: LiveStage, fault: Fault) -> None:
    print(f"seed {SEED}")
    if not (stage.directory / fault.begins).exists():
        prepare(stage, fault.journal)
    stage.journal = fault.journal
    stage.restore(fault.begins)
    run = FaultRun(stage, fault, SEED)
    try:
        result = run.go()
    except BaseException:
        for log in sorted(stage.logs.iterdir()):
            print(f"--- {log.name}\n{log.read_text()[-3000:]}")
        raise
    finally:
        run.clean_up()
    print(result.line())


def test_at_least_three_hundred_are_tried_by_make_faults() -> None:
    """Each step, victim and moment of both directions, in every round."""
    everything = list(every_fault())
    assert len(set(everything)) == len(everything)
    with_log = [fault for fault in everything if fault.journal == "wal"]
    assert len(with_log) / ROUNDS * 2 >= 300
    assert len(everything) - len(with_log) >= 100
