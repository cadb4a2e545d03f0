"""The digest: every row of every table, read once from each side and compared as bytes.

Each side's own SQL spells a row as one line of text in which equal lines mean equal values, and
lines are gathered into blocks by the databases themselves. A freshly loaded table lies in the
order in which it was read from the source, so the two streams are equal byte for byte. Where the
order differs (several sessions wrote the table, or rows were updated since) the same spans of the
key are compared, if that is the source's rowid. Otherwise, and where rules changed values, the
lines are compared as a bag, by sums of 128-bit hashes, and the rows that the ledger names are taken
out of the sums and left to the typed comparison.

Lines are unambiguous without escaping: separators and NULL are spelled with one control
character, and both sides count it. A block with more of them than separators and NULLs account
for holds the character in its data, and the table is left to the typed comparison as well.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Any

import apsw
import apsw.sqlite_extra
from psycopg import Cursor
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.pq import Format
from psycopg.rows import tuple_row

from migration_job.plan.model import ColumnPlan, TablePlan
from migration_job.quoting import compose, postgres_name, sqlite_table, sqlite_text
from migration_job.stores.sqlite.catalogue import rowid_name
from migration_job.stores.sqlite.database import chain
from migration_job.stores.sqlite.model import SourceTable
from migration_job.stores.sqlite.reader import HIGHEST_ROWID, Row, column_sql, rowid_ends
from migration_job.stores.sqlite.rowkey import key_columns
from migration_job.values import key_values
from migration_job.verify.connections import (
    Sides,
    compared_columns,
    ledger_keys,
    not_quarantined,
    rows_expected,
    target_name,
)
from migration_job.verify.facts import ColumnFact, Facts

MARK = "\x1d"
"""ASCII's group separator, a character that text for people does not hold."""

FIELD, NULL, LINE = MARK + "1", MARK + "0", MARK + "2"

NONE = "0"
"""A number of NULLs, as SQL, where there can be none."""

BLOCK_BYTES = 1 << 20
"""What one block of either side aims at. A query for each costs the target more than smaller ones
would gain."""

FIRST_ROWS = 1_000
MOST_ROWS = 20_000

WIDEST = 64 << 10
"""Tables with a row larger than this are left to the typed comparison, which holds one at a
time: a block of them could be of any size."""

UNCOMPRESSED = 2_000
"""Rows up to this size lie on the target's pages as they are: PostgreSQL compresses, or moves to
another place, only parts of larger ones."""

PAGE_BYTES = 12_000
"""About the text of a page of such rows: numbers and times are longer as text."""

MOST_LEDGER_ROWS = 50_000
"""With more rows than this touched by rules, the typed comparison of the whole table is cheaper
than fetching them one by one."""

LEDGER_BATCH = 1_000

MODULUS = 1 << 128


@dataclass(frozen=True, slots=True)
class Agreed:
    """The digests agree: every row that the ledger does not name is equal on both sides."""

    rows: int
    digest: str
    ordered: bool


@dataclass(frozen=True, slots=True)
class Doubt:
    """They do not, or cannot say; the typed comparison must."""

    reason: str


@dataclass(frozen=True, slots=True)
class _Line:
    """How each side spells a row: expressions for its line and for its number of NULLs."""

    source: str
    source_nulls: str
    target: str
    target_nulls: str
    unexpected_nulls: str
    """Of the target's columns that have none on the source: such a NULL leaves its field out of the
    line, so there must be none."""
    fields: int


# ------------------------------------------------------------------------- how values are spelled


def equip(connection: apsw.Connection) -> None:
    """Give a source's connection what its lines are spelled with: ``ieee754_to_blob``, from
    SQLite's own extension, else from Python, and ``decimal_text``, a real's shortest decimal
    digits, never with an exponent."""
    try:
        apsw.sqlite_extra.load(connection, "ieee754")
    except (KeyError, ValueError, OSError, apsw.Error):

        def bits(*values: Any) -> bytes | None:
            value = values[0]
            return struct.pack(">d", value) if isinstance(value, float) else None

        connection.create_scalar_function("ieee754_to_blob", bits, 1, deterministic=True)

    def decimal_text(*values: Any) -> str:
        if math.isinf(values[0]):
            return "Infinity" if values[0] > 0 else "-Infinity"
        text = format(Decimal(repr(values[0])), "f")
        return text if "." in text else text + ".0"

    connection.create_scalar_function("pattern_text", pattern_text, 2, deterministic=True)
    connection.create_scalar_function("decimal_text", decimal_text, 1, deterministic=True)


def pattern_text(*values: Any) -> Any:
    """What the first of some patterns that meets a text as a whole makes of it; any other value
    as it is. The patterns are JSON, since a function of SQL takes no list."""
    patterns, value = values
    if isinstance(value, str):
        for fullmatch, shape, groups, replace in _compiled(patterns):
            found = fullmatch(value)
            if found is not None:
                if shape is None:
                    return found.expand(replace)
                own = found.group(*groups)
                return shape % own
    return value


_Compiled = tuple[Callable[[str], "re.Match[str] | None"], str | None, list[int], str]


@lru_cache(maxsize=256)
def _compiled(patterns: str) -> list[_Compiled]:
    found: list[_Compiled] = []
    for match, replace in json.loads(patterns):
        # Only what has no escape but a group's number is written without Match.expand, which
        # takes most of the time.
        numbers = [int(n) for n in re.findall(r"\\([1-9])", replace)]
        plain = re.fullmatch(r"(?:[^\\]|\\[1-9](?![0-9]))*", replace, re.DOTALL)
        shape = re.sub(r"\\[1-9]", "%s", replace.replace("%", "%%"))
        usual = plain is not None and bool(numbers)
        compiled = re.compile(match, re.DOTALL)
        found.append((compiled.fullmatch, shape if usual else None, numbers, replace))
    return found


def _spelling(column: ColumnPlan, here: str) -> tuple[str, str] | None:  # noqa: PLR0912 - one branch a type
    """SQLite's and PostgreSQL's expression of a column's value, as texts that are equal exactly
    where the values are; None where no SQL of both sides can do that. NULL is not their matter."""
    rule: Any = column.rule
    while rule.kind == "map":
        if rule.bijective:
            here = _through_map(rule, here)
        rule = rule.inner
    there = postgres_name(column.target)
    text = f"{there}::text"
    match rule.kind:
        case "integer" | "text-integer" | "integer-text" | "numeric-text" | "date" | "label":
            return here, text
        case "text" | "widened-text" | "json":
            return here, there if column.type == "text" else text
        case "boolean":
            return here, f"({there}::integer)::text"
        case "real":
            return f"lower(hex(ieee754_to_blob({here})))", f"encode(float8send({there}), 'hex')"
        case "bytea" | "widened-bytea":
            return f"lower(hex({here}))", f"encode({there}, 'hex')"
        case "uuid" if rule.style in ("lower", "upper"):
            return (here if rule.style == "lower" else f"lower({here})"), text
        case "uuid":
            return f"lower({here})", f"replace({text}, '-', '')"
        case "time" if rule.shape == "HH:MM:SS":
            return here, text
        case "numeric" | "near-numeric":
            return _numeric(rule, here), text
        case "timestamp":
            spelled = _timestamp(rule, here)
            return None if spelled is None else (spelled, text)
        case _:
            return None


def _through_map(rule: Any, here: str) -> str:
    """The value that a map which goes both ways makes of the source's. Others are the ledger's."""
    terms = []
    for entry in rule.entries:
        if isinstance(entry.source, str) and "\x00" not in entry.source:
            same = f"typeof({here}) = 'text' AND {here} COLLATE BINARY = {_constant(entry.source)}"
        elif isinstance(entry.source, int):
            same = f"typeof({here}) = 'integer' AND {here} = {entry.source}"
        else:
            continue
        if isinstance(entry.target, str | int) and "\x00" not in str(entry.target):
            terms.append(f"WHEN {same} THEN {_constant(entry.target)}")
    rest = here
    if rule.patterns:
        pairs = json.dumps([[p.match, p.replace] for p in rule.patterns])
        rest = f"pattern_text({sqlite_text(pairs)}, {here})"
    return f"CASE {' '.join(terms)} ELSE {rest} END" if terms else rest


def _constant(value: str | int) -> str:
    return str(value) if isinstance(value, int) else sqlite_text(value)


def _numeric(rule: Any, here: str) -> str:
    """A number's decimal text, proven by reading it back; the word ``doubt`` where it fails."""
    if rule.precision is None:
        real = f"printf('%!.15g', {here})"
        short = f"CAST({real} AS REAL) = {here} AND NOT instr({real}, 'e')"
        # Beyond 15 digits SQLite's last one may be off.
        proven = f"CASE WHEN {short} THEN {real} ELSE decimal_text({here}) END"
        whole = here
    else:
        real = f"printf('%.{max(rule.scale, 0)}f', {here})"
        proven = f"CASE WHEN CAST({real} AS REAL) = {here} THEN {real} ELSE 'doubt' END"
        whole = f"{here} || '.{'0' * rule.scale}'" if rule.scale > 0 else here
    kinds = f"WHEN 'integer' THEN {whole} WHEN 'real' THEN {proven}"
    return f"CASE typeof({here}) {kinds} ELSE 'doubt' END"


def _timestamp(rule: Any, here: str) -> str | None:
    """PostgreSQL's text of the instant, for the shapes that name UTC."""
    if rule.shape == "epoch":
        if rule.epoch != "s":
            return None
        return f"datetime({here}, 'unixepoch') || '+00'"
    shape, zone = rule.shape, ""
    if shape.endswith("Z"):
        shape, zone = shape[:-1], "Z"
    elif rule.zone != "UTC":
        return None
    match shape:
        # What is not of this shape exactly gives a text that PostgreSQL never writes.
        case "YYYY-MM-DD" if not zone:
            return f"{here} || ' 00:00:00+00'"
        case "YYYY-MM-DD HH:MM:SS" if not zone:
            return f"{here} || '+00'"
    match shape.replace("T", " "):
        case "YYYY-MM-DD HH:MM:SS":
            text = f"{_moment(here)} || '+00'"
        case "YYYY-MM-DD HH:MM:SS.fff" | "YYYY-MM-DD HH:MM:SS.ffffff":
            fraction = f"rtrim(rtrim(substr({here}, 20, {len(shape) - 19}), '0'), '.')"
            text = f"{_moment(here)} || {fraction} || '+00'"
        case _:
            return None
    return f"CASE WHEN substr({here}, {len(shape) + 1}) = '{zone}' THEN {text} ELSE 'doubt' END"


def _moment(here: str) -> str:
    return f"substr({here}, 1, 10) || ' ' || substr({here}, 12, 8)"


def _line(plan: TablePlan, table: SourceTable, there_now: Mapping[str, ColumnFact]) -> _Line | None:
    """``there_now`` are the target's columns as they are."""
    columns = compared_columns(plan)
    references = [column_sql(table, str(c.source)) for c in columns]
    pairs = [_spelling(c, r) for c, r in zip(columns, references, strict=True)]
    known = [pair for pair in pairs if pair is not None]
    if not columns or len(known) != len(pairs):
        return None
    # A NULL where preflight met none would leave a mark out, so that the block has too few of them.
    here = [
        _or_null(source, reference) if column.nulls else source
        for column, reference, (source, _) in zip(columns, references, known, strict=True)
    ]
    maybe_null = [r for c, r in zip(columns, references, strict=True) if c.nulls]
    there = [
        f"coalesce({target}, {_postgres(NULL)})" if column.nulls else _as_argument(column, target)
        for column, (_, target) in zip(columns, known, strict=True)
    ]
    open_to_null = [c for c in columns if not there_now[c.target].not_null]
    return _Line(
        source=_grouped("concat_ws", _sqlite(FIELD), here, 500),
        source_nulls=chain("+", [f"({reference} IS NULL)" for reference in maybe_null]) or NONE,
        target=_grouped("concat_ws", _postgres(FIELD), there, 90),
        target_nulls=_nulls_among([c for c in open_to_null if c.nulls]),
        unexpected_nulls=_nulls_among([c for c in open_to_null if not c.nulls]),
        fields=len(known),
    )


def _as_argument(column: ColumnPlan, target: str) -> str:
    """What gives concat_ws() the text: it spells any type as a cast to text does, without making a
    text of it first, but for the blanks at the end of a ``char``."""
    character = column.type.startswith(("char", "varchar", "text"))
    return target if character else target.removesuffix("::text")


def _nulls_among(columns: Sequence[ColumnPlan]) -> str:
    """PostgreSQL's number of NULLs in a row's columns."""
    names = [postgres_name(c.target) for c in columns]
    groups = (names[i : i + 90] for i in range(0, len(names), 90))
    return " + ".join(f"num_nulls({', '.join(group)})" for group in groups) or NONE


def _total(number: str) -> str:
    """The sum over the rows."""
    return number if number == NONE else f"sum({number})"


def _or_null(source: str, reference: str) -> str:
    if source == reference:
        return f"ifnull({reference}, {_sqlite(NULL)})"
    return f"CASE WHEN {reference} IS NULL THEN {_sqlite(NULL)} ELSE {source} END"


def _grouped(function: str, separator: str, parts: list[str], most: int) -> str:
    """The parts joined by ``separator``, in nested calls of at most ``most`` arguments."""
    while True:
        parts = [
            f"{function}({separator}, {', '.join(parts[i : i + most])})"
            for i in range(0, len(parts), most)
        ]
        if len(parts) == 1:
            return parts[0]


def _sqlite(text: str) -> str:
    return f"char({ord(text[0])}, {ord(text[1])})"


def _postgres(text: str) -> str:
    return f"E'\\x1d{text[1]}'"


# ------------------------------------------------------------------------------ the two streams


class _Unclear(Exception):
    """Lines do not say what the values are; the typed comparison must. Its text is the reason."""


@dataclass(slots=True)
class _Block:
    data: bytes
    rows: int
    nulls: int


def _checked(block: _Block, fields: int) -> _Block:
    marks = block.rows * (fields - 1) + (block.rows - 1) + block.nulls
    if block.data.count(MARK.encode()) != marks:
        raise _Unclear("data that holds the control character U+001D")
    return block


_Span = tuple[int | None, int | None]
"""Rowids above the first and up to the second; None: without an end there."""


class _Source:
    """The source's rows as blocks of lines, in the order of its rowids."""

    def __init__(self, sides: Sides, plan: TablePlan, table: SourceTable, line: _Line) -> None:
        self._sides = sides
        self._line = line
        self._table = table
        self._rowid = rowid_name(table)
        self._from = f"{sqlite_table(table.name)} AS t"
        self._rows = plan.rows
        self._whole = _is_one_block(plan)
        self._keep = not_quarantined(plan)
        self._as_blob = sides.plan.encoding == "UTF-8"
        self._wanted = FIRST_ROWS

    def blocks(self) -> Iterator[_Block]:
        """Every row once."""
        if self._rowid is None:
            yield from self._single_rows()
            return
        for span in self.spans():
            block = self.block(span)
            if block is not None:
                yield block

    def spans(self) -> Iterator[_Span]:
        """Ranges of rowids with about as many bytes as a block should have, one after another and
        without an end on either side, so that together they are everything."""
        low: int | None = None
        end = None if self._whole else self._end_without_gaps()
        while True:
            self._sides.go_on()
            if self._whole:
                high = None
            elif end is None:
                high = self._next_end(low)
            else:
                high = (low or 0) + self._wanted
                high = None if high >= end else high
            yield low, high
            if high is None:
                return
            low = high

    def _end_without_gaps(self) -> int | None:
        """The last rowid where the rowids are 1, 2, 3 and so on, or nearly; else None."""
        ends = rowid_ends(self._sides.source, self._table)
        if ends is None or ends[0] <= 0 or ends[1] > 2 * self._rows:
            return None
        return ends[1]

    def _next_end(self, low: int | None) -> int | None:
        after = f"WHERE {self._rowid} > {low}" if low is not None else ""
        found = self._sides.source.execute(
            compose(
                "SELECT max(r) FROM (SELECT {rowid} AS r FROM {origin} {after} "
                "ORDER BY {rowid} LIMIT {wanted})",
                rowid=self._rowid,
                origin=self._from,
                after=after,
                wanted=self._wanted,
            )
        ).fetchone()
        return None if found is None or found[0] is None else int(found[0])

    def block(self, span: _Span) -> _Block | None:
        """The rows of a span, from which the next one's size is learnt; None where it has none."""
        low, high = span
        # A condition on the rowid keeps SQLite from reading an index instead, in its order.
        where = f"{self._rowid} <= {HIGHEST_ROWID if high is None else high}"
        where += f" AND {self._rowid} > {low}" if low is not None else ""
        where += f" AND {self._keep}" if self._keep else ""
        lines = f"group_concat({self._line.source}, {_sqlite(LINE)})"
        if self._as_blob:
            lines = f"CAST({lines} AS BLOB)"
        found = self._sides.source.execute(
            compose(
                "SELECT {lines}, count(*), {total} FROM {origin} WHERE {where}",
                lines=lines,
                total=_total(self._line.source_nulls),
                origin=self._from,
                where=where,
            )
        ).fetchone()
        if found is None or not found[1]:
            return None
        data = found[0] if isinstance(found[0], bytes) else str(found[0]).encode()
        self._wanted = min(max(self._wanted * BLOCK_BYTES // max(len(data), 1), 1), MOST_ROWS)
        return _checked(_Block(data, int(found[1]), int(found[2])), self._line.fields)

    def _single_rows(self) -> Iterator[_Block]:
        where = f"WHERE {self._keep}" if self._keep else ""
        line = f"CAST({self._line.source} AS BLOB)" if self._as_blob else self._line.source
        lines: list[bytes] = []
        size = nulls = 0
        for text, missing in self._sides.source.execute(
            compose(
                "SELECT {line}, {source_nulls} FROM {origin} {where}",
                line=line,
                source_nulls=self._line.source_nulls,
                origin=self._from,
                where=where,
            )
        ):
            lines.append(text if isinstance(text, bytes) else str(text).encode())
            size += len(lines[-1])
            nulls += int(missing)
            if size >= BLOCK_BYTES:
                yield _checked(_Block(_joined(lines), len(lines), nulls), self._line.fields)
                lines, size, nulls = [], 0, 0
        if lines:
            yield _checked(_Block(_joined(lines), len(lines), nulls), self._line.fields)

    def of_keys(self, table: SourceTable, key: tuple[str, ...], keys: list[Row]) -> list[bytes]:
        """The lines of single rows."""
        terms = [column_sql(table, name) for name in key]
        one = " AND ".join(f"{term} COLLATE BINARY IS ?" for term in terms)
        if self._keep:
            one += f" AND {self._keep}"
        line = f"CAST({self._line.source} AS BLOB)" if self._as_blob else self._line.source
        query = compose(
            "SELECT {line} FROM {origin} WHERE {one}", line=line, origin=self._from, one=one
        )
        lines: list[bytes] = []
        for values in keys:
            for (text,) in self._sides.source.execute(query, values):
                lines.append(text if isinstance(text, bytes) else str(text).encode())
        return lines


def _joined(lines: list[bytes]) -> bytes:
    return LINE.encode().join(lines)


def _one_ahead(
    fetch: Callable[[int], _Block | None], items: Sequence[int], spare: Callable[[], bool]
) -> Iterator[_Block | None]:
    """``fetch`` of each item in turn; where there is a core to spare, of the next one in another
    thread while this one is used."""
    ahead: Future[_Block | None] | None = None
    with ThreadPoolExecutor(1) as pool:
        for number, item in enumerate(items, 1):
            found = fetch(item) if ahead is None else ahead.result()
            more = number < len(items) and spare()
            ahead = pool.submit(fetch, items[number]) if more else None
            yield found


class _BytesLoader(Loader):
    """Gives a text value's bytes as they came."""

    format = Format.BINARY

    def load(self, data: Buffer) -> bytes:
        return bytes(data)


class _Target:
    """The target's rows as blocks of lines, in their physical order."""

    def __init__(
        self,
        sides: Sides,
        plan: TablePlan,
        line: _Line,
        pages: int,
        spare: Callable[[], bool],
    ) -> None:
        self._sides = sides
        self._plan = plan
        self._line = line
        self._name = target_name(plan)
        self._pages = pages
        self._spare = spare

    def blocks(self, bytes_expected: int, *, count_marks: bool = True) -> Iterator[_Block]:
        """Every row once, by ranges of pages; ``bytes_expected`` sizes them, where it is known."""
        pages = self._pages
        expected = bytes_expected or pages * PAGE_BYTES
        step = max(1, min(pages, pages * BLOCK_BYTES // max(expected, 1)))
        with self._cursor() as cursor:
            starts = range(0, pages, step)
            for block in _one_ahead(
                lambda first: self._range(cursor, first, step), starts, self._spare
            ):
                if block is not None:
                    yield _checked(block, self._line.fields) if count_marks else block

    def between(self, key: str, span: _Span) -> _Block | None:
        """The rows of a span of the target's own key, in its order."""
        low, high = span
        name, line = postgres_name(key), self._line
        bounds = [] if low is None else [f"{name} > {low}"]
        bounds += [] if high is None else [f"{name} <= {high}"]
        where = f"WHERE {' AND '.join(bounds)}" if bounds else ""
        with self._cursor() as cursor:
            # An aggregate takes the rows as a sorted subquery gives them; if it ever did not, the
            # texts would differ, and the table be left to other ways.
            return self._fetched(
                cursor,
                compose(
                    "SELECT string_agg(l, {line}), count(*), {total}, {total_2} "
                    "FROM (SELECT {target} AS l, {target_nulls} AS n, "
                    "{unexpected_nulls} AS u FROM ONLY {name} {where} "
                    "ORDER BY {order}) AS s",
                    line=_postgres(LINE),
                    total=_total("n"),
                    total_2=_total("u"),
                    target=line.target,
                    target_nulls=line.target_nulls,
                    unexpected_nulls=line.unexpected_nulls,
                    name=self._name,
                    where=where,
                    order=name,
                ),
            )

    def _cursor(self) -> Cursor[Any]:
        cursor = self._sides.target.cursor(binary=True, row_factory=tuple_row)
        # The text as its bytes: decoding it would be for nothing.
        cursor.adapters.register_loader("text", _BytesLoader)
        return cursor

    def _range(self, cursor: Cursor[Any], first: int, pages: int) -> _Block | None:
        """The rows of some pages; None where they have none."""
        return self._fetched(
            cursor,
            compose(
                "SELECT string_agg({target}, {line}), "
                "count(*), {total}, {total_2} "
                "FROM ONLY {name} "
                "WHERE ctid >= '({first},0)' AND ctid < '({end},0)'",
                target=self._line.target,
                line=_postgres(LINE),
                total=_total(self._line.target_nulls),
                total_2=_total(self._line.unexpected_nulls),
                name=self._name,
                first=first,
                end=first + pages,
            ),
        )

    def _fetched(self, cursor: Cursor[Any], query: str) -> _Block | None:
        self._sides.go_on()
        found = cursor.execute(query.encode(), prepare=False).fetchone()
        if found is None or not found[1]:
            return None
        if found[3]:
            raise _Unclear("NULLs in columns that have none on the source")
        return _Block(found[0], int(found[1]), int(found[2]))

    def at(self, places: list[str]) -> list[bytes]:
        """The lines of the rows at these places."""
        if not places:
            return []
        rows = self._sides.rows_of(
            compose(
                "SELECT {target} FROM ONLY {name} WHERE ctid = ANY($1::tid[])",
                target=self._line.target,
                name=self._name,
            ),
            (places,),
        )
        return [str(row[0]).encode() for row in rows]


# -------------------------------------------------------------------------------- comparison

Places = Callable[[list[str]], list[str]]
"""From the ledger's key texts to the physical places (``ctid``) of their rows on the target."""


def compare(
    sides: Sides, plan: TablePlan, facts: Facts, places: Places, spare: Callable[[], bool]
) -> Agreed | Doubt:
    """Compare all rows of a table, in a session that :func:`equip` has seen; ``places`` finds the
    rows that the ledger's keys became, which are left out of the digests. ``spare`` says whether
    a core is idle: then both sides work at once. Raises sides.Stopped when cancelled."""
    table = sides.table(plan)
    line = _line(plan, table, facts.columns[plan.target])
    if line is None:
        return Doubt("a column that SQL alone cannot compare")
    rows, size, widest = _measure(sides, plan, table)
    if widest > WIDEST:
        return Doubt("rows too large for blocks")
    touched = facts.ledger.get(table.name, 0)
    if touched > MOST_LEDGER_ROWS or (touched and not plan.key):
        return Doubt(f"{touched} values changed by rules")
    source = _Source(sides, plan, table, line)
    target = _Target(sides, plan, line, facts.pages.get(plan.target, 0), spare)
    try:
        if not touched:
            agreed = _in_order(source, target, size)
            if agreed is None and plan.rowid_key is not None:
                agreed = _in_key_order(source, target, plan.rowid_key, spare)
            if agreed is not None and rows in (None, agreed.rows):
                return agreed
        if rows is None:
            rows = rows_expected(sides, plan)
        key = key_columns(plan.key, table)
        return _as_bags(sides, table, key, source, target, rows, size, places)
    except _Unclear as reason:
        return Doubt(str(reason))


def _is_one_block(plan: TablePlan) -> bool:
    """Whether the source's rows are few and small enough to be read by one query, which then also
    counts them: with thousands of tables, other queries are half of the source's work."""
    return plan.rows <= FIRST_ROWS and plan.widest is not None and plan.widest <= UNCOMPRESSED


def _measure(sides: Sides, plan: TablePlan, table: SourceTable) -> tuple[int | None, int, int]:
    """Rows that the target must hold (None: its one block says so), a guess at their bytes (0: as
    on the target's pages), and a size that no row exceeds."""
    if _is_one_block(plan):
        return None, 0, 0
    sizes = [
        f"ifnull(octet_length({column_sql(table, str(c.source))}), 0)"
        for c in compared_columns(plan)
        if not c.type.startswith(("int", "smallint", "bigint", "boolean", "double", "time", "date"))
    ]
    keep = not_quarantined(plan)
    source = f"FROM {sqlite_table(table.name)} AS t" + (f" WHERE {keep}" if keep else "")

    def ask(*terms: str) -> tuple[int, ...]:
        found = sides.source.execute(f"SELECT {', '.join(terms)} {source}").fetchone()
        return tuple(int(value or 0) for value in found or ())

    if plan.widest is not None and plan.widest <= UNCOMPRESSED:
        (rows,) = ask("count(*)")
        return rows, 0, plan.widest
    rows, *longest = ask("count(*)", *(f"max({size})" for size in sizes))
    if sum(longest) <= UNCOMPRESSED:
        return rows, 0, sum(longest)
    weight = chain("+", sizes)
    size, widest = ask(f"total({weight})", f"max({weight})")
    return rows, size + rows * 10 * len(plan.columns), widest


class _Stream:
    """A side's blocks as one text, of which as much is kept as the other side has not reached."""

    def __init__(self, blocks: Iterator[_Block]) -> None:
        self._blocks = blocks
        self.rows = self.nulls = 0
        self.text, self.start = b"", 0
        """What is not compared yet: the text from this place on."""

    @property
    def left(self) -> int:
        return len(self.text) - self.start

    def more(self) -> bool:
        """Take the next block, once all that was taken is compared; False where there is none."""
        block = next(self._blocks, None)
        if block is None:
            return False
        # A joint stands between any two blocks.
        self.text, self.start = LINE.encode() + block.data, 0
        self.rows += block.rows
        self.nulls += block.nulls
        return True

    def goes_on_like(self, other: _Stream) -> bool:
        """Whether all that is left of ``other``, and no more than is left here, is what comes next
        here; both move on behind it."""
        piece = other.text if other.start == 0 else other.text[other.start :]
        # In place: slices of both sides would be as many copies.
        same = self.text.startswith(piece, self.start)
        self.start += len(piece)
        other.start += len(piece)
        return same


def _in_order(source: _Source, target: _Target, size: int) -> Agreed | None:
    """Compare the two streams byte by byte; None at the first byte that differs.

    The marks of the source alone are counted: equal texts have equally many, and as many rows and
    NULLs on both sides take up as many of them, so that none is left to the target's data. A NULL
    that the source has not would leave a field out of its line: each side's blocks are refused
    where there is one.
    """
    digest = hashlib.sha256()
    here, there = _Stream(source.blocks()), _Stream(target.blocks(size, count_marks=False))
    while True:
        if not here.left and here.more():
            digest.update(here.text)
        if not there.left:
            there.more()
        if not here.left or not there.left:
            break
        shorter, longer = (here, there) if here.left <= there.left else (there, here)
        if not longer.goes_on_like(shorter):
            return None
    if here.left or there.left or (here.rows, here.nulls) != (there.rows, there.nulls):
        return None
    return Agreed(here.rows, digest.hexdigest(), ordered=True)


def _in_key_order(
    source: _Source, target: _Target, key: str, spare: Callable[[], bool]
) -> Agreed | None:
    """Compare the same spans of keys on both sides, for rows that lie on the target in another
    order, because several sessions wrote them or some were changed since; None at the first span
    that differs. The digest is that of :func:`_in_order`."""
    digest = hashlib.sha256()
    rows = 0
    with ThreadPoolExecutor(1) as pool:
        for span in source.spans():
            ahead = pool.submit(target.between, key, span) if spare() else None
            here = source.block(span)
            there = target.between(key, span) if ahead is None else ahead.result()
            if here is None or there is None:
                if here is not there:
                    return None
                continue
            if (here.data, here.rows, here.nulls) != (there.data, there.rows, there.nulls):
                return None
            digest.update(LINE.encode())
            digest.update(here.data)
            rows += here.rows
    return Agreed(rows, digest.hexdigest(), ordered=True)


def _hash_sum(lines: list[bytes]) -> int:
    total = 0
    for line in lines:
        total += int.from_bytes(hashlib.blake2b(line, digest_size=16).digest(), "big")
    return total


def _stream_sum(blocks: Iterator[_Block]) -> tuple[int, int]:
    total = rows = 0
    joint = LINE.encode()
    for block in blocks:
        total += _hash_sum(block.data.split(joint))
        rows += block.rows
    return total, rows


def _as_bags(  # noqa: PLR0913 - both sides of one table
    sides: Sides,
    table: SourceTable,
    key: tuple[str, ...],
    source: _Source,
    target: _Target,
    rows: int,
    size: int,
    places: Places,
) -> Agreed | Doubt:
    """Compare the lines' sums, without the rows that the ledger names."""
    here, rows_here = _stream_sum(source.blocks())
    there, rows_there = _stream_sum(target.blocks(size))
    if not rows_here == rows == rows_there:
        return Doubt(f"{rows} rows expected, {rows_there} found")
    digest = f"{there % MODULUS:032x}"
    for keys in ledger_keys(sides, table.name, LEDGER_BATCH):
        sides.go_on()
        values = [key_values(text) for text in keys]
        here -= _hash_sum(source.of_keys(table, key, values))
        there -= _hash_sum(target.at(places(keys)))
    if here % MODULUS != there % MODULUS:
        return Doubt("digests that differ")
    return Agreed(rows, digest, ordered=False)
