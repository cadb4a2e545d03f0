"""Rows as they are, value by value: the slow, exact way to read a table.

The copier assembles its text inside SQLite; whatever must be looked at singly (ledger, quarantine,
changed keys, the typed comparison's other half) comes through here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import apsw

from migration_job.quoting import compose, sqlite_name
from migration_job.stores.sqlite.catalogue import rowid_name
from migration_job.stores.sqlite.chosen_rows import rows_of
from migration_job.stores.sqlite.model import SourceTable
from migration_job.values import BrokenText, SourceValue, fold

Row = tuple[SourceValue, ...]

ROWID = "\x00rowid"
"""Stands for the rowid in a list of columns; no SQL name can hold a NUL."""

LOWEST_ROWID, HIGHEST_ROWID = -(2**63), 2**63 - 1

BATCH_ROWS = 1_000
BATCH_BYTES = 8_000_000
"""A batch ends at the first of the two, so that memory stays flat however wide the rows are; a
single value larger than this is a batch of its own."""

TEXTS_PER_MASK = 50

KEYS_PER_QUERY = 300
"""Well under SQLite's limit of 32,766 parameters for any key that people make."""


def column_sql(table: SourceTable, column: str) -> str:
    """The SQL reference of a column, qualified by the alias ``t``; of the rowid for ``ROWID``.

    Raises KeyError where the table has no readable rowid.
    """
    if column != ROWID:
        return f"t.{sqlite_name(column)}"
    name = rowid_name(table)
    if name is None:
        raise KeyError(f"{table.name} has no rowid that can be read")
    return f"t.{name}"


def row_order(table: SourceTable) -> str:
    """The terms of ORDER BY that follow the table's own b-tree: the rowid, or the key of a
    WITHOUT ROWID table with its own collations."""
    if not table.without_rowid:
        name = rowid_name(table)
        return f"t.{name}" if name is not None else ""
    return ", ".join(f"t.{sqlite_name(name)}" for name in table.primary_key)


def read_rows(  # noqa: PLR0913 - parts of one SELECT, named
    connection: apsw.Connection,
    table: SourceTable,
    columns: Sequence[str],
    *,
    encoding: str,
    where: str = "",
    parameters: Sequence[SourceValue] = (),
    ordered: bool = True,
) -> Iterator[Row]:
    """Each row's values of ``columns``, exactly, one row in memory at a time.

    ``where`` is a SQLite predicate over the table aliased ``t``; ``ordered`` asks for the order of
    the table's own b-tree. A :class:`BrokenText` parameter needs ``CAST(? AS TEXT)``.
    TEXT that does not decode arrives as :class:`BrokenText` with its bytes
    in the database's encoding (``Catalogue.encoding``).
    """
    # CAST(text AS BLOB) gives the bytes as they lie in the file, in every encoding; SQLite's own
    # conversion from UTF-16 would mend or swallow what does not decode.
    references = [column_sql(table, column) for column in columns]
    values = [
        f"CASE WHEN typeof({r}) = 'text' THEN CAST({r} AS BLOB) ELSE {r} END" for r in references
    ]
    # Which of them are text, 50 columns to an integer: SQLite allows 2,000 terms, not many more
    # than PostgreSQL allows columns.
    masks = [
        " | ".join(
            f"((typeof({r}) = 'text') << {bit})"
            for bit, r in enumerate(references[start : start + TEXTS_PER_MASK])
        )
        for start in range(0, len(references), TEXTS_PER_MASK)
    ]
    order = row_order(table) if ordered else ""
    sql = compose(
        "SELECT {terms} FROM {table} AS t{where}{order}",
        terms=", ".join(values + masks),
        table=rows_of(table),
        where=f" WHERE {where}" if where else "",
        order=f" ORDER BY {order}" if order else "",
    )
    codec = codec_of(encoding)
    width = len(values)
    for row in connection.execute(sql, tuple(bindable(p) for p in parameters)):
        if not any(row[width:]):
            yield row[:width]
            continue
        yield tuple(
            _decoded(value, codec)
            if row[width + i // TEXTS_PER_MASK] >> (i % TEXTS_PER_MASK) & 1
            else value
            for i, value in enumerate(row[:width])
        )


def rowid_bounds(connection: apsw.Connection, table: SourceTable) -> tuple[int, int] | None:
    """The lowest and the highest rowid of a table that has a name for it; None without rows.
    Two lookups in its b-tree: SQLite would scan for both at once."""
    rowid, rows = rowid_name(table), rows_of(table)
    found: tuple[Any, ...] = connection.execute(
        compose(
            "SELECT (SELECT min({rowid}) FROM {rows}), (SELECT max({rowid}) FROM {rows})",
            rowid=rowid,
            rows=rows,
        )
    ).fetchall()[0]
    return None if found[0] is None else (int(found[0]), int(found[1]))


def rowid_ranges(bounds: tuple[int, int], parts: int) -> list[tuple[int, int]]:
    """The first and last rowids of so many parts of a table with these bounds. Together they
    are the whole of it: what wrong bounds would leave out is in the outermost."""
    low, high = bounds
    cuts = [low + (high - low) * n // parts for n in range(1, parts)]
    first, last = [LOWEST_ROWID, *(c + 1 for c in cuts)], [*cuts, HIGHEST_ROWID]
    return list(zip(first, last, strict=True))


def read_by_keys(  # noqa: PLR0913 - parts of one SELECT, named
    connection: apsw.Connection,
    table: SourceTable,
    columns: Sequence[str],
    *,
    encoding: str,
    key: Sequence[str],
    keys: Iterable[Row],
    condition: str = "",
) -> Iterator[Row]:
    """The present rows of the given keys, in no particular order; keys that are gone give nothing,
    nor do rows that do not meet ``condition`` (over the table aliased ``t``).

    Keys are compared under BINARY, whatever the columns' collations; a column's affinity applies
    to the key's value as in any comparison of SQLite's.
    """
    pending: list[Row] = []

    def fetch() -> Iterator[Row]:
        where, values = keys_condition(table, key, pending)
        yield from read_rows(
            connection,
            table,
            columns,
            encoding=encoding,
            where=f"({where}) AND ({condition})" if condition else where,
            parameters=values,
            ordered=False,
        )

    for row in keys:
        pending.append(row)
        if len(pending) * len(key) >= KEYS_PER_QUERY:
            yield from fetch()
            pending = []
    if pending:
        yield from fetch()


@lru_cache(maxsize=4_096)
def _stored(affinity: str, text: str) -> SourceValue:
    memory = apsw.Connection(":memory:")
    memory.execute(compose("CREATE TABLE m(c {affinity})", affinity=affinity))
    memory.execute("INSERT INTO m VALUES (?)", (text,))
    value: SourceValue = memory.execute("SELECT c FROM m").get
    return value


def stored_under(affinity: str | None, value: SourceValue) -> SourceValue:
    """What a column of this affinity makes of a value: of text that looks like a number a number,
    of a whole real an integer or the other way round, of a negative zero the one zero.
    ``affinity`` is None for a column that is not known."""
    if affinity not in ("integer", "real", "numeric"):
        return value
    match value:
        case str():
            return value if "\x00" in value else _stored(affinity, value)
        case int() if affinity == "real":
            return float(value)
        case float() if affinity == "real":
            return value + 0.0
        case float() if value.is_integer() and abs(value) < _INTEGER_END:
            return int(value)
    return value


_INTEGER_END = 2.0**63
"""From here on a whole real stays one."""


def keys_condition(
    table: SourceTable, key: Sequence[str], keys: Sequence[Row]
) -> tuple[str, list[SourceValue]]:
    """A predicate over the table aliased ``t``, true for the rows of the given keys and served by
    the key's index, and its parameters (:func:`bindable` makes them SQLite's)."""
    values = [value for row in keys for value in row]
    where = _one_of(table, key, keys, "")
    collations = {fold(c.name): c.collation.upper() for c in table.columns}
    if all(collations.get(fold(name), "BINARY") == "BINARY" for name in key):
        return where, values
    # The columns' own collation finds the rows by their index (a COLLATE in each term would have
    # SQLite scan the table); BINARY then leaves out those that only look alike.
    exact = _one_of(table, key, keys, " COLLATE BINARY")
    return f"({where}) AND ({exact})", values * 2


def _one_of(table: SourceTable, key: Sequence[str], keys: Sequence[Row], collation: str) -> str:
    terms = [("+" if collation else "") + column_sql(table, name) + collation for name in key]
    return " OR ".join(
        "("
        + " AND ".join(f"{t} IS {_placeholder(v)}" for t, v in zip(terms, row, strict=True))
        + ")"
        for row in keys
    )


def batches(
    rows: Iterable[Row], *, max_rows: int = BATCH_ROWS, max_bytes: int = BATCH_BYTES
) -> Iterator[list[Row]]:
    """The rows in lists of bounded length and size; never an empty list."""
    batch: list[Row] = []
    size = 0
    for row in rows:
        weight = sum(_weight(value) for value in row)
        if batch and (len(batch) >= max_rows or size + weight > max_bytes):
            yield batch
            batch, size = [], 0
        batch.append(row)
        size += weight
    if batch:
        yield batch


def codec_of(encoding: str) -> str:
    """Python's strict codec for ``Catalogue.encoding``."""
    return {"UTF-8": "utf-8", "UTF-16le": "utf-16-le", "UTF-16be": "utf-16-be"}[encoding]


def decode(raw: bytes, codec: str) -> str | BrokenText:
    """The text, or the bytes kept whole where they are not valid."""
    try:
        return raw.decode(codec)
    except UnicodeDecodeError:
        return BrokenText(raw)


def _decoded(raw: SourceValue, codec: str) -> SourceValue:
    return decode(raw, codec) if isinstance(raw, bytes) else raw


def _placeholder(value: SourceValue) -> str:
    return "CAST(? AS TEXT)" if isinstance(value, BrokenText) else "?"


def bindable(value: SourceValue) -> int | float | str | bytes | None:
    """The value as a parameter; text that does not decode goes as its bytes, for a
    ``CAST(? AS TEXT)``."""
    return value.raw if isinstance(value, BrokenText) else value


def _weight(value: SourceValue) -> int:
    match value:
        case str() | bytes():
            return len(value)
        case BrokenText(raw=raw):
            return len(raw)
        case _:
            return 8
