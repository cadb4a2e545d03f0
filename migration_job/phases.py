"""The phases of a migration: which may follow which, and what each promises.

``prepared -> capturing -> copied -> caught up -> verified -> switched -> settled``, and
``rolled back`` from any of them but ``settled``. An offline ``migrate`` leaves out ``capturing``
and ``caught up``: the application stands still, or its later writes stop the switch.

Which side serves is not read from the phase but from the source's own ``closed`` (the decision is
its commit); the phase tells people and programs how far things are.
"""

from __future__ import annotations

import enum

from migration_job.errors import OperationError


class Phase(enum.StrEnum):
    """A phase's name, as ``migration.run.phase``, ``status`` and ``report.json`` spell it."""

    PREPARED = "prepared"
    """The target is this run's own; the source is untouched."""
    CAPTURING = "capturing"
    """Every write to the source is logged in the writer's own transaction."""
    COPIED = "copied"
    """The snapshot's rows are on the target, with keys, indexes and foreign keys."""
    CAUGHT_UP = "caught up"
    """The target has followed the source's log up to ``migration.applied``."""
    VERIFIED = "verified"
    """A certificate covers everything up to its position."""
    SWITCHED = "switched"
    """PostgreSQL serves; SQLite refuses writes and follows."""
    SETTLED = "settled"
    """The way back is given up; the source is archived and read-only."""
    ROLLED_BACK = "rolled back"
    """SQLite serves, with everything that was written on either side."""


UNFINISHED = (Phase.PREPARED, Phase.COPIED)
"""An offline run is in one of these from its beginning until its certificate."""

_ORDER = (
    Phase.PREPARED,
    Phase.CAPTURING,
    Phase.COPIED,
    Phase.CAUGHT_UP,
    Phase.VERIFIED,
    Phase.SWITCHED,
    Phase.SETTLED,
)

_OPTIONAL = {Phase.CAPTURING, Phase.CAUGHT_UP}


def may_follow(before: Phase | None, after: Phase) -> bool:
    """Whether ``after`` may come next; None is the state before a run.

    A phase may follow itself (a step that is run again), and everything up to ``verified`` may
    start over, since nothing serves from the target yet.
    """
    if before is None:
        return after is Phase.PREPARED
    if before is after:
        return True
    if before is Phase.SETTLED:
        return False
    if after is Phase.ROLLED_BACK:
        return True
    if before is Phase.ROLLED_BACK:
        # The target holds all that the source held when it was rolled back; catch-up goes on.
        return after in (Phase.PREPARED, Phase.CAUGHT_UP, Phase.VERIFIED)
    start, end = _ORDER.index(before), _ORDER.index(after)
    if before is Phase.SWITCHED:
        return after is Phase.SETTLED
    if end < start:
        return True
    return all(phase in _OPTIONAL for phase in _ORDER[start + 1 : end])


def require(before: Phase | None, after: Phase) -> None:
    """Raises OperationError where ``after`` may not come next."""
    if not may_follow(before, after):
        found = "none" if before is None else before.value
        raise OperationError(
            f"expected a phase that {after.value!r} may follow, found {found!r}",
            advice="`migration-job status` shows the present state and what to do next",
        )
