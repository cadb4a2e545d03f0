"""The copy of one table: by COPY, in blocks of bounded size, as fast as PostgreSQL takes it.

Rows that meet their rules' fast conditions become COPY text inside SQLite, block by block; the
others, if any, go through the rules in Python.
"""

from __future__ import annotations

from typing import Any

from migration_job.plan.model import TablePlan
from migration_job.quoting import compose
from migration_job.stores.postgres.copy_stream import (
    BLOCK_BYTES,
    Advance,
    Loaded,
    Session,
    TableStream,
)
from migration_job.stores.postgres.copytext import copy_sql, needs_no_escape, table_sql
from migration_job.stores.postgres.row_copy import BARE_TRIES, RowCopy
from migration_job.stores.sqlite.catalogue import rowid_name
from migration_job.stores.sqlite.chosen_rows import rows_of
from migration_job.stores.sqlite.model import SourceTable
from migration_job.stores.sqlite.reader import (
    HIGHEST_ROWID,
    LOWEST_ROWID,
    rowid_bounds,
    rowid_ranges,
)
from migration_job.values import SourceValue

WHOLE_BYTES = 4 * BLOCK_BYTES
"""A table that cannot be larger is one block: with thousands of them, looking for its bounds and a
second block would be half of what reading them takes."""

FIRST_ROWS = 512
MOST_ROWS = 20_000
GROWTH = 4
"""Rows in a table's first block, at most, and how fast the number may grow as sizes are learnt."""

MOST_DIGITS = 25
"""Bytes of a number as text, with its separator."""

WIDE_BYTES = 32 << 10
"""A table with a row larger than this has its blocks cut by the rows' real sizes, since the
average tells nothing there."""

HUGE_BYTES = 4 << 20
"""A row larger than this is streamed value by value, in pieces."""

"""Blocks of a table that may turn out to need escapes before all of it is escaped at once."""


class TableCopy:
    """The copy of one table into one that was created in the open transaction."""

    def __init__(
        self, session: Session, plan: TablePlan, table: SourceTable, encoding: str
    ) -> None:
        self._session = session
        self._plan = plan
        self._table = table
        self._encoding = encoding
        self._sql = table_sql(plan, table)
        self._rows = RowCopy(session, plan, table, encoding, self._sql.keep)
        self._from = f"{rows_of(table)} AS t"
        self._rowid = rowid_name(table)
        self._bare_tries = 0 if self._sql.bare is None else BARE_TRIES

    def run(self, advance: Advance, *, frozen: bool) -> Loaded:
        """Copy every row; ledger and quarantine included. Runs in the caller's transaction, which
        has made or truncated the table where the rows are to be ``frozen``."""
        statement = copy_sql(self._plan.relation, self._sql.columns, freeze=frozen)
        with TableStream(self._session, statement, advance) as stream:
            if self._sql.line is None:
                self._rows.copy(stream, self._sql.keep, ())
            elif self._rowid is None or self._awkward():
                self._by_order(stream)
            else:
                self._by_block(stream, (LOWEST_ROWID, HIGHEST_ROWID))
        return Loaded(stream.rows, self.quarantine(), stream.ledger)

    def run_part(self, number: int, parts: int, advance: Advance) -> Loaded:
        """Copy one of ``parts`` ranges of rowids, which together are the table; the ledger's
        entries included, the rows in quarantine not. Another session may have made the table."""
        statement = copy_sql(self._plan.relation, self._sql.columns, freeze=False)
        # The snapshot gives each session the same bounds.
        bounds = rowid_bounds(self._session.source, self._table) or (0, 0)
        span = rowid_ranges(bounds, parts)[number]
        with TableStream(self._session, statement, advance) as stream:
            if self._sql.line is None:
                self._rows.copy(stream, self._kept_between(), span)
            else:
                self._by_block(stream, span)
        return Loaded(stream.rows, 0, stream.ledger)

    def quarantine(self) -> int:
        """Keep the rows that the plan sets aside, whole; returns how many."""
        return self._rows.quarantine()

    def _kept_between(self) -> str:
        """The condition for the rows between two rowids that the target is to have."""
        between = f"{self._rowid} BETWEEN ? AND ?"
        return between if self._sql.keep is None else f"{between} AND {self._sql.keep}"

    def _awkward(self) -> bool:
        """Text in UTF-16 with doubts about it: SQLite's conversion would hide what is broken."""
        return self._encoding != "UTF-8" and self._sql.checked

    # ------------------------------------------------------------------- rows in blocks

    def _by_block(self, stream: TableStream, span: tuple[int, int]) -> None:
        """The rows between two rowids, those included."""
        first, stop = span
        bound = self._bound()
        if bound is not None and self._plan.rows * bound <= WHOLE_BYTES:
            self._block(stream, first, stop)
            return
        wide = self._widest(span) > WIDE_BYTES
        end = None if wide else self._dense_end()
        if end is not None:
            first, stop = max(first, 1), min(stop, end)
        wanted = self._first_rows()
        last: int | None = None if first == LOWEST_ROWID else first - 1
        while (
            bounds := self._bounds(last, stop, wanted, wide=wide, dense=end is not None)
        ) is not None:
            low, high, weight = bounds
            if low == high and weight > HUGE_BYTES:
                self._rows.stream(stream, low)
            else:
                size, rows = self._block(stream, low, high)
                if rows:
                    ideal = rows * BLOCK_BYTES // max(size, 1)
                    wanted = max(1, min(ideal, wanted * GROWTH, MOST_ROWS))
            last = high

    def _first_rows(self) -> int:
        """Rows of the first block, which is smaller than others where nothing bounds a row."""
        bound = self._bound()
        if bound is None:
            return FIRST_ROWS
        return max(FIRST_ROWS, min(MOST_ROWS, BLOCK_BYTES // bound))

    def _bound(self) -> int | None:
        """Bytes that no row's text exceeds, escapes apart; None: unknown."""
        if self._plan.widest is None:
            return None
        return self._plan.widest + MOST_DIGITS * len(self._plan.copied)

    def _widest(self, span: tuple[int, int]) -> int:
        """A size that no row of a span exceeds, exact only where it may be beyond
        ``WIDE_BYTES``."""
        bound = self._plan.widest
        if not self._sql.sizes or (bound is not None and bound <= WIDE_BYTES):
            return bound or 0
        rows = f"FROM {self._from} WHERE {self._rowid} BETWEEN ? AND ?"
        return int(self._one(f"SELECT max({self._sql.weight}) {rows}", span)[0] or 0)

    def _dense_end(self) -> int | None:
        """The last rowid where at least half of the numbers up to it are rows, so that the next
        block need not be looked for; else None."""
        bounds = rowid_bounds(self._session.source, self._table)
        if bounds is None or bounds[0] <= 0 or bounds[1] > 2 * self._plan.rows:
            return None
        return bounds[1]

    def _bounds(
        self, last: int | None, stop: int, wanted: int, *, wide: bool, dense: bool
    ) -> tuple[int, int, int] | None:
        """The first and last rowid of the block after ``last``, up to ``stop``, and its weight
        where rows are wide; ``dense`` says that it need not be looked for."""
        if dense and last is not None:
            return None if last >= stop else (last + 1, min(last + wanted, stop), 0)
        after = f"{self._rowid} <= ?" + ("" if last is None else f" AND {self._rowid} > ?")
        values = (stop,) if last is None else (stop, last)
        head = f"SELECT {self._rowid} AS r" + (f", {self._sql.weight} AS w" if wide else "")
        rows = f"{head} FROM {self._from} WHERE {after} ORDER BY {self._rowid} LIMIT {wanted}"
        if not wide:
            low, high = self._one(compose("SELECT min(r), max(r) FROM ({rows})", rows=rows), values)
            return None if low is None else (low, high, 0)
        found = self._one(
            compose(
                "SELECT min(r), max(r) FILTER (WHERE s <= ?), min(w) FILTER (WHERE n = 1) "
                "FROM (SELECT r, w, sum(w) OVER (ORDER BY r) AS s, "
                "row_number() OVER (ORDER BY r) AS n FROM ({rows}))",
                rows=rows,
            ),
            (BLOCK_BYTES, *values),
        )
        low, high, weight = found
        if low is None:
            return None
        return (low, low, weight) if high is None else (low, high, 0)

    def _block(self, stream: TableStream, low: int, high: int) -> tuple[int, int]:
        """Send the rows between two rowids; returns the bytes and rows sent as clean text."""
        where = self._kept_between()
        text, clean, every = self._lines(where, low, high)
        if clean and self._sql.checked and not _decodes(text):
            self._rows.copy(stream, where, (low, high))
            return 0, 0
        data = b"" if text is None else _encoded(text) + b"\n"
        if clean:
            stream.write(data, clean)
        if clean < every:
            self._rows.copy(stream, f"{where} AND ({self._sql.clean}) IS NOT TRUE", (low, high))
        return len(data), clean

    def _lines(self, where: str, low: int, high: int) -> tuple[Any, int, int]:
        """The clean rows' lines, their number, and the number of all rows. Lines are assembled
        without escapes first, which costs half, until a few blocks have needed some."""
        # No subquery around the line: SQLite would flatten it, and assemble the line once more for
        # each use of it.
        only = "" if self._sql.clean is None else f" FILTER (WHERE {self._sql.clean})"
        source = f"FROM {self._from} WHERE {where}"
        if self._bare_tries:
            counted = "0" if self._sql.nulls == "0" else f"sum({self._sql.nulls}){only}"
            text, clean, every, nulls = self._one(
                f"SELECT {self._as_bytes(f'group_concat({self._sql.bare}, char(10)){only}')}, "
                f"count(*){only}, count(*), {counted} {source}",
                (low, high),
            )
            fields = len(self._sql.columns)
            if not clean or needs_no_escape(_encoded(text), clean, nulls, fields):
                return text, clean, every
            self._bare_tries -= 1
        text, clean, every = self._one(
            f"SELECT {self._as_bytes(f'group_concat({self._sql.line}, char(10)){only}')}, "
            f"count(*){only}, count(*) {source}",
            (low, high),
        )
        return text, clean, every

    def _as_bytes(self, expression: str) -> str:
        """UTF-8 without a detour through ``str``; other encodings are converted by SQLite."""
        return f"CAST({expression} AS BLOB)" if self._encoding == "UTF-8" else expression

    def _one(self, sql: str, values: tuple[SourceValue, ...] = ()) -> tuple[Any, ...]:
        row = self._session.source.execute(sql, values).fetchone()
        if row is None:
            raise AssertionError("an aggregate gives one row")
        return tuple(row)

    # ------------------------------------------------------- tables without a usable rowid

    def _by_order(self, stream: TableStream) -> None:
        if self._sql.clean is not None:
            self._rows.copy(stream, self._sql.keep, ())
            return
        where = f"WHERE {self._sql.keep}" if self._sql.keep else ""
        lines: list[bytes] = []
        size = 0
        line = self._as_bytes(str(self._sql.line))
        for (text,) in self._session.source.execute(
            compose(
                "SELECT {line} FROM {origin} {where}", line=line, origin=self._from, where=where
            )
        ):
            data = _encoded(text)
            lines.append(data)
            size += len(data)
            if size >= BLOCK_BYTES:
                stream.write(b"\n".join(lines) + b"\n", len(lines))
                lines, size = [], 0
        if lines:
            stream.write(b"\n".join(lines) + b"\n", len(lines))


def _decodes(text: object) -> bool:
    if not isinstance(text, bytes):
        return True
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _encoded(text: object) -> bytes:
    return text if isinstance(text, bytes) else str(text).encode()
