"""Make the target's fence, the alias and the connection agree with the decision: the source's
``closed``.

Every new lock holder does this first. A crash after a decision is completed, and one before it is
undone. There is one way to recover, and the switch and the rollback themselves take it.

``closed`` = 1 (PostgreSQL serves)     fence opens -> alias opens -> connection names PostgreSQL
``closed`` = 0 (SQLite serves)         connection names SQLite -> alias goes (and a PAUSE with it)

What others have closed stays closed. Once the connection names PostgreSQL, the alias had been
opened. If it is paused or gone then without a mark of a rollback's (:mod:`.lease`), something other
than this job did it, and `status` says so.

Going forward, the application learns the new address last, when everything behind it is open. Going
back it learns it first, so that the clients that PgBouncer drops find their way. In neither
direction are both open to writes: the target's fence opens only here, with the source closed, and
is closed before the source opens (:mod:`migration_job.protocol.rollback`).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import apsw
import psycopg

from migration_job.connection import read_connection, write_connection
from migration_job.errors import JobError, OperationError
from migration_job.phases import Phase
from migration_job.protocol import identity, lease, watch
from migration_job.protocol.fault_points import step
from migration_job.protocol.recovery import lacking, require_memory
from migration_job.protocol.run_context import Pair, open_target, opened
from migration_job.protocol.settings import Endpoints
from migration_job.protocol.tokens import Forgotten
from migration_job.stores.postgres import capture as target_capture
from migration_job.stores.postgres import merged, records, target_fence

FOLLOW_SECONDS = 30.0
"""How long a command goes on trying once the decision is taken; then `sync` does."""

RETRY_SECONDS = 0.3


class BothOpen(OperationError):
    """Both sides take writes, which none of this job's doing leads to; nothing may go on."""

    def __init__(self) -> None:
        super().__init__(
            "both sides are open to writes: the source's state and the target's fence were changed "
            "by something other than this job",
            advice="stop the application, and find out which side has the newest writes before "
            "anything else",
        )


def follow_decision(pair: Pair, ends: Endpoints) -> bool:
    """Make everything agree with the decision; returns whether anything had to be changed.

    Only for the holder of the lock. Raises OperationError where a part cannot be brought round: the
    others before it are done, and the next call goes on.
    """
    state = pair.state()
    if state.settled:
        return False
    watch.expect(watch.STEP_SECONDS)
    try:
        if state.closed:
            return _to_target(pair, ends)
        return _to_source(pair, ends)
    finally:
        watch.expect(0)


def _to_target(pair: Pair, ends: Endpoints) -> bool:
    try:
        require_memory(pair, ends)
    except Forgotten:
        _let_go_on(pair, ends)
        raise
    watch.expect(watch.STEP_SECONDS)
    promoted = identity.may_have_lost(pair.target, ends.state)
    if promoted:
        state = pair.state()
        pair.told.append(
            f"warning: {promoted}: what PostgreSQL took after {state.back_at or state.switched_at} "
            "and this one did not have is lost, and in neither side; nothing else is missing"
        )
    return _forward(pair, ends)


def _to_source(pair: Pair, ends: Endpoints) -> bool:
    lacks = lacking(pair, ends)
    watch.expect(watch.STEP_SECONDS)
    changed = _back(pair, ends, reads_moved=pair.state().reads_moved)
    if lacks is not None:
        raise lacks
    return changed


def _let_go_on(pair: Pair, ends: Endpoints) -> None:
    """Nothing is opened; but where the target serves already, nobody is held any longer by a PAUSE
    that the dead have left. What somebody else holds stays held."""
    if ends.pooler is None or not target_capture.installed(pair.target):
        return
    if not target_fence.is_closed(pair.target):
        with contextlib.suppress(OperationError):
            if not _alias_stands(ends):
                ends.pooler.open_alias(limit=5.0)


def follow_until(pair: Pair, ends: Endpoints, *, limit: float) -> None:
    """:func:`follow_decision`, again and again where a part is down for a moment (PostgreSQL or
    PgBouncer restarting), with new sessions, for ``limit`` seconds. Raises as it does."""
    deadline = time.monotonic() + limit
    try:
        follow_decision(pair, ends)
        return
    except Forgotten:
        raise
    except (JobError, psycopg.Error, apsw.Error, OSError) as error:
        last: Exception = error
    while time.monotonic() < deadline:
        time.sleep(RETRY_SECONDS)
        try:
            with opened(ends.source, ends.dsn) as fresh:
                follow_decision(fresh, ends)
            return
        except Forgotten:
            raise
        except (JobError, psycopg.Error, apsw.Error, OSError) as error:
            last = error
    raise last


def record_phase(pair: Pair, phase: Phase, dsn: str, say: Callable[[str], None]) -> None:
    """Have the target's own record say the phase, after a decision. Who serves does not depend on
    it, so that a target which does not take it is a warning."""
    try:
        # The session may have been ended for another's, where something was down meanwhile.
        if pair.target.closed:
            pair.target = open_target(dsn)
        records.set_phase(pair.target, phase)
    except (JobError, psycopg.Error):
        try:
            with contextlib.closing(open_target(dsn)) as target:
                records.set_phase(target, phase)
        except (JobError, psycopg.Error) as error:
            say(
                f"warning: the target's record of the phase could not be set to {str(phase)!r} "
                f"({type(error).__name__}); the same command, run again, sets it"
            )


def agrees(pair: Pair, ends: Endpoints) -> bool:
    """Whether everything agrees with the decision already."""
    state = pair.state()
    if state.settled:
        return True
    connection = read_connection(ends.connection)
    if connection is None:
        return False
    if state.closed:
        named = connection.write == connection.read == ends.postgres
        return named and not target_fence.is_closed(pair.target) and _alias_stands(ends)
    if not _target_closed(pair):
        # Not to be mended here: writes may have been accepted that the source does not have.
        raise BothOpen
    if state.reads_moved:
        named = connection.write == ends.sqlite and connection.read == ends.postgres
        return named and _alias_stands(ends)
    named = connection.write == connection.read == ends.sqlite
    return named and (ends.pooler is None or ends.pooler.is_closed())


def _forward(pair: Pair, ends: Endpoints) -> bool:
    if agrees(pair, ends):
        return False
    connection = read_connection(ends.connection)
    named = connection is not None and connection.write == ends.postgres
    with step("follow.open"):
        target_fence.open_fence(pair.target, *merged.hand_over(pair.plan))
    with step("follow.alias"):
        _open_alias(ends, named=named)
    with step("follow.connect"):
        write_connection(ends.connection, ends.postgres, ends.postgres, owner=ends.owner)
    return True


def _back(pair: Pair, ends: Endpoints, *, reads_moved: bool) -> bool:
    if agrees(pair, ends):
        return False
    if reads_moved:
        # Writes stay with SQLite; the target answers reads and refuses writes by its fence.
        connection = read_connection(ends.connection)
        named = connection is not None and connection.read == ends.postgres
        with step("return.alias"):
            _open_alias(ends, named=named)
        with step("return.connect"):
            write_connection(ends.connection, ends.sqlite, ends.postgres, owner=ends.owner)
        return True
    with step("return.connect"):
        write_connection(ends.connection, ends.sqlite, ends.sqlite, owner=ends.owner)
    with step("return.alias"):
        if ends.pooler is not None:
            ends.pooler.close_alias()
        lease.forget_pause(ends.state)
    return True


def _alias_stands(ends: Endpoints) -> bool:
    """Whether the alias, once it was opened for the connection that is named now, is open, or
    closed by somebody else: a hold, or what no mark of this job's tells of."""
    if ends.pooler is None:
        return True
    if lease.read_lease(ends.state) is not None:
        return True
    if ends.pooler.is_open():
        lease.forget_pause(ends.state, late=lease.LATE_SECONDS)
        return True
    return not lease.paused_by_us(ends.state)


def _open_alias(ends: Endpoints, *, named: bool) -> None:
    """Open the alias, unless it was open before (the connection is ``named`` after it) and somebody
    else has closed it since, or it is there and somebody holds it."""
    if ends.pooler is None or (named and _alias_stands(ends)):
        return
    if lease.read_lease(ends.state) is not None and ends.pooler.is_paused():
        return
    ends.pooler.open_alias()


def _target_closed(pair: Pair) -> bool:
    return not target_capture.installed(pair.target) or target_fence.is_closed(pair.target)
