"""Random schemas whose every name is hostile: of any length, letters and signs, and of this
program's own objects. The values are tame, so that what fails has failed by a name."""

from __future__ import annotations

import random
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path

from tests.integration.hostile import (
    RESERVED,
    SYSTEM,
    TRICKY,
    Database,
    Rows,
    fold,
    literal,
    quote,
)

OWN = [
    *("migration", "run", "progress", "ledger", "quarantine", "certificate", "applied", "pair"),
    *(
        "fence",
        "fence_lock",
        "reverse_log",
        "back_difference",
        "guard",
        "log_1",
        "_migration_rowid",
    ),
    *("migration_job_guard", "migration_job_insert", "fresh", "gone", "own", "public", "pg_class"),
    *(
        "_migration_rowid",
        "_migration_rowid_",
        "place_",
        "k",
        "k0",
        "n",
        "t",
        "c",
        "p",
        "q",
        "s",
        "u",
        "l",
    ),
    *(
        "q",
        "s",
        "u",
        "l",
        "found",
        "tg_op",
        "tg_argv",
        "new",
        "old",
        "rowid",
        "_rowid_",
        "oid",
        "migration_positional",
    ),
]
"""Names of this program's objects, aliases and variables."""

CLASHING = ["_migration_log", "_migration_state", "_migration_tables", "_migration_1_insert"]
"""Names that capture needs for itself on the source: their files are refused, with a sentence."""

ATTACKS = [
    "$log$;CREATE TABLE pwned AS SELECT current_user;--",
    "$guard$;CREATE TABLE pwned AS SELECT 1;--",
    "$$;CREATE TABLE pwned AS SELECT 1;--",
    'x" text); CREATE TABLE pwned (a int); --',
    "x'); CREATE TABLE pwned (a int); --",
    "\\'; CREATE TABLE pwned (a int); --",
    "*/; CREATE TABLE pwned (a int); /*",
    "\n\\.\nCREATE TABLE pwned (a int);",
    *("% done", "100%s", "%(name)s", "%%", "%b", "{0}", "{name}", "$1", ":1", "?", "?1", "@x", "#"),
]

PAIRS = [("É", "é"), ("ß", "ẞ"), ("İ", "i"), ("ſ", "s"), ("K", "k"), ("Σ", "ς"), ("é", "e\u0301")]
"""Names that are one under Unicode's rules and two under SQLite's."""

SIGNS = "\"'`%$\\;:-/*[](){}?@#!~^&|<>=+., \t\n\r\x01\x07\x1b\x7f\x85\u00a0\u200b\u202e\u2028\ufeff"


def name(rng: random.Random) -> str:
    """A name of 1 to 200 bytes."""
    kind = rng.randrange(10)
    if kind == 0:
        return rng.choice(OWN)
    if kind == 1:
        return rng.choice(RESERVED + SYSTEM)
    if kind == 2:
        return rng.choice([t for t in TRICKY if t])
    if kind == 3:
        return rng.choice(ATTACKS)
    if kind == 4:
        return rng.choice(rng.choice(PAIRS))
    if kind == 5:
        # Those of one letter agree in their first 63 bytes.
        return rng.choice(("n", "é", "中", "😀", '"', "%")) * 200
    letters = "".join(_letter(rng) for _ in range(rng.choice((1, 2, 5, 20, 70, 200))))
    return letters if kind < 9 else rng.choice("abc%") * 63 + letters


def _letter(rng: random.Random) -> str:
    kind = rng.randrange(4)
    if kind == 0:
        return rng.choice(SIGNS)
    if kind == 1:
        return chr(rng.randrange(32, 127))
    while True:
        code = rng.randrange(1, 0x3000) if kind == 2 else rng.randrange(1, 0x110000)
        if not 0xD800 <= code < 0xE000:
            return chr(code)


def _cut(text: str) -> str:
    return text.encode()[:200].decode(errors="ignore") or "x"


def _names(rng: random.Random, count: int, taken: set[str]) -> list[str]:
    """Names that SQLite takes for different ones, added to ``taken``."""
    found: list[str] = []
    while len(found) < count:
        one = _cut(name(rng))
        if found and rng.random() < 0.15:
            one = _cut(found[-1][:-1] + rng.choice("xyXY%"))
        elif found and rng.random() < 0.1:
            one = found[-1].upper() if found[-1].isascii() else found[-1].swapcase()
            one = _cut(one)
        if fold(one) not in taken:
            taken.add(fold(one))
            found.append(one)
    return found


@dataclass
class Schema:
    """A database, and what its application does to it."""

    tables: list[str] = field(default_factory=list)
    more: list[str] = field(default_factory=list)
    rows: list[Rows] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    keyed: bool = True
    """Whether every table has a key of its own."""
    encoding: str = "UTF-8"

    @property
    def database(self) -> Database:
        return Database(tuple(self.tables), tuple(self.rows), tuple(self.more), self.encoding)


def schema(rng: random.Random) -> Schema:
    """Tables, references, constraints, indexes, a view and a trigger under random names."""
    made = Schema(encoding=rng.choice(("UTF-8", "UTF-8", "UTF-8", "UTF-16le")))
    taken = {"sqlite_sequence"}
    count = rng.choice((1, 2, 2, 3))
    tables = [t for t in _names(rng, count, taken) if not fold(t).startswith("sqlite_")] or ["t"]
    if rng.random() < 0.03:
        tables[0] = rng.choice(CLASHING)
    parent: tuple[str, str] | None = None
    for table in tables:
        columns = _names(rng, rng.randrange(2, 5), set())
        parent = _table(rng, made, table, columns, taken, parent)
    return made


def _table(
    rng: random.Random,
    made: Schema,
    table: str,
    columns: list[str],
    taken: set[str],
    parent: tuple[str, str] | None,
) -> tuple[str, str] | None:
    key, *others = columns
    kind = rng.choice(("integer", "autoincrement", "text", "pair", "none", "without rowid"))
    t, k, v = quote(table), quote(key), quote(others[0])
    parts = [f"{quote(c)} TEXT{_extras(rng, c)}" for c in others]
    first = {
        "integer": f"{k} INTEGER PRIMARY KEY",
        "autoincrement": f"{k} INTEGER PRIMARY KEY AUTOINCREMENT",
        "text": f"{k} TEXT PRIMARY KEY NOT NULL",
        "without rowid": f"{k} TEXT PRIMARY KEY NOT NULL",
    }.get(kind, f"{k} TEXT NOT NULL")
    parts.insert(0, first)
    if kind == "pair":
        parts.append(f"CONSTRAINT {quote(_cut(name(rng)))} PRIMARY KEY ({k}, {v})")
        parts[1] = f"{v} TEXT NOT NULL"
    referring = ""
    if parent is not None and rng.random() < 0.6:
        (referring,) = _names(rng, 1, {fold(c) for c in columns})
        action = rng.choice(("CASCADE", "SET NULL", "NO ACTION"))
        parts.append(
            f"CONSTRAINT {quote(_cut(name(rng)))} FOREIGN KEY ({quote(referring)}) "
            f"REFERENCES {quote(parent[0])} ({quote(parent[1])}) ON DELETE {action}"
        )
        parts.insert(1, f"{quote(referring)} INTEGER")
    if rng.random() < 0.3:
        forbidden = literal(name(rng))
        parts.append(f"CONSTRAINT {quote(_cut(name(rng)))} CHECK ({v} <> {forbidden})")
    end = " WITHOUT ROWID" if kind == "without rowid" else ""
    made.tables.append(f"CREATE TABLE {t} ({', '.join(parts)}){end}")
    made.keyed = made.keyed and kind != "none"
    whole = kind in ("integer", "autoincrement")
    keys: list[int | str] = [1, 2, 3] if whole else ["a", "b", "c"]
    made.rows.append(Rows(table, (key, others[0]), tuple((x, f"v{x}") for x in keys)))
    _objects(rng, made, table, columns, taken)
    new = "NULL" if whole else "hex(randomblob(4))"
    made.changes += [
        f"INSERT INTO {t} ({k}, {v}) VALUES ({new}, 'new')",
        f"UPDATE {t} SET {v} = {v} || 'x'",
        f"DELETE FROM {t} WHERE {k} = {literal(str(keys[0]))}",
        f"UPDATE {t} SET {k} = {k} || '9' WHERE {k} = {literal(str(keys[1]))}",
        f"INSERT OR REPLACE INTO {t} ({k}, {v}) SELECT {k}, 'r' FROM {t} LIMIT 1",
    ]
    if referring and parent is not None:
        top = f"(SELECT max({quote(parent[1])}) FROM {quote(parent[0])})"
        made.changes.append(f"UPDATE {t} SET {quote(referring)} = {top}")
    return (table, key) if whole else parent


def _extras(rng: random.Random, column: str) -> str:
    kind = rng.randrange(6)
    if kind == 0:
        return f" DEFAULT {literal(_cut(name(rng)))}"
    if kind == 1:
        return f" CONSTRAINT {quote(_cut(name(rng)))} CHECK (length({quote(column)}) < 5000)"
    if kind == 2:
        return " COLLATE NOCASE"
    return ""


def _objects(
    rng: random.Random, made: Schema, table: str, columns: list[str], taken: set[str]
) -> None:
    t, k, v = (quote(x) for x in (table, columns[0], columns[1]))
    index, unique, view, trigger = _names(rng, 4, taken)
    if rng.random() < 0.5:
        made.more.append(f"CREATE INDEX {quote(index)} ON {t} ({v})")
    if rng.random() < 0.3:
        made.more.append(f"CREATE UNIQUE INDEX {quote(unique)} ON {t} ({v}, {k})")
    if rng.random() < 0.4:
        alias, first, second = _names(rng, 3, set())
        made.more.append(
            f"CREATE VIEW {quote(view)} ({quote(first)}, {quote(second)}) AS SELECT "
            f"{quote(alias)}.{k}, {v} FROM {t} AS {quote(alias)}"
        )
    if rng.random() < 0.2:
        made.more.append(f"CREATE TRIGGER {quote(trigger)} AFTER DELETE ON {t} BEGIN SELECT 1; END")


def makes(made: Schema, path: Path) -> bool:
    """Whether SQLite takes the schema; the file is left there."""
    try:
        made.database.write(path)
    except sqlite3.Error:
        return False
    return True
