"""Text that PostgreSQL cannot hold: with a NUL character, or with undecodable bytes."""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from typing import Any

import apsw

from migration_job.plan.facts import ColumnFacts
from migration_job.plan.row_names import Span, identity_columns, show_key, shown_columns, within
from migration_job.quoting import compose
from migration_job.stores.sqlite.catalogue import rowid_name
from migration_job.stores.sqlite.chosen_rows import rows_of, scan_of
from migration_job.stores.sqlite.model import SourceTable
from migration_job.stores.sqlite.reader import (
    HIGHEST_ROWID,
    LOWEST_ROWID,
    ROWID,
    column_sql,
    read_rows,
)
from migration_job.values import BrokenText, display

BLOCK_ROWS = 2_000
BLOCK_BYTES = 4_000_000
LARGE_VALUE = 1_000_000
PIECE = 1_000_000

COLUMNS_AT_ONCE = 300
"""Well under SQLite's limit of 2,000 terms of a SELECT."""

SEPARATOR = "char(31)"
"""Between values in a block: one ASCII byte, so that no broken end of one value can be mended by
the beginning of the next."""


class TextReader:
    """Looks at the text of one consistent state of a source through one connection."""

    def __init__(self, connection: apsw.Connection, encoding: str) -> None:
        self._connection = connection
        self._encoding = encoding

    def look(self, table: SourceTable, facts: Mapping[str, ColumnFacts], span: Span = None) -> None:
        """Find every text with a NUL character or undecodable bytes, and note it in ``facts``."""
        columns = [n for n, f in facts.items() if f.texts and not f.unreadable]
        if not columns:
            return
        if self._encoding != "UTF-8" or rowid_name(table) is None:
            self._look_singly(table, facts, columns, "", ())
            return
        for start in range(0, len(columns), COLUMNS_AT_ONCE):
            self._look_at(table, facts, columns[start : start + COLUMNS_AT_ONCE], span)

    def _look_at(
        self,
        table: SourceTable,
        facts: Mapping[str, ColumnFacts],
        columns: list[str],
        span: Span,
    ) -> None:
        large = [n for n in columns if facts[n].heaviest > LARGE_VALUE]
        references = []
        for name in columns:
            c = column_sql(table, name)
            tests = [f"typeof({c}) = 'text'"] if facts[name].blobs else []
            tests += [f"octet_length({c}) <= {LARGE_VALUE}"] if name in large else []
            references.append(f"CASE WHEN {' AND '.join(tests)} THEN {c} END" if tests else c)
        self._look_in_blocks(table, facts, columns, references, span)
        for name in large:
            self._look_in_pieces(table, facts[name], name, span)

    def _look_in_blocks(
        self,
        table: SourceTable,
        facts: Mapping[str, ColumnFacts],
        columns: list[str],
        references: list[str],
        span: Span,
    ) -> None:
        rowid = column_sql(table, ROWID)
        weight = sum(min(facts[n].heaviest, LARGE_VALUE) for n in columns)
        limit = max(1, min(BLOCK_ROWS, BLOCK_BYTES // max(1, weight) + 1))
        text = (
            f"concat_ws({SEPARATOR}, {', '.join(references)})"
            if len(references) > 1
            else references[0]
        )
        if span is None and facts[columns[0]].rows <= limit:
            sql = f"SELECT CAST(group_concat({text}, {SEPARATOR}) AS BLOB) "
            sql += f"FROM {scan_of(table)}"
            whole: tuple[Any, ...] = self._connection.execute(sql).fetchall()[0]
            (block,) = whole
            if block is not None and _suspicious(block):
                self._look_singly(table, facts, columns, "", ())
            return
        sql = compose(
            "SELECT max(r), CAST(group_concat(s, {separator}) AS BLOB) FROM "
            "(SELECT {rowid} AS r, {text} AS s FROM {table} AS t "
            "WHERE {rowid} BETWEEN ? AND ? ORDER BY {rowid} LIMIT {limit})",
            separator=SEPARATOR,
            rowid=rowid,
            text=text,
            table=rows_of(table),
            limit=limit,
        )
        start, end = span or (LOWEST_ROWID, HIGHEST_ROWID)
        while start <= end:
            found: tuple[Any, ...] = self._connection.execute(sql, (start, end)).fetchall()[0]
            last, block = found
            if last is None:
                return
            if block is not None and _suspicious(block):
                self._look_singly(table, facts, columns, f"{rowid} BETWEEN ? AND ?", (start, last))
            start = int(last) + 1

    def _look_singly(
        self,
        table: SourceTable,
        facts: Mapping[str, ColumnFacts],
        columns: list[str],
        where: str,
        parameters: tuple[int, ...],
    ) -> None:
        identity, shown = identity_columns(table), shown_columns(table)
        rows = read_rows(
            self._connection,
            table,
            [*identity, *shown, *columns],
            encoding=self._encoding,
            where=where,
            parameters=parameters,
        )
        start = len(identity) + len(shown)
        for row in rows:
            for name, value in zip(columns, row[start:], strict=True):
                if isinstance(value, BrokenText):
                    found = facts[name].broken
                elif isinstance(value, str) and "\x00" in value:
                    found = facts[name].nul
                else:
                    continue
                key = show_key(shown, row[len(identity) : start])
                found.add(row[: len(identity)], key, display(value, 60))

    def _look_in_pieces(
        self, table: SourceTable, facts: ColumnFacts, name: str, span: Span
    ) -> None:
        """The large texts of a UTF-8 database, a piece at a time."""
        c = column_sql(table, name)
        where = f"typeof({c}) = 'text' AND octet_length({c}) > {LARGE_VALUE}"
        if span is not None:
            where += f" AND {within(table, span)}"
        shown = shown_columns(table)
        if any(c.generated for c in table.columns):
            # SQLite opens no value of such a table to be read in pieces.
            self._look_singly(table, {name: facts}, [name], where, ())
            return
        large = list(
            read_rows(
                self._connection, table, [ROWID, *shown], encoding=self._encoding, where=where
            )
        )
        for row in large:
            decoder = codecs.getincrementaldecoder("utf-8")()
            key = show_key(shown, row[1:])
            with self._connection.blob_open("main", table.name, name, row[0], False) as blob:  # type: ignore[arg-type]
                try:
                    while piece := blob.read(PIECE):
                        decoder.decode(piece)
                        if b"\x00" in piece:
                            facts.nul.add(row[:1], key, f"{blob.length():,} bytes with a NUL")
                    decoder.decode(b"", final=True)
                except UnicodeDecodeError:
                    facts.broken.add(row[:1], key, f"{blob.length()} undecodable bytes")


def _suspicious(block: bytes) -> bool:
    if b"\x00" in block:
        return True
    try:
        block.decode()
    except UnicodeDecodeError:
        return True
    return False
