"""Constraints over texts that a rule changes: SQLite computes with the number, PostgreSQL with the
text that the number became. What would refuse a row that SQLite has is told, not made."""

from __future__ import annotations

import json
from pathlib import Path

import apsw
import psycopg
import pytest

from tests.integration.running import DONE, run

pytestmark = pytest.mark.postgres

REAL = 1e16
"""``1e+16`` as it is carried, and longer where SQLite makes a text of it."""
INDEXES = {
    "(length(b))": "12345",
    "(length(c)), b": "1e+16",
    "(id % 1) WHERE length(b) < 6": "12345",
    "(substr(b, 1, 2))": "1e",
    "(b || c)": "1e+16",
    "(lower(b))": "1E+16",
}
"""Unique ones, and the text of another row, beside which the target could not have them."""
CHECKS = ["length(b) >= 6", "b <> '1e+16'", "b || 'x' <> '1e+16x'", "b NOT LIKE '1e%'"]
KEPT = ["b IS NOT NULL", "length(c) < 5"]


def findings(report: Path) -> set[tuple[str, str]]:
    told = json.loads((report / "report.json").read_text())["findings"]
    return {(finding["code"], finding["severity"]) for finding in told}


@pytest.mark.parametrize("terms", INDEXES)
def test_a_unique_index_is_told(tmp_path: Path, postgres: str, terms: str) -> None:
    source = tmp_path / "app.db"
    columns, _, where = terms.partition(" WHERE ")
    condition = f"WHERE {where}" if where else ""
    with apsw.Connection(str(source)) as connection:
        connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, b, c TEXT)")
        connection.execute("INSERT INTO t VALUES (1, ?, 'x'), (2, ?, 'x')", (REAL, INDEXES[terms]))
        connection.execute(f"CREATE UNIQUE INDEX own ON t({columns}) {condition}")
        connection.execute("CREATE UNIQUE INDEX kept ON t((length(c)), id)")
        connection.execute(f"CREATE INDEX quick ON t({columns}) {condition}")
    ended = run("migrate", source, "--target", postgres, "--report", tmp_path / "report")
    assert ended.status == DONE, ended.said
    assert ("index-not-carried", "warning") in findings(tmp_path / "report")
    with psycopg.connect(postgres) as target:
        names = target.execute("SELECT indexname FROM pg_indexes WHERE tablename = 't'").fetchall()
    assert {"kept", "quick"} == {name for (name,) in names} - {"t_pkey"}


@pytest.mark.parametrize("check", CHECKS)
def test_a_check_is_told(tmp_path: Path, postgres: str, check: str) -> None:
    source = tmp_path / "app.db"
    with apsw.Connection(str(source)) as connection:
        own = ", ".join(f"CHECK ({one})" for one in (check, *KEPT))
        connection.execute(f"CREATE TABLE t(id INTEGER PRIMARY KEY, b, c TEXT, {own})")
        connection.execute("INSERT INTO t VALUES (1, ?, 'x'), (2, 'long text', 'x')", (REAL,))
    ended = run("migrate", source, "--target", postgres, "--report", tmp_path / "report")
    assert ended.status == DONE, ended.said
    assert ("check-not-carried", "warning") in findings(tmp_path / "report")
    with psycopg.connect(postgres) as target:
        (kept,) = target.execute(
            "SELECT count(*) FROM pg_constraint WHERE contype = 'c' AND conrelid = 't'::regclass"
        ).fetchone() or (0,)
    assert kept == len(KEPT)


def test_a_generated_column_asks_whether_one_is_null(tmp_path: Path, postgres: str) -> None:
    source = tmp_path / "app.db"
    with apsw.Connection(str(source)) as connection:
        connection.execute(
            "CREATE TABLE t(id INTEGER PRIMARY KEY, b, empty INTEGER AS (b IS NULL), "
            "long INTEGER AS (length(b)))"
        )
        connection.execute("INSERT INTO t VALUES (1, ?), (2, 'text'), (3, NULL)", (REAL,))
        expected = connection.execute("SELECT empty, long FROM t ORDER BY id").fetchall()
    ended = run("migrate", source, "--target", postgres, "--report", tmp_path / "report")
    assert ended.status == DONE, ended.said
    with psycopg.connect(postgres) as target:
        rows = target.execute("SELECT empty::int, long FROM t ORDER BY id").fetchall()
        generated = target.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = 't'::regclass AND attgenerated <> ''"
        ).fetchall()
    assert rows == expected
    assert generated == [("empty",)]
