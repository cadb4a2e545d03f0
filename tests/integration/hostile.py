"""Random SQLite databases, hostile in the ways that burn people, and shrinkable.

A :class:`Database` is plain data - statements and rows - so that a counter-example prints as
something that can be pasted into a regression test.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from hypothesis import strategies as st

Value = int | float | str | bytes | None


@dataclass(frozen=True)
class Raw:
    """Text by its bytes, valid or not: stored as ``CAST(blob AS TEXT)``."""

    content: bytes


@dataclass(frozen=True)
class Rows:
    """Rows for one table; those that the schema refuses are left out, as ``INSERT OR IGNORE``."""

    table: str
    columns: tuple[str, ...]
    values: tuple[tuple[Value | Raw, ...], ...]


@dataclass(frozen=True)
class Database:
    tables: tuple[str, ...]
    """CREATE TABLE statements."""
    rows: tuple[Rows, ...] = ()
    more: tuple[str, ...] = ()
    """Indexes, views, triggers; those that SQLite refuses are left out."""
    encoding: str = "UTF-8"

    def write(self, path: Path) -> None:
        """Make the file and close it. Raises sqlite3.Error where a table cannot be made."""
        connection = sqlite3.connect(path, isolation_level=None)
        # An application's own function: the job meets a schema that calls what it does not have.
        connection.create_function("regexp", 2, lambda pattern, text: 1, deterministic=True)
        try:
            connection.execute(f"PRAGMA encoding = '{self.encoding}'")
            connection.execute("PRAGMA journal_mode = MEMORY")
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("PRAGMA foreign_keys = OFF")
            connection.execute("BEGIN")
            for statement in self.tables:
                connection.execute(statement)
            connection.execute("COMMIT")
            # Each by itself: an identity beyond the largest integer ends a whole transaction.
            for rows in self.rows:
                _insert(connection, rows)
            for statement in self.more:
                try:
                    connection.execute(statement)
                except sqlite3.Error:
                    continue
        finally:
            connection.close()


def _insert(connection: sqlite3.Connection, rows: Rows) -> None:
    names = ", ".join(quote(c) for c in rows.columns)
    for values in rows.values:
        marks = ", ".join("CAST(? AS TEXT)" if isinstance(v, Raw) else "?" for v in values)
        bound = [v.content if isinstance(v, Raw) else v for v in values]
        statement = f"INSERT OR IGNORE INTO {quote(rows.table)} ({names}) VALUES ({marks})"
        try:
            connection.execute(statement, bound)
        except sqlite3.Error:
            continue  # a STRICT column or a CHECK refuses it


def quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


# ---------------------------------------------------------------------------------------- names

RESERVED = ["select", "user", "order", "table", "group", "end", "default", "check", "all"]
"""Reserved in PostgreSQL, and most of them in SQLite."""
SYSTEM = ["ctid", "xmin", "tableoid", "oid", "rowid", "id"]
"""Columns that every PostgreSQL table has, or that SQLite gives a meaning."""
TRICKY = [
    *("t", "T1", "t_pkey", "t_id_seq", "a b", "a.b", 'q"uote', "q'uote", "back\\slash", "per%cent"),
    *(
        "{brace}",
        "$1",
        ":p",
        "--",
        "/*",
        ";",
        "[x]",
        "`x`",
        " lead",
        "trail ",
        "1st",
        "É",
        "é",
        "ß",
    ),
    *(
        "İ",
        "中文",
        "😀",
        "e\u0301",
        "tab\there",
        "line\nbreak",
        "migration",
        "public",
        "_t",
        "",
        "%s",
    ),
    *("n" * 63, "n" * 64, "é" * 32, "n" * 62 + "é", "x" * 100 + "1", "x" * 100 + "2"),
]
ALPHABET = "abAB_ 1\"'.é%\\-"

names = st.one_of(
    st.sampled_from(["a", "b", "c", "id", "name"]),
    st.sampled_from(RESERVED + TRICKY),
    st.text(ALPHABET, min_size=1, max_size=6),
)
column_names = st.one_of(names, st.sampled_from(SYSTEM))


def distinct(strategy: st.SearchStrategy[str], low: int, high: int) -> st.SearchStrategy[list[str]]:
    """Names that SQLite takes for different ones (it folds ASCII case only)."""
    return st.lists(strategy, min_size=low, max_size=high, unique_by=fold)


def fold(name: str) -> str:
    return "".join(c.lower() if c.isascii() else c for c in name)


# --------------------------------------------------------------------------------------- values

INTEGERS = [
    *(0, 1, -1, 2, 127, 128, 32767, 32768, -32769, 2**31 - 1, 2**31, -(2**31), -(2**31) - 1),
    *(2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63), 946684800, 1700000000, 1700000000123),
    *(10**15, 10**17 + 1, 253402300800, -62135596801),
]
REALS = [
    *(0.0, -0.0, 0.5, 1.0, -1.0, 0.1, 0.1 + 0.2, 1e15, 1e16, 1e17, 123456789012345680.0, 1e-5),
    *(5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, float("inf"), float("-inf")),
    *(9007199254740993.0, 2459310.5, 40.12345, 99.995, 1e22, 1e23, 3.4028235e38, 16777217.0),
    *(0.30000000000000004, 1700000000.5, 9.223372036854775e18, 1234.5678e10, 1.5e-7),
]
TEXTS = [
    *(
        "",
        " ",
        "a",
        "A",
        "abc",
        "ABC",
        "hello world",
        "\t",
        "\n",
        "\r\n",
        "\\",
        "\\N",
        "\\.",
        "\\n",
    ),
    *("NULL", "null", "true", "false", "t", "f", "yes", "0", "1", "01", "+1", "-0", "1.0", "1e5"),
    *("12345678901234567890", "0x10", " 7", "7 ", "1,5", "NaN", "Infinity", "inf", "é", "e\u0301"),
    *(
        "ß",
        "İi",
        "中文",
        "😀",
        "\u200b",
        "\u202e",
        "\ufeff",
        "\u00a0",
        "\x7f",
        "\x1b[31m",
        "a\x01b",
    ),
    *("'", '"', "''", "$$", "%s", "x" * 300, "<b>", "{", "[]", "x'00'", "\\x00ff", "\\\\x"),
]
NUL_TEXTS = ["\x00", "a\x00b", "\x00a", "a\x00"]
BROKEN = [
    b"\xff",
    b"a\xffb",
    b"\xc3",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\xc0\x80",
    b"\xe2\x82",
]
TIMES = [
    *("2024-03-01 10:00:00", "2024-03-31 02:30:00", "1999-12-31 23:59:59", "0001-01-01 00:00:00"),
    *("9999-12-31 23:59:59", "2024-02-29 00:00:00", "2024-03-01 10:00:00.5", "2024-02-30 00:00:00"),
    *("2024-03-01 10:00:00.123456", "2024-03-01 10:00:00.1234567", "2024-03-01 10:00:00.120"),
    *(
        "2024-03-01T10:00:00",
        "2024-03-01T10:00:00Z",
        "2024-03-01T10:00:00.000Z",
        "2024-03-01 10:00",
    ),
    *("2024-03-01T10:00:00+02:00", "2024-03-01 10:00:00-0530", "2024-03-01 24:00:00", "now"),
    *("2024-03-01 10:00:60", "0000-01-01 00:00:00", "2024-03-01", "03/01/2024", "2024-3-1", ""),
    *("0000-00-00 00:00:00", "12024-01-01 00:00:00", "-2024-01-01 00:00:00", "infinity", "today"),
    *("2024-03-01t10:00:00z", "2024-03-01 10:00:00 UTC", "2024-03-01 10:00:00 ", "20240301"),
]
DATES = [
    "2024-03-01",
    "2024-02-29",
    "2023-02-29",
    "0001-01-01",
    "9999-12-31",
    "0000-01-01",
    "epoch",
]
CLOCKS = [
    "10:00:00",
    "10:00",
    "23:59:59.5",
    "24:00:00",
    "00:00:00",
    "10:00:60",
    "25:00",
    "allballs",
]
JSONS = [
    *(
        "null",
        "{}",
        "[]",
        "1",
        "1.0",
        "1e400",
        '"a"',
        '{"b":1,"a":2}',
        '{"a":1,"a":2}',
        '"\\u0000"',
    ),
    *('"\\ud800"', '{"a": [1, 2.50, null]}', " {} ", "{a:1}", "'a'", "[1,]", "NaN", '"\t"', "01"),
    *('{"a":1}\x0c', '"\\ud83d\\ude00"', "-0", "[" * 50 + "]" * 50, "tru", '"\\x"', "\ufeff{}"),
]
UUIDS = [
    *("0d5a7b64-1111-4222-8333-000000000000", "0D5A7B64-1111-4222-8333-00000000000A"),
    *("0d5a7b64111142228333000000000000", "{0d5a7b64-1111-4222-8333-000000000000}"),
    *("12345678901234567890123456789012", "123e4567890123456789012345678901", "system", ""),
    *("00000000-0000-0000-0000-000000000000", "urn:uuid:0d5a7b64-1111-4222-8333-000000000000"),
]
BLOBS = [b"", b"\x00", b"abc", b"\xff\xfe", b"1", b"2024-03-01", b"\\x00", bytes(range(256))]

integers = st.one_of(
    st.sampled_from(INTEGERS), st.integers(-(2**63), 2**63 - 1), st.integers(-5, 300)
)
reals = st.one_of(
    st.sampled_from(REALS),
    st.floats(allow_nan=False),
    st.decimals(-1000, 1000, places=2).map(float),
)
texts = st.one_of(
    st.sampled_from(TEXTS),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12),
)
blobs = st.one_of(st.sampled_from(BLOBS), st.binary(max_size=12))
hard_texts = st.one_of(st.sampled_from(NUL_TEXTS), st.sampled_from(BROKEN).map(Raw))
anything: st.SearchStrategy[Value | Raw] = st.one_of(
    integers,
    reals,
    texts,
    blobs,
    st.sampled_from(TIMES + DATES + CLOCKS + JSONS + UUIDS),
)

KINDS: dict[str, tuple[list[str], st.SearchStrategy[Value | Raw]]] = {
    "integer": (
        ["INTEGER", "INT", "BIGINT", "TINYINT", "UNSIGNED BIG INT", "FLOATING POINT"],
        integers,
    ),
    "flag": (["BOOLEAN", "BOOL", "INTEGER"], st.sampled_from([0, 1, 1, 0, 2, "true", "t"])),
    "real": (["REAL", "DOUBLE", "DOUBLE PRECISION", "FLOAT"], reals),
    "numeric": (
        [
            "NUMERIC",
            "DECIMAL(10,2)",
            "DECIMAL(5)",
            "NUMERIC(38,10)",
            "DECIMAL(2,4)",
            "NUMBER(3,-1)",
        ],
        st.one_of(integers, reals, st.decimals(-99999, 99999, places=2).map(str)),
    ),
    "text": (["TEXT", "VARCHAR(5)", "CHAR(3)", "CLOB", "NVARCHAR(100)", "VARCHAR(0)"], texts),
    "time": (
        ["DATETIME", "TIMESTAMP", "TEXT", "TIMESTAMP WITH TIME ZONE"],
        st.one_of(
            st.sampled_from(TIMES),
            st.datetimes().map(lambda d: d.strftime("%Y-%m-%d %H:%M:%S").rjust(19, "0")),
            st.datetimes().map(lambda d: d.isoformat() + "Z"),
        ),
    ),
    "epoch": (
        ["DATETIME", "TIMESTAMP", "INTEGER"],
        st.one_of(st.integers(946684800, 2**31), st.integers(946684800000, 2**41), integers),
    ),
    "julian": (["DATETIME", "TIMESTAMP"], st.one_of(st.floats(2e6, 3e6), reals)),
    "date": (["DATE"], st.one_of(st.sampled_from(DATES), st.dates().map(str))),
    "clock": (["TIME"], st.one_of(st.sampled_from(CLOCKS), st.times().map(str))),
    "json": (["JSON", "JSONB", "TEXT"], st.sampled_from(JSONS)),
    "uuid": (
        ["UUID", "CHAR(36)", "TEXT", "GUID"],
        st.one_of(st.sampled_from(UUIDS), st.uuids().map(str), st.uuids().map(lambda u: u.hex)),
    ),
    "blob": (["BLOB", "", "VARBINARY(8)"], blobs),
    "any": (
        ["", "ANY", "STRING", "my type(1,2)", "NUMERIC", "TEXT", "INTEGER", "CHARINT"],
        anything,
    ),
}
STRICT_TYPES = ["INT", "INTEGER", "REAL", "TEXT", "BLOB", "ANY"]

DEFAULTS = [
    *(
        "0",
        "1",
        "-1",
        "+1",
        "1.5",
        "1e3",
        "''",
        "'x'",
        "'it''s'",
        "'null'",
        "NULL",
        "x'00ff'",
        "2147483648",
    ),
    *("CURRENT_TIMESTAMP", "CURRENT_DATE", "CURRENT_TIME", "(datetime('now'))", "(1 + 1)", "TRUE"),
    *(
        "FALSE",
        '"dq"',
        "'2024-01-01 00:00:00'",
        "'a\tb'",
        "'back\\slash'",
        "(lower('ABC'))",
        "'true'",
    ),
    *(
        "(strftime('%s','now'))",
        "(hex(randomblob(4)))",
        "9223372036854775807",
        "'0'",
        "(1/2)",
        "0x10",
    ),
    *("(abs(-5))", "(x'61' || 'b')", "(NULL)", "(date('now'))", "(random())", "'[]'", "9e999"),
]
CHECKS = [
    *("{c} >= 0", "length({c}) < 100", "{c} IN ('a', 'b', 1)", "{c} IS NOT NULL", "{c} <> ''"),
    *("typeof({c}) = 'integer'", "{c} BETWEEN 0 AND 5", "{c} LIKE 'a%'", "{c} GLOB '[a-z]*'"),
    *(
        "{c} = 1 OR {c} IS NULL",
        "{c}",
        "json_valid({c})",
        "{c} REGEXP 'x'",
        "{c} != 'x' COLLATE NOCASE",
    ),
    *(
        '{c} = "a"',
        "CAST({c} AS INTEGER) = {c}",
        "{c} IS 1",
        "coalesce({c}, 0) < 10",
        "{c} % 2 = 0",
    ),
]
EXPRESSIONS = [
    *("{c}", "{c} || 'x'", "length({c})", "{c} + 1", "upper({c})", "coalesce({c}, 0)", "{c} / 2"),
    *(
        "{c} IS NULL",
        "CAST({c} AS TEXT)",
        "CASE WHEN {c} THEN 'y' ELSE 'n' END",
        "abs({c})",
        "{c} = 1",
    ),
    *("substr({c}, 1, 2)", "round({c}, 1)", "typeof({c})", "{c} || {c}", "-{c}", "{c} > 'a'", "1"),
]
INDEX_TERMS = [
    "{c}",
    "{c} DESC",
    "{c} COLLATE NOCASE",
    "lower({c})",
    "{c} + 1",
    "length({c})",
    "{c} || 'x'",
]
PREDICATES = ["{c} IS NOT NULL", "{c} > 0", "{c} = 'a'", "{c} <> ''", "{c}", "{c} IN (1, 2)"]
ACTIONS = ["", " ON DELETE CASCADE", " ON DELETE SET NULL ON UPDATE CASCADE", " ON DELETE RESTRICT"]


@dataclass(frozen=True)
class _Column:
    name: str
    declared: str
    values: st.SearchStrategy[Value | Raw]
    sql: str
    generated: bool = False


@st.composite
def _columns(draw: st.DrawFn, strict: bool) -> list[_Column]:
    found: list[_Column] = []
    for name in draw(distinct(column_names, 1, 5)):
        kind = draw(st.sampled_from(sorted(KINDS)))
        declared, values = KINDS[kind]
        type_ = draw(st.sampled_from(STRICT_TYPES if strict else declared))
        clean = draw(st.sampled_from([True, True, True, False]))
        if not clean:
            values = st.one_of(values, anything)
            if draw(st.sampled_from([True, False, False, False])):
                values = st.one_of(values, hard_texts)
        parts = [quote(name), type_]
        plain = [c for c in found if not c.generated]
        if plain and draw(st.integers(0, 11)) == 0:
            other = quote(draw(st.sampled_from(plain)).name)
            expression = draw(st.sampled_from(EXPRESSIONS)).format(c=other)
            kept = draw(st.sampled_from(["VIRTUAL", "STORED"]))
            parts.append(f"GENERATED ALWAYS AS ({expression}) {kept}")
            found.append(_Column(name, type_, values, " ".join(parts), generated=True))
            continue
        if draw(st.integers(0, 4)) == 0:
            parts.append("NOT NULL")
        if draw(st.integers(0, 3)) == 0:
            parts.append("DEFAULT " + draw(st.sampled_from(DEFAULTS)))
        if draw(st.integers(0, 7)) == 0:
            parts.append("COLLATE " + draw(st.sampled_from(["NOCASE", "RTRIM", "BINARY"])))
        if draw(st.integers(0, 7)) == 0:
            parts.append("UNIQUE")
        if draw(st.integers(0, 7)) == 0:
            parts.append(f"CHECK ({draw(st.sampled_from(CHECKS)).format(c=quote(name))})")
        found.append(_Column(name, type_, values, " ".join(parts)))
    return found


_Row = tuple[Value | Raw, ...]
_Made = tuple[str, tuple[str, ...], list[_Column], list[_Row]]
"""A table that is there already: name, key, columns, rows."""


@st.composite
def databases(draw: st.DrawFn) -> Database:  # noqa: PLR0912 - one branch a part of a database
    """One to three tables with rows, keys, references, indexes and views."""
    table_names = draw(distinct(names.filter(_usable), 1, 3))
    statements: list[str] = []
    rows: list[Rows] = []
    more: list[str] = []
    parents: list[_Made] = []
    for table in table_names:
        strict = draw(st.integers(0, 7)) == 0
        columns = draw(_columns(strict))
        plain = [c for c in columns if not c.generated]
        key, body, options = draw(_key(plain, strict))
        constraints: list[str] = []
        definitions = [body.get(c.name, c.sql) for c in columns]
        if len(key) > 1:
            constraints.append(f"PRIMARY KEY ({', '.join(quote(k) for k in key)})")
        if len(plain) > 1 and draw(st.integers(0, 5)) == 0:
            pair = draw(
                st.lists(
                    st.sampled_from([c.name for c in plain]), min_size=2, max_size=2, unique=True
                )
            )
            constraints.append(f"UNIQUE ({', '.join(quote(p) for p in pair)})")
        sources: dict[str, tuple[int, str]] = {}
        if parents and draw(st.integers(0, 1)) == 1:
            parent, parent_key, _, _ = parents[draw(st.integers(0, len(parents) - 1))]
            if parent_key and len(parent_key) <= len(plain):
                children = [c.name for c in plain[-len(parent_key) :]]
                action = draw(st.sampled_from(ACTIONS))
                constraints.append(
                    f"FOREIGN KEY ({', '.join(quote(c) for c in children)})"
                    f" REFERENCES {quote(parent)}"
                    f" ({', '.join(quote(k) for k in parent_key)}){action}"
                )
                for child, wanted in zip(children, parent_key, strict=True):
                    sources[child] = (table_names.index(parent), wanted)
        elif len(key) == 1 and len(plain) > 1 and draw(st.integers(0, 5)) == 0:
            constraints.append(f"FOREIGN KEY ({quote(plain[-1].name)}) REFERENCES {quote(table)}")
            sources[plain[-1].name] = (len(parents), key[0])
        statements.append(
            f"CREATE TABLE {quote(table)} ({', '.join(definitions + constraints)}){options}"
        )
        values: list[tuple[Value | Raw, ...]] = []
        for _ in range(draw(st.integers(0, 7))):
            row: list[Value | Raw] = []
            for column in plain:
                choice = draw(st.integers(0, 9))
                known = _known(sources.get(column.name), parents, plain, values)
                if choice == 0:
                    row.append(None)
                elif known and choice < 9:
                    row.append(draw(st.sampled_from(known)))
                else:
                    row.append(draw(column.values))
            values.append(tuple(row))
        if plain:
            rows.append(Rows(table, tuple(c.name for c in plain), tuple(values)))
        parents.append((table, key, plain, values))
        more += draw(_more(table, plain))
    encoding = draw(st.sampled_from(["UTF-8"] * 8 + ["UTF-16le", "UTF-16be"]))
    return Database(tuple(statements), tuple(rows), tuple(more), encoding)


def _usable(name: str) -> bool:
    return not fold(name).startswith("sqlite_")


def _known(
    source: tuple[int, str] | None,
    parents: list[_Made],
    own: list[_Column],
    values: list[tuple[Value | Raw, ...]],
) -> list[Value | Raw]:
    """Values of the referenced column, so that most references are no orphans."""
    if source is None:
        return []
    index, wanted = source
    columns, rows = (own, values) if index == len(parents) else parents[index][2:]
    position = [c.name for c in columns].index(wanted)
    return [row[position] for row in rows]


@st.composite
def _key(
    draw: st.DrawFn, columns: list[_Column], strict: bool
) -> tuple[tuple[str, ...], dict[str, str], str]:
    """The primary key's columns, changed column definitions, and the table's options."""
    options = ["STRICT"] if strict else []
    style = draw(
        st.sampled_from(
            ["none", "rowid", "rowid", "autoincrement", "single", "composite", "without"]
        )
    )
    if not columns or style == "none":
        return (), {}, " STRICT" if strict else ""
    first = columns[0]
    if style in ("rowid", "autoincrement"):
        auto = " AUTOINCREMENT" if style == "autoincrement" else ""
        body = {first.name: f"{quote(first.name)} INTEGER PRIMARY KEY{auto}"}
        return (first.name,), body, " STRICT" if strict else ""
    if style == "without":
        options.append("WITHOUT ROWID")
    if style != "composite" or len(columns) == 1:
        body = {first.name: f"{first.sql} PRIMARY KEY"}
        return (first.name,), body, " " + ", ".join(options) if options else ""
    count = draw(st.integers(2, min(3, len(columns))))
    return tuple(c.name for c in columns[:count]), {}, " " + ", ".join(options) if options else ""


@st.composite
def _more(draw: st.DrawFn, table: str, columns: list[_Column]) -> list[str]:
    found: list[str] = []
    if not columns:
        return found
    if draw(st.integers(0, 3)) == 0:
        unique = draw(st.sampled_from(["", "UNIQUE "]))
        name = draw(names.filter(_usable))
        some = draw(st.lists(st.sampled_from(columns), min_size=1, max_size=2))
        terms = [draw(st.sampled_from(INDEX_TERMS)).format(c=quote(c.name)) for c in some]
        where = ""
        if draw(st.integers(0, 2)) == 0:
            column = quote(draw(st.sampled_from(columns)).name)
            where = " WHERE " + draw(st.sampled_from(PREDICATES)).format(c=column)
        found.append(
            f"CREATE {unique}INDEX {quote(name)} ON {quote(table)} ({', '.join(terms)}){where}"
        )
    if draw(st.integers(0, 7)) == 0:
        name = draw(names.filter(_usable))
        shown = draw(st.lists(st.sampled_from(columns), min_size=1, max_size=2, unique=True))
        query = f"SELECT {', '.join(quote(c.name) for c in shown)} FROM {quote(table)}"
        if draw(st.booleans()):
            column = quote(draw(st.sampled_from(columns)).name)
            query += " WHERE " + draw(st.sampled_from(PREDICATES)).format(c=column)
        found.append(f"CREATE VIEW {quote(name)} AS {query}")
    return found
