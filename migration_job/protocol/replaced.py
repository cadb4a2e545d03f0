"""The file that a target follows, and another in its place.

A target that follows a file holds, verified, what the file held. Where another file is found in its
place, that may be the last copy: nothing fills the target again until the operator has given it up,
by ``rollback --release``, which has the target follow nothing, or by ``release``, which does not
know the target and leaves its word in the state directory.
"""

from __future__ import annotations

from pathlib import Path

import apsw
import psycopg

from migration_job.durable import write_durably
from migration_job.errors import InputError, JobError
from migration_job.protocol.run_context import given_up
from migration_job.stores.postgres import pair_identity
from migration_job.stores.sqlite import fence
from migration_job.stores.sqlite.database import looking

RELEASED = "released"
"""The file in the state directory that says so."""


def state_on_source(path: Path) -> fence.SourceState | None:
    """The capture's state in a file; None where there is none, or the file cannot be read."""
    try:
        with looking(path) as source:
            return fence.read_state(source)
    except (JobError, apsw.Error, OSError):
        return None


def mark_released(state: Path) -> None:
    """Note that what the target of this state directory follows is given up."""
    write_durably(state / RELEASED, b"", mode=0o600)


def forget_released(state: Path) -> None:
    """A run has begun since: what it follows is given up by nobody yet."""
    (state / RELEASED).unlink(missing_ok=True)


def require_followed(
    target: psycopg.Connection, path: Path, state: Path | None, *, to_give_up: str
) -> None:
    """Raises InputError where the target follows another file than the one at ``path``, and nobody
    has given that up: in ``state``, or otherwise by the command ``to_give_up`` names."""
    followed = pair_identity.pair(target)
    if followed is None or (state is not None and (state / RELEASED).exists()):
        return
    there = state_on_source(path)
    if there is not None and there.capture in (followed, given_up(followed)):
        return
    raise InputError(
        f"expected the file that PostgreSQL has followed at {path}, found "
        + ("one without change capture" if there is None else "one with another change capture"),
        advice="PostgreSQL keeps what the file before it held, verified: bring that file back. To "
        f"move this one in its place, {to_give_up}",
    )
