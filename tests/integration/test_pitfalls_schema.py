"""Pitfalls 24 to 38: schemas. Each case is a small hostile database, the end that it has to come
to, what the tool says, and what the target holds by an independent comparison."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path

import psycopg
import pytest

from tests.integration.running import BLOCKED, Case, check

pytestmark = pytest.mark.postgres

cases = pytest.mark.parametrize

FOREIGN_KEYS = (
    "SELECT conrelid::regclass::text, confrelid::regclass::text, confdeltype::text, convalidated "
    "FROM pg_constraint WHERE contype = 'f' ORDER BY conname"
)
PARENT_AND_CHILD = """
    CREATE TABLE parent(id INTEGER PRIMARY KEY, name TEXT);
    INSERT INTO parent VALUES (1, 'one'), (2, 'two');
    CREATE TABLE child(id INTEGER PRIMARY KEY,
                       parent_id INTEGER REFERENCES parent(id) ON DELETE CASCADE);
"""


@cases(
    "case",
    [
        Case(
            "stops where nothing is said",
            PARENT_AND_CHILD + "INSERT INTO child VALUES (1, 1), (2, 99);",
            BLOCKED,
            says=("orphan",),
            policy="default: block\n",
        ),
        Case(
            "kept and acknowledged: the key is there, not validated",
            PARENT_AND_CHILD + "INSERT INTO child VALUES (1, 1), (2, 99);",
            policy="orphans: keep\n",
            says=("orphan",),
            holds={
                "SELECT id, parent_id FROM child ORDER BY id": [(1, 1), (2, 99)],
                FOREIGN_KEYS: [("child", "parent", "c", False)],
            },
            ledger=0,
        ),
        Case(
            "set aside with what depends on it",
            PARENT_AND_CHILD
            + "CREATE TABLE grandchild(child_id INTEGER REFERENCES child(id));"
            + "INSERT INTO child VALUES (1, 1), (2, 99); INSERT INTO grandchild VALUES (1), (2);",
            policy="orphans: quarantine\n",
            says=("orphan",),
            holds={
                "SELECT id FROM child": [(1,)],
                "SELECT child_id FROM grandchild": [(1,)],
                "SELECT bool_and(convalidated) FROM pg_constraint WHERE contype = 'f'": [(True,)],
            },
            quarantine=2,
        ),
        Case(
            "the empty string as a reference",
            "CREATE TABLE p(id TEXT PRIMARY KEY); INSERT INTO p VALUES ('a');"
            "CREATE TABLE c(id INTEGER PRIMARY KEY, p TEXT REFERENCES p(id));"
            "INSERT INTO c VALUES (1, 'a'), (2, ''), (3, NULL);",
            policy="tables: {c: {columns: {p: {empty: null}}}}\n",
            holds={
                "SELECT id, p FROM c ORDER BY id": [(1, "a"), (2, None), (3, None)],
                FOREIGN_KEYS: [("c", "p", "a", True)],
            },
            ledger=1,
        ),
        Case(
            "a parent table that is not there",
            "CREATE TABLE c(id INTEGER PRIMARY KEY, p INTEGER REFERENCES nowhere(id));"
            "INSERT INTO c VALUES (1, 5);",
            says=("nowhere",),
            holds={"SELECT * FROM c": [(1, 5)], FOREIGN_KEYS: []},
        ),
        Case(
            "a parent column that is not unique",
            "CREATE TABLE p(id INTEGER PRIMARY KEY, n INTEGER);"
            "INSERT INTO p VALUES (1, 5), (2, 5);"
            "CREATE TABLE c(n INTEGER REFERENCES p(n)); INSERT INTO c VALUES (5);",
            says=("foreign",),
            holds={"SELECT * FROM c": [(5,)], FOREIGN_KEYS: []},
        ),
        Case(
            "text that refers to integers",
            "CREATE TABLE p(id INTEGER PRIMARY KEY); INSERT INTO p VALUES (1), (2);"
            "CREATE TABLE c(p TEXT REFERENCES p(id)); INSERT INTO c VALUES ('1'), ('2'), (NULL);",
            holds={"SELECT count(*) FROM c JOIN p ON p.id::text = c.p::text": [(2,)]},
        ),
        Case(
            "a reference to what is unique whatever its case",
            "CREATE TABLE p(id INTEGER PRIMARY KEY, n TEXT COLLATE NOCASE UNIQUE);"
            "CREATE TABLE c(n TEXT REFERENCES p(n) ON DELETE RESTRICT);"
            "INSERT INTO p VALUES (1, 'Bob'), (2, 'Eve'); INSERT INTO c VALUES ('Bob'), (NULL);"
            "CREATE TABLE d(n TEXT REFERENCES p(n)); INSERT INTO d VALUES ('BOB'), ('Eve');",
            says=("orphans: .*1 row without a parent",),
            silent=("foreign-key-not-carried",),
            holds={
                FOREIGN_KEYS: [("c", "p", "r", True), ("d", "p", "a", False)],
                "SELECT count(*) FROM pg_index WHERE indisunique AND indrelid = 'p'::regclass": [
                    (3,)
                ],
            },
        ),
        Case(
            "a reference in another case",
            "CREATE TABLE p(id TEXT PRIMARY KEY COLLATE NOCASE); INSERT INTO p VALUES ('Abc');"
            "CREATE TABLE c(p TEXT REFERENCES p(id)); INSERT INTO c VALUES ('ABC');",
            holds={"SELECT p::text FROM c": [("ABC",)]},
        ),
    ],
    ids=str,
)
def test_pitfall_24_orphans(case: Case, tmp_path: Path, postgres: str) -> None:
    check(case, tmp_path, postgres)


@cases(
    "case",
    [
        Case(
            "children made before their parents",
            "CREATE TABLE a_child(id INTEGER PRIMARY KEY, p INTEGER REFERENCES z_parent(id));"
            "CREATE TABLE z_parent(id INTEGER PRIMARY KEY);"
            "INSERT INTO a_child VALUES (1, 10), (2, 10); INSERT INTO z_parent VALUES (10);",
            holds={
                "SELECT * FROM a_child ORDER BY id": [(1, 10), (2, 10)],
                FOREIGN_KEYS: [("a_child", "z_parent", "a", True)],
            },
        ),
        Case(
            "a cycle",
            "CREATE TABLE a(id INTEGER PRIMARY KEY, b INTEGER REFERENCES b(id));"
            "CREATE TABLE b(id INTEGER PRIMARY KEY, a INTEGER REFERENCES a(id));"
            "INSERT INTO a VALUES (1, 2); INSERT INTO b VALUES (2, 1);",
            holds={"SELECT a.id, b.id FROM a JOIN b ON b.a = a.id AND a.b = b.id": [(1, 2)]},
        ),
        Case(
            "a table that refers to itself, forwards",
            "CREATE TABLE t(id INTEGER PRIMARY KEY, up INTEGER REFERENCES t ON DELETE SET NULL);"
            "INSERT INTO t VALUES (1, 3), (2, 2), (3, 1), (4, NULL);",
            holds={
                "SELECT * FROM t ORDER BY id": [(1, 3), (2, 2), (3, 1), (4, None)],
                FOREIGN_KEYS: [("t", "t", "n", True)],
            },
        ),
        Case(
            "a composite reference",
            "CREATE TABLE p(a INTEGER, b TEXT, PRIMARY KEY(a, b)); INSERT INTO p VALUES (1, 'x');"
            "CREATE TABLE c(y TEXT, x INTEGER, FOREIGN KEY(x, y) REFERENCES p(a, b) "
            "ON UPDATE CASCADE ON DELETE RESTRICT DEFERRABLE INITIALLY DEFERRED);"
            "INSERT INTO c VALUES ('x', 1), ('zzz', NULL);",
            holds={
                "SELECT condeferrable, condeferred, confupdtype::text, confdeltype::text "
                "FROM pg_constraint WHERE contype = 'f'": [(True, True, "c", "r")]
            },
        ),
    ],
    ids=str,
)
def test_pitfall_25_load_order(case: Case, tmp_path: Path, postgres: str) -> None:
    check(case, tmp_path, postgres)


NEXT = "INSERT INTO t DEFAULT VALUES RETURNING id"


@cases(
    "case",
    [
        Case(
            "after the highest",
            "CREATE TABLE t(id INTEGER PRIMARY KEY, n INT); INSERT INTO t VALUES (5, 1), (41, 2);",
            holds={NEXT: [(42,)]},
        ),
        Case(
            "an empty AUTOINCREMENT table begins at 1",
            "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, n INT);",
            holds={NEXT: [(1,)]},
        ),
        Case(
            "one row: not off by one",
            "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO t VALUES (1);",
            holds={NEXT: [(2,)]},
        ),
        Case(
            "negative keys alone",
            "CREATE TABLE t(id INTEGER PRIMARY KEY, n INT); INSERT INTO t(id) VALUES (-7), (-3);",
            holds={NEXT: [(1,)]},
        ),
        Case(
            "beyond int4",
            "CREATE TABLE t(id INTEGER PRIMARY KEY, n INT); INSERT INTO t(id) VALUES (4294967296);",
            holds={NEXT: [(4294967297,)]},
        ),
        Case(
            "room for the next key, not only for the last",
            "CREATE TABLE t(id INTEGER PRIMARY KEY, n INT); INSERT INTO t(id) VALUES (2147483647);",
            holds={NEXT: [(2147483648,)]},
        ),
        Case(
            "room for a thousand million rows more, as on the source",
            "CREATE TABLE t(id INTEGER PRIMARY KEY, n INT); INSERT INTO t(id) VALUES (1200000000);"
            "CREATE TABLE u(id INTEGER PRIMARY KEY, n INT); INSERT INTO u(id) VALUES (1100000000);",
            types={"t.id": "bigint", "u.id": "integer"},
        ),
        Case(
            "a name that needs quoting",
            'CREATE TABLE t(id INTEGER PRIMARY KEY); CREATE TABLE "Order ""X"""'
            '("I d" INTEGER PRIMARY KEY); INSERT INTO "Order ""X""" VALUES (9);',
            holds={'INSERT INTO "Order ""X""" DEFAULT VALUES RETURNING "I d"': [(10,)]},
        ),
    ],
    ids=str,
)
def test_pitfall_26_sequences(case: Case, tmp_path: Path, postgres: str) -> None:
    check(case, tmp_path, postgres)


IDENTITY = (
    "SELECT attname::text, attidentity::text FROM pg_attribute WHERE attrelid = 't'::regclass "
    "AND attnum > 0 ORDER BY attnum"
)


@cases(
    "case",
    [
        Case(
            "INTEGER PRIMARY KEY",
            "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1, 'a');",
            holds={IDENTITY: [("id", "d"), ("v", "")]},
        ),
        Case(
            "as a table constraint",
            "CREATE TABLE t(v TEXT, id INTEGER, PRIMARY KEY(id)); INSERT INTO t VALUES ('a', 3);",
            holds={IDENTITY: [("v", ""), ("id", "d")]},
        ),
        Case(
            "INT PRIMARY KEY is no rowid and has no generator",
            "CREATE TABLE t(id INT PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1, 'a');",
            holds={IDENTITY: [("id", ""), ("v", "")]},
        ),
        Case(
            "WITHOUT ROWID has no generator",
            "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT) WITHOUT ROWID;"
            "INSERT INTO t VALUES (1, 'a');",
            holds={IDENTITY: [("id", ""), ("v", "")]},
        ),
    ],
    ids=str,
)
def test_pitfall_27_identity(case: Case, tmp_path: Path, postgres: str) -> None:
    check(case, tmp_path, postgres)


@cases(
    "case",
    [
        Case(
            "rows were deleted",
            "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, v TEXT);"
            "INSERT INTO t VALUES (1, 'a'), (500, 'b'); DELETE FROM t WHERE id = 500;",
            holds={NEXT: [(501,)]},
        ),
        Case(
            "all rows were deleted",
            "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, v TEXT);"
            "INSERT INTO t VALUES (77, 'a'); DELETE FROM t;",
            holds={NEXT: [(78,)]},
        ),
        Case(
            "somebody set the mark back",
            "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, v TEXT);"
            "INSERT INTO t VALUES (9, 'a'); UPDATE sqlite_sequence SET seq = 3;",
            holds={NEXT: [(10,)]},
        ),
        Case(
            "a mark beyond int4",
            "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, v TEXT);"
            "INSERT INTO t VALUES (5000000000, 'a'), (1, 'b'); DELETE FROM t WHERE id > 1;",
            holds={NEXT: [(5000000001,)]},
        ),
    ],
    ids=str,
)
def test_pitfall_28_the_high_water_mark(case: Case, tmp_path: Path, postgres: str) -> None:
    check(case, tmp_path, postgres)


@cases(
    "case",
    [
        Case(
            "found, and the rows are kept",
            "CREATE TABLE t(k TEXT PRIMARY KEY, v INT);"
            "INSERT INTO t VALUES ('a', 1), (NULL, 2), (NULL, 3);",
            says=("(?i)null.*key|key.*null|primary",),
            holds={"SELECT v FROM t ORDER BY v": [(1,), (2,), (3,)]},
            ledger=0,
        ),
        Case(
            "set aside",
            "CREATE TABLE t(k TEXT PRIMARY KEY, v INT);"
            "INSERT INTO t VALUES ('a', 1), (NULL, 2), (NULL, 3);",
            policy="default: quarantine\n",
            says=("(?i)null.*key|key.*null|primary",),
            holds={
                "SELECT v FROM t": [(1,)],
                "SELECT count(*) FROM pg_constraint WHERE contype = 'p'"
                " AND conrelid = 't'::regclass": [(1,)],
            },
            quarantine=2,
        ),
        Case(
            "in one column of two",
            "CREATE TABLE t(a INT, b TEXT, PRIMARY KEY(a, b));"
            "INSERT INTO t VALUES (1, 'x'), (1, NULL), (1, NULL);",
            BLOCKED,
            policy="default: block\n",
            says=("(?i)null.*key|key.*null|primary",),
        ),
    ],
    ids=str,
)
def test_pitfall_29_null_in_a_key(case: Case, tmp_path: Path, postgres: str) -> None:
    check(case, tmp_path, postgres)


GENERATED = (
    "SELECT attname::text FROM pg_attribute WHERE attrelid = 't'::regclass AND attgenerated = 's'"
)


@cases(
    "case",
    [
        Case(
            "arithmetic, stored and virtual",
            "CREATE TABLE t(a INTEGER, b INTEGER, s INTEGER GENERATED ALWAYS AS (a + b) STORED,"
            " v INTEGER AS (a * 2) VIRTUAL); INSERT INTO t(a, b) VALUES (1, 2), (10, NULL);",
            holds={
                "SELECT a, b, s, v FROM t ORDER BY a": [(1, 2, 3, 2), (10, None, None, 20)],
                GENERATED: [("s",), ("v",)],
            },
            ledger=0,
        ),
        Case(
            "NOT NULL stays where the target makes the values",
            "CREATE TABLE t(a INTEGER, s INTEGER NOT NULL AS (a + 1),"
            " v TEXT NOT NULL AS (printf('%d', a))); INSERT INTO t(a) VALUES (1);",
            holds={
                "SELECT attname::text, attnotnull FROM pg_attribute"
                " WHERE attrelid = 't'::regclass AND attnum > 0 ORDER BY attnum": [
                    ("a", False),
                    ("s", True),
                    ("v", False),
                ]
            },
        ),
        Case(
            "text",
            "CREATE TABLE t(first TEXT, last TEXT, whole TEXT AS (first || ' ' || last) STORED);"
            "INSERT INTO t VALUES ('Ada', 'L'), ('x', NULL);",
            holds={
                'SELECT whole FROM t ORDER BY first COLLATE "C"': [("Ada L",), (None,)],
                GENERATED: [("whole",)],
            },
        ),
        Case(
            "one that PostgreSQL computes otherwise is kept as a value or said",
            "CREATE TABLE t(a INTEGER, h REAL AS (a / 2.0) STORED, d INTEGER AS (a / 2));"
            "INSERT INTO t(a) VALUES (7), (-7), (0);",
            holds={"SELECT a, d::int FROM t ORDER BY a": [(-7, -3), (0, 0), (7, 3)]},
        ),
        Case(
            "one that has no translation",
            "CREATE TABLE t(a TEXT, q TEXT AS (printf('%05d', a)) STORED);"
            "INSERT INTO t(a) VALUES ('7');",
            says=("(?i)generated",),
            holds={"SELECT a, q FROM t": [("7", "00007")]},
        ),
    ],
    ids=str,
)
def test_pitfall_30_generated_columns(case: Case, tmp_path: Path, postgres: str) -> None:
    check(case, tmp_path, postgres)


@cases(
    "case",
    [
        Case(
            "no type at all",
            "CREATE TABLE t(i, r, s, b, n); INSERT INTO t VALUES (1, 1.5, 'x', x'00', NULL);",
            types={
                "t.i": "integer",
                "t.r": "double precision",
                "t.s": "text",
                "t.b": "bytea",
                "t.n": "text",
            },
            ledger=0,
        ),
        Case(
            "types that nobody knows",
            "CREATE TABLE t(a FOO, b 'my own type'(7, 8), c STRING, d MONEY, e \"GEOMETRY POINT\");"
            "INSERT INTO t VALUES ('x', 2, 'y', 19.99, x'01');",
            types={"t.a": "text", "t.c": "text"},
            ledger=0,
        ),
        Case(
            "STRICT with ANY",
            "CREATE TABLE t(id INTEGER PRIMARY KEY, v ANY, n INT, r REAL) STRICT;"
            "INSERT INTO t VALUES (1, 'x', 5, 1.0), (2, 7, 6, 2.5), (3, x'ff', NULL, NULL);",
            types={"t.v": "bytea", "t.n": "integer", "t.r": "double precision"},
            ledger=2,
        ),
        Case(
            "STRICT ANY keeps the text of a number",
            "CREATE TABLE t(v ANY) STRICT; INSERT INTO t VALUES ('007'), ('1.0');",
            types={"t.v": "text"},
            holds={"SELECT v FROM t ORDER BY v": [("007",), ("1.0",)]},
            ledger=0,
        ),
        Case(
            "an integer affinity by accident",
            'CREATE TABLE t(p POINT, c CHARINT, f "FLOATING POINT");'
            "INSERT INTO t VALUES ('(1,2)', 'x', 2.5);",
            holds={"SELECT p::text, c::text FROM t": [("(1,2)", "x")]},
        ),
    ],
    ids=str,
)
def test_pitfall_31_types_unknown_or_absent(case: Case, tmp_path: Path, postgres: str) -> None:
    check(case, tmp_path, postgres)


def _default(declared: str, sql: str, query: str, expected: object, **more: object) -> Case:
    return Case(
        f"{declared} {sql}",
        f"CREATE TABLE t(id INTEGER PRIMARY KEY, v {declared} DEFAULT {sql});"
        "INSERT INTO t DEFAULT VALUES;",
        holds={f"INSERT INTO t(id) VALUES (50) RETURNING {query}": [(expected,)]},
        **more,  # type: ignore[arg-type]
    )


@cases(
    "case",
    [
        _default("TEXT", "'null'", "v", "null"),
        _default("TEXT", "NULL", "v", None),
        _default("TEXT", "''", "v", ""),
        _default("TEXT", "'it''s'", "v", "it's"),
        _default("TEXT", "'back\\slash'", "v", "back\\slash"),
        _default("TEXT", "'CURRENT_TIMESTAMP'", "v", "CURRENT_TIMESTAMP"),
        _default("TEXT", '"double quoted"', "v", "double quoted"),
        _default("INTEGER", "(1 + 1)", "v", 2),
        _default("INTEGER", "-1", "v", -1),
        _default("INTEGER", "'7'", "v", 7),
        _default("INTEGER", "(7 / 2)", "v", 3),
        _default("REAL", "1", "v", 1.0),
        _default("BLOB", "x'00ff'", "v", b"\x00\xff"),
        _default("TEXT", "5", "v", "5"),
        _default(
            "DATETIME", "CURRENT_TIMESTAMP", "v BETWEEN now() - interval '5s' AND now()", True
        ),
        _default(
            "DATETIME", "(datetime('now'))", "v BETWEEN now() - interval '5s' AND now()", True
        ),
        _default("DATE", "CURRENT_DATE", "v = (now() AT TIME ZONE 'UTC')::date", True),
        _default("DATE", "(date('now'))", "v = (now() AT TIME ZONE 'UTC')::date", True),
        _default("DATETIME", "'2024-01-01 00:00:00'", "extract(epoch FROM v)::int", 1704067200),
        _default(
            "INTEGER", "(strftime('%s','now'))", "abs(v - extract(epoch FROM now())) < 5", True
        ),
        _default("TEXT", "(hex(randomblob(16)))", "v ~ '^[0-9A-F]{32}$'", True),
        _default("TEXT", "(lower(hex(randomblob(20))))", "v ~ '^[0-9a-f]{40}$'", True),
        _default("TEXT", "(lower(hex(randomblob(32))))", "v ~ '^[0-9a-f]{64}$'", True),
        Case(
            "one without a translation is said, never a literal",
            "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT DEFAULT (printf('%05d', 7)));"
            "INSERT INTO t DEFAULT VALUES;",
            says=("(?i)default",),
            holds={
                "SELECT v FROM t": [("00007",)],
                "INSERT INTO t(id) VALUES (50) RETURNING v IN ('00007') OR v IS NULL": [(True,)],
            },
        ),
    ],
    ids=str,
)
def test_pitfall_32_defaults(case: Case, tmp_path: Path, postgres: str) -> None:
    check(case, tmp_path, postgres)


LONG = "a_name_that_is_longer_than_what_postgresql_keeps_of_a_name_and_ends_in_"
NAMES = (
    "SELECT relname::text FROM pg_class"
    " WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
)


@cases(
    "case",
    [
        Case(
            "case is kept",
            'CREATE TABLE "CamelCase"("userId" INTEGER, "UPPER" TEXT);'
            "INSERT INTO CamelCase VALUES (1, 'x');",
            holds={'SELECT "userId", "UPPER" FROM "CamelCase"': [(1, "x")]},
        ),
        Case(
            "reserved words",
            'CREATE TABLE "order"("select" INT, "user" TEXT, "table" INT, "end" TEXT);'
            "INSERT INTO \"order\" VALUES (1, 'a', 2, 'b');",
            holds={'SELECT "select", "user", "table", "end" FROM "order"': [(1, "a", 2, "b")]},
        ),
        Case(
            "spaces, quotes, dots, percent",
            'CREATE TABLE "a b.c""d\'e%s"("x y" INT, "q""" INT, "p%" INT, "{0}" INT);'
            'INSERT INTO "a b.c""d\'e%s" VALUES (1, 2, 3, 4);',
            holds={'SELECT * FROM "a b.c""d\'e%s"': [(1, 2, 3, 4)]},
        ),
        Case(
            "other scripts",
            'CREATE TABLE "Größe 表 😀"("é" INT, "É" INT);INSERT INTO "Größe 表 😀" VALUES (1, 2);',
            holds={'SELECT "é", "É" FROM "Größe 表 😀"': [(1, 2)]},
        ),
        Case(
            "over 63 bytes: both tables are there, and it is said",
            f"CREATE TABLE {LONG}1(id INTEGER PRIMARY KEY); INSERT INTO {LONG}1 VALUES (1);"
            f"CREATE TABLE {LONG}2(id INTEGER PRIMARY KEY, {LONG}x INT, {LONG}y INT);"
            f"INSERT INTO {LONG}2 VALUES (2, 3, 4);",
            says=("63|long",),
            holds={f"SELECT count(DISTINCT n) FROM ({NAMES}) AS x(n)": [(2,)]},
        ),
        Case(
            "over 63 bytes in characters of several",
            'CREATE TABLE "' + "é" * 40 + '"(id INTEGER PRIMARY KEY);',
            says=("63|long",),
        ),
        Case(
            "PostgreSQL's own column names",
            "CREATE TABLE t(ctid INT, xmin TEXT, oid INT, tableoid INT);"
            "INSERT INTO t VALUES (1, 'x', 2, 3);",
            says=("(?i)ctid|system|renam",),
        ),
        Case(
            "a table named like another's key",
            "CREATE TABLE t(id INTEGER PRIMARY KEY); CREATE TABLE t_pkey(id INTEGER PRIMARY KEY);"
            "CREATE TABLE t_id_seq(id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1);"
            "INSERT INTO t_pkey VALUES (2); INSERT INTO t_id_seq VALUES (3);",
            holds={"SELECT t.id, t_pkey.id, t_id_seq.id FROM t, t_pkey, t_id_seq": [(1, 2, 3)]},
        ),
        Case(
            "indexes of one name on two tables after folding",
            'CREATE TABLE a(x INT); CREATE TABLE b(x INT); CREATE INDEX "Ix" ON a(x);'
            'CREATE INDEX "ix_" ON b(x); INSERT INTO a VALUES (1); INSERT INTO b VALUES (2);',
            holds={
                "SELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
                " WHERE c.relnamespace = 'public'::regnamespace": [(2,)]
            },
        ),
        Case(
            "relations of PostgreSQL's own",
            "CREATE TABLE pg_class(id INTEGER PRIMARY KEY, relname TEXT UNIQUE);"
            "CREATE TABLE migration(run INT); CREATE TABLE public(a INT);"
            "INSERT INTO pg_class VALUES (1, 'x'); INSERT INTO migration VALUES (7);"
            "CREATE VIEW pg_tables AS SELECT id, relname FROM pg_class;"
            "CREATE VIEW v AS SELECT relname FROM pg_tables;",
            holds={
                "SELECT relname FROM public.v": [("x",)],
                "SELECT id FROM public.pg_tables": [(1,)],
                "SELECT run FROM public.migration": [(7,)],
            },
        ),
        Case(
            "tables that differ in underscores alone, as their array types do",
            "".join(
                f"CREATE TABLE {'_' * n}{name}(a INT); INSERT INTO {'_' * n}{name} VALUES ({n});"
                for name in ("t", "u")
                for n in range(6)
            ),
            holds={
                "SELECT t.a, _t.a, __t.a, ______t.a FROM t, _t, __t, _____t ______t": [(0, 1, 2, 5)]
            },
        ),
        Case(
            "no name at all",
            'CREATE TABLE ""("" INT); INSERT INTO "" VALUES (1);',
            says=("(?i)name",),
        ),
    ],
    ids=str,
)
def test_pitfall_33_names(case: Case, tmp_path: Path, postgres: str) -> None:
    check(case, tmp_path, postgres)


@cases(
    "case",
    [
        Case(
            "in the column",
            "CREATE TABLE t(id INTEGER PRIMARY KEY, u TEXT COLLATE NOCASE UNIQUE);"
            "INSERT INTO t VALUES (1, 'Bob'), (2, 'alice');",
        ),
        Case(
            "in the index",
            "CREATE TABLE t(id INTEGER PRIMARY KEY, u TEXT);"
            "CREATE UNIQUE INDEX ux ON t(u COLLATE NOCASE);"
            "INSERT INTO t VALUES (1, 'Bob'), (2, 'alice');",
        ),
        Case(
            "over lower()",
            "CREATE TABLE t(id INTEGER PRIMARY KEY, u TEXT);"
            "CREATE UNIQUE INDEX ux ON t(lower(u));"
            "INSERT INTO t VALUES (1, 'Bob'), (2, 'alice');",
        ),
        Case(
            "in the primary key",
            "CREATE TABLE t(u TEXT COLLATE NOCASE PRIMARY KEY, id INT);"
            "INSERT INTO t VALUES ('Bob', 1), ('alice', 2);",
        ),
    ],
    ids=str,
)
def test_pitfall_34_nocase(case: Case, tmp_path: Path, postgres: str) -> None:
    check(case, tmp_path, postgres)
    with (
        psycopg.connect(postgres, autocommit=True) as connection,
        pytest.raises(psycopg.errors.UniqueViolation),
    ):
        connection.execute("INSERT INTO t(id, u) VALUES (9, 'BOB')")


def test_pitfall_34_nocase_folds_ascii_alone(tmp_path: Path, postgres: str) -> None:
    """To SQLite's NOCASE é and É are two names; a target that folds them would refuse a row."""
    case = Case(
        "beyond ASCII",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, u TEXT COLLATE NOCASE UNIQUE);"
        "INSERT INTO t VALUES (1, 'é'), (2, 'É'), (3, 'ß'), (4, 'K');",
        holds={"SELECT count(*) FROM t": [(4,)]},
        ledger=0,
    )
    check(case, tmp_path, postgres)


def violates(dsn: str, statement: str, error: type[psycopg.Error]) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection, pytest.raises(error):
        connection.execute(statement.encode())


def test_pitfall_35_checks(tmp_path: Path, postgres: str) -> None:
    check(
        Case(
            "checks",
            "CREATE TABLE t(id INTEGER PRIMARY KEY, n INT CHECK (n BETWEEN 1 AND 5),"
            " r TEXT CHECK (r IN ('a', 'b')), x INT, CHECK (x IS NULL OR x > n));"
            "INSERT INTO t VALUES (1, 3, 'a', 4), (2, NULL, NULL, NULL);",
        ),
        tmp_path,
        postgres,
    )
    violates(postgres, "INSERT INTO t(id, n) VALUES (9, 6)", psycopg.errors.CheckViolation)
    violates(postgres, "INSERT INTO t(id, r) VALUES (9, 'c')", psycopg.errors.CheckViolation)
    violates(postgres, "INSERT INTO t(id, n, x) VALUES (9, 3, 2)", psycopg.errors.CheckViolation)


def test_pitfall_35_partial_and_expression_indexes(tmp_path: Path, postgres: str) -> None:
    check(
        Case(
            "indexes",
            "CREATE TABLE t(id INTEGER PRIMARY KEY, n INT, s TEXT);"
            "CREATE UNIQUE INDEX one_open ON t(n) WHERE s = 'open';"
            "CREATE INDEX by_lower ON t(lower(s));"
            "CREATE INDEX by_two ON t(n DESC, s);"
            "INSERT INTO t VALUES (1, 1, 'open'), (2, 1, 'shut'), (3, 1, 'shut');",
        ),
        tmp_path,
        postgres,
    )
    violates(postgres, "INSERT INTO t VALUES (9, 1, 'open')", psycopg.errors.UniqueViolation)
    with psycopg.connect(postgres) as connection:
        made = {
            r[0]: r[1]
            for r in connection.execute(
                "SELECT indexname::text, indexdef FROM pg_indexes WHERE schemaname = 'public'"
            )
        }
    assert "lower(s)" in made["by_lower"]
    assert "n DESC" in made["by_two"]
    assert "WHERE" in made["one_open"]


@cases(
    "case",
    [
        Case(
            "views",
            "CREATE TABLE t(id INTEGER PRIMARY KEY, n INT); INSERT INTO t VALUES (1, 5), (2, NULL);"
            "CREATE VIEW big AS SELECT id, n FROM t WHERE n > 1;"
            "CREATE VIEW biggest AS SELECT max(n) AS top FROM big;",
            holds={"SELECT * FROM big": [(1, 5)], "SELECT top FROM biggest": [(5,)]},
        ),
        Case(
            "a view that cannot be carried is said",
            "CREATE TABLE t(id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1);"
            "CREATE VIEW v AS SELECT group_concat(printf('%d', id)) AS x FROM t;",
            says=("(?i)view.*v",),
        ),
        Case(
            "a trigger is said",
            "CREATE TABLE t(id INTEGER PRIMARY KEY, n INT); INSERT INTO t VALUES (1, 5);"
            "CREATE TRIGGER audit AFTER INSERT ON t BEGIN UPDATE t SET n = 1; END;",
            says=("(?i)trigger.*audit",),
        ),
        Case(
            "a trigger has to be acknowledged under block",
            "CREATE TABLE t(id INTEGER PRIMARY KEY, n INT); INSERT INTO t VALUES (1, 5);"
            "CREATE TRIGGER audit AFTER INSERT ON t BEGIN UPDATE t SET n = 1; END;",
            BLOCKED,
            policy="default: block\n",
            says=("error .*trigger",),
        ),
        Case(
            "and then is",
            "CREATE TABLE t(id INTEGER PRIMARY KEY, n INT); INSERT INTO t VALUES (1, 5);"
            "CREATE TRIGGER audit AFTER INSERT ON t BEGIN UPDATE t SET n = 1; END;",
            policy="default: block\nacknowledge: ['trigger-not-carried:audit']\n",
        ),
        Case(
            "rows that break a CHECK",
            "CREATE TABLE t(id INTEGER PRIMARY KEY, n INT CHECK (n < 5)); PRAGMA"
            " ignore_check_constraints = ON; INSERT INTO t VALUES (1, 3), (2, 99);",
            says=("(?i)check",),
            holds={"SELECT id, n FROM t ORDER BY id": [(1, 3), (2, 99)]},
        ),
    ],
    ids=str,
)
def test_pitfall_35_views_triggers_and_what_cannot_be_carried(
    case: Case, tmp_path: Path, postgres: str
) -> None:
    check(case, tmp_path, postgres)


def _digits(seed: int, size: int) -> str:
    """Text that does not compress below half."""
    return random.Random(seed).randbytes(size // 2).hex()


def _long_keys(connection: sqlite3.Connection) -> None:
    connection.executescript(
        "CREATE TABLE k(k TEXT PRIMARY KEY, v INT);"
        "CREATE TABLE w(a BLOB, b TEXT, v INT, PRIMARY KEY(a, b)) WITHOUT ROWID;"
        "CREATE TABLE u(id INTEGER PRIMARY KEY, k TEXT UNIQUE);"
        "CREATE TABLE c(k TEXT REFERENCES k(k), u TEXT REFERENCES u(k));"
    )
    for seed in range(3):
        text = _digits(seed, 9000)
        connection.execute("INSERT INTO k VALUES (?, ?)", (text, seed))
        connection.execute("INSERT INTO w VALUES (?, ?, ?)", (text.encode()[:4500], text, seed))
        connection.execute("INSERT INTO u VALUES (?, ?)", (seed, text))
        connection.execute("INSERT INTO c VALUES (?, ?)", (text, text))


def test_pitfall_33_keys_too_long_for_an_index(tmp_path: Path, postgres: str) -> None:
    """They stay unique, over their digests; what referred to them cannot be a foreign key."""
    check(
        Case(
            "long keys",
            _long_keys,
            says=(
                "index-over-digest: .*sqlite_autoindex_k_1",
                "index-over-digest: .*sqlite_autoindex_w_1",
                "foreign-key-not-carried: .*k has no such key",
                "foreign-key-not-carried: .*u has no such key",
            ),
            holds={"SELECT count(*) FROM c JOIN k USING (k) JOIN u ON u.k = c.u": [(3,)]},
            ledger=0,
        ),
        tmp_path,
        postgres,
    )
    violates(postgres, "INSERT INTO k SELECT k, 9 FROM k LIMIT 1", psycopg.errors.UniqueViolation)
    violates(
        postgres, "INSERT INTO w SELECT a, b, 9 FROM w LIMIT 1", psycopg.errors.UniqueViolation
    )


def test_pitfall_35_an_index_of_text_that_is_longer_in_utf8(tmp_path: Path, postgres: str) -> None:
    text = "".join(chr(0x4E00 + random.Random(n).randrange(20000)) for n in range(1250))
    check(
        Case(
            "two bytes here, three there",
            f"CREATE TABLE t(a TEXT); CREATE INDEX i ON t(a); INSERT INTO t VALUES ('{text}');",
            says=("index-by-hash: index i",),
            encoding="UTF-16le",
        ),
        tmp_path,
        postgres,
    )


def test_pitfall_35_indexes_of_more_columns_than_32(tmp_path: Path, postgres: str) -> None:
    names = ", ".join(f"c{n}" for n in range(33))
    check(
        Case(
            "33 columns",
            f"CREATE TABLE p({names}, PRIMARY KEY ({names})) WITHOUT ROWID;"
            f"CREATE TABLE u({names}, UNIQUE ({names})); CREATE INDEX i ON u({names});"
            f"CREATE TABLE c({names}, FOREIGN KEY ({names}) REFERENCES p);"
            f"INSERT INTO p VALUES ({', '.join(['1'] * 33)});"
            "INSERT INTO c SELECT * FROM p; INSERT INTO u SELECT * FROM p;",
            says=(
                "index-not-carried: unique index sqlite_autoindex_p_1: it has 33 columns",
                "index-not-carried: unique index sqlite_autoindex_u_1: it has 33 columns",
                "index-not-carried: index i: it has 33 columns",
                "foreign-key-not-carried: .*p has no such key",
            ),
        ),
        tmp_path,
        postgres,
    )


def _wide(declared: str, value: str, count: int = 950) -> str:
    names = [f"c{n}" for n in range(count)]
    return (
        f"CREATE TABLE t({', '.join(f'{n} {declared}' for n in names)});"
        f"INSERT INTO t VALUES ({', '.join([value] * count)}); INSERT INTO t(c0) VALUES ({value});"
    )


@cases(
    ("declared", "value", "fits"),
    [
        ("INTEGER", "5000000000", True),
        ("TEXT", "'four'", True),
        ("TEXT", "'nineteen characters'", False),
        ("TEXT", f"'{'x' * 3000}'", False),
        ("UUID", "'0d5a7b64-1111-4222-8333-000000000000'", False),
        ("BOOLEAN", "1", True),
    ],
)
def test_pitfall_33_rows_too_large_for_a_page(
    declared: str, value: str, *, fits: bool, tmp_path: Path, postgres: str
) -> None:
    source = _wide(declared, value)
    if fits:
        check(Case("fits", source, silent=("row-too-large",)), tmp_path, postgres)
        return
    said = ("error row-too-large: 1 row of more than 8,160 bytes",)
    check(Case("does not fit", source, BLOCKED, says=said), tmp_path, postgres)
    aside = tmp_path / "aside"
    aside.mkdir()
    settled = Case(
        "set aside",
        source,
        policy="tables: {t: {action: quarantine}}\n",
        says=("warning row-too-large",),
        holds={"SELECT count(*) FROM t": [(1,)]},
        quarantine=1,
    )
    check(settled, aside, postgres)


def _own_collation(connection: sqlite3.Connection) -> None:
    """Every order that only the application knows: of an index, of a whole table, in a CHECK."""
    connection.create_collation("localized", lambda a, b: (b > a) - (b < a))
    connection.executescript(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT COLLATE localized UNIQUE, "
        " n INT COLLATE localized, CHECK (name <> 'z' COLLATE localized));"
        "INSERT INTO t VALUES (1, 'a10', 1), (2, 'a9', 2), (3, NULL, 'x');"
        "CREATE TABLE w(k TEXT COLLATE localized PRIMARY KEY, v INT) WITHOUT ROWID;"
        "INSERT INTO w VALUES ('a', 1), ('b', 2), ('c', 3);"
        "CREATE TABLE c(w TEXT REFERENCES w(k)); INSERT INTO c VALUES ('b');"
    )


def test_pitfall_34_a_collation_of_the_applications_own(tmp_path: Path, postgres: str) -> None:
    check(
        Case(
            "a collation that only the application has",
            _own_collation,
            says=(
                "index-not-carried: unique index sqlite_autoindex_t_1: the collation localized",
                "check-not-carried: CHECK .*(?i:localized)",
                "collation: compares under LOCALIZED",
            ),
            silent=("check-violated",),
            holds={
                "SELECT id, name FROM t ORDER BY id": [(1, "a10"), (2, "a9"), (3, None)],
                "SELECT k, v FROM w ORDER BY v": [("a", 1), ("b", 2), ("c", 3)],
                "SELECT w FROM c": [("b",)],
            },
            ledger=2,
        ),
        tmp_path,
        postgres,
    )


@cases(
    "behind",
    [
        "CREATE VIRTUAL TABLE s USING fts5(body, content='docs', content_rowid='id');"
        "INSERT INTO s(rowid, body) SELECT id, body FROM docs; UPDATE docs SET body = 'other';",
        "CREATE VIRTUAL TABLE s USING fts4(other, content='docs');",
    ],
)
def test_pitfall_36_a_search_index_that_fell_behind(
    behind: str, tmp_path: Path, postgres: str
) -> None:
    """It is not carried over, and no table is damaged by it."""
    check(
        Case(
            "search",
            "CREATE TABLE docs(id INTEGER PRIMARY KEY, body TEXT);"
            f"INSERT INTO docs VALUES (1, 'hello'); {behind}",
            says=("virtual-table-not-carried: virtual table s",),
            holds={"SELECT count(*) FROM docs": [(1,)]},
        ),
        tmp_path,
        postgres,
    )


def _fts(module: str) -> str:
    return (
        "CREATE TABLE docs(id INTEGER PRIMARY KEY, body TEXT);"
        "INSERT INTO docs VALUES (1, 'hello');"
        f"CREATE VIRTUAL TABLE search USING {module}(body);"
        "INSERT INTO search(rowid, body) VALUES (1, 'hello');"
    )


@cases(
    "case",
    [
        *(
            Case(
                module,
                _fts(module),
                says=("(?i)virtual.*search|search.*virtual",),
                policy="acknowledge: [virtual-table-rows-left-behind:search]",
                holds={NAMES: [("docs",)]},
            )
            for module in ("fts5", "fts4", "fts3")
        ),
        Case(
            "rtree",
            "CREATE TABLE docs(id INTEGER PRIMARY KEY); CREATE VIRTUAL TABLE box USING "
            "rtree(id, x0, x1); INSERT INTO box VALUES (1, 0, 1);",
            says=("(?i)virtual.*box|box.*virtual",),
            policy="acknowledge: [virtual-table-rows-left-behind:box]",
            holds={NAMES: [("docs",)]},
        ),
        Case(
            "a table that is only named like one is data",
            "CREATE TABLE notes_content(id INTEGER PRIMARY KEY, c TEXT);"
            "CREATE TABLE notes_data(id INTEGER PRIMARY KEY);"
            "CREATE TABLE notes(id INTEGER PRIMARY KEY);"
            "INSERT INTO notes_content VALUES (1, 'x');",
            holds={
                NAMES + " ORDER BY 1": [("notes",), ("notes_content",), ("notes_data",)],
                "SELECT c FROM notes_content": [("x",)],
            },
        ),
    ],
    ids=str,
)
def test_pitfall_36_virtual_tables(case: Case, tmp_path: Path, postgres: str) -> None:
    """Rows that exist nowhere else stay behind where the policy names their table, and only there
    (the others: test_derived)."""
    check(case, tmp_path, postgres)


@cases(
    "case",
    [
        Case(
            "columns added and dropped later",
            "CREATE TABLE t(a INT, gone TEXT, b INT);"
            "ALTER TABLE t ADD COLUMN c TEXT DEFAULT 'late';"
            "INSERT INTO t VALUES (1, 'x', 2, 'c'); ALTER TABLE t DROP COLUMN gone;"
            "ALTER TABLE t RENAME COLUMN b TO z;",
            holds={"SELECT a, z, c FROM t": [(1, 2, "c")]},
        ),
        Case(
            "generated columns between stored ones",
            "CREATE TABLE t(a INT, g INT AS (a + 1) VIRTUAL, b TEXT,"
            " h INT AS (a * 2) STORED, c INT);"
            "INSERT INTO t(a, b, c) VALUES (1, 'b', 3);",
            holds={"SELECT a, g, b, h, c FROM t": [(1, 2, "b", 2, 3)]},
        ),
        Case(
            "a key that is not first",
            "CREATE TABLE t(b TEXT, id INTEGER PRIMARY KEY, a TEXT);"
            "INSERT INTO t VALUES ('b', 5, 'a');",
            holds={"SELECT a, b, id FROM t": [("a", "b", 5)]},
        ),
    ],
    ids=str,
)
def test_pitfall_37_columns_by_name(case: Case, tmp_path: Path, postgres: str) -> None:
    check(case, tmp_path, postgres)


def _doubles(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE t(a TEXT, b INT)")
    rows = [("same", 1)] * 3 + [(None, None)] * 2 + [("other", 2)]
    connection.executemany("INSERT INTO t VALUES (?, ?)", rows)


@cases(
    "case",
    [
        Case(
            "no key, equal rows",
            _doubles,
            holds={
                "SELECT a, b, count(*) FROM t GROUP BY a, b ORDER BY a": [
                    ("other", 2, 1),
                    ("same", 1, 3),
                    (None, None, 2),
                ]
            },
        ),
        Case(
            "WITHOUT ROWID",
            "CREATE TABLE t(k TEXT PRIMARY KEY, v INT) WITHOUT ROWID;"
            "INSERT INTO t VALUES ('b', 1), ('a', 2), ('', 3), ('A', 4);",
            holds={"SELECT k, v FROM t ORDER BY v": [("b", 1), ("a", 2), ("", 3), ("A", 4)]},
        ),
        Case(
            "a composite key in another order",
            "CREATE TABLE t(a INT, b TEXT, c INT, PRIMARY KEY(c, b)) WITHOUT ROWID;"
            "INSERT INTO t VALUES (1, 'x', 9), (2, 'y', 9), (3, 'x', 8);",
            holds={
                "SELECT array_agg(attname::text ORDER BY k.n) FROM pg_index i, "
                "unnest(i.indkey) WITH ORDINALITY k(a, n), pg_attribute p WHERE "
                "i.indrelid = 't'::regclass AND i.indisprimary AND p.attrelid = i.indrelid "
                "AND p.attnum = k.a": [(["c", "b"],)]
            },
        ),
        Case(
            "negative and maximal rowids",
            "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t VALUES "
            "(-9223372036854775808, 'low'), (-1, 'minus'), (0, 'zero'), "
            "(9223372036854775807, 'high');",
            holds={"SELECT count(*), min(id), max(id) FROM t": [(4, -(2**63), 2**63 - 1)]},
        ),
        Case(
            "hidden rowids, negative and maximal",
            "CREATE TABLE t(v TEXT); INSERT INTO t(rowid, v) VALUES (-5, 'a'), (0, 'b'), "
            "(9223372036854775807, 'c');",
            holds={"SELECT v FROM t ORDER BY v": [("a",), ("b",), ("c",)]},
        ),
        Case(
            "columns named after the rowid",
            "CREATE TABLE t(rowid TEXT, oid TEXT, _rowid_ TEXT);"
            "INSERT INTO t VALUES ('x', 'y', 'z'), ('x', 'y', 'z');",
            holds={"SELECT count(*) FROM t": [(2,)]},
        ),
        Case(
            "a key of every class",
            "CREATE TABLE t(k PRIMARY KEY, v INT); INSERT INTO t VALUES "
            "(1, 1), ('1', 2), (x'31', 3), (1.5, 4);",
            holds={"SELECT count(*) FROM t": [(4,)]},
            ledger=None,
            quarantine=None,
        ),
        Case(
            "sparse rowids",
            "CREATE TABLE t(v INT); INSERT INTO t(rowid, v) VALUES (1, 1), (4000000000000, 2), "
            "(4000000000001, 3);",
            holds={"SELECT sum(v) FROM t": [(6,)]},
        ),
    ],
    ids=str,
)
def test_pitfall_38_keys_of_every_kind(case: Case, tmp_path: Path, postgres: str) -> None:
    check(case, tmp_path, postgres)
