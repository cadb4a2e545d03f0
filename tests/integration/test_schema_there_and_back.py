"""What the source's schema promises holds on PostgreSQL, and comes home."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.roundtrip import Trip, travel

AT = "2024-01-01 10:00:00"

TRIPS = (
    Trip(
        "sizes",
        "CREATE TABLE a(id INTEGER PRIMARY KEY, size BIGINT NOT NULL, at INTEGER);"
        "INSERT INTO a VALUES (1, 1024, NULL);"
        "CREATE TABLE e(id INTEGER PRIMARY KEY, ms UNSIGNED BIG INT, n INTEGER)",
        live="INSERT INTO a VALUES (2, 5000000000, 1700000000000)",
        target="INSERT INTO a VALUES (3, 6000000000, 1800000000000);\n"
        "INSERT INTO e VALUES (1, 1700000000000, 1700000000000)",
        types={"a.size": "bigint", "a.at": "bigint", "e.ms": "bigint", "e.n": "bigint"},
        home={"SELECT size, at FROM a WHERE id = 3": [(6000000000, 1800000000000)]},
    ),
    Trip(
        "types by wish",
        "CREATE TABLE w(id INTEGER PRIMARY KEY, name VARCHAR, n TEXT, tags TEXT, late INTEGER, "
        "ip TEXT, at DATETIME, code TEXT, done INTEGER DEFAULT false, asked NUMERIC DEFAULT TRUE, "
        "seen INTEGER CHECK (seen IN (0, 1)), doc BLOB);"
        "INSERT INTO w VALUES (1, 'a', '[1, 2]', '[\"x\", \"y z\"]', 90000000, '192.0.2.7', "
        f"'{AT}', 'ab', 0, 1, 1, CAST('{{\"k\": 1}}' AS BLOB))",
        live="INSERT INTO w(id, name, n, tags) VALUES (2, NULL, '[]', '[null]')",
        target="UPDATE w SET n = n || 3, tags = '{NULL,a}', late = '2 minutes' WHERE id = 1;\n"
        "INSERT INTO w(id, name, doc) VALUES (3, 'b', '[1]')",
        refused=("INSERT INTO w(id, n) VALUES (4, '{5000000000}')",),
        types={
            "w.name": "character varying",
            "w.n": "integer[]",
            "w.tags": "text[]",
            "w.late": "interval",
            "w.ip": "inet",
            "w.at": "timestamp without time zone",
            "w.code": "character(2)",
            **dict.fromkeys(("w.done", "w.asked", "w.seen"), "boolean"),
            "w.doc": "json",
        },
        policy="types: generous\ntables: {w: {columns: {n: {type: 'integer[]'}, "
        "tags: {type: 'text[]'}, late: {type: interval, epoch: us}, ip: {type: inet}, "
        "at: {type: timestamp without time zone}, code: {type: char(2)}}}}",
        home={
            "SELECT name, n, tags, late, ip, at, code FROM w": [
                ("a", "[1, 2, 3]", '[null, "a"]', 120000000, "192.0.2.7", AT, "ab"),
                (None, "[]", "[null]", None, None, None, None),
                ("b", None, None, None, None, None, None),
            ],
            "SELECT done, asked, seen, CAST(doc AS TEXT), typeof(doc) FROM w": [
                (0, 1, 1, '{"k": 1}', "blob"),
                (0, 1, None, None, "null"),
                (0, 1, None, "[1]", "blob"),
            ],
        },
    ),
    Trip(
        "keys of a parent",
        "CREATE TABLE page(id INTEGER PRIMARY KEY AUTOINCREMENT, title TEXT);"
        "CREATE TABLE post(page_id INTEGER PRIMARY KEY REFERENCES page(id), body TEXT);"
        "INSERT INTO page VALUES (1, 'a'), (7, 'b'); INSERT INTO post VALUES (7, 'x')",
        live="INSERT INTO page(title) VALUES ('c'); INSERT INTO post VALUES (8, 'y')",
        target="INSERT INTO page(title) VALUES ('d');\nINSERT INTO post VALUES (9, 'z')",
        refused=("INSERT INTO post(body) VALUES ('no key')",),
        home={"SELECT * FROM post": [(7, "x"), (8, "y"), (9, "z")]},
    ),
    Trip(
        "words for a truth value's default",
        "CREATE TABLE f(id INTEGER PRIMARY KEY, forced BOOL NOT NULL DEFAULT 'false');"
        "INSERT INTO f VALUES (1, 0), (2, 1); INSERT INTO f(id) VALUES (3)",
        live="INSERT INTO f(id) VALUES (4)",
        target="INSERT INTO f(id) VALUES (5);\nINSERT INTO f VALUES (6, true)",
        types={"f.forced": "boolean"},
        home={"SELECT forced FROM f": [(0,), (1,), ("false",), ("false",), (0,), (1,)]},
    ),
    Trip(
        "classes in CHECKs",
        "CREATE TABLE k(id INTEGER PRIMARY KEY, t CHECK (typeof(t) = 'integer'), "
        "r REAL CHECK (typeof(r) IN ('real', 'null')), bl BLOB CHECK (typeof(bl) = 'text'))",
        live="INSERT INTO k(id, t, r, bl) VALUES (1, 5, 1.5, 'x')",
        target="INSERT INTO k VALUES (2, 6, NULL, 'y')",
        refused=("INSERT INTO k VALUES (3, NULL, 1, 'z')",),
        home={"SELECT t, r FROM k": [(5, 1.5), (6, None)]},
    ),
    Trip(
        "conflict clauses and names",
        "CREATE TABLE s(key TEXT PRIMARY KEY ON CONFLICT REPLACE, value TEXT);"
        "CREATE TABLE seen(id INTEGER PRIMARY KEY, url TEXT NOT NULL UNIQUE ON CONFLICT IGNORE, "
        "title TEXT NOT NULL ON CONFLICT REPLACE DEFAULT 'untitled', CONSTRAINT both "
        "UNIQUE (url, title) ON CONFLICT REPLACE, CONSTRAINT own FOREIGN KEY (url) "
        "REFERENCES s(key), CONSTRAINT filled CHECK (title <> ''));"
        "INSERT INTO s VALUES ('u', '1'), ('u', '2'), ('v', '1');"
        "INSERT INTO seen(url, title) VALUES ('u', NULL), ('u', 'x'), ('v', 'y')",
        live="INSERT INTO s VALUES ('a', '3'), ('w', '1'), ('w', '2');"
        "INSERT INTO seen(url, title) VALUES ('u', 'y'), ('w', NULL)",
        target="INSERT INTO s VALUES ('a2', '4');\nINSERT INTO seen(url) VALUES ('a2')",
        there={
            "SELECT conname FROM pg_constraint WHERE conrelid = 'seen'::regclass "
            "AND conname IN ('own', 'both', 'filled') ORDER BY 1": [
                ("both",),
                ("filled",),
                ("own",),
            ]
        },
        refused=(
            "INSERT INTO s VALUES ('a', '4')",
            "INSERT INTO seen(url, title) VALUES ('x', NULL)",
            "INSERT INTO seen(url, title) VALUES ('a', '')",
        ),
        home={
            "SELECT key, value FROM s ORDER BY key": [
                *(("a", "3"), ("a2", "4"), ("u", "2"), ("v", "1"), ("w", "2")),
            ],
            "SELECT url, title FROM seen ORDER BY url": [
                *(("a2", "untitled"), ("u", "untitled"), ("v", "y"), ("w", "untitled")),
            ],
        },
    ),
)


@pytest.mark.parametrize("trip", TRIPS, ids=str)
def test_it_holds(trip: Trip, tmp_path: Path, postgres: str) -> None:
    travel(trip, tmp_path, postgres)
