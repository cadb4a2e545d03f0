"""The third way back: whether the source, after a rollback, is what PostgreSQL meant.

It shares no code with the project. The target is read before the rollback, the source after it. A
value that the ledger still accounts for has to be what it was before the migration; any other has
to mean what PostgreSQL's text means, as far as the source's affinity lets it be said.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from tests.integration.independent_compare import (
    Cell,
    Column,
    Records,
    Table,
    TargetTable,
    _explained,
    _key_of,
    _match,
    instant,
)

NUMBERS = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)


def compare_back(
    source: Mapping[str, Table],
    target: Mapping[str, TargetTable],
    records: Records,
    leave: set[str],
) -> list[str]:
    """Every difference in words; tables in ``leave`` are not looked at."""
    complaints: list[str] = []
    for table in source.values():
        if table.name not in leave:
            made = target[records.tables[table.name]]
            complaints += [f"table {table.name!r}: {c}" for c in _rows(table, made, records)]
    return complaints


def _rows(table: Table, target: TargetTable, records: Records) -> list[str]:
    names = records.columns[table.name]
    # What the source computes, and the target does not, is the source's alone.
    compared = [
        c
        for c in table.columns
        if c.name in names and not (c.hidden and names[c.name] not in target.generated)
    ]
    referring = {name for names, _ in table.foreign_keys for name in names}
    ledger = records.ledger.get(table.name, {})
    aside = records.quarantine.get(table.name, {})
    own = [
        (key, row)
        for row, rowid in zip(table.rows, table.rowids, strict=True)
        if (key := _named(table, row, rowid, records)) not in aside
    ]

    def same(key: str, row: Mapping[str, Cell], other: Mapping[str, str | None]) -> bool:
        for column in compared:
            cell, to = row[column.name], names[column.name]
            text, entry = other[to], ledger.get(key, {}).get(column.name)
            if entry is not None and _explained(cell, target.types[to], text, entry, UTC):
                continue
            if means(cell, target.types[to], text, column):
                continue
            # An integer that refers to a text key, which SQLite compares as text.
            if column.name not in referring or cell.storage != "integer" or text is None:
                return False
            if text != str(cell.content) or target.types[to] != "text":
                return False
        return True

    fits = {
        i: [j for j, other in enumerate(target.rows) if same(key, row, other)]
        for i, (key, row) in enumerate(own)
    }
    matched = _match(fits)
    complaints = []
    for i, (key, row) in enumerate(own):
        if i not in matched:
            shown = {n: c.as_json() for n, c in row.items()}
            complaints.append(f"the source has {key} {shown}, which PostgreSQL did not mean")
    for j, other in enumerate(target.rows):
        if j not in matched.values():
            complaints.append(f"PostgreSQL's {other} ({target.types}) did not come home")
    return complaints


def _named(table: Table, row: Mapping[str, Cell], rowid: int | None, records: Records) -> str:
    key = records.keys[table.name]
    if len(key) == 1 and key[0] not in row:  # of a table without a key, which is followed
        return json.dumps([rowid])
    return _key_of(table, row, rowid, records)


def means(cell: Cell, pg_type: str, text: str | None, column: Column) -> bool:
    """Whether the source's value says what PostgreSQL's text says."""
    if text is None or cell.storage == "null":
        return text is None and cell.storage == "null"
    base = re.sub(r"\(.*?\)", "", pg_type)
    numeric = _numeric(column)
    match base:
        case "double precision" if isinstance(cell.content, float):
            # Two spellings of as many digits as it takes may name one number.
            return cell.content == float(text)
        case "smallint" | "integer" | "bigint" | "numeric" | "double precision":
            return _number(cell) == _read_number(text)
        case "boolean":
            return cell.content == {"true": 1, "false": 0}[text]
        case "text" | "character varying":
            return cell.text == text or (numeric and _same_number(cell, text))
        case "bytea":
            content = bytes.fromhex(text[2:])
            if isinstance(cell.content, bytes):
                return cell.content == content
            return numeric and _same_number(cell, content.decode(errors="replace"))
        case "uuid":
            return cell.text is not None and _uuid(cell.text) == uuid.UUID(text)
        case "json":
            return cell.text == text or (numeric and _same_number(cell, text))
        case "jsonb":
            return _document(cell) == _parsed(text)
        case "timestamp with time zone":
            return _same_moment(cell, text)
        case _:
            return cell.text is not None and _clock(cell.text) == _clock(text)


def _numeric(column: Column) -> bool:
    """SQLite's rules of affinity, as its documentation has them: ANY is one of its own in a STRICT
    table, and NUMERIC, as any other word, in another."""
    upper = column.declared.upper()
    if "INT" in upper:
        return True
    named = any(word in upper for word in ("CHAR", "CLOB", "TEXT", "BLOB"))
    return not named and upper != "" and not (column.strict and upper == "ANY")


def _number(cell: Cell) -> Decimal | str | None:
    if cell.storage == "integer":
        return Decimal(int(cell.content or 0))
    if isinstance(cell.content, float):
        return _read_number(repr(cell.content))
    return None if cell.text is None else _read_number(cell.text)


def _read_number(text: str) -> Decimal | str | None:
    try:
        value = Decimal(text.strip())
    except InvalidOperation:
        return None
    return value if value.is_finite() else str(value)


def _same_number(cell: Cell, text: str) -> bool:
    if cell.storage not in ("integer", "real") or not NUMBERS.fullmatch(text):
        return False
    # SQLite's own reading of text as a number: an integer of 64 bits, else a real.
    if cell.storage == "integer":
        return Decimal(text.strip()) == cell.content
    return float(text) == cell.content


def _uuid(text: str) -> uuid.UUID | None:
    try:
        return uuid.UUID(text)
    except ValueError:
        return None


def _parsed(text: str) -> object:
    return json.loads(text, parse_float=Decimal, parse_int=Decimal)


def _document(cell: Cell) -> object:
    if cell.storage in ("integer", "real"):
        return _number(cell)
    try:
        return None if cell.text is None else _parsed(cell.text)
    except ValueError:
        return cell.text


def _same_moment(cell: Cell, text: str) -> bool:
    moment = instant(text)
    if moment is None:  # infinity, before 1, after 9999: PostgreSQL's own words
        return cell.text == text
    if cell.text is not None:
        return instant(cell.text) == moment
    if not isinstance(cell.content, int | float):
        return False
    micros = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // (moment.resolution)
    units: list[Any] = [Decimal(repr(cell.content)) * (1_000_000 // n) for n in (1, 1000, 10**6)]
    julian = micros / 86_400_000_000 + 2440587.5
    return micros in units or abs(julian - cell.content) * 86_400e6 < 50


def _clock(text: str) -> str:
    match = re.fullmatch(r"(\d\d:\d\d)(?::(\d\d)(?:\.(\d+))?)?", text, re.ASCII)
    if match is None:
        return text
    fraction = (match[3] or "").rstrip("0")
    return f"{match[1]}:{match[2] or '00'}" + (f".{fraction}" if fraction else "")
