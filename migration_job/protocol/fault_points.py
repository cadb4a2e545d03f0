"""The protocol's steps by name, so that a fault can be put before, in or after each of them.

``MIGRATION_FAULT=WHEN:STEP[:ACTION]`` has this process end itself (``kill``, the default: SIGKILL)
or stand still (``stop``: SIGSTOP, until it is sent SIGCONT) when it comes to the step: ``before``
it, ``in`` it (some milliseconds after its beginning), or ``after`` it. It exists for the fault
tests; without the variable a step is only timed (:mod:`.timeline`).
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
from collections.abc import Iterator

from migration_job.protocol.timeline import timed

SWITCH_STEPS = (
    "switch.prepare",  # catch up, install the way back, look at PgBouncer; nothing is held
    "switch.fence",  # BEGIN IMMEDIATE: writers wait
    "switch.drain",  # the log's rest to the target, verified, certified
    "switch.decide",  # closed = 1; COMMIT
    "follow.open",  # the target's fence opens
    "follow.alias",  # the alias is written and read
    "follow.connect",  # the connection names PostgreSQL
)
ROLLBACK_STEPS = (
    "rollback.prepare",  # drain while everybody writes
    "rollback.pause",  # PgBouncer holds the queries
    "rollback.fence",  # the target's fence closes, other sessions end
    "rollback.drain",  # the queue's rest to the source, verified
    "rollback.decide",  # closed = 0; COMMIT
    "return.connect",  # the connection names SQLite
    "return.alias",  # the alias goes, and the PAUSE with it
)
SYNC_STEPS = (
    "sync.forward",  # one batch of the log to the target
    "sync.reverse",  # one batch of the queue to the source
    "sync.trim",  # applied rows of the log are deleted
)
HOLD_STEPS = (
    "hold.lease",  # the lease is written, with its end
    "hold.pause",  # PgBouncer holds the queries
    "resume.open",  # the alias is open, and the PAUSE over
    "resume.end",  # the lease is removed
)

UPGRADE_STEPS = (
    "upgrade.record",  # both servers know that there is an upgrade, the new one is closed
    "upgrade.carry",  # identities, publication, roles, schema
    "upgrade.subscribe",  # the new server begins to copy
    "upgrade.copy",  # all rows are there, and it follows
    "upgrade.reverse",  # the way back is published and subscribed, not received
    "upgrade.compare",  # every row on both sides, then what changed, in rounds
    "upgrade.pause",  # PgBouncer holds the queries
    "upgrade.fence",  # the serving side is closed, its sessions end
    "upgrade.drain",  # the rest arrives and is compared; sequences; the certificate
    "upgrade.decide",  # the decision, one commit on the side that is left
    "upgrade.open",  # triggers, and the other side opens
    "upgrade.alias",  # PgBouncer leads there, and the PAUSE is over
    "upgrade.turn",  # changes flow the other way
)
UPGRADE_ENDS = ("upgrade.settle", "upgrade.abandon")

VARIABLE = "MIGRATION_FAULT"
IN_STEP_SECONDS = 0.005


@contextlib.contextmanager
def step(name: str) -> Iterator[None]:
    """Marks the block as the protocol's step ``name``."""
    with timed(name):
        _fault("before", name)
        _fault("in", name)
        yield
    _fault("after", name)


def _fault(when: str, name: str) -> None:
    wanted = os.environ.get(VARIABLE, "").split(":")
    if wanted[:2] != [when, name]:
        return
    number = signal.SIGSTOP if wanted[2:] == ["stop"] else signal.SIGKILL
    if when == "in":
        delay = random.uniform(0, IN_STEP_SECONDS)  # noqa: S311 - no secret
        threading.Timer(delay, os.kill, (os.getpid(), number)).start()
    else:
        os.kill(os.getpid(), number)
