"""Translated expressions give the same on PostgreSQL as on SQLite, row by row.

Random predicates over random rows: where there is a translation, both databases have to agree on
every row; the fixed list is what applications write in CHECKs and partial indexes.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import apsw
import psycopg
import pytest

from migration_job.plan.expression_parts import Untranslatable
from migration_job.plan.expressions import condition, value
from migration_job.plan.model import Plan
from migration_job.plan.observe import Observer
from migration_job.plan.planner import make_plan
from migration_job.plan.reach import Risk
from migration_job.plan.table_views import ColumnView, TableView
from migration_job.quoting import postgres_name
from migration_job.stores.sqlite.catalogue import read_catalogue
from migration_job.stores.sqlite.database import open_readonly

pytestmark = pytest.mark.postgres

SEED = 20260101
EXPRESSIONS = 1500

COLUMNS = {
    "i": "INTEGER",
    "j": "INTEGER",
    "r": "REAL",
    "n": "NUMERIC",
    "t": "TEXT",
    "c": "TEXT COLLATE NOCASE",
    "b": "BOOLEAN",
    "x": "BLOB",
    "w": "DATETIME",
    "d": "DATE",
    "s": "TEXT COLLATE RTRIM",
    "k": "BIGINT",
    "q": "REAL",
}

FIXED = [
    "i > 0 AND j IS NOT NULL",
    "t IN ('a', 'B', 'é') OR c = 'BOB'",
    "length(t) BETWEEN 1 AND 3",
    "t LIKE 'a%' AND t NOT LIKE '%z'",
    "t GLOB '[a-c]*'",
    "c < 'c' OR c > 'X'",
    "b = 1 OR NOT b",
    "b",
    "b + i > 1",
    "i / j = 2 OR i % j = 1",
    "-i < j AND abs(i) >= 0",
    "r * 2 > 1.5 AND r <> i",
    "typeof(i) = 'integer' AND typeof(t) = 'text'",
    "coalesce(t, c, 'none') <> 'none'",
    "CASE WHEN i > 1 THEN b ELSE 0 END",
    "iif(i IS NULL, 0, 1)",
    "nullif(i, 1) IS NULL",
    "max(i, j) > 2 OR min(i, j) < 0",
    "upper(t) = 'É' OR lower(c) = 'bob'",
    "substr(t, 2, 1) = 'b' OR instr(t, 'b') > 0",
    "trim(t) = 'a' OR rtrim(s) = 'a' OR s = 'a'",
    "t || i = 'a1'",
    "w > '2024-01-01 00:00:00' AND d <= '2024-06-30'",
    "x = x'00ff' OR length(x) = 2",
    "i IS 1 OR t IS NOT 'a' OR b IS TRUE",
    "replace(t, 'a', 'b') = 'b'",
    "'5' = i OR t = 5",
    "w IS NULL OR d IS NOT NULL",
    "n > 1 OR n IS NULL",
    "hex(x) = '00FF'",
    "i IN (1, 2, NULL)",
    "i NOT IN (1, 2)",
    "t COLLATE NOCASE = 'A'",
    "'a' = c COLLATE BINARY",
    "i NOT BETWEEN 1 AND 5",
    "NOT (i > 1 AND t IS NULL)",
    "i",
    "i - j",
    "1",
    "k <= 9223372036854775808 AND k > -9223372036854775809 AND q < 9e999",
    "k = -9223372036854775808 OR k IN (9223372036854775807, 1e-400)",
    "CAST(q AS INTEGER) = k",
    "abs(i) > 2147483647 OR -i > 2147483647",
    "k % -1 = 0 AND k / 3 > j",
    "i * 4 - j * i > 8589934591",
]


def rows(numbers: random.Random) -> Iterator[tuple[object, ...]]:
    texts = [
        "a",
        "A",
        "b",
        "B",
        "é",
        "É",
        "",
        " a",
        "a ",
        "ab",
        "aB",
        "Bob",
        "bob",
        "5",
        "1",
        "z",
        "ß",
    ]
    for _ in range(60):
        yield (
            numbers.choice([None, 0, 1, 2, 5, -3, 100, -(2**31)]),
            numbers.choice([None, 0, 1, 2, -2, 7]),
            numbers.choice([None, 0.5, 1.0, -2.25, 100.0]),
            numbers.choice([None, 1, 2.5, -3]),
            numbers.choice([None, *texts]),
            numbers.choice([None, *texts]),
            numbers.choice([None, 0, 1]),
            numbers.choice([None, b"", b"\x00\xff", b"ab"]),
            numbers.choice(
                [None, "2024-01-01 00:00:00", "2024-01-01 00:00:01", "2023-12-31 23:59:59"]
            ),
            numbers.choice([None, "2024-01-01", "2024-12-31", "1999-02-28"]),
            numbers.choice([None, *texts]),
            numbers.choice([None, 0, -1, 2**62, 2**63 - 1, -(2**63)]),
            numbers.choice([None, 0.5, 9.3e18, -1e300, 1.7e308, 1e-200]),
        )


class Pair:
    """The same rows in SQLite and in PostgreSQL."""

    def __init__(self, path: Path, dsn: str) -> None:
        numbers = random.Random(SEED)
        made = apsw.Connection(str(path))
        columns = ", ".join(f"{name} {type_}" for name, type_ in COLUMNS.items())
        made.execute(f"CREATE TABLE t(id INTEGER PRIMARY KEY, {columns})")
        holes = ", ".join("?" * len(COLUMNS))
        made.executemany(f"INSERT INTO t({', '.join(COLUMNS)}) VALUES ({holes})", rows(numbers))
        made.close()
        self.source = open_readonly(path)
        catalogue = read_catalogue(self.source)
        self.plan: Plan = make_plan(self.source, catalogue)
        table = catalogue.table("t")
        observer = Observer(self.source, catalogue)
        self.observer, self.table = observer, table
        sample, _ = observer.sample(table)
        facts = observer.facts(table, sample)
        planned = {c.source: c for c in self.plan.table("t").columns}
        self.scope = TableView(
            table,
            "t",
            {
                c.name: ColumnView(
                    c, c.name, planned[c.name].type, planned[c.name].rule, facts[c.name], True
                )
                for c in table.columns
            },
        ).scope
        self.target = psycopg.connect(dsn, autocommit=True)
        types = ", ".join(
            f"{postgres_name(c.target)} {c.type}" for c in self.plan.table("t").columns
        )
        self.target.execute(f"CREATE TABLE t({types})".encode())
        for row in self.source.execute("SELECT * FROM t"):
            texts = [
                planned[c.name].rule.forward(v) for c, v in zip(table.columns, row, strict=True)
            ]
            self.target.execute(
                f"INSERT INTO t VALUES ({', '.join(['%s'] * len(texts))})".encode(), texts
            )

    def compare(self, expression: str) -> bool:
        """Whether there is a translation that no row's arithmetic forbids; if so, both have to
        agree on every row."""
        risks: list[Risk] = []
        try:
            translated = condition(expression, self.scope, risks)
        except Untranslatable:
            return False
        now = [risk for risk in risks if risk.possible_now]
        if any(self.observer.holds_somewhere(self.table, risk.overflow) for risk in now):
            return False
        there = list(
            self.source.execute(
                f"SELECT id, CASE WHEN ({expression}) IS NULL THEN NULL "
                f"WHEN ({expression}) THEN 1 ELSE 0 END FROM t ORDER BY id"
            )
        )
        here = self.target.execute(
            f"SELECT id, ({translated})::boolean::int FROM t ORDER BY id".encode()
        ).fetchall()
        assert here == there, f"{expression}\nbecame {translated}"
        return True


@pytest.fixture
def pair(tmp_path: Path, postgres: str) -> Iterator[Pair]:
    made = Pair(tmp_path / "a.db", postgres)
    yield made
    made.target.close()
    made.source.close()


def test_what_applications_write(pair: Pair) -> None:
    translated = [e for e in FIXED if pair.compare(e)]
    assert len(translated) >= len(FIXED) - 1


def operand(numbers: random.Random, depth: int) -> str:
    leaves = [*COLUMNS, "0", "1", "2", "-1", "2.5", "'a'", "'B'", "'é'", "''", "NULL", "x'00ff'"]
    leaves += ["'2024-01-01 00:00:00'", "'2024-01-01'", "'5'"]
    if depth <= 0 or numbers.random() < 0.4:
        return numbers.choice(leaves)

    def inner() -> str:
        return operand(numbers, depth - 1)

    forms = [
        lambda: f"({inner()} {numbers.choice(['+', '-', '*', '/', '%', '||'])} {inner()})",
        lambda: (
            f"{numbers.choice(['lower', 'upper', 'length', 'abs', 'trim', 'typeof'])}({inner()})"
        ),
        lambda: f"coalesce({inner()}, {inner()})",
        lambda: f"nullif({inner()}, {inner()})",
        lambda: f"{numbers.choice(['min', 'max'])}({inner()}, {inner()})",
        lambda: f"CASE WHEN {predicate(numbers, depth - 1)} THEN {inner()} ELSE {inner()} END",
        lambda: f"substr({inner()}, {numbers.randrange(1, 3)}, 1)",
        lambda: f"{inner()} COLLATE {numbers.choice(['NOCASE', 'BINARY', 'RTRIM'])}",
    ]
    return numbers.choice(forms)()


def predicate(numbers: random.Random, depth: int) -> str:
    def inner() -> str:
        return operand(numbers, depth)

    def comparison() -> str:
        return numbers.choice(["=", "<>", "<", "<=", ">", ">=", "IS", "IS NOT", "==", "!="])

    forms = [
        lambda: f"{inner()} {comparison()} {inner()}",
        lambda: f"{inner()} {numbers.choice(['', 'NOT '])}IN ({inner()}, {inner()})",
        lambda: f"{inner()} {numbers.choice(['', 'NOT '])}BETWEEN {inner()} AND {inner()}",
        lambda: (
            f"{inner()} {numbers.choice(['', 'NOT '])}LIKE "
            f"'{numbers.choice(['a%', '_b', 'É', '%'])}'"
        ),
        lambda: (
            f"{inner()} {numbers.choice(['', 'NOT '])}GLOB '{numbers.choice(['a*', '?b', '[^a]'])}'"
        ),
        lambda: f"{inner()} IS {numbers.choice(['', 'NOT '])}NULL",
        lambda: inner(),
    ]
    if depth > 0:
        forms += [
            lambda: f"({predicate(numbers, depth - 1)} AND {predicate(numbers, depth - 1)})",
            lambda: f"({predicate(numbers, depth - 1)} OR {predicate(numbers, depth - 1)})",
            lambda: f"NOT ({predicate(numbers, depth - 1)})",
        ]
    return numbers.choice(forms)()


# Each once meant something else on PostgreSQL.
FOUND = [
    "nullif(1 COLLATE NOCASE, t)",
    "nullif('5', i) IS NOT NULL",
    "NOT ('5' IN (i, 'B'))",
    "'a' IN (c, '2024-01-01')",
    "coalesce(nullif(NULL, 'B'), nullif(2, i)) GLOB '[^a]'",
    "(i / max(min(0, i), r))",
    "n IS NOT nullif(NULL, 0)",
    "'5' IS NOT upper(coalesce('é', abs(NULL)))",
    "coalesce('a', '5' COLLATE NOCASE) NOT IN (s, coalesce('B', 'B') COLLATE NOCASE)",
    "s NOT BETWEEN CASE WHEN i COLLATE NOCASE LIKE '%' THEN substr(c, 1, 1) ELSE 'x' END AND 'B'",
    "t NOT LIKE 'a%'",
]


@pytest.mark.parametrize("expression", FOUND)
def test_what_was_found(pair: Pair, expression: str) -> None:
    pair.compare(expression)


def test_random_predicates(pair: Pair) -> None:
    numbers = random.Random(SEED)
    print(f"seed {SEED}")
    translated = sum(pair.compare(predicate(numbers, 2)) for _ in range(EXPRESSIONS))
    assert translated > EXPRESSIONS // 10


def test_values_keep_their_sql(pair: Pair) -> None:
    for expression in ("i + 1", "t || c", "coalesce(i, 0)", "upper(t)", "length(x)", "i * j"):
        translated = value(expression, pair.scope).sql
        there = list(pair.source.execute(f"SELECT id, {expression} FROM t ORDER BY id"))
        here = pair.target.execute(
            f"SELECT id, {translated} FROM t ORDER BY id".encode()
        ).fetchall()
        assert here == there, translated
