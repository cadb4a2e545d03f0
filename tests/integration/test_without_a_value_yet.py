"""Columns in which nothing stands when the plan is made: what PostgreSQL writes there comes back as
the application writes such columns, and what refers to a key as that key is spelled."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.running import DONE
from tests.integration.wholeway import Way

pytestmark = pytest.mark.postgres

DIGITS, UPPER = "fd112233445566778899aabbccddeeff", "FD112233-4455-6677-8899-AABBCCDDEEFF"
MOMENT = "2026-01-02 03:04:05.25+00"


def there_and_back(way: Way, live: str, on_postgres: str) -> None:
    moved = way.migrate()
    assert moved.status == DONE, moved.said
    way.on_sqlite(live)
    switched = way.command("switch")
    assert switched.status == DONE, switched.said
    way.on_postgres(on_postgres)
    way.back()


def test_times_as_the_columns_like_them_have_them(postgres: str, tmp_path: Path) -> None:
    """JavaScript reads `2026-01-02 03:04:05` in the zone of whoever looks, and the same with T and
    Z in UTC. In its own table comes before elsewhere; columns that disagree say nothing."""
    way = Way.of(
        tmp_path,
        postgres,
        """
        CREATE TABLE filled (id INTEGER PRIMARY KEY, at DATETIME, done DATETIME, on_ TIMESTAMP,
            begins TIME, whole DATETIME);
        CREATE TABLE empty (id INTEGER PRIMARY KEY, at DATETIME, on_ TIMESTAMP, begins TIME);
        CREATE TABLE own (id INTEGER PRIMARY KEY, said DATETIME, later DATETIME);
        INSERT INTO filled VALUES
            (1, '2026-01-02T03:04:05.678Z', NULL, '2026-01-02T03:04:05+02:00', '03:04', NULL);
        INSERT INTO own VALUES (1, '2026-01-02 03:04:05', NULL);
        """,
    )
    there_and_back(
        way,
        "INSERT INTO filled VALUES (2, NULL, '2026-01-02T03:04:06.789Z', NULL, NULL, NULL)",
        f"""
        INSERT INTO empty VALUES (1, '{MOMENT}', '{MOMENT}', '05:06');
        UPDATE filled SET done = '{MOMENT}', whole = '2026-01-02 03:04:05+00' WHERE id = 1;
        UPDATE own SET later = '2026-01-02 03:04:07+00';
        """,
    )
    # `own` is of another opinion than `filled`: to `empty` neither says anything.
    assert way.on_sqlite("SELECT * FROM empty") == [
        (1, "2026-01-02 03:04:05.250000", "2026-01-02T05:04:05.250000+02:00", "05:06")
    ]
    assert way.on_sqlite("SELECT done, whole FROM filled WHERE id = 1") == [
        ("2026-01-02T03:04:05.250Z", "2026-01-02T03:04:05.000Z")
    ]
    assert way.on_sqlite("SELECT done FROM filled WHERE id = 2") == [("2026-01-02T03:04:06.789Z",)]
    assert way.on_sqlite("SELECT later FROM own") == [("2026-01-02 03:04:07",)]


def test_numbers_of_times_as_the_columns_like_them_count(postgres: str, tmp_path: Path) -> None:
    """Prisma's milliseconds: in a table without a row as in all others, also for the first row that
    SQLite gets while it is followed."""
    way = Way.of(
        tmp_path,
        postgres,
        """
        CREATE TABLE filled (id INTEGER PRIMARY KEY, at DATETIME NOT NULL);
        CREATE TABLE empty (id INTEGER PRIMARY KEY, at DATETIME NOT NULL);
        INSERT INTO filled VALUES (1, 1767323045678), (2, 1767323045679);
        """,
    )
    there_and_back(
        way,
        "INSERT INTO empty VALUES (1, 1767323045111)",
        f"INSERT INTO empty SELECT 2, at FROM empty; INSERT INTO empty VALUES (3, '{MOMENT}');",
    )
    assert way.on_sqlite("SELECT * FROM empty") == [
        (1, 1767323045111),
        (2, 1767323045111),
        (3, 1767323045250),
    ]


def test_what_refers_to_a_uuid_as_the_key_spells_it(postgres: str, tmp_path: Path) -> None:
    """Else SQLite would not find the parent, and say nothing. Also a tree of one table, and a
    child of a child; a child whose own values are spelled otherwise keeps them."""
    way = Way.of(
        tmp_path,
        postgres,
        f"""
        CREATE TABLE node (id UUID PRIMARY KEY, above UUID REFERENCES node);
        CREATE TABLE child (id UUID PRIMARY KEY REFERENCES node);
        CREATE TABLE grandchild (of_ UUID REFERENCES child, n integer);
        CREATE TABLE upper_ (id UUID PRIMARY KEY COLLATE NOCASE, n integer);
        CREATE TABLE lower_ (of_ UUID REFERENCES upper_, n INTEGER PRIMARY KEY);
        INSERT INTO node VALUES ('{DIGITS}', NULL);
        INSERT INTO upper_ VALUES ('{UPPER}', 1);
        INSERT INTO lower_ VALUES ('{UPPER.lower()}', 1);
        """,
    )
    there_and_back(
        way,
        "",
        """
        INSERT INTO node SELECT '00112233-4455-6677-8899-aabbccddeeff', id FROM node;
        INSERT INTO child SELECT id FROM node;
        INSERT INTO grandchild SELECT id, 1 FROM child;
        INSERT INTO lower_ SELECT id, 2 FROM upper_;
        """,
    )
    assert way.on_sqlite("PRAGMA foreign_key_check") == []
    joined = (
        "SELECT g.of_ FROM grandchild g JOIN child c ON c.id = g.of_ JOIN node n ON n.id = c.id "
        "LEFT JOIN node above ON above.id = n.above WHERE n.above IS NULL OR above.id = ?"
    )
    there = sorted(row[0] for row in way.on_sqlite(joined.replace("?", f"'{DIGITS}'")))
    assert there == ["00112233445566778899aabbccddeeff", DIGITS]
    assert [row[0] for row in way.on_sqlite("SELECT of_ FROM lower_")] == [UPPER.lower()] * 2
