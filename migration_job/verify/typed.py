"""The typed comparison: each value against the raw source value of the same key.

It names table, key, column and both values of whatever differs. A difference is accepted only
where the ledger holds exactly it: this key and column, this value before, this value after.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from migration_job.plan.model import ColumnPlan, TablePlan
from migration_job.quoting import compose, postgres_name, sqlite_table
from migration_job.stores.sqlite.catalogue import rowid_name
from migration_job.stores.sqlite.database import chain
from migration_job.stores.sqlite.model import SourceTable
from migration_job.stores.sqlite.reader import (
    ROWID,
    Row,
    batches,
    column_sql,
    read_by_keys,
    read_rows,
)
from migration_job.stores.sqlite.rowkey import key_columns
from migration_job.values import SourceValue, display, fold, key_text, key_values, to_text
from migration_job.verify import meaning_target
from migration_job.verify.connections import (
    Accepted,
    Differences,
    Sides,
    compared_columns,
    ledger_for,
    not_quarantined,
    target_name,
)
from migration_job.verify.meaning import Inexact, as_parameter, of_source, of_target

BATCH = 1_000

HUGE = 4 << 20
"""Rows larger than this (bytes of text and blobs) are compared one by one, and their large values
by length and SHA-256, so that memory stays flat."""

BUCKETS = 4_096

PAIRED = 500
"""Up to this many differing rows of a table without a key are paired to name their columns."""

ITEMS_PER_PAGE = 512
"""More row pointers than fit a page of any supported size."""

BLOBS = frozenset({"bytea", "widened-bytea"})
TEXTS = frozenset({"text", "widened-text", "json"})
"""Rules whose large values are compared by the hash of their bytes."""

WHOLE = frozenset({"jsonb", "json-blob", "text-bytea", "numeric-text", "map"})
"""Rules whose values may be as large, and are compared whole."""

UNBOUNDED = BLOBS | TEXTS | WHOLE | meaning_target.UNBOUNDED


@dataclass(slots=True)
class Compared:
    """What a comparison found."""

    source_rows: int
    target_rows: int
    digest: str
    """SHA-256 over the meanings of the source's rows, in its order."""
    differences: Differences


@dataclass(frozen=True, slots=True)
class Back:
    """What is otherwise for rows that come back from the target."""

    forgotten: frozenset[tuple[str, str]] = frozenset()
    """``key_text`` and column of the ledger entries that are no longer true, since the target has
    changed the value."""
    computed: frozenset[str] = frozenset()
    """Columns that the source computes from the others and the target does not: what the target
    has there says nothing, since nobody keeps it in step with the row."""


def compare_keys(
    sides: Sides, plan: TablePlan, keys: Iterable[Row], back: Back | None = None
) -> Differences:
    """Compare the present rows of these source keys on both sides; a key that is on neither side
    is equal. The plan must have a key for the table."""
    back = back or Back()
    table = sides.table(plan)
    differences = Differences(table.name)
    key = key_columns(plan.key, table)
    columns = tuple(c for c in compared_columns(plan) if c.source not in back.computed)
    pending: list[Row] = []

    def settle() -> None:
        rows = read_by_keys(
            sides.source,
            table,
            [*key, *(str(c.source) for c in columns)],
            encoding=sides.plan.encoding,
            key=key,
            keys=pending,
        )
        present = {key_text(row[: len(key)]): row for row in rows}
        aside = _in_quarantine(sides, table.name, list(present))
        batch = [row for text, row in present.items() if text not in aside]
        _compare_batch(sides, plan, table, batch, differences, None, back)
        gone = [k for k in pending if key_text(k) not in present or key_text(k) in aside]
        _expect_absent(sides, plan, gone, differences)

    for row in keys:
        pending.append(row)
        if len(pending) >= BATCH:
            settle()
            pending = []
    if pending:
        settle()
    return differences


def compare_table(sides: Sides, plan: TablePlan) -> Compared:
    """Compare every row of a table. Raises sides.Stopped when cancelled."""
    table = sides.table(plan)
    differences = Differences(table.name)
    if plan.key:
        source_rows, digest, seen = _by_key(sides, plan, table, differences)
        target_rows = _count(sides, plan)
        if target_rows > seen.count:
            _name_extra_rows(sides, plan, seen, differences)
    else:
        source_rows, target_rows, digest = _as_bag(sides, plan, table, differences)
    return Compared(source_rows, target_rows, digest, differences)


def _count(sides: Sides, plan: TablePlan) -> int:
    return int(
        sides.one(
            compose("SELECT count(*) FROM ONLY {target_name}", target_name=target_name(plan))
        )[0]
    )


def _in_quarantine(sides: Sides, table: str, keys: list[str]) -> set[str]:
    rows = sides.rows(
        "SELECT key FROM migration.quarantine WHERE tab = %s AND key = ANY(%s::text[])",
        (table, keys),
    )
    return {str(row[0]) for row in rows}


# -------------------------------------------------------------------------------- rows by key


class _Seen:
    """Which rows of the target were met, as a bitmap over their physical places."""

    def __init__(self) -> None:
        self._bits = bytearray()
        self.count = 0

    def add(self, ctid: str) -> None:
        place = self._place(ctid)
        byte, bit = divmod(place, 8)
        if byte >= len(self._bits):
            self._bits.extend(bytes(byte + 1 - len(self._bits) + (64 << 10)))
        if not self._bits[byte] >> bit & 1:
            self._bits[byte] |= 1 << bit
            self.count += 1

    def __contains__(self, ctid: str) -> bool:
        byte, bit = divmod(self._place(ctid), 8)
        return byte < len(self._bits) and bool(self._bits[byte] >> bit & 1)

    @staticmethod
    def _place(ctid: str) -> int:
        page, _, item = ctid.strip("()").partition(",")
        return int(page) * ITEMS_PER_PAGE + int(item)


def _by_key(
    sides: Sides, plan: TablePlan, table: SourceTable, differences: Differences
) -> tuple[int, str, _Seen]:
    columns = [*key_columns(plan.key, table), *(str(c.source) for c in compared_columns(plan))]
    seen, digest = _Seen(), hashlib.sha256()
    count = 0
    weight = _weight(plan, table)
    keep = not_quarantined(plan)
    large = f"{weight} > {HUGE}" if weight else ""
    ordinary = " AND ".join(part for part in (keep, f"NOT ({large})" if large else "") if part)
    rows = read_rows(sides.source, table, columns, encoding=sides.plan.encoding, where=ordinary)
    for batch in batches(rows, max_rows=BATCH):
        sides.go_on()
        count += len(batch)
        met = _compare_batch(sides, plan, table, batch, differences, digest)
        for ctid in met:
            seen.add(ctid)
    if large:
        where = " AND ".join(part for part in (keep, large) if part)
        for ctids in _compare_large(sides, plan, table, where, differences, digest):
            count += 1
            for ctid in ctids:
                seen.add(ctid)
    return count, digest.hexdigest(), seen


def _weight(plan: TablePlan, table: SourceTable) -> str:
    """The bytes of a row's text and blobs, as SQLite's expression; '' where all are small."""
    terms = [
        f"ifnull(octet_length({column_sql(table, str(c.source))}), 0)"
        for c in plan.copied
        if c.rule.kind in UNBOUNDED
    ]
    return f"({chain('+', terms)})" if terms else ""


def _compare_batch(  # noqa: PLR0913 - both sides of one batch
    sides: Sides,
    plan: TablePlan,
    table: SourceTable,
    batch: Sequence[Row],
    differences: Differences,
    digest: Any,
    back: Back | None = None,
) -> list[str]:
    """Compare source rows (key, then columns) with the target's; returns the places met."""
    if not batch:
        return []
    back = back or Back()
    width = len(key_columns(plan.key, table))
    columns = tuple(c for c in compared_columns(plan) if c.source not in back.computed)
    texts = [key_text(row[:width]) for row in batch]
    ledger = {
        place: entries
        for place, entries in ledger_for(sides, table.name, texts).items()
        if place not in back.forgotten
    }
    expected = [
        _expected(text, columns, row[width:], ledger, differences)
        for text, row in zip(texts, batch, strict=True)
    ]
    if digest is not None:
        for meanings in expected:
            digest.update(repr(meanings).encode())
    found = _fetch(sides, plan, columns, [_key_of(plan, columns, e) for e in expected])
    met: list[str] = []
    for position, (text, meanings, row) in enumerate(zip(texts, expected, batch, strict=True)):
        there = found.get(position, [])
        met += [ctid for ctid, _ in there]
        if not there:
            differences.add(
                "missing-row", f"row {text} of {table.name} is not on the target", key=text
            )
        elif len(there) > 1:
            differences.add(
                "extra-row",
                f"row {text} of {table.name} is on the target {len(there)} times",
                key=text,
            )
        for _, values in there[:1]:
            _compare_row(table.name, text, columns, row[width:], meanings, values, differences)
    return met


_UNKNOWN = object()
"""Stands for the meaning of a value that has none in its column and no ledger entry either."""


def _expected(
    key: str,
    columns: Sequence[ColumnPlan],
    values: Sequence[SourceValue],
    ledger: dict[tuple[str, str], list[Accepted]],
    differences: Differences,
) -> list[Any]:
    """What the target must hold for a source row, by the values themselves or by the ledger."""
    expected: list[Any] = []
    for column, value in zip(columns, values, strict=True):
        entries = ledger.get((key, str(column.source)), [])
        if not entries:
            try:
                expected.append(of_source(column, value))
            except Inexact:
                expected.append(_UNKNOWN)
            continue
        entry = entries[0]
        if len(entries) > 1 or entry.before != to_text(value):
            differences.add(
                "ledger",
                f"the ledger of {differences.table}, row {key}, column {column.source} does not "
                "match the source",
                key=key,
                column=column.source,
                source=display(value),
                target=entry.before,
            )
        try:
            expected.append(of_target(column, entry.after))
        except ValueError:
            expected.append(_UNKNOWN)
    return expected


def _key_of(plan: TablePlan, columns: Sequence[ColumnPlan], meanings: list[Any]) -> list[Any]:
    by_name = {fold(str(c.source)): (c, m) for c, m in zip(columns, meanings, strict=True)}
    pairs = [by_name[fold(name)] for name in plan.key]
    return [None if m is _UNKNOWN else as_parameter(c, m) for c, m in pairs]


def _key_plans(plan: TablePlan) -> list[ColumnPlan]:
    by_name = {fold(str(c.source)): c for c in plan.columns if c.source is not None}
    return [by_name[fold(name)] for name in plan.key]


def _join_on_key(plan: TablePlan) -> tuple[str, str]:
    """FROM items that join the table (``t``) with arrays of keys (``k``, with their ordinal ``n``)
    given as parameters, and the query's setting for it."""
    keys = _key_plans(plan)
    names = ", ".join(f"k{i}" for i in range(len(keys)))
    arrays = ", ".join(f"${i + 1}::text[]" for i in range(len(keys)))
    equal = " AND ".join(
        f"t.{postgres_name(c.target)} = k.k{i}::{c.type}" for i, c in enumerate(keys)
    )
    return f"unnest({arrays}) WITH ORDINALITY AS k({names}, n)", equal


def _fetch(
    sides: Sides, plan: TablePlan, columns: Sequence[ColumnPlan], keys: list[list[Any]]
) -> dict[int, list[tuple[str, tuple[str | None, ...]]]]:
    """The target's rows of these keys, by the key's position: each row's place and values."""
    source, equal = _join_on_key(plan)
    outputs = "".join(f", t.{postgres_name(c.target)}::text" for c in columns)
    found: dict[int, list[tuple[str, tuple[str | None, ...]]]] = {}
    parameters = [list(part) for part in zip(*keys, strict=True)]
    for row in _with_index(
        sides,
        compose(
            "SELECT k.n, t.ctid::text{outputs} FROM {source} "
            "JOIN ONLY {target_name} AS t ON {equal}",
            outputs=outputs,
            source=source,
            target_name=target_name(plan),
            equal=equal,
        ),
        parameters,
    ):
        found.setdefault(int(row[0]) - 1, []).append((str(row[1]), tuple(row[2:])))
    return found


def _with_index(sides: Sides, sql: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Run a query by key. The planner does not know how few keys there are, and a sequential scan
    for each batch would cost the square of the table."""
    with sides.target.transaction():
        sides.target.execute(
            "SELECT set_config('enable_' || way, 'off', true) "
            "FROM unnest('{seqscan,hashjoin,mergejoin}'::text[]) AS way"
        )
        return sides.rows_of(sql, values)


def _compare_row(  # noqa: PLR0913 - both sides of one row
    table: str,
    key: str,
    columns: Sequence[ColumnPlan],
    values: Sequence[SourceValue],
    meanings: list[Any],
    there: tuple[str | None, ...],
    differences: Differences,
) -> None:
    for column, value, meaning, text in zip(columns, values, meanings, there, strict=True):
        if meaning is _UNKNOWN:
            reason = "is not what its column can hold, and no ledger entry accounts for it"
        else:
            try:
                if of_target(column, text) == meaning:
                    continue
            except ValueError:
                pass
            reason = "differs"
        shown = display(text)
        differences.add(
            "value",
            f"{table}, row {key}, column {column.source}: source {display(value)}, "
            f"target {shown}: {reason}",
            key=key,
            column=column.source,
            source=display(value),
            target=shown,
        )


def _expect_absent(
    sides: Sides, plan: TablePlan, keys: list[Row], differences: Differences
) -> None:
    """Keys that are not in the source must not be on the target."""
    key_plans = _key_plans(plan)
    askable: list[tuple[Row, list[Any]]] = []
    for key in keys:
        try:
            meanings = [of_source(c, v) for c, v in zip(key_plans, key, strict=True)]
        except Inexact:
            continue  # the target cannot hold it under this key
        askable.append(
            (key, [as_parameter(c, m) for c, m in zip(key_plans, meanings, strict=True)])
        )
    if not askable:
        return
    source, equal = _join_on_key(plan)
    parameters = [list(part) for part in zip(*(p for _, p in askable), strict=True)]
    rows = _with_index(
        sides,
        compose(
            "SELECT DISTINCT k.n FROM {source} JOIN ONLY {target_name} AS t ON {equal}",
            source=source,
            target_name=target_name(plan),
            equal=equal,
        ),
        parameters,
    )
    for (n,) in rows:
        text = key_text(askable[int(n) - 1][0])
        differences.add(
            "extra-row",
            f"row {text} of {differences.table} is on the target and not in the source",
            key=text,
        )


def _name_extra_rows(sides: Sides, plan: TablePlan, seen: _Seen, differences: Differences) -> None:
    """Find the target's rows that answered to no key of the source."""
    keys = _key_plans(plan)
    outputs = ", ".join(f"{postgres_name(c.target)}::text" for c in keys)
    with sides.target.transaction(), sides.target.cursor(name="extra_rows") as cursor:
        cursor.itersize = BATCH
        cursor.execute(
            compose(
                "SELECT ctid::text, {outputs} FROM ONLY {target_name}",
                outputs=outputs,
                target_name=target_name(plan),
            ).encode()
        )
        for row in cursor:
            sides.go_on()
            if row[0] not in seen:
                shown = ", ".join(display(v) for v in row[1:])
                differences.add(
                    "extra-row",
                    f"a row of {plan.target} with key {shown} is on the target and not in the "
                    "source",
                    key=key_text(row[1:]),
                )


# -------------------------------------------------------------------------------- large rows


def _compare_large(
    sides: Sides,
    plan: TablePlan,
    table: SourceTable,
    where: str,
    differences: Differences,
    digest: Any,
) -> Iterator[list[str]]:
    """Compare the rows that ``where`` names, one by one; yields the places met for each."""
    key = key_columns(plan.key, table)
    keys = list(read_rows(sides.source, table, key, encoding=sides.plan.encoding, where=where))
    for row in keys:
        sides.go_on()
        large = _large_columns(sides, plan, table, key, row)
        small = plan.model_copy(
            update={"columns": tuple(c for c in plan.columns if c.source not in large)}
        )
        names = [*key, *(str(c.source) for c in compared_columns(small))]
        rows = list(
            read_by_keys(
                sides.source, table, names, encoding=sides.plan.encoding, key=key, keys=[row]
            )
        )
        met = _compare_batch(sides, small, table, rows, differences, digest)
        for column in plan.copied:
            if column.source in large and met:
                _compare_large_value(sides, plan, table, key, row, column, met[0], differences)
        yield met


def _large_columns(
    sides: Sides, plan: TablePlan, table: SourceTable, key: Sequence[str], row: Row
) -> set[str]:
    """The columns of a row whose values are compared by their hash."""
    if rowid_name(table) is None or sides.plan.encoding != "UTF-8":
        return set()
    candidates = [
        c
        for c in plan.copied
        if c.source not in plan.key and c.clean and c.rule.kind in BLOBS | TEXTS
    ]
    if not candidates:
        return set()
    rowid = _rowid_of(sides, table, key, row)
    tests = ", ".join(
        f"octet_length({r}) > {HUGE // 4} AND typeof({r}) = "
        f"'{'blob' if c.rule.kind in BLOBS else 'text'}'"
        for c in candidates
        for r in [column_sql(table, str(c.source))]
    )
    found = sides.source.execute(
        compose(
            "SELECT {tests} FROM {table} AS t WHERE {rowid_name} = ?",
            tests=tests,
            table=sqlite_table(table.name),
            rowid_name=rowid_name(table),
        ),
        (rowid,),
    ).fetchone()
    if found is None:
        return set()
    return {str(c.source) for c, large in zip(candidates, found, strict=True) if large}


def _rowid_of(sides: Sides, table: SourceTable, key: Sequence[str], row: Row) -> SourceValue:
    return next(
        read_by_keys(
            sides.source, table, [ROWID], encoding=sides.plan.encoding, key=key, keys=[row]
        )
    )[0]


def _compare_large_value(  # noqa: PLR0913 - both sides of one value
    sides: Sides,
    plan: TablePlan,
    table: SourceTable,
    key: Sequence[str],
    row: Row,
    column: ColumnPlan,
    ctid: str,
    differences: Differences,
) -> None:
    rowid = cast(int, _rowid_of(sides, table, key, row))
    digest, size = hashlib.sha256(), 0
    with sides.source.blob_open("main", table.name, str(column.source), rowid, False) as blob:
        while piece := blob.read(1 << 20):
            digest.update(piece)
            size += len(piece)
    name = postgres_name(column.target)
    content = name if column.rule.kind in BLOBS else f"convert_to({name}::text, 'UTF8')"
    (there,) = sides.rows_of(
        compose(
            "SELECT encode(sha256({content}), 'hex'), octet_length({content}) "
            "FROM ONLY {target_name} WHERE ctid = $1::tid",
            content=content,
            target_name=target_name(plan),
        ),
        (ctid,),
    )
    if (digest.hexdigest(), size) != tuple(there):
        text = key_text(row)
        differences.add(
            "value",
            f"{table.name}, row {text}, column {column.source}: {size} bytes with SHA-256 "
            f"{digest.hexdigest()}, target {there[1]} bytes with {there[0]}: differs",
            key=text,
            column=column.source,
            source=f"{size} bytes, SHA-256 {digest.hexdigest()}",
            target=f"{there[1]} bytes, SHA-256 {there[0]}",
        )


# ------------------------------------------------------------------- tables without a key


def _as_bag(
    sides: Sides, plan: TablePlan, table: SourceTable, differences: Differences
) -> tuple[int, int, str]:
    """Compare the rows as a bag: how often each content occurs on either side."""
    digest = hashlib.sha256()
    here, source_rows = _buckets(m for _, m in _bag_of_source(sides, plan, table, digest))
    there, target_rows = _buckets(_bag_of_target(sides, plan))
    wrong = {n for n in range(BUCKETS) if here[n] != there[n]}
    if wrong:
        _name_bag_differences(sides, plan, table, wrong, differences)
    return source_rows, target_rows, digest.hexdigest()


_UNACCOUNTED = ("?",)
"""Stands for a source value that nothing accounts for: it equals no text of the target's."""

_NO_VALUE = "!"
"""Before a target's text that no value of the column's type is spelled as."""


def _hash(meanings: tuple[Any, ...]) -> int:
    return int.from_bytes(hashlib.blake2b(repr(meanings).encode(), digest_size=16).digest(), "big")


def _buckets(rows: Iterable[tuple[Any, ...]]) -> tuple[list[int], int]:
    sums, count = [0] * BUCKETS, 0
    for meanings in rows:
        number = _hash(meanings)
        sums[number % BUCKETS] += number
        count += 1
    return sums, count


def _bag_of_source(
    sides: Sides, plan: TablePlan, table: SourceTable, digest: Any = None
) -> Iterator[tuple[Row, tuple[Any, ...]]]:
    key = key_columns(plan.key, table)
    columns = compared_columns(plan)
    names = [*key, *(str(c.source) for c in columns)]
    silent = Differences(table.name)
    rows = read_rows(
        sides.source,
        table,
        names,
        encoding=sides.plan.encoding,
        where=not_quarantined(plan),
    )
    for batch in batches(rows, max_rows=BATCH):
        sides.go_on()
        texts = [key_text(row[: len(key)]) for row in batch]
        ledger = ledger_for(sides, table.name, texts)
        for text, row in zip(texts, batch, strict=True):
            expected = _expected(text, columns, row[len(key) :], ledger, silent)
            meanings = tuple(_UNACCOUNTED if m is _UNKNOWN else m for m in expected)
            if digest is not None:
                digest.update(repr(meanings).encode())
            yield row, meanings


def _bag_of_target(sides: Sides, plan: TablePlan) -> Iterator[tuple[Any, ...]]:
    columns = compared_columns(plan)
    outputs = ", ".join(f"{postgres_name(c.target)}::text" for c in columns)
    with sides.target.transaction(), sides.target.cursor(name="bag") as cursor:
        cursor.itersize = BATCH
        cursor.execute(
            compose(
                "SELECT {outputs} FROM ONLY {target_name}",
                outputs=outputs,
                target_name=target_name(plan),
            ).encode()
        )
        for row in cursor:
            sides.go_on()
            yield tuple(_meaning_or_text(c, t) for c, t in zip(columns, row, strict=True))


def _meaning_or_text(column: ColumnPlan, text: str | None) -> Any:
    try:
        return of_target(column, text)
    except ValueError:
        return (_NO_VALUE, text)


def _name_bag_differences(
    sides: Sides,
    plan: TablePlan,
    table: SourceTable,
    wrong: set[int],
    differences: Differences,
) -> None:
    """Collect the rows of the buckets that differ and say which are on one side alone."""
    balance: Counter[tuple[Any, ...]] = Counter()
    examples: dict[tuple[Any, ...], str] = {}
    width = len(key_columns(plan.key, table))
    for row, meanings in _bag_of_source(sides, plan, table):
        if _hash(meanings) % BUCKETS in wrong:
            balance[meanings] += 1
            examples.setdefault(meanings, key_text(row[:width]))
    for meanings in _bag_of_target(sides, plan):
        if _hash(meanings) % BUCKETS in wrong:
            balance[meanings] -= 1
    missing = [m for m, n in balance.items() for _ in range(n)]
    extra = [m for m, n in balance.items() for _ in range(-n)]
    columns = compared_columns(plan)
    for meanings in missing:
        partner = _most_alike(meanings, extra) if len(extra) <= PAIRED else None
        if partner is None:
            differences.add(
                "missing-row",
                f"row {examples[meanings]} of {table.name} is not on the target: "
                f"{_shown(meanings)}",
                key=examples[meanings],
                source=_shown(meanings),
            )
            continue
        extra.remove(partner)
        for column, left, right in zip(columns, meanings, partner, strict=True):
            if left != right:
                differences.add(
                    "value",
                    f"{table.name}, row {examples[meanings]}, column {column.source}: source "
                    f"{_shown((left,))}, target {_shown((right,))}: differs",
                    key=examples[meanings],
                    column=column.source,
                    source=_shown((left,)),
                    target=_shown((right,)),
                )
    for meanings in extra:
        differences.add(
            "extra-row",
            f"a row of {plan.target} is on the target and not in the source: {_shown(meanings)}",
            target=_shown(meanings),
        )


def _most_alike(row: tuple[Any, ...], others: list[tuple[Any, ...]]) -> tuple[Any, ...] | None:
    """The row that shares most values with ``row``, where it shares at least half of them."""
    best, most = None, 0
    for other in others:
        alike = sum(a == b for a, b in zip(row, other, strict=True))
        if alike > most:
            best, most = other, alike
    return best if 2 * most >= len(row) else None


def _shown(meanings: tuple[Any, ...]) -> str:
    return ", ".join(map(_shown_one, meanings))


def _shown_one(meaning: Any) -> str:
    match meaning:
        case _ if meaning == _UNACCOUNTED:
            return "a value that neither plan nor ledger accounts for"
        case (str(mark), text) if mark == _NO_VALUE:
            return f"{display(text)}, which is no value of the column's"
        case str() | None:
            return display(meaning)
        case _:
            return display(repr(meaning))


def compare_ledger_rows(sides: Sides, plan: TablePlan, keys: list[str]) -> Differences:
    """Compare the rows that these ledger keys name; a key that names no row of the source is a
    difference too."""
    table = sides.table(plan)
    values = [key_values(text) for text in keys]
    differences = compare_keys(sides, plan, values)
    rows = read_by_keys(
        sides.source, table, plan.key, encoding=sides.plan.encoding, key=plan.key, keys=values
    )
    present = {key_text(row) for row in rows}
    for text in keys:
        if text not in present:
            differences.add(
                "ledger",
                f"the ledger of {table.name} names row {text}, which the source does not have",
                key=text,
            )
    return differences


def places_of_keys(sides: Sides, plan: TablePlan, keys: list[str]) -> list[str]:
    """Where on the target the rows of these source keys lie, as ``ctid`` texts."""
    table = sides.table(plan)
    key_plans = _key_plans(plan)
    ledger = ledger_for(sides, table.name, keys)
    wanted: list[list[Any]] = []
    silent = Differences(table.name)
    for text in keys:
        meanings = _expected(text, key_plans, key_values(text), ledger, silent)
        if _UNKNOWN not in meanings:
            pairs = zip(key_plans, meanings, strict=True)
            wanted.append([as_parameter(c, m) for c, m in pairs])
    if not wanted:
        return []
    found = _fetch(sides, plan, (), wanted)
    return [ctid for rows in found.values() for ctid, _ in rows]
