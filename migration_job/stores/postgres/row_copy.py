"""Rows that pass through Python on their way: those that rules change, and those that are too
large to hold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from migration_job.errors import OperationError
from migration_job.plan.model import ColumnPlan, TablePlan
from migration_job.plan.rules import CannotCarry
from migration_job.quoting import compose
from migration_job.stores.postgres import records
from migration_job.stores.postgres.copy_stream import BLOCK_BYTES, Session, TableStream
from migration_job.stores.postgres.copytext import escape
from migration_job.stores.sqlite.catalogue import rowid_name
from migration_job.stores.sqlite.chosen_rows import rows_of
from migration_job.stores.sqlite.model import SourceTable
from migration_job.stores.sqlite.reader import Row, column_sql, read_rows
from migration_job.stores.sqlite.rowkey import key_columns
from migration_job.values import SourceValue, key_text, to_json, to_text

PIECE_BYTES = 1 << 20

BARE_TRIES = 3

SHAPES_AT_ONCE = 500
"""Columns whose sizes are asked for at once: a SELECT has 2,000 terms at most."""


class RowCopy:
    """Sends single rows of one table, and keeps those that the plan sets aside."""

    def __init__(
        self,
        session: Session,
        plan: TablePlan,
        table: SourceTable,
        encoding: str,
        keep: str | None,
    ) -> None:
        """``keep`` is the condition for the rows that the target is to have; None: all."""
        self._session = session
        self._plan = plan
        self._table = table
        self._encoding = encoding
        self._keep = keep
        self._key = key_columns(plan.key, table)
        self._from = f"{rows_of(table)} AS t"
        self._rowid = rowid_name(table)

    def copy(self, stream: TableStream, where: str | None, values: tuple[SourceValue, ...]) -> None:
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

    def stream(self, stream: TableStream, rowid: int) -> None:
        """Stream a row whose values are too large to hold, piece by piece."""
        here = f"{self._rowid} = ?"
        where = here if self._keep is None else f"{here} AND {self._keep}"
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

    def _stream_value(self, stream: TableStream, rowid: int, column: ColumnPlan) -> None:
        hexed = column.rule.bytea
        if hexed:
            stream.write(b"\\\\x", 0)
        with self._session.source.blob_open(
            "main", self._table.name, str(column.source), rowid, False
        ) as blob:
            while piece := blob.read(PIECE_BYTES):
                stream.write(piece.hex().encode() if hexed else _escaped_bytes(piece), 0)

    def _whole_value(
        self, stream: TableStream, rowid: int, column: ColumnPlan
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


def _escaped_bytes(piece: bytes) -> bytes:
    return (
        piece.replace(b"\\", b"\\\\")
        .replace(b"\t", b"\\t")
        .replace(b"\n", b"\\n")
        .replace(b"\r", b"\\r")
    )
