"""What an application writes, as steps that become SQL where the tables are known.

A :class:`Step` is drawn before anybody knows which types the target will have; on each side it
becomes a statement of that side's columns. The statement itself is a step too, so that a
counter-example can be kept as what was said to the database.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import psycopg
from hypothesis import strategies as st

from tests.integration.hostile import quote
from tests.integration.independent_compare import TargetTable

Item = TypeVar("Item")

SYNC = "sync"
"""A step: one round of ``sync``."""

SESSIONS = (
    "",
    "SET TimeZone TO 'Asia/Kolkata'; SET DateStyle TO 'German, DMY'; "
    "SET extra_float_digits TO -9; SET bytea_output TO 'escape'; SET search_path TO ''",
    "SET TimeZone TO 'America/New_York'; SET DateStyle TO 'SQL, MDY'; "
    "SET IntervalStyle TO 'iso_8601'; SET default_transaction_isolation TO 'serializable'",
)
"""Settings of the application's sessions."""


@dataclass(frozen=True)
class Step:
    """One write: its kind, which table, and numbers that choose the rest."""

    kind: str
    table: int
    picks: tuple[int, ...]


class _Picks:
    def __init__(self, picks: Sequence[int]) -> None:
        self._picks, self._next = picks or (0,), 0

    def number(self, below: int) -> int:
        """The next choice; some way on from the last round, once all are used up."""
        turn, place = divmod(self._next, len(self._picks))
        self._next += 1
        return (self._picks[place] + 7 * turn) % below

    def of(self, choices: Sequence[Item]) -> Item:
        return choices[self.number(len(choices))]


def steps(kinds: Sequence[str], most: int) -> st.SearchStrategy[tuple[Step, ...]]:
    """Up to so many steps, each of one of the kinds (a kind may stand there more than once)."""
    one = st.builds(
        Step,
        st.sampled_from(kinds),
        st.integers(0, 2),
        st.lists(st.integers(0, 40), min_size=3, max_size=8).map(tuple),
    )
    return st.lists(one, max_size=most).map(tuple)


# ------------------------------------------------------------------------- on PostgreSQL

WHOLE = ["0", "1", "-1", "7", "32767", "2147483647", "-2147483648", "9007199254740993"]
WHOLE += ["9223372036854775807", "-9223372036854775808", "946684800", "1700000000123"]
TEXTS = ["''", "'a'", "' '", "'é😀'", "'007'", "'1'", "'1.0'", "'1e5'", "' 5 '", "'NULL'"]
TEXTS += [r"E'\\x\t\n'", "repeat('long ', 700)", "'2024-01-01 00:00:00'", "'NaN'", "'inf'"]
TEXTS += ["'9223372036854775808'", "'0x10'", "'-0'", "'true'", "'A'", "'a '", "'{\"a\": 1}'"]
TEXTS += ["'c7a1f0de-1b2c-4d3e-8f90-a1b2c3d4e5f6'", "md5('a')", "'12345678901234567.5'"]
TIMES = ["now()", "clock_timestamp()", "'infinity'", "'-infinity'", "'2024-02-29 10:11:12+00'"]
TIMES += ["'0044-03-15 12:00:00+00 BC'", "'12024-01-01 00:00:00+00'", "to_timestamp(0)"]
TIMES += ["'2024-03-01 10:00:00.123456+05:30'", "'1969-12-31 23:59:59.999999+00'"]
TIMES += ["'2024-03-31 00:00:00+00'", "date_trunc('minute', now())", "'0001-01-01 00:00:00+00'"]
TIMES += ["to_timestamp(1700000000.5)", "'1900-01-01 00:00:00+00'", "'9999-12-31 23:59:59.9+00'"]
DOCUMENTS = ["'{\"a\": [1, 2.50, null]}'", "'[]'", "'5'", "'\"5\"'", "' {} '", "'null'", "'true'"]
DOCUMENTS += ['\'{"b":1,"a":2}\'', "'1e2'", "'1.50'", "'\"é😀\"'", "'12345678901234567890'"]

VALUES: dict[str, list[str]] = {
    "smallint": WHOLE,
    "integer": WHOLE,
    "bigint": WHOLE,
    "boolean": ["true", "false"],
    "double precision": [
        *("0", "1.5", "0.1", "'NaN'", "'Infinity'", "'-Infinity'", "'-0'", "1e300", "5e-324"),
        *("1.0/3", "12345678901234567", "9007199254740993", "1e15", "-1", "0.30000000000000004"),
    ],
    "numeric": [
        *("0", "1", "1.5", "0.10", "'NaN'", "'Infinity'", "-0.001", "10.00", "1e40", "1.0/3"),
        *("99.99", "12345678901234567890.12345678901234567890", "9007199254740993", "1e-20"),
        *("9223372036854775807", "9223372036854775808", "0.30000000000000004", "1e300"),
    ],
    "text": TEXTS,
    "character varying": TEXTS,
    "bytea": [
        *("''", r"'\x00'", r"'\xff'", r"'\x616263'", r"'\x35'", r"'\xc3'", r"'\x312e30'"),
        *(r"'\x6100'", r"'\xc3a9'", r"'\x2035'", r"'\x31653230'"),
    ],
    "uuid": [
        *("gen_random_uuid()", "'c7a1f0de-1b2c-4d3e-8f90-a1b2c3d4e5f6'"),
        *("'00000000-0000-0000-0000-000000000000'", "'12345678-9012-3456-7890-123456789012'"),
        "'123e4567-8901-2345-6789-012345678901'",
    ],
    "json": DOCUMENTS,
    "jsonb": DOCUMENTS,
    "date": [
        *("now()", "'infinity'", "'-infinity'", "'2024-02-29'", "'0044-03-15 BC'"),
        *("'12024-01-01'", "'0001-01-01'", "'9999-12-31'", "'1969-12-31'"),
    ],
    "time": [
        *("now()::time", "'24:00'", "'10:11:12.123456'", "'00:00'", "'23:59:59.999999'"),
        *("'10:00'", "'10:00:30'", "'10:00:00.5'"),
    ],
    "timestamp": TIMES,
}
"""By type, what people and libraries write there, as SQL."""


def _value(type_: str, picks: _Picks) -> str:
    base = type_.split("(")[0].removesuffix(" with time zone").removesuffix(" without time zone")
    base = base.strip()
    found = picks.of(VALUES[base])
    length = re.fullmatch(r"character varying\((\d+)\)", type_)
    return f"left({found}, {length[1]})" if length else found


ON_POSTGRES = [
    *["insert"] * 4,
    *["update"] * 4,
    *("leave out", "upsert", "bulk", "null", "delete", "delete all", "key", "copy", "undone"),
    *("truncate", SYNC, "unset", "twice"),
]


def on_postgres(step: Step | str, tables: Sequence[TargetTable]) -> str:
    """The statement; '' where there is no such table or nothing that it could write."""
    if isinstance(step, str):
        return step
    if step.kind == SYNC:
        return SYNC
    known = [t for t in tables if t.types]
    if not known:
        return ""
    picks = _Picks(step.picks)
    table = known[step.table % len(known)]
    return _STATEMENTS[step.kind](table, picks)


def _name(table: TargetTable) -> str:
    return f"public.{quote(table.name)}"


def _plain(table: TargetTable) -> list[str]:
    return [c for c in table.types if c not in table.generated]


def _some(table: TargetTable) -> list[str]:
    """Columns that an application names; the one that this program adds is none of them."""
    return [c for c in _plain(table) if not c.startswith("_migration_rowid")]


def _insert(table: TargetTable, picks: _Picks, *, all_of_them: bool = True) -> str:
    columns = [c for c in _some(table) if all_of_them or picks.number(3)]
    if not columns:
        return f"INSERT INTO {_name(table)} DEFAULT VALUES"
    values = [_cell(table, c, picks) for c in columns]
    names = ", ".join(quote(c) for c in columns)
    return f"INSERT INTO {_name(table)} ({names}) VALUES ({', '.join(values)})"


def _cell(table: TargetTable, column: str, picks: _Picks) -> str:
    for children, parent in table.foreign_keys:
        if children == (column,) and picks.number(6) and parent != table.name:
            # The parent's key is mostly of one column; else this is refused, which is fine.
            return _from_parent(table, column, picks)
    nothing = picks.number(8) == 0 and not table.not_null[column]
    return "NULL" if nothing else _value(table.types[column], picks)


def _from_parent(table: TargetTable, column: str, picks: _Picks) -> str:
    name = quote(column)
    return (
        f"(SELECT {name} FROM {_name(table)} ORDER BY {name} DESC NULLS LAST "
        f"LIMIT 1 OFFSET {picks.number(3)})"
    )


def _row(table: TargetTable, picks: _Picks) -> str:
    offset = picks.number(6)
    return f"ctid = (SELECT ctid FROM {_name(table)} ORDER BY ctid LIMIT 1 OFFSET {offset})"


def _update(table: TargetTable, picks: _Picks, where: str | None = None) -> str:
    columns = [c for c in _some(table) if c not in table.primary_key] or _some(table)
    if not columns:
        return ""
    column = picks.of(columns)
    where = _row(table, picks) if where is None else where
    value = _cell(table, column, picks)
    return f"UPDATE {_name(table)} SET {quote(column)} = {value} WHERE {where}"


def _null(table: TargetTable, picks: _Picks) -> str:
    columns = [c for c in _some(table) if not table.not_null[c]]
    if not columns:
        return ""
    return f"UPDATE {_name(table)} SET {quote(picks.of(columns))} = NULL WHERE {_row(table, picks)}"


def _unset(table: TargetTable, picks: _Picks) -> str:
    columns = [c for c in _some(table) if c in table.defaults] or _some(table)
    if not columns:
        return ""
    column = quote(picks.of(columns))
    return f"UPDATE {_name(table)} SET {column} = DEFAULT WHERE {_row(table, picks)}"


def _upsert(table: TargetTable, picks: _Picks) -> str:
    key = table.primary_key or (tuple(sorted(table.uniques[0])) if table.uniques else ())
    columns = _some(table)
    if not key or not columns or any(k not in columns for k in key):
        return _insert(table, picks)
    held = [
        f"(SELECT {quote(c)} FROM {_name(table)} ORDER BY ctid LIMIT 1)"
        if c in key and picks.number(4)
        else _cell(table, c, picks)
        for c in columns
    ]
    rest = [c for c in columns if c not in key] or list(key)
    sets = ", ".join(f"{quote(c)} = excluded.{quote(c)}" for c in rest)
    return (
        f"INSERT INTO {_name(table)} ({', '.join(quote(c) for c in columns)}) "
        f"VALUES ({', '.join(held)}) ON CONFLICT ({', '.join(quote(k) for k in key)}) "
        f"DO UPDATE SET {sets}"
    )


def _key(table: TargetTable, picks: _Picks) -> str:
    columns = [c for c in _some(table) if c in table.primary_key]
    if not columns:
        return _update(table, picks)
    column = picks.of(columns)
    value = _value(table.types[column], picks)
    return f"UPDATE {_name(table)} SET {quote(column)} = {value} WHERE {_row(table, picks)}"


def _copy(table: TargetTable, picks: _Picks) -> str:
    columns = _some(table)
    if not columns:
        return ""
    fresh = set(table.primary_key) or set(columns[:1])
    values = [_value(table.types[c], picks) if c in fresh else quote(c) for c in columns]
    return (
        f"INSERT INTO {_name(table)} ({', '.join(quote(c) for c in columns)}) "
        f"SELECT {', '.join(values)} FROM {_name(table)} WHERE {_row(table, picks)}"
    )


def _undone(table: TargetTable, picks: _Picks) -> str:
    """Something in a transaction that is partly rolled back."""
    first, second = _update(table, picks), _insert(table, picks)
    if not first:
        return ""
    return f"BEGIN; SAVEPOINT s; {first}; ROLLBACK TO s; {second}; COMMIT"


def _twice(table: TargetTable, picks: _Picks) -> str:
    """A row that is written, and gone before the transaction ends."""
    return f"BEGIN; {_insert(table, picks)}; DELETE FROM {_name(table)} WHERE xmin::text = \
txid_current()::text; COMMIT"


_STATEMENTS: dict[str, Callable[[TargetTable, _Picks], str]] = {
    "insert": _insert,
    "leave out": lambda t, p: _insert(t, p, all_of_them=False),
    "update": _update,
    "bulk": lambda t, p: _update(t, p, where="true"),
    "null": _null,
    "unset": _unset,
    "upsert": _upsert,
    "delete": lambda t, p: f"DELETE FROM {_name(t)} WHERE {_row(t, p)}",
    "delete all": lambda t, p: f"DELETE FROM {_name(t)}",
    "key": _key,
    "copy": _copy,
    "undone": _undone,
    "twice": _twice,
    "truncate": lambda t, p: f"TRUNCATE {_name(t)} CASCADE",
}

FINE = ("22", "23", "54")
"""Classes of refusals that are PostgreSQL's right: data, integrity, and limits (an index's row)."""


def refused_by_right(error: psycopg.Error) -> bool:
    """A value that the type or the schema does not take, and nothing of this program's."""
    return (error.sqlstate or "")[:2] in FINE


# ----------------------------------------------------------------------------- on SQLite

ON_SQLITE = ["insert", "insert", "replace", "update", "update", "null", "delete", "key", "bulk"]


def beyond_its_memory(connection: sqlite3.Connection) -> bool:
    """Whether the standard library's SQLite would damage its own memory on this schema. Where a
    table that refers with RESTRICT has a name that begins with a quote, 3.40 takes the name for a
    quoted one as it prepares a delete from the parent, and reads and writes behind its end. The
    job's own SQLite does not."""
    found = connection.execute(
        "SELECT 1 FROM sqlite_schema AS t, pragma_foreign_key_list(t.name) AS k "
        "WHERE t.type = 'table' AND substr(t.name, 1, 1) IN (char(34), char(39), '`', '[') "
        "AND 'RESTRICT' IN (k.on_delete, k.on_update) LIMIT 1"
    ).fetchone()
    return found is not None and sqlite3.sqlite_version_info < (3, 54)


def on_sqlite(step: Step | str, connection: sqlite3.Connection) -> str:
    """The statement, which moves values that are there already: a new one might be beyond what the
    plan can carry, and then ``sync`` is right to stop."""
    if isinstance(step, str):
        return step
    found = connection.execute(
        "SELECT name FROM pragma_table_list WHERE type = 'table' AND schema = 'main' AND "
        "name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name NOT LIKE '\\_migration%' ESCAPE '\\'"
        " ORDER BY name"
    ).fetchall()
    if not found:
        return ""
    picks = _Picks(step.picks)
    table = quote(found[step.table % len(found)][0])
    columns = connection.execute(
        "SELECT name, pk, type FROM pragma_table_xinfo(?) WHERE hidden = 0",
        (found[step.table % len(found)][0],),
    ).fetchall()
    if not columns:
        return ""
    keys = [type_ for _, pk, type_ in columns if pk]
    alias = [key.upper() for key in keys] == ["INTEGER"]
    row = f"(SELECT * FROM {table} LIMIT 1 OFFSET {picks.number(6)})"
    names = [quote(c[0]) for c in columns]
    column = picks.of(names)
    if step.kind in ("insert", "replace"):
        verb = "INSERT" if step.kind == "insert" else "INSERT OR REPLACE"
        other = f"{table} LIMIT 1 OFFSET {picks.number(6)}"
        keyed = zip(names, columns, strict=True)
        values = [_moved(name, bool(pk) and alias, other, picks) for name, (_, pk, _) in keyed]
        return f"{verb} INTO {table} ({', '.join(names)}) SELECT {', '.join(values)} FROM {row}"
    if step.kind == "delete":
        return f"DELETE FROM {table} WHERE {column} IS (SELECT {column} FROM {row})"
    if step.kind == "key":
        keys = [quote(name) for name, pk, _ in columns if pk] or names
        key = picks.of(keys)
        return f"UPDATE OR IGNORE {table} SET {key} = {key} + 1 WHERE typeof({key}) = 'integer' \
AND {key} BETWEEN 0 AND 1000000"
    if step.kind == "null":
        # A NULL in a key of many would be one that PostgreSQL has no room for.
        column = picks.of([quote(name) for name, pk, _ in columns if not pk] or names)
    value = "NULL" if step.kind == "null" else f"(SELECT {column} FROM {row})"
    some = picks.of(names)
    where = "" if step.kind == "bulk" else f" WHERE {some} IS (SELECT {some} FROM {table} LIMIT 1)"
    return f"UPDATE OR IGNORE {table} SET {column} = {value}{where}"


def _moved(name: str, key: bool, other: str, picks: _Picks) -> str:
    choice = picks.number(4)
    if choice == 0:
        return f"(SELECT {name} FROM {other})"
    return "NULL" if key and choice == 1 else name  # the rowid's own: SQLite hands out a key
