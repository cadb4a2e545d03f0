"""A third way to compare a SQLite file with the PostgreSQL database made of it.

It shares no code with the project: it reads the source with the standard library's sqlite3 (the
file must be closed by then; virtual columns alone are computed by the SQLite that the project
uses), the target's text output with psycopg, and decides for itself what a target value means. What
differs must be in the report: a value in the ledger, a row in the quarantine, a schema object in a
finding.
"""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
import struct
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from pathlib import Path
from typing import Any

import apsw
import psycopg

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
    broken: bool = False
    """Text whose bytes are not valid in the file's encoding; they are as they lie in the file."""

    @property
    def text(self) -> str | None:
        """The text, None where it is no valid text (or no text at all)."""
        if self.storage != "text" or self.broken:
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
    strict: bool
    """Whether its table is STRICT, where ANY keeps each value as it was written."""


@dataclass
class Table:
    name: str
    columns: list[Column]
    rows: list[dict[str, Cell]]
    rowids: list[int | None]
    has_rowid: bool = False
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
    _stand_in_collations(connection)
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
    finally:
        connection.close()
    if apsw.sqlite_lib_version() != sqlite3.sqlite_version:
        for table in found.values():
            _compute_anew(path, table)
    return found


def _compute_anew(path: Path, table: Table) -> None:
    """Virtual columns are not in the file: each SQLite computes them, and versions differ in how
    many digits of a real become text. The report says whose values were carried: apsw's."""
    virtual = [c.name for c in table.columns if c.hidden == 2]
    if not virtual:
        return
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        ((encoding,),) = connection.execute("PRAGMA encoding").fetchall()
        for name in virtual:
            ref = f"t.{q(name)}"
            text = f"CASE typeof({ref}) WHEN 'text' THEN CAST({ref} AS BLOB) ELSE {ref} END"
            try:
                values = connection.execute(
                    f"SELECT typeof({ref}), {text} FROM {q(table.name)} t"
                ).fetchall()
            except apsw.Error:
                continue  # a value that a STRICT table refuses, which older versions let pass
            for row, (storage, content) in zip(table.rows, values, strict=True):
                row[name] = _cell(str(storage), content, str(encoding))
    finally:
        connection.close()


def _cell(storage: str, content: apsw.SQLiteValue, encoding: str) -> Cell:
    """What apsw gave; a text as the bytes that lie in the file."""
    assert not isinstance(content, str)
    if storage != "text":
        return Cell(storage, content)
    assert isinstance(content, bytes)
    return _text(content, encoding)


def _stand_in_collations(connection: sqlite3.Connection) -> None:
    """SQLite does not even open a table that is in the order of an unknown collation."""
    statements = connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")
    for (sql,) in statements.fetchall():
        for name in re.findall(rb"COLLATE\s+(\w+)", sql, re.I):
            if name.upper() not in (b"BINARY", b"NOCASE", b"RTRIM"):
                connection.create_collation(name.decode(), lambda a, b: (a > b) - (a < b))


def _virtual(connection: sqlite3.Connection) -> list[str]:
    rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'")
    return [n.decode() for n, s in rows if s and re.match(rb"\s*create\s+virtual", s, re.I)]


def _read_table(connection: sqlite3.Connection, name: str) -> Table:
    ((strict,),) = connection.execute(
        "SELECT strict FROM pragma_table_list(?) WHERE schema = 'main'", (name,)
    ).fetchall()
    columns = [
        Column(
            name=row[1].decode(),
            declared=row[2].decode(),
            not_null=bool(row[3]),
            default=None if row[4] is None else row[4].decode(),
            key=row[5],
            hidden=row[6],
            strict=bool(strict),
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
            row[column.name] = (
                _text(content, encoding) if storage == "text" else Cell(storage, content)
            )
        rows.append(row)
        rowids.append(raw[-1])
    table = Table(name, columns, rows, rowids, has_rowid=rowid is not None)
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


def _text(raw: bytes, encoding: str) -> Cell:
    codec = {"UTF-8": "utf-8", "UTF-16le": "utf-16-le", "UTF-16be": "utf-16-be"}[encoding]
    try:
        return Cell("text", raw.decode(codec).encode())
    except UnicodeDecodeError:
        return Cell("text", raw, broken=True)


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


Target = str | psycopg.Connection[Any]
"""A connection string, or a session of autocommit that is open already."""


@contextlib.contextmanager
def _session(target: Target) -> Iterator[psycopg.Connection[Any]]:
    if isinstance(target, str):
        with psycopg.connect(target, autocommit=True) as connection:
            yield connection
    else:
        yield target


def read_target(target: Target, schema: str = "public") -> dict[str, TargetTable]:
    """Every table of the schema, every value as PostgreSQL's text output."""
    found = {}
    with _session(target) as connection:
        connection.execute("; ".join(f"SET {n} = '{v}'" for n, v in PG_TEXT.items()))
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
    rows = connection.execute(f"SELECT {values} FROM {q(schema)}.{q(name)} t".encode()).fetchall()
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
    r"(\d{4})-(\d\d)-(\d\d)(?:[ Tt](\d\d):(\d\d)(?::(\d\d)(\.\d+)?)?)?"
    r"\s?(Z|z|UTC|GMT|[+-]\d\d(?::?\d\d)?)?",
    re.ASCII,
)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
UNITS = {"seconds": 1, "milliseconds": 1000, "microseconds": 1_000_000}


def instant(text: str, zone: tzinfo = UTC) -> datetime | None:
    """An ISO time as an instant, in ``zone`` where it names none; None where it is no time."""
    match = STAMP.fullmatch(text)
    if match is None:
        return None
    fraction = (match[7] or ".0")[1:]
    if fraction[6:].strip("0"):
        return None
    try:
        moment = datetime(
            int(match[1]),
            int(match[2]),
            int(match[3]),
            int(match[4] or 0),
            int(match[5] or 0),
            int(match[6] or 0),
            int(fraction.ljust(6, "0")[:6]),
        )
        said = match[8]
        if not said:
            return moment.replace(tzinfo=zone).astimezone(UTC)
        moment = moment.replace(tzinfo=UTC)
        if said[0] in "+-":
            digits = said[1:].replace(":", "").ljust(4, "0")
            offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
            moment -= offset if said[0] == "+" else -offset
    except (ValueError, OverflowError):
        return None
    return moment


def forms(cell: Cell, pg_type: str, text: str | None, zone: tzinfo = UTC) -> set[str]:  # noqa: C901, PLR0912 - one branch a form, on purpose plain
    """In which ways the target's text can stand for exactly this source value; empty where in
    none. All values of a column have to agree on one way (or on ways that the text itself tells
    apart), else nobody could say what the source held."""
    if cell.storage == "null" or text is None:
        return {"*"} if cell.storage == "null" and text is None else set()
    base = pg_type.split("(")[0]
    integer = cell.content if cell.storage == "integer" else None
    if base in ("smallint", "integer", "bigint"):
        if cell.text is not None:
            return {"digits"} if cell.text == text else set()
        return {"integer"} if integer is not None and int(text) == integer else set()
    if base == "boolean":
        return (
            {"flag"} if integer is not None and {"true": 1, "false": 0}[text] == integer else set()
        )
    if base == "double precision":
        return {"real"} if _same_real(cell, text) else set()
    if base == "numeric":
        return _numeric_forms(cell, text)
    if base in ("text", "character varying", "citext"):
        if integer is not None:
            return {"digits"} if text == str(integer) else set()
        return {"text"} if cell.text == text else set()
    if base == "json":
        return _json_forms(cell, text)
    if base == "jsonb":
        return _jsonb_forms(cell, text)
    if base == "uuid":
        return _uuid_forms(cell, text)
    if base == "bytea":
        return _bytea_forms(cell, text)
    if base == "timestamp" or pg_type == "timestamp with time zone":
        return _instant_forms(cell, text, zone)
    if base == "date" or base == "time" or pg_type == "time without time zone":
        if cell.text is None or _time(cell.text) != _time(text):
            return set()
        return _shapes(cell.text)
    return set()


def _same_real(cell: Cell, text: str) -> bool:
    """Whether the text is the real; a text that is no number is none."""
    try:
        found = float(text)
    except ValueError:
        return False
    return cell.storage == "real" and struct.pack("<d", found) == struct.pack("<d", cell.content)


def _numeric_forms(cell: Cell, text: str) -> set[str]:
    if cell.storage == "integer":
        # 5 and 5.0 in one column are told apart by the point, as long as the scale is free.
        return {"*" if "." not in text else "whole"} if Decimal(text) == cell.content else set()
    if _same_real(cell, text):
        fixed = "." in text and text.rstrip("0").endswith(".") and not text.endswith(".0")
        # Beyond 64 bits SQLite has no integer that it could be.
        fixed = fixed and -(2**63) <= Decimal(text) < 2**63
        return {"whole real"} if fixed else {"*"}
    return set()


def _json_forms(cell: Cell, text: str) -> set[str]:
    if cell.storage == "text":
        numeric = re.fullmatch(r"-?\d+(\.\d+)?([eE][+-]?\d+)?", text, re.ASCII)
        return {"number text" if numeric else "*"} if cell.text == text else set()
    if cell.storage == "integer":
        return {"number"} if text == str(cell.content) else set()
    return {"number"} if _same_real(cell, text) else set()


def _jsonb_forms(cell: Cell, text: str) -> set[str]:
    """jsonb keeps no spelling: only documents that are spelled in one style can be written back
    from what it prints."""
    if cell.text is None:
        return set()
    strings = re.compile(r'("(?:[^"\\]|\\.)*")')
    pieces = strings.split(text)
    compact = "".join(p if i % 2 else p.replace(" ", "") for i, p in enumerate(pieces))
    spellings = {"spaced": text, "compact": compact}
    for name, spelling in list(spellings.items()):
        spellings[f"{name} ascii"] = re.sub(
            r"[^\x00-\x7f]", lambda m: json.dumps(m[0])[1:-1], spelling
        )
    return {name for name, spelling in spellings.items() if spelling == cell.text}


_LIKE_A_NUMBER = re.compile(r"[0-9]+(e[0-9]+)?")


def _uuid_forms(cell: Cell, text: str) -> set[str]:
    spellings = {
        "lower": text,
        "upper": text.upper(),
        "hex": text.replace("-", ""),
        "HEX": text.replace("-", "").upper(),
    }
    found = {name for name, spelling in spellings.items() if cell.text == spelling}
    if cell.text == text and _LIKE_A_NUMBER.fullmatch(spellings["hex"]):
        # Without hyphens a column of numeric affinity would have made a number of it.
        found.add("hex")
    return found


def _bytea_forms(cell: Cell, text: str) -> set[str]:
    if cell.storage not in ("blob", "text"):
        return set()
    assert isinstance(cell.content, bytes)
    return {cell.storage} if text == "\\x" + cell.content.hex() else set()


def _instant_forms(cell: Cell, text: str, zone: tzinfo) -> set[str]:
    moment = instant(text)
    if moment is None:
        return set()
    if isinstance(cell.content, int | float):
        if cell.content in (float("inf"), float("-inf")):
            return set()
        micros = (moment - EPOCH) // MICROSECOND
        return {
            unit
            for unit, per in UNITS.items()
            if Fraction(cell.content) * (1_000_000 // per) == micros
        } | ({"julian"} if _is_julian(cell, micros) else set())
    if cell.text is None or instant(cell.text, zone) != moment:
        return set()
    return _shapes(cell.text)


def _is_julian(cell: Cell, micros: int) -> bool:
    return cell.storage == "real" and micros / 86_400_000_000 + 2440587.5 == cell.content


def _time(text: str) -> str:
    """A time of day or date with a canonical fraction."""
    match = re.fullmatch(r"(\d\d:\d\d)(?::(\d\d)(?:\.(\d+))?)?", text, re.ASCII)
    if match is None:
        return text
    fraction = (match[3] or "").rstrip("0")
    return f"{match[1]}:{match[2] or '00'}" + (f".{fraction}" if fraction else "")


_CLOCK = re.compile(r"(99:99)(:99)?(\.9+)?")


def _shapes(text: str) -> set[str]:
    """A time's forms: its own, and each coarser one that columns have whose values say more only
    where there is more to say (``99:99+.9``: to the minute, and to a tenth where need be)."""
    shape = _shape(text)
    clock = _CLOCK.search(shape)
    if clock is None:
        return {shape, *(f"{shape}+{'.9' * bool(n)}{'9' * (n - 1)}" for n in range(7))}
    minutes, seconds, fraction = clock.groups()
    said = text[clock.start() : clock.end()]
    whole = shape[: clock.start()], shape[clock.end() :]
    found = {shape}
    own = fraction or ""
    if fraction is None:
        finer = ["", *(f".{'9' * n}" for n in range(1, 7))]
        found |= {f"{whole[0]}{minutes}{seconds or ''}{whole[1]}+{f}" for f in finer}
    coarser = []
    if fraction:
        # To a tenth, and to a millionth where need be.
        digits = said.rpartition(".")[2]
        found |= {f"{shape}+.{'9' * n}" for n in range(len(digits) + 1, 7)}
        some = [n for n in range(1, len(digits)) if digits[n:].strip("0")]
        coarser += [f"{whole[0]}{minutes}{seconds}.{'9' * n}{whole[1]}" for n in some]
    if fraction and said.rpartition(".")[2].strip("0"):
        coarser.append(f"{whole[0]}{minutes}:99{whole[1]}")
    if seconds and said[5:].strip(":.0"):
        coarser.append(f"{whole[0]}{minutes}{whole[1]}")
    if seconds and whole[0] and said.strip(":.0"):
        coarser.append(whole[0].rstrip(" Tt") + whole[1])
    return found | {f"{form}+{own}" for form in coarser}


def _shape(text: str) -> str:
    """A time's form: its digits as 9, its offset as it is."""
    zone = re.search(r"[+-]\d\d(:?\d\d)?$", text[10:])
    cut = len(text) if zone is None else 10 + zone.start()
    return re.sub(r"\d", "9", text[:cut]) + text[cut:]


# ------------------------------------------------------------------------- the job's own records


@dataclass(frozen=True)
class LedgerRow:
    before: object
    after: str | None
    rule: str


@dataclass
class Records:
    """What the run says of itself, read from schema ``migration`` of the target."""

    tables: dict[str, str]
    """Source table -> target table."""
    columns: dict[str, dict[str, str]]
    """Source table -> source column -> target column."""
    keys: dict[str, tuple[str, ...]]
    """Source table -> the columns of the key that its rows are named by; () for the rowid."""
    ledger: dict[str, dict[str, dict[str, LedgerRow]]]
    """Source table -> key -> column -> row."""
    quarantine: dict[str, dict[str, object]]
    """Source table -> key -> the whole row."""


def read_records(target: Target) -> Records:
    with _session(target) as connection:
        row = connection.execute("SELECT plan FROM migration.run").fetchone()
        assert row is not None, "the target holds no run"
        plan = json.loads(row[0])
        tables = [t for t in plan["tables"] if t["source"] is not None]
        records = Records(
            tables={t["source"]: t["target"] for t in tables},
            columns={
                t["source"]: {
                    c["source"]: c["target"] for c in t["columns"] if c["source"] is not None
                }
                for t in tables
            },
            keys={t["source"]: tuple(t["key"]) for t in tables},
            ledger=defaultdict(lambda: defaultdict(dict)),
            quarantine=defaultdict(dict),
        )
        for table, key, column, before, after, rule in connection.execute(
            "SELECT tab, key, col, before, after, rule FROM migration.ledger"
        ):
            place = records.ledger[table][_key(key)]
            assert column not in place, f"two ledger rows for {table!r} {key} {column!r}"
            place[column] = LedgerRow(json.loads(before), after, rule)
        for table, key, whole in connection.execute(
            "SELECT tab, key, source_row FROM migration.quarantine"
        ):
            assert _key(key) not in records.quarantine[table], f"twice in quarantine: {key}"
            records.quarantine[table][_key(key)] = json.loads(whole)
    return records


def _key(text: str) -> str:
    """A key in one spelling, whatever the writer's JSON style is."""
    return json.dumps(json.loads(text))


# --------------------------------------------------------------------------- the comparison


def compare(
    source: Mapping[str, Table],
    target: Mapping[str, TargetTable],
    records: Records,
    zone: tzinfo = UTC,
) -> list[str]:
    """Every unexplained difference in words; [] where each value is the same or accounted for."""
    complaints: list[str] = []
    claimed: set[str] = set()
    for table in source.values():
        wanted = records.tables.get(table.name)
        if wanted is None or wanted not in target:
            complaints.append(f"table {table.name!r} is not on the target")
            continue
        claimed.add(wanted)
        complaints += [
            f"table {table.name!r}: {c}" for c in _rows(table, target[wanted], records, zone)
        ]
    complaints += [f"table {extra!r} came from nowhere" for extra in sorted(set(target) - claimed)]
    if len(claimed) < len(source):
        complaints.append("two source tables share a target table")
    return complaints


def _rows(table: Table, target: TargetTable, records: Records, zone: tzinfo) -> list[str]:
    columns = records.columns[table.name]
    missing = [c.name for c in table.columns if columns.get(c.name) not in target.types]
    if missing:
        return [f"columns {missing} are not on the target"]
    ledger = {k: dict(v) for k, v in records.ledger.get(table.name, {}).items()}
    quarantine = dict(records.quarantine.get(table.name, {}))
    complaints: list[str] = []
    left: list[tuple[str, dict[str, Cell]]] = []
    for row, rowid in zip(table.rows, table.rowids, strict=True):
        key = _key_of(table, row, rowid, records)
        if key in quarantine:
            hidden = {c.name for c in table.columns if c.hidden}
            kept = quarantine.pop(key)
            assert isinstance(kept, dict)
            # Generated values may be kept too; they are made again from the others.
            kept = {name: value for name, value in kept.items() if name not in hidden}
            whole = {c.name: row[c.name].as_json() for c in table.columns if not c.hidden}
            if kept != whole:
                complaints.append(f"row {key} is in the quarantine as {kept}, expected {whole}")
        else:
            left.append((key, row))
    complaints += [f"quarantined row {key} is not in the source" for key in quarantine]
    known = {key for key, _ in left}
    complaints += [f"ledger rows for {key}, which was not copied" for key in set(ledger) - known]
    fits = {
        i: [
            j
            for j, candidate in enumerate(target.rows)
            if all(
                _explained(
                    row[name], target.types[to], candidate[to], ledger.get(key, {}).get(name), zone
                )
                for name, to in columns.items()
            )
        ]
        for i, (key, row) in enumerate(left)
    }
    matched = _match(fits)
    for i, (key, row) in enumerate(left):
        if i not in matched:
            shown = {n: c.as_json() for n, c in row.items()}
            complaints.append(
                f"row {key} {shown} is not on the target, which holds "
                f"{[r for j, r in enumerate(target.rows) if j not in matched.values()][:3]} "
                f"(ledger: {ledger.get(key, {})}, types: {target.types})"
            )
    for j, candidate in enumerate(target.rows):
        if j not in matched.values():
            complaints.append(f"target row {candidate} came from nowhere")
    if not complaints:
        complaints += _one_form(columns, left, target, ledger, matched, zone)
    return complaints


def _key_of(table: Table, row: Mapping[str, Cell], rowid: int | None, records: Records) -> str:
    key = records.keys[table.name]
    if not key and rowid is not None:
        return json.dumps([rowid])
    # Without a key and a rowid, a row has no other name than all that it holds.
    names = key or [c.name for c in table.columns if not c.hidden]
    values = [row[name].as_json() for name in names]
    return json.dumps(values)


def _explained(
    cell: Cell, pg_type: str, text: str | None, entry: LedgerRow | None, zone: tzinfo
) -> bool:
    if entry is None:
        return bool(forms(cell, pg_type, text, zone))
    return entry.before == cell.as_json() and _agrees(entry.after, pg_type, text)


def _agrees(after: str | None, pg_type: str, text: str | None) -> bool:
    """Whether what the ledger says was written is what the target holds."""
    if after == text or after is None or text is None:
        return after == text
    if pg_type == "boolean":
        return {"t": "true", "f": "false"}.get(after, after) == text
    if pg_type == "double precision":
        return float(after) == float(text)
    if pg_type == "jsonb":
        return bool(json.loads(after) == json.loads(text))
    return False


def _match(fits: Mapping[int, Sequence[int]]) -> dict[int, int]:
    """The most rows that can be paired, each with a partner of its own (augmenting paths)."""
    partner: dict[int, int] = {}

    def place(i: int, tried: set[int]) -> bool:
        for j in fits[i]:
            if j not in tried:
                tried.add(j)
                if j not in partner or place(partner[j], tried):
                    partner[j] = i
                    return True
        return False

    for i in fits:
        place(i, set())
    return {i: j for j, i in partner.items()}


def _one_form(
    columns: Mapping[str, str],
    left: Sequence[tuple[str, dict[str, Cell]]],
    target: TargetTable,
    ledger: Mapping[str, Mapping[str, LedgerRow]],
    matched: Mapping[int, int],
    zone: tzinfo,
) -> list[str]:
    """Columns whose values, though each is right by itself, cannot be read back by one rule."""
    complaints = []
    for name, to in columns.items():
        possible: set[str] | None = None
        seen: dict[str | None, tuple[str, object]] = {}
        for i, (key, row) in enumerate(left):
            if name in ledger.get(key, {}):
                continue
            text = target.rows[matched[i]][to]
            cell = row[name]
            value = (cell.storage, cell.content)
            if seen.setdefault(text, value) != value:
                complaints.append(
                    f"column {name!r}: {seen[text]} and {value} are both {text!r}, unledgered"
                )
            found = forms(cell, target.types[to], text, zone)
            if "*" not in found:
                possible = found if possible is None else possible & found
                if not possible:
                    complaints.append(
                        f"column {name!r} ({target.types[to]}): no one way to read it back; "
                        f"{cell} at {key} is unlike the others"
                    )
                    break
    return complaints


# ------------------------------------------------------------------------------- the schema


def compare_schema(
    source: Mapping[str, Table],
    target: Mapping[str, TargetTable],
    records: Records,
    findings: Sequence[Mapping[str, Any]],
    dsn: str,
) -> list[str]:
    """What the target's schema lacks without a finding that says so."""
    complaints: list[str] = []
    with psycopg.connect(dsn, autocommit=True) as connection:
        for table in source.values():
            made = target[records.tables[table.name]]
            said = [
                f["code"] + " " + f["message"] for f in findings if f.get("table") == table.name
            ]
            complaints += [
                f"table {table.name!r}: {c} (findings: {said})"
                for c in _lacks(table, made, records, connection, bool(said))
            ]
            complaints += [
                f"table {table.name!r}: {c}" for c in _wrong(table, made, records, connection)
            ]
    return complaints


def _lacks(
    table: Table,
    made: TargetTable,
    records: Records,
    connection: psycopg.Connection[Any],
    said: bool,
) -> list[str]:
    """What is not there. Any finding of the table excuses it: that the finding speaks of this very
    thing is what the pitfalls' tests look at."""
    if said:
        return []
    names = records.columns[table.name]
    found: list[str] = []
    if table.key and made.primary_key != tuple(names[k] for k in table.key):
        found.append(f"primary key {table.key} became {made.primary_key}")
    for column in table.columns:
        to = names[column.name]
        if column.not_null and not made.not_null[to]:
            found.append(f"column {column.name!r} lost NOT NULL")
        if column.hidden in (2, 3) and to not in made.generated:
            found.append(f"column {column.name!r} is no longer generated")
        # A rowid never takes its default.
        alias = _rowid_alias(table) and column.key
        if _has_default(column) and to not in made.defaults and not alias:
            found.append(f"column {column.name!r} lost DEFAULT {column.default}")
    for unique in table.uniques:
        if frozenset(names[c] for c in unique) not in made.uniques:
            found.append(f"UNIQUE {unique} is not there")
    for children, parent in table.foreign_keys:
        wanted = (tuple(sorted(names[c] for c in children)), _target_of(parent, records))
        if wanted not in made.foreign_keys:
            found.append(f"foreign key {wanted} is not among {made.foreign_keys}")
    # A key that is another table's as well is never made up.
    borrowed = any(tuple(children) == table.key for children, _ in table.foreign_keys)
    if (
        _rowid_alias(table)
        and not borrowed
        and not _generates(made, names[table.key[0]], connection)
    ):
        found.append("the rowid has no generator")
    return found


def _has_default(column: Column) -> bool:
    return column.default is not None and column.default.upper() not in ("NULL", "(NULL)")


def _target_of(name: str, records: Records) -> str | None:
    folded = {_fold(k): v for k, v in records.tables.items()}
    return folded.get(_fold(name))


def _fold(name: str) -> str:
    return "".join(c.lower() if c.isascii() else c for c in name)


def _rowid_alias(table: Table) -> bool:
    only = [c for c in table.columns if c.key]
    return len(only) == 1 and only[0].declared.upper() == "INTEGER" and table.has_rowid


def _generates(made: TargetTable, column: str, connection: psycopg.Connection[Any]) -> bool:
    row = connection.execute(
        "SELECT attidentity FROM pg_attribute WHERE attrelid = %s::regclass AND attname = %s",
        (f"public.{q(made.name)}", column),
    ).fetchone()
    return row is not None and row[0] == "d"


MOVING = re.compile(r"current_|now|random", re.I)


def _wrong(
    table: Table, made: TargetTable, records: Records, connection: psycopg.Connection[Any]
) -> list[str]:
    """What is there and does something else than on the source: no finding excuses that."""
    found: list[str] = []
    names = records.columns[table.name]
    if table.rows and _rowid_alias(table):
        column = names[table.key[0]]
        if _generates(made, column, connection):
            sequence = connection.execute(
                "SELECT pg_get_serial_sequence(%s, %s)", (f"public.{q(made.name)}", column)
            ).fetchone()
            assert sequence is not None
            highest = max(int(r[column] or 0) for r in made.rows) if made.rows else 0
            state = connection.execute(
                f"SELECT last_value::numeric + is_called::int FROM {sequence[0]}"
            ).fetchone()
            assert state is not None
            if state[0] <= highest and highest < 2**63 - 1:
                found.append(f"the next key is {state[0]}, the highest is {highest}")
    for source_column in table.columns:
        to = names[source_column.name]
        default = source_column.default
        if default is None or to not in made.defaults or MOVING.search(default):
            continue
        cell = _default_cell(source_column)
        row = connection.execute(
            f"SELECT (({made.defaults[to]})::{made.types[to]})::text".encode()
        ).fetchone()
        assert row is not None
        said = made.types[to] == "boolean" and cell.text is not None and cell.text.lower()
        if said and said == row[0]:
            continue  # a word for a truth value, which SQLite keeps as text
        if not forms(cell, made.types[to], row[0]) and not _same_number(cell, row[0]):
            found.append(
                f"DEFAULT {default} of {source_column.name!r} gives {cell} there, "
                f"{row[0]!r} ({made.types[to]}) here"
            )
    return found


def _same_number(cell: Cell, text: str | None) -> bool:
    """A default of 0 in a column of reals is 0.0 there, and its digits where the column has been
    widened: as the values beside it, which the ledger has."""
    if text is not None and text.startswith("\\x"):
        text = bytes.fromhex(text[2:]).decode(errors="replace")
    try:
        if isinstance(cell.content, float):
            return float(str(text)) == cell.content
        return isinstance(cell.content, int) and Decimal(str(text)) == cell.content
    except (ValueError, InvalidOperation):
        return False


def _default_cell(column: Column) -> Cell:
    """What SQLite stores where the default takes effect."""
    connection = sqlite3.connect(":memory:")
    connection.text_factory = bytes
    try:
        declared = column.declared if re.fullmatch(r"[\w (),]*", column.declared) else ""
        try:
            connection.execute(f"CREATE TABLE t(i INT, v {declared} DEFAULT {column.default})")
        except sqlite3.OperationalError:
            # The PRAGMA leaves out the parentheses that an expression needs.
            connection.execute(f"CREATE TABLE t(i INT, v {declared} DEFAULT ({column.default}))")
        connection.execute("INSERT INTO t(i) VALUES (1)")
        storage, content = connection.execute("SELECT typeof(v), v FROM t").fetchone()
        return Cell(storage.decode(), content)
    finally:
        connection.close()
