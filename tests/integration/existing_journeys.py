"""What random applications write on either side of a switch, and what has to be where.

SQLite's rows are told by the model. Once PostgreSQL serves, its own rows are what counts, whatever
cascades made of them; how SQLite writes a value of theirs is told by the pairs of the model.
"""

from __future__ import annotations

import contextlib
import copy
import json
import random
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import psycopg

from tests.integration.existing_applications import (
    NEVER,
    Application,
    Column,
    Row,
    Table,
    meets_uniques,
    quoted,
)
from tests.integration.existing_kinds import JSON, LIST, Pair

Known = dict[tuple[str, str], list[Pair]]
"""The pairs that a column had at any time, by the source's names of its table and itself."""


@dataclass
class Sides:
    """One application's rows on both sides, as they were written."""

    application: Application
    path: Path
    dsn: str
    rng: random.Random
    said: list[str] = field(default_factory=list)
    known: Known = field(default_factory=dict)

    # ------------------------------------------------------------------ while SQLite serves

    def write_source(self) -> None:
        """Random changes of the application's; the model has them afterwards."""
        for table in self.application.tables:
            for _ in range(self.rng.randint(0, 4)):
                rows, own = copy.deepcopy((table.rows, table.own))
                self._change(table)
                # What the target's own schema refuses, an application of that schema never writes.
                met = all(meets_uniques(self.rng, one, table) for one in table.uniques)
                if not met or table.own != own:
                    table.rows, table.own = rows, own
            self._remember(table)
        self._write_out()

    def _change(self, table: Table) -> None:
        what = self.rng.choice(["insert", "insert", "update", "update", "delete"])
        if what == "insert":
            key = max([0, *table.keys(), *table.own_keys()]) + self.rng.choice([1, 1, 5])
            table.rows.append(
                Row(key, [self._value(c) for c in table.columns], self._parent(table))
            )
        elif table.rows and what == "update":
            row = self.rng.choice(table.rows)
            number = self.rng.randrange(len(table.columns))
            row.values[number] = self._value(table.columns[number])
            if self.rng.random() < 0.3:
                row.parent = self._parent(table)
        elif what == "delete":
            free = [r for r in table.rows if r.key not in self._referred(table)]
            if free:
                table.rows.remove(self.rng.choice(free))

    def _value(self, column: Column) -> Pair:
        if column.there is None and not column.skipped:
            return NEVER
        wanted = column.required or self.rng.random() < 0.8
        return column.kind.make(self.rng) if wanted else NEVER

    def _parent(self, table: Table) -> int | None:
        if table.parent is None or self.rng.random() < 0.2:
            return None
        parent = table.parent
        keys = parent.keys() if parent.carried else parent.final_keys()
        return self.rng.choice(sorted(keys)) if keys else None

    def _referred(self, table: Table) -> set[int]:
        """The keys that a row of either side refers to, or that the target had before."""
        found = set(table.own_keys())
        for other in self.application.tables:
            if other.parent is table:
                found |= {r.parent for r in [*other.rows, *other.own] if r.parent is not None}
        return found

    def _remember(self, table: Table) -> None:
        for row in [*table.rows, *table.own]:
            for column, pair in zip(table.columns, row.values, strict=True):
                self.known.setdefault((table.name, column.name), []).append(pair)

    def _write_out(self) -> None:
        """Have SQLite hold the model's rows, by the statements that lead there."""
        with contextlib.closing(sqlite3.connect(self.path, timeout=30)) as connection:
            statements: list[tuple[str, tuple[Any, ...]]] = []
            for table in self.application.tables:
                there = {int(row[0]): tuple(row) for row in source_rows(connection, table)}
                names = ["key", "parent", *(column.name for column in table.columns)]
                into = quoted(table.name)
                wanted = {r.key: (r.key, r.parent, *(v for v, _ in r.values)) for r in table.rows}
                for key in there.keys() - wanted.keys():
                    statements.append((f"DELETE FROM {into} WHERE key = ?", (key,)))
                for key, row in wanted.items():
                    if key not in there:
                        marks = ", ".join("?" * len(row))
                        statements.append((f"INSERT INTO {into} VALUES ({marks})", row))
                        continue
                    for name, value, old in zip(names, row, there[key], strict=True):
                        if value != old:
                            change = f"UPDATE {into} SET {quoted(name)} = ? WHERE key = ?"
                            statements.append((change, (value, key)))
            self.rng.shuffle(statements)
            for statement, values in statements:
                self.said.append(f"{statement} {values}")
                connection.execute(statement, values)
                if self.rng.random() < 0.7:
                    connection.commit()
            connection.commit()

    def touch(self) -> None:
        """Have the application write each row again, as it is."""
        with contextlib.closing(sqlite3.connect(self.path, timeout=30)) as connection:
            for table in self.application.tables:
                connection.execute(f"UPDATE {quoted(table.name)} SET key = key")
            connection.commit()

    # -------------------------------------------------------------- while PostgreSQL serves

    def write_target(self) -> None:
        """Random statements of the application's on PostgreSQL; what its own constraints refuse
        is not there."""
        for table in self.application.tables:
            if table.there is not None:
                self._remember(table)
        with psycopg.connect(self.dsn, autocommit=True) as target:
            for table in self.application.tables:
                if not table.carried:
                    continue
                for _ in range(self.rng.randint(0, 5)):
                    statement = self._statement(table)
                    try:
                        target.execute(statement.encode())
                    except psycopg.IntegrityError as refused:
                        self.said.append(f"{statement} -- {type(refused).__name__}")
                    else:
                        self.said.append(statement)

    def _statement(self, table: Table) -> str:
        into, key = quoted(table.place), quoted(table.key)
        keys = sorted(table.final_keys()) or [1]
        one = self.rng.choice(keys)
        what = self.rng.choice(["insert", "insert", "update", "update", "all", "delete", "parent"])
        columns = [column for _, column in table.carries]
        if what == "insert" or not columns:
            chosen = [c for c in columns if c.required or self.rng.random() < 0.6]
            names = [quoted(str(c.there)) for c in chosen]
            values = [self._written(table, c) for c in chosen]
            if table.identity == "integer":
                names, values = [key, *names], [str(keys[-1] + self.rng.randint(1, 9)), *values]
            if not names:
                return f"INSERT INTO {into} DEFAULT VALUES"
            return f"INSERT INTO {into} ({', '.join(names)}) VALUES ({', '.join(values)})"
        if what == "delete":
            return f"DELETE FROM {into} WHERE {key} = {one}"
        if what == "parent":
            return f"UPDATE {into} SET parent = {self._parent(table) or 'NULL'} WHERE {key} = {one}"
        column = self.rng.choice(columns)
        name, value = quoted(str(column.there)), self._written(table, column)
        where = f"{key} = {one}" if what == "update" else f"{key} >= {one}"
        return f"UPDATE {into} SET {name} = {value} WHERE {where}"

    def _written(self, table: Table, column: Column) -> str:
        pair = column.kind.make(self.rng)
        if not column.required and self.rng.random() < 0.2:
            return "NULL"
        self.known.setdefault((table.name, column.name), []).append(pair)
        return column.kind.literal(str(pair[1]))

    # ----------------------------------------------------------------------------- compared

    def target_rows(self, table: Table) -> dict[int, tuple[Any, ...]]:
        """Key -> parent and the carried columns as texts."""
        shown = [c.kind.shown.format(quoted(str(c.there))) for _, c in table.carries]
        columns = ", ".join([quoted(table.key), "parent", *shown])
        with psycopg.connect(self.dsn) as target:
            target.execute("SET TimeZone = 'UTC'")
            rows = target.execute(f"SELECT {columns} FROM {quoted(table.place)}".encode())
            return {int(row[0]): tuple(row[1:]) for row in rows.fetchall()}

    def wrong(self, before: dict[str, dict[int, tuple[Any, ...]]]) -> list[str]:
        """What SQLite has otherwise than PostgreSQL meant it; ``before`` has SQLite's rows when it
        was closed, by table and key."""
        return [text for table in self.application.tables for text in self._wrong(table, before)]

    def _wrong(self, table: Table, before: dict[str, dict[int, tuple[Any, ...]]]) -> Iterator[str]:
        here, was = self.source(table), before[table.name]
        if not table.carried:
            if here != was:
                yield f"{table.name}, which stays on SQLite, has changed: {was} -> {here}"
            return
        there = self.target_rows(table)
        if here.keys() != there.keys():
            yield f"{table.name}: keys {sorted(there)} there, {sorted(here)} here"
        for key in here.keys() & there.keys():
            parent, *values = there[key]
            if here[key][0] != parent:
                yield f"{table.name} {key}: parent {parent} there, {here[key][0]} here"
            texts = dict(zip([n for n, _ in table.carries], values, strict=True))
            for number, column in enumerate(table.columns):
                value = here[key][1 + number]
                if number in texts:
                    pairs = self.known.get((table.name, column.name), [])
                    if not self._means(column, value, texts[number], pairs):
                        yield f"{table.name}.{column.name} {key}: {texts[number]!r} -> {value!r}"
                elif value != (was[key][1 + number] if key in was else None):
                    yield f"{table.name}.{column.name} {key}: {value!r}, which is not carried"

    @staticmethod
    def _means(column: Column, value: Any, text: str | None, pairs: list[Pair]) -> bool:
        if value is None or text is None:
            return value is text
        kind = column.kind
        meant = [source for source, shown in pairs if kind.alike(shown, text)]
        assert meant, f"{column} has a value that nobody wrote: {text!r}"
        return any(_same(value, one, loosely=kind.shown in (JSON, LIST)) for one in meant)

    def source(self, table: Table) -> dict[int, tuple[Any, ...]]:
        """SQLite's rows: key -> parent and values."""
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            return {int(row[0]): tuple(row[1:]) for row in source_rows(connection, table)}

    def orphans(self) -> Counter[tuple[Any, ...]]:
        """What SQLite's own check of foreign keys complains of, by table and parent; a table that
        each side has rows of its own of does not count."""
        carried = {table.name for table in self.application.tables if table.carried}
        with contextlib.closing(sqlite3.connect(self.path)) as connection:
            found = connection.execute("PRAGMA foreign_key_check").fetchall()
        return Counter(
            (table, parent) for table, _, parent, _ in found if {table, parent} <= carried
        )


def source_rows(connection: sqlite3.Connection, table: Table) -> list[tuple[Any, ...]]:
    names = ", ".join(["key", "parent", *(quoted(column.name) for column in table.columns)])
    return connection.execute(f"SELECT {names} FROM {quoted(table.name)}").fetchall()


def _same(value: Any, wanted: Any, *, loosely: bool) -> bool:
    """Whether both are one value to the readers of such a column."""
    if type(value) is type(wanted) and value == wanted:
        return True
    if loosely:
        return bool(json.loads(value) == json.loads(wanted))
    if isinstance(wanted, str) and isinstance(value, str):
        for read in (_moment, Decimal):
            with contextlib.suppress(ValueError, InvalidOperation):
                return bool(read(value) == read(wanted))
        return False
    numbers = (int, float)
    return isinstance(value, numbers) and isinstance(wanted, numbers) and value == wanted


def _moment(text: str) -> datetime:
    if not 10 <= len(text) <= 32 or text[4:5] != "-":
        raise ValueError(text)
    return datetime.fromisoformat(text)
