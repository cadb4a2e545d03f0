"""The way back to SQLite, with the application's queries held by PgBouncer.

1. ``rollback.prepare``  nothing is held: the queue is worked off
2. ``rollback.pause``    PgBouncer holds new queries and waits for open transactions
3. ``rollback.fence``    the target's fence closes; sessions that are in a transaction are ended
4. ``rollback.drain``    the queue's rest to the source, compared; sequences
5. ``rollback.decide``   ``closed = 0`` and COMMIT: this commit is the decision
6. ``return.*``          the connection, then the alias, and the PAUSE with it

Until 5 whatever fails opens the target's fence again and has PgBouncer go on: PostgreSQL serves as
before.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import apsw
import psycopg

from migration_job.connection import read_connection, write_connection
from migration_job.durable import write_durably
from migration_job.errors import InputError, JobError, OperationError, VerificationError
from migration_job.phases import Phase
from migration_job.plan.findings import some
from migration_job.plural import counted, either
from migration_job.protocol import gate_protocol, lease, replaced, source_checks, timeline, watch
from migration_job.protocol.certificate import position_of_the_switch
from migration_job.protocol.decision import commit_decision, take_back, truthful
from migration_job.protocol.evolve import one_way_tables
from migration_job.protocol.fault_points import step
from migration_job.protocol.follow import (
    FOLLOW_SECONDS,
    follow_decision,
    follow_until,
    record_phase,
)
from migration_job.protocol.lock import Lock
from migration_job.protocol.mend import mend, prove_back
from migration_job.protocol.reverse_sync import bring_back, differences, one_way_changes
from migration_job.protocol.run_context import Emptied, Pair, given_up, opened
from migration_job.protocol.sequences import raise_source_sequences
from migration_job.protocol.settings import Endpoints
from migration_job.protocol.tokens import Forgotten
from migration_job.protocol.whole import (
    confirm,
    new_token,
    require_capture,
    require_file,
    require_identity,
)
from migration_job.quoting import compose, sqlite_name
from migration_job.stores.postgres import pair_identity, target_fence
from migration_job.stores.postgres.database import Locked
from migration_job.stores.sqlite import capture, derived, fence
from migration_job.stores.sqlite.capture import LOG
from migration_job.stores.sqlite.catalogue import read_catalogue
from migration_job.stores.sqlite.waiting import allowed, patience
from migration_job.values import fold

Say = Callable[[str], None]

SHOWN = 5

SCREEN = 20
"""What is given up, named one by one."""

LOST = "lost.txt"
"""The whole list, in the state directory."""

DECIDE_SECONDS = 30.0
"""How long readers of the file may hold up the decision, with the application's queries held."""

LONGEST_SECONDS = 60.0
"""From the PAUSE to the end of all that follows, without the queue: see :mod:`.gate_protocol`."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """How to go back, and what the operator gives up for it."""

    pause_limit: float
    drain_limit: float
    loss: bool
    one_way: frozenset[str]
    """Folded names of tables whose schema was changed, and whose changes are given up."""
    keep_reads: bool
    release: bool


@dataclass(frozen=True, slots=True)
class RolledBack:
    """How a rollback went."""

    held_ms: float
    """How long queries were held at most, to a tenth; 0 where SQLite served already."""
    lost: tuple[str, ...] = ()
    """What was given up by ``--accept-loss``, in words."""
    never_switched: bool = False
    """Whether there was nothing to go back from; then no connection is written either."""


def rollback(  # noqa: PLR0913 - the command's options, named
    ends: Endpoints,
    *,
    pause_limit: float = 10.0,
    drain_limit: float = 600.0,
    accept_loss: bool = False,
    keep_reads: bool = False,
    release: bool = False,
    one_way: Sequence[str] = (),
    say: Say = lambda _: None,
) -> RolledBack:
    """Have SQLite serve, with all that was written on either side.

    ``keep_reads`` leaves reads with PostgreSQL (``strategy: dual-write``); ``release`` also takes
    the capture out of the source; ``accept_loss`` goes back even where the target is gone or rows
    cannot come back, and says what that costs; ``one_way`` does so for these tables of PostgreSQL,
    whose schema was changed there. Raises OperationError or VerificationError with
    PostgreSQL serving as before; or, where a gate cannot have the application restarted,
    OperationError with SQLite serving.
    """
    with truthful(ends.source, "rollback"), patience(drain_limit), watch.guarded():
        tables = frozenset(fold(name) for name in one_way)
        wanted = _Wanted(pause_limit, drain_limit, accept_loss, tables, keep_reads, release)
        done = _rollback(ends, wanted, say)
        gate_protocol.wait_for_application(ends.state, ends.connection, say=say)
        return done


def _rollback(ends: Endpoints, wanted: _Wanted, say: Say) -> RolledBack:
    with Lock(ends.state).command("rollback"):
        lease.require_none(ends.state, "rollback")
        try:
            opening = opened(ends.source, ends.dsn)
            pair = opening.__enter__()
        except (InputError, Emptied, psycopg.OperationalError) as error:
            return _without_target(
                ends, error, accept_loss=wanted.loss, release=wanted.release, say=say
            )
        try:
            done = _with_target(pair, ends, wanted, say)
            if wanted.release or _is_offline(pair):
                say(_release(pair))
            return done
        except Forgotten as error:
            if fence.read_state(pair.source) is not None and pair.state().closed:
                if not wanted.loss:
                    raise
                # Whatever it holds that SQLite does not is listed; it must take nothing more.
                target_fence.close_fence(pair.target, limit=wanted.pause_limit)
                target_fence.end_sessions(pair.third, limit=wanted.pause_limit)
            lacks = error
        finally:
            opening.__exit__(None, None, None)
        say(f"warning: {lacks.message}; {lacks.advice}")
        return _without_target(
            ends, lacks, accept_loss=wanted.loss, release=wanted.release, say=say
        )


def _with_target(pair: Pair, ends: Endpoints, wanted: _Wanted, say: Say) -> RolledBack:
    timeline.of_run(pair.run_id)
    state = fence.read_state(pair.source)
    if _never_switched(state, ends):
        return RolledBack(0.0, never_switched=True)
    if state is None:
        # The capture was taken out; the connection may name another side's last state.
        write_connection(ends.connection, ends.sqlite, ends.sqlite, owner=ends.owner)
        return RolledBack(0.0)
    if state.settled:
        raise OperationError(
            "the way back was given up by `migration-job settle`",
            advice="the archived SQLite file can be restored, as it was then, with "
            "`migration-job restore-backup`",
        )
    require_identity(pair, state, followed=True)
    if not state.closed:
        if state.reads_moved and not wanted.keep_reads:
            with fence.writing(pair.source, limit=wanted.drain_limit):
                fence.change_state(pair.source, reads_moved=0)
        _follow(pair, ends, say)
        say("SQLite serves already")
        return RolledBack(0.0)
    follow_decision(pair, ends)
    _require_own_alias(ends)
    given_up, lost = _prepare(pair, ends, wanted, say)
    longest = wanted.drain_limit + LONGEST_SECONDS
    with gate_protocol.holding(ends.state, longest=longest, say=say):
        start = time.monotonic()
        try:
            lost = _decide(pair, ends, wanted, lost, say)
        except BaseException as error:
            fence.give_up(pair.source)
            watch.expect(0)
            if isinstance(error, Exception):
                _go_on_with_target(pair, ends, error)
            raise
        _follow(pair, ends, say)
    held = round((time.monotonic() - start) * 1000, 1)
    confirm(pair)
    record_phase(pair, Phase.ROLLED_BACK, ends.dsn, say)
    say(f"decided: SQLite serves; queries were held for {held:,.0f} ms")
    return RolledBack(held, (*given_up, *lost))


def _prepare(
    pair: Pair, ends: Endpoints, wanted: _Wanted, say: Say
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Work the way back off while PostgreSQL serves; what was given up for it, and what would be
    lost."""
    with step("rollback.prepare"):
        # Before anybody is held: no waiting ends them.
        target_fence.require_none_prepared(pair.target)
        given_up = _mended(pair, wanted.drain_limit, wanted.loss, say)
        for told in pair.told:
            if not told.startswith("warning: "):  # of tables that are one-way: refused, or named
                say(told)
        pair.told.clear()
        lost = _losses(pair, ends, wanted, (), say)
        _derive(pair, wanted.drain_limit, say)
        for told in (*source_checks.broken(pair), *source_checks.without_parents(pair)):
            say(told)
        say("the changes have come back; holding the application's queries")
    return given_up, lost


def _decide(
    pair: Pair, ends: Endpoints, wanted: _Wanted, lost: tuple[str, ...], say: Say
) -> tuple[str, ...]:
    """Pause, fence, drain and commit the decision, with the application's queries held; all that
    is lost."""
    pause_limit, lock_limit = wanted.pause_limit, min(wanted.drain_limit, DECIDE_SECONDS)
    watch.expect(pause_limit + watch.STEP_SECONDS)
    with step("rollback.pause"):
        if ends.pooler is not None:
            lease.mark_pause(ends.state)
            ends.pooler.pause(limit=pause_limit)
    watch.expect(2 * pause_limit + watch.GRACE_SECONDS)
    with step("rollback.fence"):
        target_fence.close_fence(pair.target, limit=pause_limit)
        target_fence.end_sessions(pair.third, limit=pause_limit)
    with step("rollback.drain"):
        worked_off = fence.last_position(pair.source)
        _drain(pair, wanted.drain_limit)
        lost = _losses(pair, ends, wanted, lost, say)
    watch.expect(2 * lock_limit + watch.GRACE_SECONDS)
    with step("rollback.decide"):
        fence.hold_writers(pair.source, limit=lock_limit)
        require_capture(pair, again=True)
        raise_source_sequences(pair)
        later = _changed_since(pair, worked_off)
        for done in derived.bring_in_step(pair.source, pair.catalogue, later):
            say(str(done))
        take_back(pair.source, new_token(pair), reads_moved=wanted.keep_reads)
        require_file(pair)
        commit_decision(pair, limit=lock_limit, certificate=None)
    return lost


def _mended(pair: Pair, drain_limit: float, accept_loss: bool, say: Say) -> tuple[str, ...]:
    """Put back what DDL has taken from the closed file, bring the queue back, and prove the file
    where its gate was open; what was given up of what was written there."""
    for line in mend(pair):
        say(line)
    _drain(pair, drain_limit)
    given_up = prove_back(pair, give_up=accept_loss)
    if given_up:
        _drain(pair, drain_limit)
    return tuple(given_up)


def _require_own_alias(ends: Endpoints) -> None:
    if ends.pooler is not None and ends.pooler.is_paused() and not lease.paused_by_us(ends.state):
        raise OperationError(
            f"expected PgBouncer's alias {ends.pooler.alias.name!r} open, found it paused by "
            "something other than this job",
            advice="PostgreSQL serves as before; end what it was paused for, then "
            "`migration-job resume`, and run the rollback again",
        )


def _derive(pair: Pair, limit: float, say: Say) -> None:
    """Bring what the source derives from rows in step, while nothing is held yet: once queries are
    held, that is left which comes last."""
    changed = _changed_since(pair, position_of_the_switch(pair))
    if not derived.concerned(pair.catalogue, changed):
        return
    with fence.writing(pair.source, limit=limit):
        for done in derived.bring_in_step(pair.source, pair.catalogue, changed):
            say(str(done))


def _changed_since(pair: Pair, position: int | None) -> set[str] | None:
    """The folded names of the tables that the source's log names after ``position``; None where it
    does not reach back so far."""
    first = pair.source.execute(compose("SELECT min(seq) FROM {log}", log=sqlite_name(LOG))).get
    if position is None or first is None or int(first) > position + 1:
        return None
    numbers = pair.source.execute(
        compose("SELECT DISTINCT tab FROM {log} WHERE seq > ?", log=sqlite_name(LOG)), (position,)
    ).fetchall()
    return {fold(pair.captured[int(n)][0].name) for (n,) in numbers if n in pair.captured}


def _drain(pair: Pair, limit: float) -> None:
    """Work off the queue."""
    deadline = time.monotonic() + limit
    while True:
        if target_fence.is_closed(pair.target):
            watch.expect(watch.ROUND_SECONDS)
        try:
            done = bring_back(pair, lock_limit=max(deadline - time.monotonic(), 0))
        except Locked:
            # An ALTER TABLE, say: over in a moment, as a rule.
            if time.monotonic() > deadline:
                raise
            continue
        if not done.left and done.taken <= 200:
            if done.taken == 0 or not target_fence.is_closed(pair.target):
                return
            continue
        if time.monotonic() > deadline:
            raise OperationError(
                f"expected the target's changes on the source within {limit:g} s, found that they "
                "arrive faster than they are applied",
                advice="PostgreSQL serves as before; run the command again when there is less load",
            )


def _met(pair: Pair, name: str) -> str:
    """What becomes of the rows that refer to a table which does not come home."""
    children = [
        table.name
        for table in pair.catalogue.tables
        if any(fold(key.parent) == fold(name) for key in table.foreign_keys)
    ]
    if not children:
        return ""
    return f"; rows of {some(children)} that refer to it may meet another row on SQLite, or none"


def _losses(
    pair: Pair, ends: Endpoints, wanted: _Wanted, told: tuple[str, ...], say: Say
) -> tuple[str, ...]:
    """What would not come back, said before it is given up, where it has not been ``told`` yet.
    Raises VerificationError unless that is accepted."""
    given_up: list[str] = []
    lost = [*differences(pair)]
    changed = one_way_changes(pair)
    lost += [f"changes to table {name} (--one-way){_met(pair, name)}" for name in changed]
    for name, words in one_way_tables(pair).items():
        if fold(name) in wanted.one_way:
            given_up.append(words)
        else:
            lost.append(words)
    if lost and not wanted.loss:
        raise VerificationError(
            f"{counted(len(lost), 'thing')} on the target {_as_they_are(lost)}: "
            f"{'; '.join(lost[:SHOWN])}",
            advice="PostgreSQL serves as before; correct the rows there, or give them up with "
            "--accept-loss; a change of a table's schema is undone there, or its changes given up "
            "with --one-way TABLE",
        )
    lost += given_up
    if lost and tuple(lost) != told:
        _tell_losses(lost, ends.state / LOST, say)
    return tuple(lost)


def _as_they_are(lost: Sequence[str]) -> str:
    return either(len(lost), "does not come back as it is", "do not come back as they are")


def _tell_losses(lost: list[str], file: Path, say: Say) -> None:
    given_up = either(len(lost), "is", "are")
    things = f"{counted(len(lost), 'thing')} on PostgreSQL"
    say(f"{things} {_as_they_are(lost)}, and {given_up} given up:")
    for message in lost[:SCREEN]:
        say(f"  {message}")
    try:
        write_durably(file, ("\n".join(lost) + "\n").encode(), mode=0o600)
    except OSError as error:
        raise OperationError(
            f"the list of what is lost cannot be written to {file}: {error.strerror}",
            advice="PostgreSQL serves as before; free some space and run the command again",
        ) from error
    more = f"and {len(lost) - SCREEN} more; " if len(lost) > SCREEN else ""
    say(f"  {more}the whole list is in {file}")


def _follow(pair: Pair, ends: Endpoints, say: Say) -> None:
    try:
        follow_decision(pair, ends)
    except OperationError as error:
        if ends.pooler is None or fence.read_state(pair.source) is None or pair.state().closed:
            raise
        # The target's fence is closed and the connection names SQLite: what is left is PgBouncer,
        # which is down. It finds its alias file without the alias when it starts.
        say(f"warning: {error.message}")


def _go_on_with_target(pair: Pair, ends: Endpoints, error: Exception) -> None:
    try:
        follow_until(pair, ends, limit=FOLLOW_SECONDS)
    except (JobError, psycopg.Error, apsw.Error, OSError) as second:
        raise OperationError(
            f"the rollback stopped before the decision ({_told(error)}), and PostgreSQL cannot be "
            f"put back to serving yet: {_told(second)}",
            advice="`sync` continues it as soon as it can; so does this command when it is run "
            "again",
        ) from error


def _told(error: Exception) -> str:
    return error.message if isinstance(error, JobError) else type(error).__name__


def _is_offline(pair: Pair) -> bool:
    state = fence.read_state(pair.source)
    return state is not None and state.offline and not state.closed


def _release(pair: Pair) -> str:
    """Take the capture out of the source that serves, and have the target follow nothing; what was
    done, in words."""
    state = fence.read_state(pair.source)
    if state is not None and state.closed:
        return "the capture stays on the source: PostgreSQL serves"
    if state is not None:
        with fence.writing(pair.source, limit=allowed()):
            capture.remove(pair.source)
    pair_identity.follow_nothing(pair.target)
    if state is None:
        return "there was no capture on the source to remove"
    return "the capture is removed from the source"


# -------------------------------------------------------------------- where the target is gone


def _never_switched(state: fence.SourceState | None, ends: Endpoints) -> bool:
    """Whether SQLite has always served: the alias is opened and the connection written after a
    switch's decision only, and both stay after the way back."""
    if state is not None and (state.closed or state.settled or state.reads_moved):
        return False
    return read_connection(ends.connection) is None


def _without_target(
    ends: Endpoints, error: Exception, *, accept_loss: bool, release: bool, say: Say
) -> RolledBack:
    """SQLite as far as it is current, without asking the target."""
    source = fence.open_source(ends.source)
    try:
        state = fence.read_state(source)
        if state is None or not state.closed:
            # SQLite serves, and did all along: nothing is lost.
            never = _never_switched(state, ends)
            if not never:
                _open_without_target(ends, say)
            if release and state is not None:
                with fence.writing(source, limit=allowed()):
                    capture.remove(source)
            if release:
                replaced.mark_released(ends.state)
            return RolledBack(0.0, never_switched=never)
        current = (
            f"the file holds PostgreSQL's changes up to {state.back_at} (WAL {state.back_position})"
            if state.back_at
            else f"the file is as it was at the switch, {state.switched_at}"
        )
        if not accept_loss:
            raise OperationError(
                f"the target cannot be reached ({_told(error)}); {current}",
                advice="bring PostgreSQL back and run the command again. Where it is gone for "
                "good, or can no longer be reached, and only then, --accept-loss goes back "
                "without it: whatever was written later is lost",
            )
        if ends.pooler is not None:
            # Nobody must reach a target that comes back while SQLite serves.
            try:
                ends.pooler.close_alias(limit=5.0)
            except OperationError as down:
                say(f"warning: {down.message}")
        with fence.writing(source, limit=allowed()):
            for done in derived.bring_in_step(source, read_catalogue(source)):
                say(str(done))
            take_back(source, secrets.token_hex(16))
            # A target that comes back after all follows nothing any more.
            fence.change_state(source, capture=given_up(state.capture))
        _open_without_target(ends, say)
        if release or state.offline:
            with fence.writing(source, limit=allowed()):
                capture.remove(source)
            replaced.mark_released(ends.state)
        say(f"SQLite serves; {current}; whatever was written later is lost")
        return RolledBack(0.0, (f"what was written on PostgreSQL later: {current}",))
    finally:
        source.close()


def _open_without_target(ends: Endpoints, say: Say) -> None:
    write_connection(ends.connection, ends.sqlite, ends.sqlite, owner=ends.owner)
    if ends.pooler is not None:
        try:
            ends.pooler.close_alias(limit=5.0)
        except OperationError as down:
            say(f"warning: {down.message}")
