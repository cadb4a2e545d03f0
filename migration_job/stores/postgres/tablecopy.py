"""The copy of one table: by COPY, in blocks of bounded size, as fast as PostgreSQL takes it.

Rows that meet their rules' fast conditions become COPY text inside SQLite, block by block; the
others, if any, go through the rules in Python.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import apsw
import psycopg

from migration_job.errors import OperationError
from migration_job.plan.model import ColumnPlan, TablePlan
from migration_job.plan.rules import CannotCarry
from migration_job.quoting import compose, postgres_relation, sqlite_table
from migration_job.stores.postgres import records
from migration_job.stores.postgres.copytext import (
    copy_sql,
    escape,
    needs_no_escape,
    table_sql,
)
from migration_job.stores.sqlite.catalogue import rowid_name
from migration_job.stores.sqlite.model import SourceTable
from migration_job.stores.sqlite.reader import (
    HIGHEST_ROWID,
    LOWEST_ROWID,
    Row,
    column_sql,
    read_rows,
    rowid_ends,
    rowid_ranges,
)
from migration_job.stores.sqlite.rowkey import key_columns
from migration_job.values import SourceValue, key_text, to_json, to_text

BLOCK_BYTES = 128 << 10
"""What one block aims at. Larger ones fit no processor cache, on neither side: a megabyte takes a
twentieth longer."""

WHOLE_BYTES = 4 * BLOCK_BYTES
"""A table that cannot be larger is one block: with thousands of them, looking for its ends and a
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

PIECE_BYTES = 1 << 20

PENDING_ENTRIES = 5_000
"""Ledger entries held back before they are written: the table's COPY pauses for them."""

BARE_TRIES = 3
"""Blocks of a table that may turn out to need escapes before all of it is escaped at once."""

SHAPES_AT_ONCE = 500
"""Columns whose sizes are asked for at once: a SELECT has 2,000 terms at most."""

Advance = Callable[[int], None]
"""Called with the rows of each block."""


@dataclass(slots=True)
class Session:
    """One worker's connections: the snapshot and the target."""

    source: apsw.Connection
    target: psycopg.Connection
    stopped: threading.Event = field(default_factory=threading.Event)
    collate: str = ""
    """The collation that columns of text are given; '' for the database's own."""

    def close(self) -> None:
        self.source.close()
        self.target.close()

    def cancel(self) -> None:
        self.stopped.set()
        self.source.interrupt()
        # A refused cancellation leaves a statement that ends by itself.
        with suppress(psycopg.Error):
            self.target.cancel_safe(timeout=5.0)


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a table's copy did."""

    rows: int
    quarantined: int
    ledger: int


class _Stream:
    """A table's COPY, which can be paused for the ledger's."""

    def __init__(self, session: Session, statement: str, advance: Advance) -> None:
        self._session = session
        self._statement = statement
        self._advance = advance
        self._copy: psycopg.Copy | None = None
        self._cursor = session.target.cursor()
        self._manager: AbstractContextManager[psycopg.Copy] | None = None
        self._pending: list[records.LedgerEntry] = []
        self.rows = 0
        self.ledger = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end(kind, error, trace)
        if kind is None:
            self._flush()
        self._cursor.close()

    def write(self, data: bytes, rows: int) -> None:
        """Send whole lines, or a piece of one with ``rows`` 0."""
        if self._session.stopped.is_set():
            raise OperationError("the copy was stopped because another part of it failed")
        if self._copy is None:
            self._manager = self._cursor.copy(self._statement)
            self._copy = self._manager.__enter__()
        self._copy.write(data)
        self.rows += rows
        self._advance(rows)

    def note(self, entry: records.LedgerEntry) -> None:
        """Keep a ledger entry for the table's transaction; call it between whole lines."""
        self._pending.append(entry)
        self.ledger += 1
        if len(self._pending) >= PENDING_ENTRIES:
            self._end(None, None, None)
            self._flush()

    def _end(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        manager, self._manager, self._copy = self._manager, None, None
        if manager is not None:
            manager.__exit__(kind, error, trace)

    def _flush(self) -> None:
        if self._pending:
            records.add_ledger(self._session.target, iter(self._pending))
            self._pending = []


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
        self._key = key_columns(plan.key, table)
        self._from = f"{sqlite_table(table.name)} AS t"
        self._rowid = rowid_name(table)
        self._bare_tries = 0 if self._sql.bare is None else BARE_TRIES

    def run(self, advance: Advance) -> Loaded:
        """Copy every row; ledger and quarantine included. Runs in the caller's transaction."""
        # Rows may be frozen only in a table that is of this transaction's making.
        freeze = self._plan.ours
        statement = copy_sql(postgres_relation(self._plan.target), self._sql.columns, freeze=freeze)
        with _Stream(self._session, statement, advance) as stream:
            if self._sql.line is None:
                self._by_row(stream, self._sql.keep, ())
            elif self._rowid is None or self._awkward():
                self._by_order(stream)
            else:
                self._by_block(stream, (LOWEST_ROWID, HIGHEST_ROWID))
        return Loaded(stream.rows, self.quarantine(), stream.ledger)

    def run_part(self, number: int, parts: int, advance: Advance) -> Loaded:
        """Copy one of ``parts`` ranges of rowids, which together are the table; the ledger's
        entries included, the rows in quarantine not. Another session may have made the table."""
        statement = copy_sql(postgres_relation(self._plan.target), self._sql.columns, freeze=False)
        # The snapshot gives each session the same ends.
        ends = rowid_ends(self._session.source, self._table) or (0, 0)
        span = rowid_ranges(ends, parts)[number]
        with _Stream(self._session, statement, advance) as stream:
            if self._sql.line is None:
                self._by_row(stream, self._kept_between(), span)
            else:
                self._by_block(stream, span)
        return Loaded(stream.rows, 0, stream.ledger)

    def _kept_between(self) -> str:
        """The condition for the rows between two rowids that the target is to have."""
        between = f"{self._rowid} BETWEEN ? AND ?"
        return between if self._sql.keep is None else f"{between} AND {self._sql.keep}"

    def _awkward(self) -> bool:
        """Text in UTF-16 with doubts about it: SQLite's conversion would hide what is broken."""
        return self._encoding != "UTF-8" and self._sql.checked

    # ------------------------------------------------------------------- rows in blocks

    def _by_block(self, stream: _Stream, span: tuple[int, int]) -> None:
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
                self._huge_row(stream, low)
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
        ends = rowid_ends(self._session.source, self._table)
        if ends is None or ends[0] <= 0 or ends[1] > 2 * self._plan.rows:
            return None
        return ends[1]

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

    def _block(self, stream: _Stream, low: int, high: int) -> tuple[int, int]:
        """Send the rows between two rowids; returns the bytes and rows sent as clean text."""
        where = self._kept_between()
        text, clean, every = self._lines(where, low, high)
        if clean and self._sql.checked and not _decodes(text):
            self._by_row(stream, where, (low, high))
            return 0, 0
        data = b"" if text is None else _encoded(text) + b"\n"
        if clean:
            stream.write(data, clean)
        if clean < every:
            self._by_row(stream, f"{where} AND ({self._sql.clean}) IS NOT TRUE", (low, high))
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

    def _by_order(self, stream: _Stream) -> None:
        if self._sql.clean is not None:
            self._by_row(stream, self._sql.keep, ())
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

    # --------------------------------------------------------------------- rows in Python

    def _by_row(self, stream: _Stream, where: str | None, values: tuple[SourceValue, ...]) -> None:
        """Send rows through the rules, one by one, noting in the ledger what changes."""
        columns = self._plan.copied
        names = [str(c.source) for c in columns]
        lines: list[str] = []
        size = 0
        for row in read_rows(
            self._session.source,
            self._table,
            [*self._key, *names],
            encoding=self._encoding,
            where=where or "",
            parameters=values,
        ):
            key, found = row[: len(self._key)], row[len(self._key) :]
            fields, entries = self._carried(key, columns, found)
            line = "\t".join(fields)
            lines.append(line)
            size += len(line)
            if size >= BLOCK_BYTES or entries:
                stream.write(("\n".join(lines) + "\n").encode(), len(lines))
                lines, size = [], 0
            for entry in entries:
                stream.note(entry)
        if lines:
            stream.write(("\n".join(lines) + "\n").encode(), len(lines))

    def _carried(
        self, key: Row, columns: tuple[ColumnPlan, ...], row: Row
    ) -> tuple[list[str], list[records.LedgerEntry]]:
        fields: list[str] = []
        entries: list[records.LedgerEntry] = []
        for column, value in zip(columns, row, strict=True):
            try:
                after = column.rule.forward(value)
                # A clean column has no ledger entry: preflight tried each of its values.
                changed = not column.clean and column.rule.changes(value)
            except CannotCarry as error:
                raise OperationError(
                    f"table {self._table.name}, key {key_text(key)}, column {column.source}: "
                    f"the plan cannot carry this value: {error}",
                    advice="preflight should have found this: please report it. "
                    "The source is untouched",
                ) from error
            fields.append(escape(after))
            if changed:
                entries.append(self._entry(key, column, value, after))
        return fields, entries

    def _entry(
        self, key: Row, column: ColumnPlan, value: SourceValue, after: str | None
    ) -> records.LedgerEntry:
        return records.LedgerEntry(
            table=self._table.name,
            key=key_text(key),
            column=str(column.source),
            before=to_text(value),
            after=after,
            rule=column.rule.kind,
        )

    # ------------------------------------------------------------------------- huge rows

    def _huge_row(self, stream: _Stream, rowid: int) -> None:
        """Stream a row whose values are too large to hold, piece by piece."""
        here = f"{self._rowid} = ?"
        where = here if self._sql.keep is None else f"{here} AND {self._sql.keep}"
        references = [column_sql(self._table, str(c.source)) for c in self._plan.copied]
        shape: list[Any] = []
        for start in range(0, len(references), SHAPES_AT_ONCE):
            tests = ", ".join(
                f"typeof({r}), ifnull(octet_length({r}), 0)"
                for r in references[start : start + SHAPES_AT_ONCE]
            )
            found = self._session.source.execute(
                compose(
                    "SELECT {tests} FROM {origin} WHERE {where}",
                    tests=tests,
                    origin=self._from,
                    where=where,
                ),
                (rowid,),
            ).fetchone()
            if found is None:
                return  # in quarantine
            shape += found
        noted: list[records.LedgerEntry] = []
        separator = b""
        for column, kind, size in zip(self._plan.copied, shape[::2], shape[1::2], strict=True):
            stream.write(separator, 0)
            separator = b"\t"
            if size > PIECE_BYTES and column.clean and self._streams(column, kind):
                self._stream_value(stream, rowid, column)
            else:
                noted += self._whole_value(stream, rowid, column)
        stream.write(b"\n", 1)
        for entry in noted:
            stream.note(entry)

    def _streams(self, column: ColumnPlan, kind: str) -> bool:
        # Text in another encoding is not in the file as COPY has it.
        return kind == column.rule.streamed and (kind == "blob" or self._encoding == "UTF-8")

    def _stream_value(self, stream: _Stream, rowid: int, column: ColumnPlan) -> None:
        hexed = column.rule.bytea
        if hexed:
            stream.write(b"\\\\x", 0)
        with self._session.source.blob_open(
            "main", self._table.name, str(column.source), rowid, False
        ) as blob:
            while piece := blob.read(PIECE_BYTES):
                stream.write(piece.hex().encode() if hexed else _escaped_bytes(piece), 0)

    def _whole_value(
        self, stream: _Stream, rowid: int, column: ColumnPlan
    ) -> list[records.LedgerEntry]:
        row = next(
            read_rows(
                self._session.source,
                self._table,
                [*self._key, str(column.source)],
                encoding=self._encoding,
                where=f"{self._rowid} = ?",
                parameters=(rowid,),
            )
        )
        fields, entries = self._carried(row[:-1], (column,), row[-1:])
        stream.write(fields[0].encode(), 0)
        return entries

    # ------------------------------------------------------------------------ quarantine

    def quarantine(self) -> int:
        """Keep the rows that the plan sets aside, whole; returns how many."""
        if not self._plan.quarantine:
            return 0
        return records.add_quarantine(self._session.target, self._set_aside())

    def _set_aside(self) -> Iterator[records.QuarantineEntry]:
        """Each row that a predicate names, once, under the first predicate that names it."""
        names = [c.name for c in self._table.columns]
        for position, (predicate, reason) in enumerate(self._plan.set_aside):
            earlier = "".join(f" AND ({p}) IS NOT TRUE" for p in self._plan.quarantine[:position])
            for row in read_rows(
                self._session.source,
                self._table,
                [*self._key, *names],
                encoding=self._encoding,
                where=f"({predicate}){earlier}",
            ):
                key, values = row[: len(self._key)], row[len(self._key) :]
                whole = {n: to_json(v) for n, v in zip(names, values, strict=True)}
                yield records.QuarantineEntry(
                    table=self._table.name,
                    key=key_text(key),
                    reason=reason.text,
                    column=reason.column,
                    row=json.dumps(whole, ensure_ascii=False),
                )


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


def _escaped_bytes(piece: bytes) -> bytes:
    return (
        piece.replace(b"\\", b"\\\\")
        .replace(b"\t", b"\\t")
        .replace(b"\n", b"\\n")
        .replace(b"\r", b"\\r")
    )
