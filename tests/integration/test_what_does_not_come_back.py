"""Rows that SQLite cannot hold as PostgreSQL has them are told at once, wherever one looks."""

from __future__ import annotations

import json
from pathlib import Path

import psycopg
import pytest

from tests.integration.running import DIFFERS, DONE, USAGE
from tests.integration.wholeway import Way

pytestmark = pytest.mark.postgres

SCRIPT = "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1, 'a')"


@pytest.fixture
def way(tmp_path: Path, postgres: str) -> Way:
    """Switched, with 25 rows noted as not having come back as they are."""
    way = Way.of(tmp_path, postgres, SCRIPT)
    way.there()
    way.on_postgres(
        "INSERT INTO migration.back_difference SELECT 't', format('[%s]', n), "
        "format('t row %s: v differs', lpad(n::text, 2, '0')) FROM generate_series(1, 25) AS n"
    )
    return way


def test_status_and_sync_name_them(way: Way) -> None:
    said = way.status()
    assert "`rollback` would refuse: 25 rows do not come back" in said
    assert "t row 01: v differs" in said
    assert "and 5 more" in said
    assert "`rollback --accept-loss` gives them up" in said
    ended = way.command("sync", "--once")
    assert "warning: 25 rows do not come back" in ended.out
    assert json.loads((way.folder / "state" / "sync.json").read_text())["differences"] == 25


def test_status_says_nothing_of_them_where_there_are_none(way: Way) -> None:
    way.on_postgres("DELETE FROM migration.back_difference")
    assert "refuse:" not in way.status()


def test_what_is_given_up_is_said_before_the_decision(way: Way) -> None:
    assert way.command("rollback").status == DIFFERS
    way.on_postgres("INSERT INTO t VALUES (2, 'arrives')")
    ended = way.command("rollback", "--accept-loss")
    assert ended.status == DONE, ended.said
    before, _, _ = ended.out.partition("decided: SQLite serves")
    assert before.count(": v differs") == 20
    assert "and 4 more" in before
    assert "t row 02" not in before  # it has arrived by now
    assert "arrives" not in ended.out
    lost = (way.folder / "state" / "lost.txt").read_text().splitlines()
    assert len(lost) == 24
    assert all(": v differs" in line for line in lost)


def test_a_check_that_sqlite_alone_has(tmp_path: Path, postgres: str) -> None:
    check = "a GLOB '[a-z]*' AND printf('%s', a) <> 'b'"
    way = Way.of(
        tmp_path,
        postgres,
        f"CREATE TABLE n (id INTEGER PRIMARY KEY, a TEXT CHECK ({check})); "
        "INSERT INTO n VALUES (1, 'c')",
    )
    assert way.migrate().status == DONE
    ended = way.command("switch")
    assert ended.status == DONE, ended.said
    assert f"CHECK ({check}) of table n is not on PostgreSQL" in ended.out
    way.on_postgres("INSERT INTO n VALUES (2, 'd')")
    assert "n breaks" not in way.command("sync", "--once").said
    way.on_postgres("INSERT INTO n VALUES (3, 'b')")
    ended = way.command("rollback")
    assert ended.status == DONE, ended.said
    before, _, _ = ended.out.partition("decided: SQLite serves")
    assert f"1 row breaks CHECK ({check}) of table n" in before
    assert way.on_sqlite("SELECT a FROM n ORDER BY id") == [("c",), ("d",), ("b",)]


def test_a_strict_table_computes_what_postgresql_cannot(tmp_path: Path, postgres: str) -> None:
    way = Way.of(
        tmp_path,
        postgres,
        "CREATE TABLE s (id INTEGER PRIMARY KEY, doc TEXT, "
        "n INTEGER AS (json_extract(doc, '$.n')) VIRTUAL) STRICT; "
        """INSERT INTO s VALUES (1, '{"n": 5}')""",
    )
    assert way.migrate().status == DONE
    ended = way.command("switch")
    assert ended.status == USAGE, ended.said
    assert "changes to s could not come back" in ended.err
    assert "SQLite computes n and refuses a row where that is no INTEGER" in ended.err
    assert "--one-way s" in ended.err


def test_text_of_a_number_that_something_is_computed_of(tmp_path: Path, postgres: str) -> None:
    """SQLite would make 7 of '007', and compute with that what PostgreSQL computed of the text."""
    script = """
        CREATE TABLE t(id INTEGER PRIMARY KEY, day DATE, copied BLOB AS (day) VIRTUAL);
        INSERT INTO t(id, day) VALUES (1, 'some day'), (2, 'other')"""
    way = Way.of(tmp_path, postgres, script)
    way.there()
    for written in ("007", "1.0", " 5 ", "7"):
        with pytest.raises(psycopg.errors.CheckViolation, match="t_day_representable"):
            way.on_postgres(f"UPDATE t SET day = '{written}' WHERE id = 1")
    way.on_postgres("UPDATE t SET day = 'today' WHERE id = 1; UPDATE t SET day = NULL WHERE id = 2")
    way.back()
    assert way.on_sqlite("SELECT day, copied FROM t ORDER BY id") == [
        ("today", "today"),
        (None, None),
    ]
