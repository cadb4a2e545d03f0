"""The switch: from SQLite to PostgreSQL, with the writers held for a moment.

1. ``switch.prepare``  nothing is held: the target catches up, the way back is installed, references
                       are proved, PgBouncer is asked whether it answers
2. ``switch.fence``    ``BEGIN IMMEDIATE`` on the source: writers wait in their busy timeout
3. ``switch.drain``    the log's rest to the target, compared; sequences; certificate
4. ``switch.decide``   ``closed = 1`` and COMMIT: this commit is the decision
5. ``follow.*``        the target's fence, the alias, the connection

Until 4 whatever fails rolls the source's transaction back, and SQLite goes on serving. The fence
has a time budget: where the target is slow, it is lifted and tried again.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import apsw
import psycopg

from migration_job import shell_words
from migration_job.deadline import time_limit
from migration_job.errors import JobError, OperationError, VerificationError
from migration_job.phases import Phase
from migration_job.plan.findings import some
from migration_job.plan.retyped import require_acknowledged
from migration_job.plural import counted
from migration_job.protocol import (
    gate_protocol,
    identity,
    lease,
    offline_switch,
    own_rows,
    refusals,
    source_checks,
    timeline,
    watch,
)
from migration_job.protocol.catchup import catch_up, catch_up_fully, touched_keys
from migration_job.protocol.certificate import base_certificate, certify_decision
from migration_job.protocol.content import prove_content
from migration_job.protocol.decision import Switched, commit_decision, take_decision, truthful
from migration_job.protocol.fault_points import step
from migration_job.protocol.follow import (
    FOLLOW_SECONDS,
    follow_decision,
    follow_until,
    record_phase,
)
from migration_job.protocol.lock import Lock
from migration_job.protocol.proof import prove_all_references, prove_counts, prove_references
from migration_job.protocol.refusals import Accepted
from migration_job.protocol.run_context import Pair, opened
from migration_job.protocol.sequences import raise_target_sequences, raising
from migration_job.protocol.settings import Endpoints
from migration_job.protocol.tokens import Forgotten
from migration_job.protocol.whole import (
    clear_doubt,
    confirm,
    doubtful,
    require_capture,
    require_file,
    require_identity,
)
from migration_job.stores.postgres import capture as target_capture
from migration_job.stores.postgres import (
    pair_identity,
    settings,
    shape,
    standbys,
)
from migration_job.stores.sqlite import derived, fence
from migration_job.stores.sqlite.waiting import patience

FEW_ENTRIES = 200
"""A fence is asked for when no more than this many log entries are left: some 50 ms of work."""

FEW_ROWS = 4
"""What a fence is best left with: no more rows than come in the time in which they are proved."""

CATCH_UP_ROUNDS = 10
"""Rounds after which the fence is asked for with what there is."""

SHORTER = 0.8
"""A round that takes more than this share of the shortest before it gets no shorter any more: what
is left then is what comes in the time that the target's answers take."""

SHORT_SHARE = 0.25
"""How much of the fence's time its rest of the log may take."""

LOCK_SECONDS = 5.0
"""How long an attempt asks for the source's write lock; nobody is held meanwhile."""

ATTEMPTS = 5

LONGEST_SECONDS = 60.0
"""From the fence to the end of all that follows: what comes to a gate is held no longer."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class _Wish:
    """What one switch was asked for."""

    ends: Endpoints
    budget: float
    catch_up_limit: float
    one_way: tuple[str, ...]
    compare: bool
    say: Say


class _TooMuch(OperationError):
    """The fence cannot be held long enough at this moment; it was lifted."""


def switch(
    ends: Endpoints,
    *,
    budget: float = 1.0,
    catch_up_limit: float = 600.0,
    one_way: tuple[str, ...] = (),
    compare: bool = True,
    say: Say = lambda _: None,
) -> Switched:
    """Have PostgreSQL serve. ``budget`` is how long (seconds) the source's writers may be held;
    with ``compare`` the content of both sides is compared in full before anybody is held.

    Raises OperationError, VerificationError or BlockedError with SQLite serving as before; or, once
    the decision has been taken, OperationError that says so. Running it again goes on.
    """
    wish = _Wish(ends, budget, catch_up_limit, one_way, compare, say)
    with truthful(ends.source, "switch"), patience(catch_up_limit), watch.guarded():
        switched = _switch(wish)
        gate_protocol.wait_for_application(ends.state, ends.connection, say=say)
        return switched


def _switch(wish: _Wish) -> Switched:
    ends = wish.ends
    deadline = time.monotonic() + wish.catch_up_limit
    with Lock(ends.state).command("switch"):
        lease.require_none(ends.state, "switch")
        for attempt in itertools.count(1):
            with opened(ends.source, ends.dsn) as pair:
                try:
                    return _attempt(pair, wish)
                except (_TooMuch, fence.LockedError) as error:
                    wish.say(f"attempt {attempt}: {error.message}; SQLite serves, trying again")
                    last: OperationError = error
            # Another program's lock ends some time; a target that is too slow stays so.
            slow = isinstance(last, _TooMuch) and attempt >= ATTEMPTS
            if slow or time.monotonic() > deadline:
                raise OperationError(last.message, advice=last.advice)
        raise AssertionError("unreachable")


def move_reads(
    ends: Endpoints, *, catch_up_limit: float = 600.0, say: Say = lambda _: None
) -> None:
    """Have PostgreSQL answer reads while writes stay with SQLite (``strategy: dual-write``): they
    arrive within the lag that ``sync`` shows. Raises as :func:`switch` does."""
    with truthful(ends.source, "switch --reads-only"), patience(catch_up_limit):
        _move_reads(ends, catch_up_limit, say)
        gate_protocol.wait_for_application(ends.state, ends.connection, say=say)


def _move_reads(ends: Endpoints, catch_up_limit: float, say: Say) -> None:
    with Lock(ends.state).command("switch --reads-only"), opened(ends.source, ends.dsn) as pair:
        lease.require_none(ends.state, "switch --reads-only")
        if pair.state().closed:
            raise OperationError(
                "expected SQLite to take the writes, found PostgreSQL doing so already",
                advice="`migration-job rollback --keep-reads` gives the writes back",
            )
        require_acknowledged(pair.plan.findings, ends.policy)
        settings.require_fit(pair.target, application=ends.postgres.user)
        found = standbys.look(pair.target)
        if found.asynchronous and not ends.asynchronous:
            # SQLite takes the writes, so that nothing is lost yet.
            say(
                f"warning: {found.found}: after a failover reads may see an older state for a "
                f"moment, until `sync` takes them back; the switch will need {standbys.OPTION}"
            )
        target_capture.install(pair.target, pair.plan)
        base_certificate(pair.target)
        catch_up_fully(pair, enough=FEW_ENTRIES, limit=catch_up_limit)
        with fence.writing(pair.source, limit=catch_up_limit):
            fence.change_state(pair.source, reads_moved=1)
        follow_decision(pair, ends)


def _attempt(pair: Pair, wish: _Wish) -> Switched:
    ends, say = wish.ends, wish.say
    timeline.of_run(pair.run_id)
    state = fence.read_state(pair.source)
    if state is not None:
        require_identity(pair, state, followed=True)
        _follow(pair, ends)
        for told in pair.told:
            say(told)
        if state.settled or state.closed:
            if not state.settled:
                record_phase(pair, Phase.SWITCHED, ends.dsn, say)
            say("PostgreSQL serves already")
            return Switched(0.0, fence.last_position(pair.source), state.certificate or "")
    with step("switch.prepare"):
        base = base_certificate(pair.target)
        accepted = Accepted(wish.one_way, ends.policy, ends.asynchronous, wish.budget)
        one_way = refusals.require_plan(pair, accepted)
        kept = derived.kept_by_sqlite(pair.catalogue)
        if kept:
            say(f"not kept up on PostgreSQL unless you have seen to it: {some(kept)}")
        for told in (*source_checks.announced(pair), *_left_behind(pair)):
            say(told)
        if ends.pooler is not None:
            ends.pooler.version()
        followed = refusals.require_server(pair.target, accepted, user=ends.postgres.user)
        if followed:
            say(f"warning: {followed}")
        target_capture.install(pair.target, pair.plan)
        shape.record_once(pair.target)
        refusals.require_closed(pair.target)
        shape.record_triggers(pair.target)
        identity.note(pair.target, ends.state, asynchronous=bool(followed))
        proved = 0 if state is None else _prepare(pair, wish)
        _require_own_rows(pair, one_way, wish)
    with gate_protocol.holding(ends.state, longest=LONGEST_SECONDS, say=say):
        if state is None:
            switched = offline_switch.decide(pair, ends.state, base, one_way=one_way)
        else:
            switched = _decide(pair, base, proved, wish.budget, one_way)
        say(f"decided: PostgreSQL serves; writers were held for {switched.held_ms:,.0f} ms")
        confirm(pair)
        _follow(pair, ends)
    record_phase(pair, Phase.SWITCHED, ends.dsn, say)
    return switched


def _require_own_rows(pair: Pair, one_way: tuple[str, ...], wish: _Wish) -> None:
    """Tell of the rows that the target alone has. Raises NotComingBack where SQLite could not hold
    one of them."""
    reasons = own_rows.refused(pair, one_way, partial(_on_trial, pair, wish))
    if reasons:
        raise refusals.NotComingBack(
            f"rows that the target alone has in {refusals.listed(reasons)} could not come back: "
            + "; ".join(f"{shell_words.word(name)}: {why}" for name, why in reasons.items()),
            tables=reasons,
            instead="correct these rows and run `migration-job migrate` again, or have the table "
            "replaced (rows: replace in the policy)",
        )
    if told := own_rows.told(pair, one_way):
        wish.say(told)


@contextlib.contextmanager
def _on_trial(pair: Pair, wish: _Wish) -> Iterator[None]:
    """The source's writers are held no longer than at the fence; what the block writes there is
    rolled back."""
    try:
        watch.expect(wish.catch_up_limit + wish.budget + watch.GRACE_SECONDS)
        fence.hold_writers(pair.source, limit=wish.catch_up_limit)
        watch.expect(wish.budget + watch.GRACE_SECONDS)
        with _within(pair, time.monotonic() + wish.budget):
            yield
    finally:
        fence.give_up(pair.source)
        watch.expect(0)


def _left_behind(pair: Pair) -> list[str]:
    return [
        f"warning: nothing in the file says what fills {words}: the way back cannot keep it in "
        "step, so have the application recreate it after a rollback"
        for words in derived.left_to_the_application(pair.catalogue)
    ]


def _prepare(pair: Pair, wish: _Wish) -> int:
    """Catch up and prove content and references of all rows; returns the position that this
    covers."""
    refusals.require_near(pair.target, wish.budget)
    catch_up_until = partial(
        catch_up_fully,
        enough=FEW_ENTRIES,
        limit=wish.catch_up_limit,
        short=SHORT_SHARE * wish.budget,
    )
    catch_up_until(pair)
    if wish.compare or doubtful(pair, pair.state()):
        wish.say("caught up; comparing the content of both sides")
        clear_doubt(pair, prove_content(pair, wish.ends.state))
        catch_up_until(pair)
    wish.say("caught up; proving references")
    position = catch_up(pair).position
    prove_all_references(pair)
    _prove_counts(pair)
    catch_up_until(pair)
    raise_target_sequences(pair)
    # What changed while all of it was proved, which takes longer with a larger database, is proved
    # now, and what changed meanwhile, and so on: the fence is left with the last few changes,
    # whatever the size.
    shortest = math.inf
    for _ in range(CATCH_UP_ROUNDS):
        began = time.monotonic()
        later = catch_up(pair).position
        touched = touched_keys(pair, position, later)
        prove_references(pair, touched)
        position = later
        took = time.monotonic() - began
        if sum(map(len, touched.values())) <= FEW_ROWS or took > SHORTER * shortest:
            break
        shortest = took
    return position


def _prove_counts(pair: Pair) -> None:
    if pair.catalogue.journal_mode.lower() != "wal":
        return  # a reader would hold up the writers for as long as it counts
    pair.source.execute("BEGIN")
    try:
        while catch_up(pair).behind:
            pass
        prove_counts(pair)
    finally:
        pair.source.execute("COMMIT")


def _decide(
    pair: Pair, base: str, proved: int, budget: float, one_way: tuple[str, ...]
) -> Switched:
    try:
        watch.expect(LOCK_SECONDS + budget + watch.GRACE_SECONDS)
        with step("switch.fence"):
            fence.hold_writers(pair.source, limit=LOCK_SECONDS)
        watch.expect(budget + watch.GRACE_SECONDS)
        start = time.monotonic()
        with step("switch.drain"), _within(pair, start + budget):
            require_capture(pair, again=True)
            done = catch_up(pair, mark=False)
            state = pair.state()
            if doubtful(pair, state):
                raise _TooMuch("the source's schema cookie moved while the rest was proved")
            if done.behind:
                raise _TooMuch(f"{counted(done.behind, 'change')} more than a fence can wait for")
            notes = [pair_identity.LAZILY, pair_identity.verified_statement(done.position)]
            touched = touched_keys(pair, proved, done.position)
            prove_references(pair, touched, more=[*notes, *raising(pair)])
            digest, token = certify_decision(pair, state, done.position, base=base)
        with step("switch.decide"):
            take_decision(pair.source, digest, one_way, token)
            require_file(pair)
            commit_decision(
                pair, limit=max(start + budget - time.monotonic(), 0.05), certificate=digest
            )
    except BaseException:
        # Whatever it is, the writers must not wait for it.
        fence.give_up(pair.source)
        watch.expect(0)
        raise
    watch.expect(watch.STEP_SECONDS)
    return Switched(round((time.monotonic() - start) * 1000, 1), done.position, digest)


@contextlib.contextmanager
def _within(pair: Pair, deadline: float) -> Iterator[None]:
    """What PostgreSQL has not done by the deadline is cut off."""
    try:
        left = deadline - time.monotonic()
        with time_limit(pair.target, left), time_limit(pair.sides.target, left):
            yield
    except JobError as error:
        if time.monotonic() < deadline or isinstance(error, VerificationError):
            raise
        raise _TooMuch("the target did not answer within the time that writers may wait") from error
    except psycopg.Error as error:
        raise _TooMuch(
            f"the target failed while writers waited: {type(error).__name__}",
            advice="SQLite serves as before; see the target's log, then run it again",
        ) from error
    if time.monotonic() > deadline:
        raise _TooMuch("the target took longer than writers may wait")


def _follow(pair: Pair, ends: Endpoints) -> None:
    try:
        follow_until(pair, ends, limit=FOLLOW_SECONDS)
    except (JobError, psycopg.Error, apsw.Error, OSError) as error:
        if isinstance(error, Forgotten) or not pair.state().closed:
            raise
        message = error.message if isinstance(error, JobError) else type(error).__name__
        raise OperationError(
            f"the decision is taken, PostgreSQL is to serve, but it is not complete: {message}",
            advice="`sync` continues it as soon as it can; so does this command when it is run "
            "again. SQLite answers reads meanwhile and refuses writes",
        ) from error
