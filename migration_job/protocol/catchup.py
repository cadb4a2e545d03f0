"""Catch-up: the source's log to the target, as states, in batches that end at a consistent state.

One round reads, in one read transaction of the source, the keys that the log has beyond the
target's position and the rows as they are now; applies them in one transaction of the target; and
compares the touched keys on both sides. A round covers everything up to the snapshot's last
position where that is not too much, so that readers of the target see states that the source has
had.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass

import apsw
import psycopg

from migration_job.errors import OperationError
from migration_job.plural import counted
from migration_job.protocol.fault_points import step
from migration_job.protocol.proof import prove_changes
from migration_job.protocol.reading import gather
from migration_job.protocol.run_context import Pair, flush
from migration_job.protocol.whole import (
    note_doubt,
    require_capture,
    require_file,
    require_identity,
    since,
)
from migration_job.quoting import compose, sqlite_name
from migration_job.stores.postgres import records
from migration_job.stores.postgres.apply import Key, apply_states, explain_conflict
from migration_job.stores.postgres.database import Locked, lost
from migration_job.stores.postgres.pair_identity import read_verified, set_verified
from migration_job.stores.sqlite.capture import LOG, schema_digest
from migration_job.stores.sqlite.fence import (
    SourceState,
    last_position,
    make_durable,
    token_at,
    trim,
    writing,
)
from migration_job.stores.sqlite.logged_keys import key_of, key_terms
from migration_job.stores.sqlite.model import ROWID_NAMES
from migration_job.stores.sqlite.reader import codec_of
from migration_job.stores.sqlite.whole import NotWhole, application_changes, shown
from migration_job.values import fold, key_text

ROUND_ENTRIES = 20_000
"""Log entries in one round: some 10 MB of rows of an ordinary table, and about a second."""

SHORT_ROUND_ENTRIES = 500
"""The same where the source is not in WAL mode: there a reader holds up the writers' commits."""

TRIM_ROWS = 5_000
"""Log rows deleted in one transaction of the source: writers wait for less than 10 ms."""


@dataclass(frozen=True, slots=True)
class Round:
    """What one round has done."""

    position: int
    """The target holds everything up to here."""
    last: int
    """The log's last position in the snapshot that the round read."""
    keys: int
    """How many rows were looked at."""
    entries: int = 0
    """How many entries of the log named them."""

    @property
    def behind(self) -> int:
        """Log entries that are still to come."""
        return self.last - self.position


def catch_up(pair: Pair, *, entries: int | None = None, mark: bool = True) -> Round:
    """One round, in a read transaction of its own, or in the caller's where there is one; without
    ``mark`` it leaves to the caller to note on the target that it was compared.

    Raises OperationError where the two sides cannot go on together, BlockedError where the plan
    cannot carry a new value.
    """
    own = not pair.source.in_transaction
    if entries is None:
        short = own and pair.catalogue.journal_mode.lower() != "wal"
        entries = SHORT_ROUND_ENTRIES if short else ROUND_ENTRIES
    try:
        with _reading(pair, own), step("sync.forward"):
            return _round(pair, entries, mark=mark)
    except NotWhole as error:
        if own:
            note_doubt(pair, error.message)
        raise


@contextlib.contextmanager
def _reading(pair: Pair, own: bool) -> Iterator[None]:
    if own:
        pair.source.execute("BEGIN")
    try:
        yield
    finally:
        if own:
            pair.source.execute("COMMIT")


def catch_up_fully(pair: Pair, *, enough: int, limit: float, short: float = 0.0) -> Round:
    """Rounds until no more than ``enough`` entries are left, or no more than the last round took
    on within ``short`` seconds: a distant target is behind by what comes in a round's time,
    however long one goes on. Raises OperationError where the writers have not been overtaken
    within ``limit`` seconds."""
    deadline = time.monotonic() + limit
    while True:
        began = time.monotonic()
        try:
            done = catch_up(pair)
        except Locked:
            if time.monotonic() > deadline:
                raise
            continue
        left = last_position(pair.source) - done.position
        if max(done.behind, left) <= enough:
            return done
        if time.monotonic() - began <= short and not done.behind and left <= done.entries:
            return done
        if time.monotonic() > deadline:
            raise OperationError(
                f"expected to catch up with the source within {limit:g} s, found "
                f"{counted(left, 'change')} still to come",
                advice="SQLite serves as before; run the command again when there is less load",
            )


def trim_log(pair: Pair, position: int) -> int:
    """Delete what the target has applied and compared from the log; returns how many rows went."""
    flush(pair)
    with step("sync.trim"), writing(pair.source, limit=1.0):
        return trim(pair.source, position, rows=TRIM_ROWS)


def _round(pair: Pair, entries: int, *, mark: bool) -> Round:
    state = pair.state()
    last = last_position(pair.source)
    require_file(pair)
    _require_same_schema(pair, state)
    require_capture(pair)
    known = require_identity(pair, state)
    position, verified = _positions(pair) if known is None else (known.position, known.verified)
    _require_whole_log(pair.source, verified)
    if verified == last:
        return Round(last, last, 0)
    # From here on the target will hold what the source has committed: it must not lose it.
    make_durable(pair.path)
    while True:
        upto = max(min(verified + entries, last), position)
        # Also what was applied, and not compared, when a process before this one died.
        changes = gather(pair, verified, upto)
        try:
            apply_states(pair.target, changes, upto, token_at(pair.source, upto))
        except psycopg.IntegrityError as error:
            # The rows are of the snapshot, the keys only of the batch: a unique value may still be
            # with a row whose change comes later in the log. The whole log has no such row.
            if upto == last:
                raise explain_conflict(error) from error
            entries *= 4
            continue
        # Both sides now have these rows as the snapshot has them, also where the log goes on.
        prove_changes(pair, changes)
        require_file(pair)
        if mark:
            set_verified(pair.target, upto)
        keys = sum(len(change.keys) for change in changes)
        return Round(upto, last, keys, upto - verified)


def _positions(pair: Pair) -> tuple[int, int]:
    """What the target has applied, and up to where that has been compared."""
    try:
        applied, verified = records.applied(pair.target), read_verified(pair.target)
    except psycopg.Error as error:
        raise lost(error, "asking how far it has followed the source") from error
    if applied is None or verified is None:
        raise OperationError(
            "expected a target that holds the whole snapshot, found the copy unfinished",
            advice="run `migration-job migrate --live` again; it continues where it stopped",
        )
    return applied, verified


def _require_same_schema(pair: Pair, state: SourceState) -> None:
    version = int(pair.source.pragma("schema_version"))
    if version == state.schema_version:
        return
    if schema_digest(pair.source) != state.schema_digest:
        changes = application_changes(pair.source)
        raise NotWhole(
            f"the source's schema has changed since the migration began: {shown(changes)}; "
            f"{since(pair)}",
            advice="SQLite serves as before, and nothing more is copied; run `migration-job "
            "release` and `migration-job migrate --live` to start over with the new schema",
        )
    keyless = [t.name for t, plan in pair.captured.values() if _by_rowid(t.rowid_alias, plan.key)]
    if keyless:
        raise OperationError(
            f"the source was rebuilt (VACUUM), which may renumber the rows of {keyless[0]!r}, a "
            "table that has no key but those numbers",
            advice="SQLite serves as before; run `migration-job release` and `migration-job "
            "migrate --live` to start over, and leave VACUUM until after the switch",
        )


def _by_rowid(alias: str | None, key: tuple[str, ...]) -> bool:
    return alias is None and [fold(k) in ROWID_NAMES for k in key] == [True]


def _require_whole_log(source: apsw.Connection, verified: int) -> None:
    first = source.execute(compose("SELECT min(seq) FROM {log}", log=sqlite_name(LOG))).fetchone()
    if first is not None and first[0] is not None and int(first[0]) > verified + 1:
        raise OperationError(
            f"the target has followed the source's log to {verified}, and the log begins at "
            f"{first[0]}: the target was put back to an older state",
            advice="SQLite serves as before; run `migration-job migrate --live` again into an "
            "empty target",
        )


def touched_keys(pair: Pair, position: int, upto: int) -> dict[int, list[Key]]:
    """The distinct keys in the log after ``position`` up to ``upto``, by table number. They are
    told apart by class as well as by value: 1, 1.0 and '1' may be three rows."""
    seen: dict[int, dict[str, Key]] = {}
    for number, key in _logged(pair, position, upto):
        if number in pair.captured:
            seen.setdefault(number, {})[key_text(key)] = key
    return {number: list(keys.values()) for number, keys in seen.items()}


def _logged(pair: Pair, position: int, upto: int) -> Iterator[tuple[int, Key]]:
    width = max((len(plan.key) for _, plan in pair.captured.values()), default=1)
    codec = codec_of(pair.catalogue.encoding)
    for row in pair.source.execute(
        compose(
            "SELECT tab, {terms} FROM {log} WHERE seq > ? AND seq <= ?",
            terms=key_terms(width),
            log=sqlite_name(LOG),
        ),
        (position, upto),
    ):
        number = int(row[0])
        if number not in pair.captured:
            continue
        yield number, key_of(row[1:], len(pair.captured[number][1].key), codec)
