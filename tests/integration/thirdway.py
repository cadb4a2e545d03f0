"""A third way to compare a SQLite file with the PostgreSQL database made of it.

It shares no code with the project: it reads the source with the standard library's sqlite3 (the
file must be closed by then), the target's text output with psycopg, and decides for itself what a
target value means. What differs must be in the report: a value in the ledger, a row in the
quarantine, a schema object in a finding.
"""

from __future__ import annotations

import re
import sqlite3
import struct
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import psycopg

Report = Mapping[str, Any]

PG_TEXT = {
    "TimeZone": "UTC",
    "DateStyle": "ISO",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "IntervalStyle": "postgres",
}


@dataclass(frozen=True)
class Cell:
    """A source value: its storage class and its content; text is its raw bytes."""

    storage: str
    content: int | float | bytes | None

    @property
    def text(self) -> str | None:
        """The text, None where it is no valid text (or no text at all)."""
        if self.storage != "text":
            return None
        assert isinstance(self.content, bytes)
        try:
            return self.content.decode("utf-8")
        except UnicodeDecodeError:
            return None

    def as_json(self) -> object:
        """What the report documents for a value (README of report.json)."""
        match self.storage:
            case "null":
                return None
            case "integer":
                return self.content
            case "real":
                return {"real": repr(self.content)}
            case "blob":
                assert isinstance(self.content, bytes)
                return {"blob": self.content.hex()}
            case _:
                assert isinstance(self.content, bytes)
                text = self.text
                return {"broken_text": self.content.hex()} if text is None else text


@dataclass(frozen=True)
class Column:
    name: str
    declared: str
    not_null: bool
    default: str | None
    key: int
    hidden: int


@dataclass
class Table:
    name: str
    columns: list[Column]
    rows: list[dict[str, Cell]]
    rowids: list[int | None]
    uniques: list[tuple[str, ...]] = field(default_factory=list)
    foreign_keys: list[tuple[tuple[str, ...], str]] = field(default_factory=list)
    """Child columns and parent table."""

    @property
    def key(self) -> tuple[str, ...]:
        keyed = sorted((c for c in self.columns if c.key), key=lambda c: c.key)
        return tuple(c.name for c in keyed)


def q(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


# ------------------------------------------------------------------------------- the source


def read_source(path: Path) -> dict[str, Table]:
    """Every ordinary table with every value, generated ones included."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    connection.text_factory = bytes
    try:
        found = {}
        virtual = _virtual(connection)
        for raw_name, raw_sql in connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'table'"
            " AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
        ).fetchall():
            name = raw_name.decode()
            if re.match(rb"\s*create\s+virtual", raw_sql, re.I) or any(
                name.startswith(v + "_") for v in virtual
            ):
                continue
            found[name] = _read_table(connection, name)
        return found
    finally:
        connection.close()


def _virtual(connection: sqlite3.Connection) -> list[str]:
    rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'")
    return [n.decode() for n, s in rows if s and re.match(rb"\s*create\s+virtual", s, re.I)]


def _read_table(connection: sqlite3.Connection, name: str) -> Table:
    columns = [
        Column(
            name=row[1].decode(),
            declared=row[2].decode(),
            not_null=bool(row[3]),
            default=None if row[4] is None else row[4].decode(),
            key=row[5],
            hidden=row[6],
        )
        for row in connection.execute(f"PRAGMA table_xinfo({q(name)})").fetchall()
        if row[6] != 1
    ]
    parts = []
    for column in columns:
        ref = f"t.{q(column.name)}"
        parts += [
            f"typeof({ref})",
            f"CASE typeof({ref}) WHEN 'text' THEN CAST({ref} AS BLOB) ELSE {ref} END",
        ]
    encoding = connection.execute("PRAGMA encoding").fetchone()[0].decode()
    rowid = _rowid_name(connection, name, columns)
    parts.append(f"t.{rowid}" if rowid else "NULL")
    rows, rowids = [], []
    for raw in connection.execute(f"SELECT {', '.join(parts)} FROM {q(name)} t"):
        row = {}
        for index, column in enumerate(columns):
            storage, content = raw[2 * index].decode(), raw[2 * index + 1]
            if storage == "text" and encoding != "UTF-8":
                content = _utf8(content, encoding)
            row[column.name] = Cell(storage, content)
        rows.append(row)
        rowids.append(raw[-1])
    table = Table(name, columns, rows, rowids)
    for _, index, unique, origin, partial, *_ in connection.execute(
        f"PRAGMA index_list({q(name)})"
    ).fetchall():
        terms = connection.execute(f"PRAGMA index_xinfo({q(index.decode())})").fetchall()
        keyed = [t for t in terms if t[5]]
        plain = all(t[1] >= 0 and t[4] == b"BINARY" for t in keyed)
        if unique and not partial and plain and origin != b"pk":
            table.uniques.append(tuple(t[2].decode() for t in keyed))
    keys: dict[int, tuple[list[str], str]] = {}
    for number, _, parent, child, *_ in connection.execute(
        f"PRAGMA foreign_key_list({q(name)})"
    ).fetchall():
        keys.setdefault(number, ([], parent.decode()))[0].append(child.decode())
    table.foreign_keys = [(tuple(sorted(c)), p) for c, p in keys.values()]
    return table


def _utf8(raw: bytes, encoding: str) -> bytes:
    codec = {"UTF-16le": "utf-16-le", "UTF-16be": "utf-16-be"}[encoding]
    try:
        return raw.decode(codec).encode()
    except UnicodeDecodeError:
        return b"\xff" + raw  # not valid as what it is; must not pass for valid


def _rowid_name(
    connection: sqlite3.Connection, table: str, columns: Sequence[Column]
) -> str | None:
    taken = {c.name.lower() for c in columns}
    for candidate in ("rowid", "_rowid_", "oid"):
        if candidate not in taken:
            try:
                connection.execute(f"SELECT {candidate} FROM {q(table)} LIMIT 1")
            except sqlite3.OperationalError:
                return None
            return candidate
    return None


# ------------------------------------------------------------------------------- the target


@dataclass
class TargetTable:
    name: str
    types: dict[str, str]
    not_null: dict[str, bool]
    defaults: dict[str, str]
    generated: set[str]
    rows: list[dict[str, str | None]]
    primary_key: tuple[str, ...]
    uniques: list[frozenset[str]]
    foreign_keys: list[tuple[tuple[str, ...], str]]


def read_target(dsn: str, schema: str = "public") -> dict[str, TargetTable]:
    """Every table of the schema, every value as PostgreSQL's text output."""
    found = {}
    with psycopg.connect(dsn, autocommit=True) as connection:
        for name, value in PG_TEXT.items():
            connection.execute(f"SET {name} = '{value}'")
        for oid, name in connection.execute(
            "SELECT c.oid, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE n.nspname = %s AND c.relkind IN ('r', 'p')",
            (schema,),
        ).fetchall():
            found[name] = _read_target_table(connection, oid, schema, name)
    return found


def _read_target_table(
    connection: psycopg.Connection[Any], oid: int, schema: str, name: str
) -> TargetTable:
    attributes = connection.execute(
        "SELECT attname, format_type(atttypid, atttypmod), attnotnull, attgenerated,"
        " pg_get_expr(adbin, adrelid) FROM pg_attribute"
        " LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum"
        " WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        (oid,),
    ).fetchall()
    names = [a[0] for a in attributes]
    values = ", ".join(f"t.{q(n)}::text" for n in names) or "NULL"
    rows = connection.execute(
        f"SELECT {values} FROM {q(schema)}.{q(name)} t".encode()
    ).fetchall()
    keys = connection.execute(
        "SELECT i.indisprimary, array_agg(a.attname::text ORDER BY k.ord)"
        " FROM pg_index i"
        " CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY k(num, ord)"
        " JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.num"
        " WHERE i.indrelid = %s AND i.indisunique AND i.indisvalid AND i.indpred IS NULL"
        " AND i.indexprs IS NULL GROUP BY i.indexrelid, i.indisprimary",
        (oid,),
    ).fetchall()
    foreign = connection.execute(
        "SELECT array_agg(a.attname::text ORDER BY a.attname), p.relname"
        " FROM pg_constraint c JOIN pg_class p ON p.oid = c.confrelid"
        " CROSS JOIN LATERAL unnest(c.conkey) k(num)"
        " JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.num"
        " WHERE c.conrelid = %s AND c.contype = 'f' GROUP BY c.oid, p.relname",
        (oid,),
    ).fetchall()
    return TargetTable(
        name=name,
        types={a[0]: a[1] for a in attributes},
        not_null={a[0]: a[2] for a in attributes},
        defaults={a[0]: a[4] for a in attributes if a[4] is not None and not a[3]},
        generated={a[0] for a in attributes if a[3]},
        rows=[dict(zip(names, row, strict=False)) for row in rows],
        primary_key=next((tuple(k[1]) for k in keys if k[0]), ()),
        uniques=[frozenset(k[1]) for k in keys],
        foreign_keys=[(tuple(f[0]), f[1]) for f in foreign],
    )


# --------------------------------------------------------------------- when a value is the same

STAMP = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[ T](\d\d):(\d\d)(?::(\d\d)(\.\d+)?)?\s?(Z|[+-]\d\d(?::?\d\d)?)?"
)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
UNITS = {"s": 1, "ms": 1000, "us": 1_000_000}


def instant(text: str) -> datetime | None:
    """An ISO time as an instant, UTC where it names no zone; None where it is none."""
    match = STAMP.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute = (int(match[i]) for i in range(1, 6))
    fraction = (match[7] or ".0")[1:]
    if len(fraction.rstrip("0")) > 6:
        return None
    try:
        moment = datetime(year, month, day, hour, minute, int(match[6] or 0), tzinfo=UTC)
        moment += timedelta(microseconds=int(fraction.ljust(6, "0")[:6]))
        zone = match[8]
        if zone and zone != "Z":
            digits = zone[1:].replace(":", "").ljust(4, "0")
            offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
            moment -= offset if zone[0] == "+" else -offset
    except (ValueError, OverflowError):
        return None
    return moment


def same(cell: Cell, pg_type: str, text: str | None) -> bool:
    """Whether the target's text is exactly the source's value in that type."""
    if cell.storage == "null" or text is None:
        return cell.storage == "null" and text is None
    base = pg_type.split("(")[0]
    content = cell.content
    if base in ("smallint", "integer", "bigint"):
        return cell.storage == "integer" and int(text) == content
    if base == "boolean":
        return cell.storage == "integer" and {"true": 1, "false": 0}[text] == content
    if base == "double precision":
        return (
            cell.storage == "real"
            and isinstance(content, float)
            and struct.pack("<d", float(text)) == struct.pack("<d", content)
        )
    if base == "numeric":
        return _same_numeric(cell, text)
    if base in ("text", "character varying", "uuid", "json", "citext"):
        return cell.text == text
    if base == "bytea":
        return cell.storage == "blob" and text == "\\x" + content.hex()  # type: ignore[union-attr]
    if pg_type.startswith("timestamp"):
        return _same_instant(cell, text)
    if base in ("date", "time") or pg_type.startswith("time"):
        return cell.text is not None and _time(cell.text) == _time(text)
    return False


def _same_numeric(cell: Cell, text: str) -> bool:
    if cell.storage == "integer":
        try:
            return Decimal(text) == cell.content
        except InvalidOperation:
            return False
    # A real that is a whole number within int64 would be read back as an integer, so the column
    # as a whole must not mix both; `ambiguous` below looks at that.
    return cell.storage == "real" and struct.pack("<d", float(text)) == struct.pack(
        "<d", cell.content
    )


def _same_instant(cell: Cell, text: str) -> bool:
    moment = instant(text)
    if moment is None:
        return False
    if cell.storage == "integer":
        micros = (moment - EPOCH) // timedelta(microseconds=1)
        assert isinstance(cell.content, int)
        return any(cell.content * 1_000_000 == micros * per for per in UNITS.values())
    if cell.storage == "real":
        return False
    return cell.text is not None and instant(cell.text) == moment


def _time(text: str) -> str:
    """A time of day or date with a canonical fraction."""
    match = re.fullmatch(r"(\d\d:\d\d)(?::(\d\d)(?:\.(\d+))?)?", text)
    if match is None:
        return text
    fraction = (match[3] or "").rstrip("0")
    return f"{match[1]}:{match[2] or '00'}" + (f".{fraction}" if fraction else "")


def shape(text: str) -> str:
    """A time's form: digits as 9, so that the form alone tells how to write the value back."""
    return re.sub(r"\d", "9", text)


# --------------------------------------------------------------------------- the comparison


def compare(source: Mapping[str, Table], target: Mapping[str, TargetTable], report: Report) -> list[str]:
    """Every unexplained difference, in words; [] where every value arrived or is accounted for."""
    complaints: list[str] = []
    names = target_names(source, report)
    claimed: set[str] = set()
    for table in source.values():
        wanted = names[table.name]
        if wanted not in target:
            complaints.append(f"table {table.name!r}: not on the target as {wanted!r}")
            continue
        claimed.add(wanted)
        complaints += _compare_table(table, target[wanted], report)
    for extra in set(target) - claimed:
        complaints.append(f"table {extra!r}: on the target, not on the source")
    return complaints


def target_names(source: Iterable[str], report: Report) -> dict[str, str]:
    """Source table -> target table: the same name, unless the report says that it was renamed."""
    renamed = {
        f["table"]: f["target"]
        for f in report.get("renamed", ())
        if f.get("column") is None
    }
    return {name: renamed.get(name, name) for name in source}
