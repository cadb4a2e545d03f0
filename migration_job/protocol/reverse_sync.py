"""The way back: the target's queue to the source, as states.

One round reads the queue and the rows in one snapshot of the target, writes them to the source in
one transaction (triggers and foreign keys off), compares them in that same snapshot, and only then
deletes the queue's rows that it has read. A round that is cut off is done again and ends the same.

Meanwhile the application works on the target, and its schema may be altered. So one session does
all the reading and releases the table locks after each piece (a savepoint that is rolled back; the
snapshot stays). An ALTER TABLE waits for one short statement, and no session of this job waits for
a lock while another one holds what others wait for. A table that was rewritten since the snapshot
looks empty in it: this is checked while the lock is held, and the round is started over.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import apsw
import psycopg

from migration_job.errors import OperationError
from migration_job.plan.model import TablePlan
from migration_job.protocol.evolve import InTheWay, causes, follow_schema
from migration_job.protocol.fault_points import step
from migration_job.protocol.proof import differing_keys
from migration_job.protocol.references_back import Spelled, spell_as_keys
from migration_job.protocol.run_context import Pair
from migration_job.protocol.whole import new_token, require_file
from migration_job.quoting import compose, postgres_name
from migration_job.stores.postgres import records
from migration_job.stores.postgres.apply import Key, key_places, key_plans, text_array
from migration_job.stores.postgres.capture import numbered
from migration_job.stores.postgres.database import Locked, execute_raw, lost
from migration_job.stores.postgres.pair_identity import confirm_token
from migration_job.stores.postgres.states import KEYS_PER_QUERY, TextRow, raw_rows, rows_by_keys
from migration_job.stores.sqlite import fence
from migration_job.stores.sqlite.apply import RowsBack, apply_back, log_keys
from migration_job.stores.sqlite.feeding import Feeding
from migration_job.stores.sqlite.model import SourceTable
from migration_job.stores.sqlite.reader import read_rows, stored_under
from migration_job.values import SourceValue, fold, from_json, key_text

LOCK_SECONDS = 5.0
"""How long a round waits for the source's lock: `sync` then says so and tries again."""

ROUND_ROWS = 20_000
"""Rows of the queue in one round."""

PAGES = 1_000
"""Pages of a table that are read at a time where every row is wanted: some 8 MB."""

COMPARED = 500
"""Rows that are compared at a time."""

ANEW = 5
"""How often a round is started over because all its tables are altered under it."""

HELD_ROWS = 100
"""Rows of the queue in a round that keeps small tables locked, so that it comes to an end: a
fraction of a second."""

TextKey = tuple[str, ...]

Held = Callable[[], contextlib.AbstractContextManager[object]]
"""What holds the source's writers in a block, whose writes it rolls back."""

_LOCKED = (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected)
_ALTERED = (psycopg.errors.UndefinedColumn, psycopg.errors.UndefinedTable, *_LOCKED)
"""What comes of others' work on a table; the next snapshot shows what they have made of it."""


@dataclass(frozen=True, slots=True)
class BackRound:
    """What one round has done."""

    taken: int
    """Rows of the queue that it has worked off."""
    left: bool
    """Whether its snapshot had more."""


class Moved(Locked):
    """A table was rewritten or replaced after the round's snapshot: to be tried again, too."""

    def __init__(self, plan: TablePlan) -> None:
        super().__init__(
            f"table {plan.target} was rewritten or replaced on the target while it was read",
            advice="nothing is lost; it is read again",
        )
        self.plan = plan


@dataclass(slots=True)
class _Table:
    """What the queue has of one table."""

    source: SourceTable
    plan: TablePlan
    ids: list[int] = field(default_factory=list)
    keys: dict[TextKey, None] = field(default_factory=dict)
    everything: bool = False


@dataclass(frozen=True, slots=True)
class _Part:
    """The rows of one table, read."""

    table: _Table
    rows: RowsBack
    ledger_gone: list[tuple[str, str, str]]
    """Source table, key and column of ledger entries whose values the target has changed."""


class _Restless(Exception):
    """Not one of the round's tables could be read."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause

    def locked(self) -> OperationError:
        """What to raise where that does not end."""
        if isinstance(self.cause, psycopg.Error):
            return lost(self.cause, "reading the way back")
        return self.cause if isinstance(self.cause, OperationError) else OperationError(str(self))


def bring_back(
    pair: Pair, *, rows: int = ROUND_ROWS, lock_limit: float = LOCK_SECONDS
) -> BackRound:
    """One round, which waits up to ``lock_limit`` seconds for the source's lock. Raises
    OperationError where that is not to be had, or a row cannot be put into the source; Locked where
    a table of the target is locked by others (nothing is held then; the next round goes on)."""
    held = dict(pair.back.restless)
    again = 0
    with step("sync.reverse"):
        while True:
            few = min(rows, HELD_ROWS) if held else rows
            try:
                return _round(pair, few, lock_limit, held)
            except InTheWay:
                held.clear()
            except _ALTERED as error:
                # What is to be held is gone, or held by others: the other tables go on.
                again += 1
                if again > ANEW or not held:
                    raise lost(error, "reading the way back") from error
                held.clear()
                pair.back.restless.clear()
            except _Restless as error:
                again += 1
                if again > ANEW or isinstance(error.cause, _LOCKED):
                    raise error.locked() from error
                held = dict(pair.back.restless)
            except apsw.ConstraintError as error:
                _require_more(pair, few, error)
                rows *= 4 if few == rows else 1
                held.clear()
                pair.back.restless.clear()
            except psycopg.Error as error:
                raise lost(error, "reading the way back") from error
            except apsw.FullError as error:
                raise OperationError(
                    "the source's disk is full, so the target's changes cannot come back",
                    advice="PostgreSQL serves as before; free some space",
                ) from error


def rehearse(pair: Pair, plan: TablePlan, keys: Sequence[TextKey], held: Held) -> list[str]:
    """What keeps these rows of the target from coming back as they are, for people: they are put
    into the source and compared in the transaction of ``held``, which is rolled back."""
    table = _Table(pair.catalogue.table(plan.source or ""), plan, keys=dict.fromkeys(keys))
    if pair.back.feeding is None:
        pair.back.feeding = Feeding(pair.source, pair.catalogue)
    with snapshot_of(pair):
        (part,) = _read(pair, [table])
        try:
            with held():
                behind = apply_back(pair.source, [part.rows], pair.back.feeding)
                found = [message for _, why in _compare(pair, [part]) for _, _, message in why]
        except apsw.ConstraintError as error:
            where = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
            return [f"the source refuses it: {error}{where}"]
    return [*found, *(why for _, why in behind)]


def _require_more(pair: Pair, taken: int, error: apsw.ConstraintError) -> None:
    """As in catch-up, a unique value may still be with a row that comes later; OperationError where
    the round had all of them."""
    if taken >= _queued(pair) and not pair.back.restless:
        where = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
        raise OperationError(
            f"the source refuses what the target now holds: {error}{where}",
            advice="PostgreSQL serves as before, and the source stays at its last state; correct "
            "the rows on PostgreSQL",
        ) from error


def differences(pair: Pair) -> list[str]:
    """Rows that did not come back as they are on the target, for people."""
    return [
        str(row[0])
        for row in pair.target.execute(
            "SELECT message FROM migration.back_difference ORDER BY tab, key"
        )
    ]


def count_differences(pair: Pair) -> int:
    """How many those are."""
    row = pair.target.execute("SELECT count(*) FROM migration.back_difference").fetchone()
    return 0 if row is None else int(row[0])


def one_way_changes(pair: Pair) -> list[str]:
    """Tables of ``--one-way`` that have changed on the target."""
    numbers = _one_way_numbers(pair, altered=False)
    rows = pair.target.execute(
        "SELECT DISTINCT tab FROM migration.reverse_log WHERE tab = ANY(%s)", (list(numbers),)
    )
    return sorted(numbers[int(row[0])] for row in rows)


def _queued(pair: Pair) -> int:
    row = pair.target.execute("SELECT count(*) FROM migration.reverse_log").fetchone()
    return 0 if row is None else int(row[0])


def _one_way_numbers(pair: Pair, *, altered: bool = True) -> dict[int, str]:
    """Tables that do not come back: of ``--one-way``, and those whose schema was changed so."""
    names = {fold(name) for name in pair.state().one_way}
    lost_to = causes(pair) if altered else {}
    return {
        number: plan.source
        for number, plan in numbered(pair.plan)
        if plan.source is not None and (fold(plan.source) in names or plan.target in lost_to)
    }


def _round(pair: Pair, limit: int, lock_limit: float, held: Mapping[str, TablePlan]) -> BackRound:
    with snapshot_of(pair, list(held.values())) as (moment, position):
        if not follow_schema(pair, held):
            pair.back.restless.clear()
        with letting_go(pair.sides.target):
            tables, left = _queue(pair, limit)
        if not tables:
            return BackRound(0, left)
        parts = list(_read(pair, tables))
        left = left or len(parts) < len(tables)
        # What the source takes over must be on the target's disk: a commit of the application's
        # may have been asynchronous. This one is waited for, and brings all before it there.
        token = new_token(pair)
        if pair.back.feeding is None:
            pair.back.feeding = Feeding(pair.source, pair.catalogue)
        with fence.writing(pair.source, limit=lock_limit):
            if not pair.state().closed:
                raise OperationError(
                    "expected the source closed while changes come back, found it open",
                    advice="run `migration-job status`",
                )
            spelled = Spelled([], [])
            behind = apply_back(
                pair.source,
                [part.rows for part in parts],
                pair.back.feeding,
                lambda: spell_as_keys(pair, [(p.table.plan, p.rows) for p in parts], spelled),
            )
            behind += spelled.behind
            _log(pair, parts)
            followed = fence.last_position(pair.source)
            log_token = fence.token_at(pair.source, followed)
            # The file is as the target was at a moment only where nothing of before is left.
            at = {} if left else {"back_at": moment, "back_position": position}
            fence.change_state(pair.source, token=token, **at)
            require_file(pair)
        compared = list(_compare(pair, parts, spelled.entries))
    ids = [number for part, _ in compared for number in part.table.ids]
    with pair.target.transaction():
        confirm_token(pair.target)
        _note(pair, compared, behind)
        if spelled.entries:
            records.add_ledger(pair.target, iter(spelled.entries))
        _forget_one_way(pair)
        pair.target.execute("DELETE FROM migration.reverse_log WHERE id = ANY(%s)", (ids,))
        # The source's log now names these rows too, which the target has.
        execute_raw(pair.target, *records.applied_statement(followed, log_token))
        pair.target.execute("UPDATE migration.pair SET verified = %s", (followed,))
    return BackRound(len(ids), left or len(compared) < len(parts))


def _read(pair: Pair, tables: Iterable[_Table]) -> Iterator[_Part]:
    """The rows of the tables that stand still meanwhile; the others stay in the queue. Raises
    _Restless where none does."""
    failed: Exception | None = None
    done = 0
    for table in tables:
        gone: list[tuple[str, str, str]] = []
        try:
            rows = _rows_back(pair, table, gone)
        except (*_ALTERED, Moved) as error:
            failed = error
            _note_restless(pair, table.plan, error)
            continue
        done += 1
        yield _Part(table, rows, gone)
    if failed is not None and not done:
        raise _Restless(failed)


def _note_restless(pair: Pair, plan: TablePlan, error: Exception) -> None:
    """A small table that is altered again and again is held by the next round, so that it comes
    back at all."""
    if not isinstance(error, _LOCKED) and _pages(pair.target, plan) <= PAGES:
        pair.back.restless[plan.target] = plan


def _log(pair: Pair, parts: Sequence[_Part]) -> None:
    numbers = {table.name: number for number, (table, _) in pair.captured.items()}
    for rows in (part.rows for part in parts):
        if rows.table.name in numbers:
            log_keys(pair.source, numbers[rows.table.name], rows.keys)


@contextlib.contextmanager
def snapshot_of(pair: Pair, held: Sequence[TablePlan] = ()) -> Iterator[tuple[str, str]]:
    """One snapshot of the target for the verifier's session, which alone reads in the block; gives
    its time and the WAL's position. The tables ``held`` are locked before it is taken, and until
    the block's end."""
    reader = pair.sides.target
    with reader.transaction():
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        if held:
            names = ", ".join(plan.relation for plan in held)
            reader.execute(compose("LOCK TABLE {names} IN ACCESS SHARE MODE", names=names).encode())
        row = reader.execute(
            "SELECT to_char(now(), 'YYYY-MM-DD\"T\"HH24:MI:SS.MSOF'), pg_current_wal_lsn()::text"
        ).fetchone()
        if row is None:
            raise OperationError("the target gave no snapshot")
        yield str(row[0]), str(row[1])


def letting_go(reader: psycopg.Connection) -> contextlib.AbstractContextManager[object]:
    """What the block's statements lock is let go of at its end; the snapshot stays."""
    return reader.transaction(force_rollback=True)


def require_unmoved(reader: psycopg.Connection, plan: TablePlan) -> None:
    """Raises Moved where the table, which this transaction has locked by reading it, is not the one
    that the snapshot shows: TRUNCATE and rewriting forms of ALTER TABLE leave nothing for an older
    snapshot, and another table may have taken its name."""
    row = reader.execute(
        # The catalogue is read in the snapshot, the functions look at what is now.
        "SELECT count(*) FROM pg_class WHERE relname = %s "
        "AND relnamespace = to_regnamespace(quote_ident(current_schema())) "
        "AND oid = to_regclass(%s) AND relfilenode = pg_relation_filenode(oid)",
        (plan.target, plan.relation),
    ).fetchone()
    if row is None or int(row[0]) != 1:
        raise Moved(plan)


def _pages(session: psycopg.Connection, plan: TablePlan) -> int:
    row = session.execute(
        "SELECT pg_relation_size(to_regclass(%s)) / current_setting('block_size')::bigint",
        (plan.relation,),
    ).fetchone()
    return 0 if row is None or row[0] is None else int(row[0])


def _compare(
    pair: Pair, parts: Iterable[_Part], added: Sequence[records.LedgerEntry] = ()
) -> Iterator[tuple[_Part, list[tuple[str, str, str]]]]:
    """What differs between the sides, in the snapshot, by table; no table is locked for longer than
    a piece of its rows takes. A table that is altered meanwhile is left out, and read again.
    ``added`` is what the ledger is to get."""
    for part in parts:
        plan, keys = part.table.plan, part.rows.keys
        found: list[tuple[str, str, str]] = []
        try:
            for start in range(0, len(keys), COMPARED):
                with letting_go(pair.sides.target):
                    piece = keys[start : start + COMPARED]
                    found += differing_keys(pair, [(plan, piece)], part.ledger_gone, added)
                    require_unmoved(pair.sides.target, plan)
        except (*_ALTERED, Moved) as error:
            _note_restless(pair, plan, error)
            continue
        yield part, found


def _forget_one_way(pair: Pair) -> None:
    """Of what does not come back, keep only that there was something."""
    numbers = list(_one_way_numbers(pair))
    if not numbers:
        return
    gone = pair.target.execute(
        "DELETE FROM migration.reverse_log WHERE tab = ANY(%s) AND key IS NOT NULL RETURNING tab",
        (numbers,),
    ).fetchall()
    for number in {int(row[0]) for row in gone}:
        pair.target.execute(
            "INSERT INTO migration.reverse_log (tab) SELECT %s WHERE NOT EXISTS "
            "(SELECT FROM migration.reverse_log WHERE key IS NULL AND tab = %s)",
            (number, number),
        )


def _queue(pair: Pair, limit: int) -> tuple[list[_Table], bool]:
    """The queue's first rows by table, and whether it has more."""
    one_way = list(_one_way_numbers(pair))
    rows = pair.sides.target.execute(
        "SELECT id, tab, key FROM migration.reverse_log WHERE tab <> ALL(%s) ORDER BY id LIMIT %s",
        (one_way, limit + 1),
    ).fetchall()
    plans = dict(numbered(pair.plan))
    tables: dict[int, _Table] = {}
    for entry, number, key in rows[:limit]:
        plan = plans[int(number)]
        if number not in tables:
            tables[number] = _Table(pair.catalogue.table(plan.source or ""), plan)
        tables[number].ids.append(int(entry))
        if key is None:
            tables[number].everything = True
        else:
            tables[number].keys[tuple(key)] = None
    return list(tables.values()), len(rows) > limit


def _rows_back(pair: Pair, table: _Table, ledger_gone: list[tuple[str, str, str]]) -> RowsBack:
    plan, source = table.plan, table.source
    reader = pair.sides.target
    columns = [c.target for c in plan.copied]
    places = key_places(plan)
    affinities = {fold(c.name): c.affinity for c in source.columns}
    key_rules = [(c.rule, affinities.get(fold(c.source or ""))) for c in key_plans(plan)]

    def key_of(texts: Sequence[str | None]) -> Key:
        """The source's key, as its columns' affinities leave it: the text '12' may be 12 there."""
        return tuple(
            stored_under(affinity, rule.inverse(text))
            for (rule, affinity), text in zip(key_rules, texts, strict=True)
        )

    if table.everything:
        present = list(_all_rows(reader, plan, columns))
        source_keys = _all_source_keys(pair, table)
    else:
        present = list(_rows_of(reader, plan, columns, list(table.keys)))
        source_keys = []
    touched = {key_text(k): k for k in source_keys}
    for texts in table.keys:
        key = key_of(texts)
        touched[key_text(key)] = key
    for row in present:
        key = key_of([row[i] for i in places])
        touched.setdefault(key_text(key), key)
    noted: dict[tuple[str, str], tuple[str, str | None]] = {}
    with letting_go(reader):
        if records.tables_noted(reader, [source.name]):
            noted = _ledger(reader, source.name, list(touched))
    rows: list[Key] = []
    for outputs in present:
        key = key_of([outputs[i] for i in places])
        values = list(_back_row(plan, key_text(key), outputs, noted))
        for i, (_, affinity) in zip(places, key_rules, strict=True):
            values[i] = stored_under(affinity, values[i])
        rows.append(tuple(values))
    ledger_gone += [(source.name, key, column) for key, column in noted]
    return RowsBack(
        table=source,
        key=plan.key,
        columns=tuple(c.source or "" for c in plan.copied),
        keys=list(touched.values()),
        rows=rows,
    )


def _back_row(
    plan: TablePlan,
    key: str,
    texts: Sequence[str | None],
    noted: dict[tuple[str, str], tuple[str, str | None]],
) -> Key:
    """The source's values. A value that the ledger accounts for, and that is on the target as it
    was written there, is what it was before; its entry stays. All others go by the rule."""
    values: list[SourceValue] = []
    for column, text in zip(plan.copied, texts, strict=True):
        entry = noted.get((key, column.source or ""))
        if entry is not None and entry[1] == text:
            values.append(from_json(json.loads(entry[0])))
            del noted[(key, column.source or "")]
        else:
            values.append(column.rule.inverse(text))
    return tuple(values)


def _rows_of(
    reader: psycopg.Connection, plan: TablePlan, columns: Sequence[str], keys: Sequence[TextKey]
) -> Iterator[TextRow]:
    for start in range(0, len(keys), KEYS_PER_QUERY):
        with letting_go(reader):
            found = list(rows_by_keys(reader, plan, columns, keys[start : start + KEYS_PER_QUERY]))
            require_unmoved(reader, plan)
        yield from found


def _all_rows(
    reader: psycopg.Connection, plan: TablePlan, columns: Sequence[str]
) -> Iterator[TextRow]:
    """Every row, some pages at a time."""
    names = ", ".join(f"t.{postgres_name(c)}" for c in columns)
    for start in range(0, _pages(reader, plan) + 1, PAGES):
        with letting_go(reader):
            found = raw_rows(
                reader,
                compose(
                    "SELECT {names} FROM {table} AS t "
                    "WHERE t.ctid >= '({start},0)' AND t.ctid < '({end},0)'",
                    names=names,
                    table=plan.relation,
                    start=start,
                    end=start + PAGES,
                ),
            )
            require_unmoved(reader, plan)
        yield from found


def _ledger(
    reader: psycopg.Connection, table: str, keys: Sequence[str]
) -> dict[tuple[str, str], tuple[str, str | None]]:
    """The ledger of these rows: ``(key, column)`` to before and after."""
    found = records.ledger_of(reader, [(table, key) for key in keys])
    return {(key, column): (before, after) for _, key, column, before, after in found}


def _all_source_keys(pair: Pair, table: _Table) -> list[Key]:
    """Every key that the source has, but those in quarantine, which the target never had."""
    keys = list(
        read_rows(
            pair.source,
            table.source,
            table.plan.key,
            encoding=pair.catalogue.encoding,
            ordered=False,
        )
    )
    name = table.source.name
    with letting_go(pair.sides.target):
        aside = records.quarantined_of(pair.sides.target, [(name, key_text(key)) for key in keys])
    return [key for key in keys if (name, key_text(key)) not in aside]


def _note(
    pair: Pair,
    compared: Sequence[tuple[_Part, list[tuple[str, str, str]]]],
    behind: Sequence[tuple[SourceTable, str]],
) -> None:
    """Record which rows do not agree (table, key, message), forget it for those that do now, and
    forget ledger entries of values that the target has changed. Of a table that something which
    its triggers fill is ``behind``, that is recorded, and why."""
    batch = [part.rows for part, _ in compared]
    found = [difference for _, differences in compared for difference in differences]
    found += [(table.name, key_text(()), why) for table, why in behind]
    ledger_gone = [entry for part, _ in compared for entry in part.ledger_gone]
    names = [(rows.table.name, key_text(key)) for rows in batch for key in rows.keys]
    if pair.target.execute("SELECT FROM migration.back_difference LIMIT 1").fetchone() is not None:
        pair.target.execute(
            "DELETE FROM migration.back_difference AS d USING unnest(%s::text[], %s::text[]) "
            "AS n(tab, key) WHERE d.tab = n.tab AND d.key = n.key",
            (text_array(n[0] for n in names), text_array(n[1] for n in names)),
        )
    if found:
        with pair.target.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO migration.back_difference (tab, key, message) VALUES (%s, %s, %s)",
                found,
            )
    if ledger_gone:
        columns = [list(part) for part in zip(*ledger_gone, strict=True)]
        pair.target.execute(
            "DELETE FROM migration.ledger AS l USING unnest(%s::text[], %s::text[], %s::text[]) "
            "AS n(tab, key, col) WHERE l.tab = n.tab AND l.key = n.key AND l.col = n.col "
            "AND hashtextextended(l.key, 0) = hashtextextended(n.key, 0)",
            columns,
        )
