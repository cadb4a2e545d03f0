"""COPY text: what SQLite assembles is what Python would have written, for any clean value."""

from __future__ import annotations

import random

import apsw
import pytest

from migration_job.plan.model import ColumnPlan, TablePlan
from migration_job.plan.rules import ByteaRule, IntegerRule, Rule, TextRule
from migration_job.stores.postgres.copytext import copy_sql, escape, fields_of, table_sql
from migration_job.stores.sqlite.model import SourceColumn, SourceTable
from migration_job.values import SourceValue

SEED = 5

HOSTILE = ["", "\\", "\\N", "\\.", "\t", "\n", "\r\n", "a\\tb", "ä€😀", "'", '"', "\x01\x1d\x7f"]


def _table(*columns: tuple[str, Rule, bool]) -> tuple[TablePlan, SourceTable]:
    plan = TablePlan(
        source="t",
        target="t",
        columns=tuple(
            ColumnPlan(source=n, target=n, type="text", rule=r, clean=c) for n, r, c in columns
        ),
    )
    source = SourceTable(
        name="t", sql="", primary_key=(), rowid_alias=None, autoincrement=False,
        without_rowid=False, strict=False, indexes=(), foreign_keys=(), checks=(), sequence=None,
        columns=tuple(
            SourceColumn(
                name=n, declared="", affinity="blob", not_null=False, default=None, primary_key=0,
                generated="",
            )
            for n, _, _ in columns
        ),
    )  # fmt: skip
    return plan, source


def _expected(rules: list[Rule], row: tuple[SourceValue, ...]) -> str:
    return "\t".join(escape(r.forward(v)) for r, v in zip(rules, row, strict=True))


@pytest.mark.parametrize("attribute", ["line", "bare"])
def test_the_line_that_sqlite_assembles(attribute: str) -> None:
    rules: list[Rule] = [TextRule(), IntegerRule(), TextRule()]
    plan, source = _table(*((f"c{i}", r, True) for i, r in enumerate(rules)))
    sql = table_sql(plan, source)
    rng = random.Random(SEED)
    plain = ["", "a", "ä€😀", "'"]
    connection = apsw.Connection(":memory:")
    connection.execute("CREATE TABLE t(c0, c1, c2)")
    for _ in range(300):
        words = HOSTILE if attribute == "line" else plain
        row = (rng.choice([None, *words]), rng.choice([None, -(2**63), 7]), rng.choice(words))
        connection.execute("DELETE FROM t")
        connection.execute("INSERT INTO t VALUES (?, ?, ?)", row)
        found = connection.execute(f"SELECT {getattr(sql, attribute)} FROM t AS t").get
        assert found == _expected(rules, row), (SEED, row)


def test_bytes_are_hex_behind_one_escaped_backslash() -> None:
    plan, source = _table(("c0", ByteaRule(), True))
    sql = table_sql(plan, source)
    connection = apsw.Connection(":memory:")
    connection.execute("CREATE TABLE t(c0); INSERT INTO t VALUES (x'00ff5c'), (x''), (NULL)")
    found = [row[0] for row in connection.execute(f"SELECT {sql.line} FROM t AS t")]
    assert found == ["\\\\x00ff5c", "\\\\x", "\\N"]


def test_more_columns_than_a_function_takes() -> None:
    columns = [(f"c{i}", IntegerRule(), True) for i in range(1_200)]
    plan, source = _table(*columns)
    sql = table_sql(plan, source)
    connection = apsw.Connection(":memory:")
    connection.execute(f"CREATE TABLE t({', '.join(n for n, _, _ in columns)})")
    connection.execute(f"INSERT INTO t VALUES ({', '.join(str(i) for i in range(1_200))})")
    found = connection.execute(f"SELECT {sql.line} FROM t AS t").get
    assert found == "\t".join(str(i) for i in range(1_200))


def test_doubtful_columns_are_tested_row_by_row() -> None:
    plan, source = _table(("c0", TextRule(), False), ("c1", IntegerRule(), True))
    sql = table_sql(plan, source)
    connection = apsw.Connection(":memory:")
    connection.execute("CREATE TABLE t(c0, c1)")
    connection.execute(
        "INSERT INTO t VALUES ('a', 1), (NULL, 2), (5, 3), (x'00', 4), ('a' || char(0), 5)"
    )
    found = [row[0] for row in connection.execute(f"SELECT c1 FROM t AS t WHERE {sql.clean}")]
    assert found == [1, 2]


def test_the_statement() -> None:
    assert copy_sql('"public"."t"', ("a", 'b"c'), freeze=True) == (
        'COPY "public"."t" ("a", "b""c") FROM STDIN WITH (FREEZE)'
    )


@pytest.mark.parametrize(
    "values",
    [
        ["", None, "\\N", "\\\\N", "a\tb\nc\rd\\", "\\t\\n\\r", "\x08\x0b", "n"],
        [None],
        [""],
        ["\\"],
    ],
)
def test_a_line_gives_back_what_it_was_made_of(values: list[str | None]) -> None:
    assert fields_of("\t".join(map(escape, values))) == values
