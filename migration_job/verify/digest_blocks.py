"""The two sides' rows as blocks of lines, gathered by the databases themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from psycopg import Cursor
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.pq import Format
from psycopg.rows import tuple_row

from migration_job.plan.model import TablePlan
from migration_job.quoting import compose, postgres_name
from migration_job.stores.sqlite.catalogue import rowid_name
from migration_job.stores.sqlite.chosen_rows import rows_of
from migration_job.stores.sqlite.model import SourceTable
from migration_job.stores.sqlite.reader import HIGHEST_ROWID, Row, column_sql, rowid_bounds
from migration_job.verify.connections import Sides, not_quarantined, rows_of_source
from migration_job.verify.digest_lines import LINE, MARK, Line, postgres_mark, sqlite_mark, summed

BLOCK_BYTES = 1 << 20
"""What one block of either side aims at. A query for each costs the target more than smaller ones
would gain."""

FIRST_ROWS = 1_000

MOST_ROWS = 20_000

UNCOMPRESSED = 2_000
"""Rows up to this size lie on the target's pages as they are: PostgreSQL compresses, or moves to
another place, only parts of larger ones."""

PAGE_BYTES = 12_000
"""About the text of a page of such rows: numbers and times are longer as text."""


class Unclear(Exception):
    """Lines do not say what the values are; the typed comparison must. Its text is the reason."""


@dataclass(slots=True)
class Block:
    data: bytes
    rows: int
    nulls: int


def _checked(block: Block, fields: int) -> Block:
    marks = block.rows * (fields - 1) + (block.rows - 1) + block.nulls
    if block.data.count(MARK.encode()) != marks:
        raise Unclear("data that holds the control character U+001D")
    return block


_Span = tuple[int | None, int | None]
"""Rowids above the first and up to the second; None: without an end there."""


class Source:
    """The source's rows as blocks of lines, in the order of its rowids."""

    def __init__(self, sides: Sides, plan: TablePlan, table: SourceTable, line: Line) -> None:
        self._sides = sides
        self._line = line
        self._table = table
        self._rowid = rowid_name(table)
        self._from = f"{rows_of(table)} AS t"
        self._rows = plan.rows
        self._whole = is_one_block(plan)
        self._keep = not_quarantined(plan)
        self._as_blob = sides.plan.encoding == "UTF-8"
        self._wanted = FIRST_ROWS

    def blocks(self) -> Iterator[Block]:
        """Every row once."""
        self._sides.read.begin()
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
        self._sides.read.begin()
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
        bounds = rowid_bounds(self._sides.source, self._table)
        if bounds is None or bounds[0] <= 0 or bounds[1] > 2 * self._rows:
            return None
        return bounds[1]

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

    def block(self, span: _Span) -> Block | None:
        """The rows of a span, from which the next one's size is learnt; None where it has none."""
        low, high = span
        # A condition on the rowid keeps SQLite from reading an index instead, in its order.
        where = f"{self._rowid} <= {HIGHEST_ROWID if high is None else high}"
        where += f" AND {self._rowid} > {low}" if low is not None else ""
        where += f" AND {self._keep}" if self._keep else ""
        lines = f"group_concat({self._line.source}, {sqlite_mark(LINE)})"
        if self._as_blob:
            lines = f"CAST({lines} AS BLOB)"
        found = self._sides.source.execute(
            compose(
                "SELECT {lines}, count(*), {total} FROM {origin} WHERE {where}",
                lines=lines,
                total=summed(self._line.source_nulls),
                origin=self._from,
                where=where,
            )
        ).fetchone()
        if found is None or not found[1]:
            return None
        self._sides.read.more(int(found[1]))
        data = found[0] if isinstance(found[0], bytes) else str(found[0]).encode()
        self._wanted = min(max(self._wanted * BLOCK_BYTES // max(len(data), 1), 1), MOST_ROWS)
        return _checked(Block(data, int(found[1]), int(found[2])), self._line.fields)

    def _single_rows(self) -> Iterator[Block]:
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
                self._sides.read.more(len(lines))
                yield _checked(Block(_joined(lines), len(lines), nulls), self._line.fields)
                lines, size, nulls = [], 0, 0
        if lines:
            yield _checked(Block(_joined(lines), len(lines), nulls), self._line.fields)

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
    fetch: Callable[[int], Block | None], items: Sequence[int], spare: Callable[[], bool]
) -> Iterator[Block | None]:
    """``fetch`` of each item in turn; where there is a core to spare, of the next one in another
    thread while this one is used."""
    ahead: Future[Block | None] | None = None
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


class Target:
    """The target's rows as blocks of lines, in their physical order."""

    def __init__(
        self,
        sides: Sides,
        plan: TablePlan,
        line: Line,
        pages: int,
        spare: Callable[[], bool],
    ) -> None:
        self._sides = sides
        self._plan = plan
        self._line = line
        self._name = rows_of_source(plan)
        self._pages = pages
        self._spare = spare

    def blocks(self, bytes_expected: int, *, count_marks: bool = True) -> Iterator[Block]:
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

    def between(self, key: str, span: _Span) -> Block | None:
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
                    "{unexpected_nulls} AS u FROM {name} {where} "
                    "ORDER BY {order}) AS s",
                    line=postgres_mark(LINE),
                    total=summed("n"),
                    total_2=summed("u"),
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

    def _range(self, cursor: Cursor[Any], first: int, pages: int) -> Block | None:
        """The rows of some pages; None where they have none."""
        return self._fetched(
            cursor,
            compose(
                "SELECT string_agg({target}, {line}), "
                "count(*), {total}, {total_2} "
                "FROM {name} "
                "WHERE ctid >= '({first},0)' AND ctid < '({end},0)'",
                target=self._line.target,
                line=postgres_mark(LINE),
                total=summed(self._line.target_nulls),
                total_2=summed(self._line.unexpected_nulls),
                name=self._name,
                first=first,
                end=first + pages,
            ),
        )

    def _fetched(self, cursor: Cursor[Any], query: str) -> Block | None:
        self._sides.go_on()
        found = cursor.execute(query.encode(), prepare=False).fetchone()
        if found is None or not found[1]:
            return None
        if found[3]:
            raise Unclear("NULLs in columns that have none on the source")
        return Block(found[0], int(found[1]), int(found[2]))

    def at(self, places: list[str]) -> list[bytes]:
        """The lines of the rows at these places."""
        if not places:
            return []
        rows = self._sides.rows_of(
            compose(
                "SELECT {target} FROM {name} WHERE ctid = ANY($1::tid[])",
                target=self._line.target,
                name=self._name,
            ),
            (places,),
        )
        return [str(row[0]).encode() for row in rows]


def is_one_block(plan: TablePlan) -> bool:
    """Whether the source's rows are few and small enough to be read by one query, which then also
    counts them: with thousands of tables, other queries are half of the source's work."""
    return plan.rows <= FIRST_ROWS and plan.widest is not None and plan.widest <= UNCOMPRESSED
