"""A target that has forgotten, brought up again from the source.

Where PostgreSQL is to serve, SQLite takes no writes and holds everything up to the decision, and
what the way back has brought since; its log names all of these rows. A target that lacks some of
them, and cannot have taken a write since it forgot, gets them from there: caught up, proved,
certified again. All else is told, row by row, and left as it is.
"""

from __future__ import annotations

import psycopg

from migration_job.errors import JobError
from migration_job.protocol import identity, memory, watch
from migration_job.protocol.catchup import catch_up
from migration_job.protocol.certificate import base_certificate, certify
from migration_job.protocol.proof import prove_all_references, prove_counts
from migration_job.protocol.run_context import Pair
from migration_job.protocol.sequences import raise_target_sequences
from migration_job.protocol.settings import Endpoints
from migration_job.protocol.tokens import Forgotten, forgot, forgotten, fresh
from migration_job.stores.postgres import capture as target_capture
from migration_job.stores.postgres import pair_identity, target_fence
from migration_job.stores.postgres.session import Unconfirmed
from migration_job.stores.sqlite import fence
from migration_job.stores.sqlite.fence import SourceState

WAIT_SECONDS = 10.0

CHOOSE = (
    "nothing was changed on either side, and nothing comes back to SQLite until one is chosen: "
    "`migration-job rollback --accept-loss` continues with SQLite's rows"
)


def require_memory(pair: Pair, ends: Endpoints) -> None:
    """Return when the target holds all that the source relies on while PostgreSQL is to serve,
    after bringing it up again where that takes no guess. Only for the holder of the lock.

    Raises Forgotten, with every row that differs in the state directory.
    """
    state = pair.state()
    if memory.holds(pair, state):
        return
    watch.expect(0)  # what follows may take long, and holds nobody whom its end would serve
    if not _is_older(pair, state):
        raise forgotten(state)
    if not _untouched(pair):
        raise memory.tell(pair, state, ends.state, f"PostgreSQL continues to serve; {CHOOSE}")
    try:
        _bring_up(pair, state)
    except (JobError, psycopg.Error) as error:
        if isinstance(error, psycopg.OperationalError | Unconfirmed):
            raise
        told = error.message if isinstance(error, JobError) else type(error).__name__
        raise memory.tell(
            pair, state, ends.state, f"bringing it up again failed: {told}; {CHOOSE}"
        ) from error
    (ends.state / memory.FILE).unlink(missing_ok=True)
    server = identity.change(pair.target, ends.state)
    identity.note(pair.target, ends.state)
    pair.told.append(
        "the target had forgotten what it was certified with (a failover to a standby that was "
        "behind, or an old copy): brought up again from SQLite's log and certified again. What "
        f"PostgreSQL took after {state.back_at or state.switched_at} and lost is in neither"
        + (f"; {server}" if server else "")
    )


def lacking(pair: Pair, ends: Endpoints) -> Forgotten | None:
    """The same while SQLite serves: what to raise, once the application is on SQLite, where the
    target has forgotten. It may have forgotten that it is closed: it is closed again first."""
    state = pair.state()
    if memory.holds(pair, state):
        return None
    watch.expect(0)
    if target_capture.installed(pair.target) and not target_fence.is_closed(pair.target):
        target_fence.close_fence(pair.target, limit=WAIT_SECONDS)
        target_fence.end_sessions(pair.target, limit=WAIT_SECONDS)
    if state.reads_moved:
        with fence.writing(pair.source, limit=WAIT_SECONDS):
            fence.change_state(pair.source, reads_moved=0)
    return memory.tell(
        pair,
        state,
        ends.state,
        "SQLite serves as before, with all its rows; `migration-job release` and "
        "`migration-job migrate --live` into an empty target start over",
    )


def _is_older(pair: Pair, state: SourceState) -> bool:
    """Not where the source was put back instead: then its own rows are the older ones."""
    known = pair_identity.read_identity(pair.target)
    return forgot(known, state) or (known is not None and known.token == state.token)


def _untouched(pair: Pair) -> bool:
    """Whether no application can have written to the target since it forgot: its fence is closed,
    and it was never open in what the target remembers of this decision."""
    if not target_capture.installed(pair.target):
        target_capture.install(pair.target, pair.plan)
    if not target_fence.is_closed(pair.target):
        return False
    # Closed once more, by the lock that every writer holds, and old snapshots ended with it.
    target_fence.close_fence(pair.target, limit=WAIT_SECONDS)
    target_fence.end_sessions(pair.target, limit=WAIT_SECONDS)
    return True


def _bring_up(pair: Pair, state: SourceState) -> None:
    target_capture.install(pair.target, pair.plan)
    base = base_certificate(pair.target)
    if pair_identity.pair(pair.target) is None:
        # An offline switch binds the two in the decision; before it nothing had been followed.
        pair_identity.set_pair(pair.target, state.capture, 1, token=state.capture)
    while catch_up(pair).behind:
        pass
    prove_all_references(pair)
    prove_counts(pair)
    raise_target_sequences(pair)
    token = fresh(state.token)
    pair_identity.announce_token(pair.target, state.token, token, again=True)
    digest = certify(pair, fence.last_position(pair.source), base=base)
    with fence.writing(pair.source, limit=WAIT_SECONDS):
        fence.change_state(pair.source, certificate=digest, token=token)
    pair_identity.confirm_token(pair.target)
