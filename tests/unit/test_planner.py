"""Which types, keys and constraints a plan chooses."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import apsw
import pytest

from migration_job.errors import InputError
from migration_job.plan.model import Plan
from tests.helpers import same_value
from tests.unit.planning import column_of, database, findings_of, plan_of


@pytest.mark.parametrize(
    ("declared", "values", "type_", "clean"),
    [
        ("INTEGER", "1, -5, NULL", "integer", True),
        ("INTEGER", "2147483647, -2147483648", "integer", True),
        ("INTEGER", "2147483648", "bigint", True),
        ("INTEGER", "9223372036854775807, -9223372036854775808", "bigint", True),
        ("INTEGER", "1, 2.5", "numeric", True),
        ("INTEGER", "1, 'abc'", "text", False),
        ("INTEGER", "1, x'00'", "bytea", False),
        ("TINYINT(1)", "0, 1", "integer", True),
        ("BOOLEAN", "0, 1, NULL", "boolean", True),
        ("BOOLEAN", "0, 2", "integer", True),
        ("BOOL", "NULL", "boolean", True),
        ("REAL", "1, 0.1, 9e999, -1e-320", "double precision", False),
        ("DOUBLE", "0.1", "double precision", True),
        ("DECIMAL(10,2)", "1, 1.25", "numeric(10,2)", True),
        ("DECIMAL(10,2)", "1.255", "numeric", True),
        ("DECIMAL(3,2)", "99", "numeric", True),
        ("NUMERIC", "1, 0.5, 1e300", "numeric", True),
        ("NUMERIC", "1, 0.5, 9e999", "numeric", False),
        ("TEXT", "'a', ''", "text", True),
        ("VARCHAR(3)", "'abc'", "varchar(3)", True),
        ("VARCHAR(3)", "'éöü'", "varchar(3)", True),
        ("VARCHAR(3)", "'abcd'", "text", True),
        ("CHAR(2)", "'a'", "varchar(2)", True),
        ("DATETIME", "'2024-01-01 10:00:00'", "timestamp(0) with time zone", True),
        ("TIMESTAMP", "'2024-01-01T10:00:00.123Z'", "timestamp(3) with time zone", True),
        (
            "DATETIME",
            "'2024-01-01 10:00:00', '2024-01-01 10:00:01', '2024-01-01T10:00:00Z'",
            "timestamp(0) with time zone",
            False,
        ),
        ("DATETIME", "1700000000, 1700000001", "timestamp(0) with time zone", True),
        ("DATETIME", "1700000000123", "timestamp(3) with time zone", True),
        ("DATETIME", "1700000000123456", "timestamp with time zone", True),
        ("DATETIME", "1, 2", "integer", True),
        ("DATETIME", "1700000000, 1700000000123", "bigint", True),
        ("DATETIME", "2451545.5", "double precision", True),
        ("DATETIME", "'2024-01-01 10:00:00', ''", "text", True),
        ("DATETIME", "'2024-02-30 00:00:00'", "text", True),
        ("DATE", "'2024-02-29'", "date", True),
        ("DATE", "'2024-01-01 10:00:00'", "timestamp(0) with time zone", True),
        ("DATE", "'never'", "text", True),
        ("TIME", "'10:20:30'", "time(0)", True),
        ("DATETIME", "NULL", "timestamp with time zone", True),
        ("DATETIME(3)", "'2024-01-01 10:00:00'", "timestamp(3) with time zone", True),
        (
            "DATETIME",
            "'2024-01-01 10:00:00', '2024-01-01 10:00:01.25'",
            "timestamp(2) with time zone",
            True,
        ),
        ("TIME", "'24:00:00'", "text", True),
        ("JSON", "'{\"a\": 1}', '[]'", "json", True),
        ("JSON", "'{'", "text", True),
        ("UUID", "'550e8400-e29b-41d4-a716-446655440000'", "uuid", True),
        ("UUID", "'not one'", "text", True),
        ("BLOB", "x'00'", "bytea", True),
        ("BLOB", "'text'", "text", True),
        ("", "1", "integer", True),
        ("", "1, 1.5", "numeric", True),
        ("", "'a'", "text", True),
        ("", "1, 'a'", "text", False),
        ("", "NULL", "text", True),
    ],
)
def test_the_narrowest_type_that_holds_every_value(
    tmp_path: Path, declared: str, values: str, type_: str, clean: bool
) -> None:
    rows = ", ".join(f"({v})" for v in values.split(", "))
    path = database(
        tmp_path / "a.db", f"CREATE TABLE t(c {declared})", f"INSERT INTO t VALUES {rows}"
    )
    plan = plan_of(path)
    column = column_of(plan, "t", "c")
    assert (column.type, column.clean) == (type_, clean)
    assert not plan.blocked


def test_every_class_in_a_strict_any(tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db",
        "CREATE TABLE t(c ANY) STRICT",
        "INSERT INTO t VALUES (1), ('1'), (x'31'), (NULL)",
    )
    plan = plan_of(path)
    assert column_of(plan, "t", "c").type == "bytea"
    assert [f.count for f in findings_of(plan, "mixed-classes")] == [2]


def keyed(path: Path) -> tuple[Plan, tuple[str, ...], tuple[str, ...]]:
    plan = plan_of(path)
    table = plan.tables[0]
    return plan, table.primary_key, table.key


@pytest.mark.parametrize(
    ("definition", "rows", "primary", "key"),
    [
        ("id INTEGER PRIMARY KEY, v", "(1, 2)", ("id",), ("id",)),
        ("a TEXT, b INT, PRIMARY KEY (b, a)", "('x', 1)", ("b", "a"), ("b", "a")),
        ("a, b", "(1, 2)", (), ()),
        ("id TEXT PRIMARY KEY, v", "(NULL, 1), (NULL, 2)", (), ()),
        ("u TEXT NOT NULL UNIQUE, v", "('x', 1)", (), ("u",)),
        ("u TEXT UNIQUE, v", "('x', 1)", (), ()),
        ("id PRIMARY KEY, v", "(1, 1), ('1', 2)", (), ()),
        ("id DATETIME PRIMARY KEY, v", "('2024-01-01 00:00:00', 1)", ("id",), ("id",)),
        (
            "id DATETIME PRIMARY KEY, v",
            "('2024-01-01 00:00:00', 1), ('2024-01-02 00:00:00', 1), ('2024-01-03T00:00:00Z', 2)",
            ("id",),
            (),
        ),
    ],
)
def test_keys(
    tmp_path: Path, definition: str, rows: str, primary: tuple[str, ...], key: tuple[str, ...]
) -> None:
    path = database(
        tmp_path / "a.db", f"CREATE TABLE t({definition})", f"INSERT INTO t VALUES {rows}"
    )
    _, found_primary, found_key = keyed(path)
    assert (found_primary, found_key) == (primary, key)


def test_null_in_a_primary_key_leaves_it_unique(tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db",
        "CREATE TABLE t(id TEXT PRIMARY KEY)",
        "INSERT INTO t VALUES (NULL), (NULL), ('a')",
    )
    plan = plan_of(path)
    assert [u.columns for u in plan.table("t").uniques] == [("id",)]
    assert findings_of(plan, "null-in-primary-key")[0].count == 2


def test_keys_that_would_collide_on_the_target(tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db",
        "CREATE TABLE p(at DATETIME PRIMARY KEY)",
        "CREATE TABLE c(at DATETIME REFERENCES p)",
        "INSERT INTO p VALUES ('2024-01-01 00:00:00'), ('2024-01-01T00:00:00Z')",
        "INSERT INTO c VALUES ('2024-01-01 00:00:00')",
    )
    plan = plan_of(path)
    assert plan.table("p").primary_key == ()
    assert plan.table("c").foreign_keys == ()
    assert findings_of(plan, "key-collides")[0].count == 1
    assert plan_of(path, "default: block").blocked


def test_identity_and_where_its_sequence_stands(tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db",
        "CREATE TABLE auto(id INTEGER PRIMARY KEY AUTOINCREMENT)",
        "INSERT INTO auto VALUES (41)",
        "DELETE FROM auto",
        "CREATE TABLE plain(id INTEGER PRIMARY KEY)",
        "INSERT INTO plain VALUES (7), (-3)",
        "CREATE TABLE negative(id INTEGER PRIMARY KEY)",
        "INSERT INTO negative VALUES (-3)",
        "CREATE TABLE never(id INTEGER PRIMARY KEY AUTOINCREMENT)",
        "CREATE TABLE no(id INT PRIMARY KEY)",
    )
    plan = plan_of(path)
    assert {s.table: s.last_value for s in plan.sequences} == {
        "auto": 41,
        "plain": 7,
        "negative": 0,
        "never": 0,
    }
    assert not column_of(plan, "no", "id").identity


# -------------------------------------------------------------------------------- relations


def test_both_ends_of_a_foreign_key_have_one_type(tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db",
        "CREATE TABLE p(id INTEGER PRIMARY KEY)",
        "CREATE TABLE c(small INTEGER REFERENCES p, as_text TEXT REFERENCES p)",
        "INSERT INTO p VALUES (1), (3000000000)",
        "INSERT INTO c VALUES (1, '3000000000')",
    )
    plan = plan_of(path)
    types = [column_of(plan, t, c).type for t, c in (("p", "id"), ("c", "small"), ("c", "as_text"))]
    assert types == ["bigint"] * 3
    assert len(plan.table("c").foreign_keys) == 2
    assert column_of(plan, "c", "as_text").rule.inverse("3000000000") == "3000000000"


def test_a_foreign_key_that_cannot_be_had_is_reported(tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db",
        "CREATE TABLE p(id INTEGER PRIMARY KEY, n)",
        "CREATE TABLE c(a REFERENCES nope(x), b REFERENCES p(n), d TEXT REFERENCES p)",
        "INSERT INTO c VALUES (NULL, NULL, '01')",
    )
    plan = plan_of(path)
    assert plan.table("c").foreign_keys == ()
    assert len(findings_of(plan, "foreign-key-not-carried")) == 3
    assert len(plan_of(path, "default: block").blocked) >= 3


def orphaned(tmp_path: Path) -> Path:
    return database(
        tmp_path / "a.db",
        "CREATE TABLE p(id TEXT PRIMARY KEY COLLATE NOCASE)",
        "CREATE TABLE c(id INTEGER PRIMARY KEY, p TEXT REFERENCES p, up INTEGER REFERENCES c)",
        "INSERT INTO p VALUES ('a')",
        "INSERT INTO c VALUES (1, 'a', NULL), (2, 'gone', 1), (3, '', 2), (4, NULL, 3)",
        "INSERT INTO c VALUES (5, 'A', 1)",
    )


def test_orphans_are_kept_not_valid(tmp_path: Path) -> None:
    plan = plan_of(orphaned(tmp_path))
    by_column = {k.columns: k for k in plan.table("c").foreign_keys}
    assert not by_column["p",].validated
    assert by_column["up",].validated
    # 'A' matches 'a' under NOCASE on the source, and would not on the target.
    assert findings_of(plan, "orphans")[0].count == 3


def test_orphans_and_all_that_depends_on_them_go_to_quarantine(tmp_path: Path) -> None:
    plan = plan_of(orphaned(tmp_path), "orphans: quarantine")
    assert plan.table("c").quarantine == ('t."id" IN (4)', 't."id" IN (2, 3, 5)')
    assert [(r.column, r.text) for r in plan.table("c").reasons] == [
        (None, "depends on a row in quarantine, by its foreign key (up) to c (id)"),
        ("p", "no parent for the foreign key (p) to p (id)"),
    ]
    assert all(k.validated for k in plan.table("c").foreign_keys)
    assert findings_of(plan, "quarantined-with-parent")[0].count == 1


def test_orphans_stop_a_blocking_stage(tmp_path: Path) -> None:
    path = orphaned(tmp_path)
    blocked = plan_of(path, "default: block").blocked
    assert [f.code for f in blocked] == ["orphans"]
    assert not plan_of(path, "default: block\n" + blocked[0].resolution).blocked


# ---------------------------------------------------------------------------- what hangs on it


def test_defaults(tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db",
        """CREATE TABLE t(a TEXT DEFAULT 'null', b TEXT DEFAULT NULL,
        c DATETIME DEFAULT (datetime('now')), d TEXT DEFAULT CURRENT_TIMESTAMP,
        e INTEGER DEFAULT '7', f BOOLEAN DEFAULT 1, g TEXT DEFAULT "dq",
        h INTEGER DEFAULT (1 + 2), i INTEGER DEFAULT -5, j BLOB DEFAULT x'00ff',
        k TEXT DEFAULT 5, l INTEGER DEFAULT (abs(random())), m DATE DEFAULT CURRENT_DATE,
        n TEXT DEFAULT (lower(hex(randomblob(8)))), o INTEGER DEFAULT (unixepoch()),
        p TEXT DEFAULT 'it''s', q BOOLEAN DEFAULT 'no', r INTEGER DEFAULT TRUE,
        s TEXT DEFAULT (datetime('now', 'localtime')), t VARCHAR(8) DEFAULT (hex(randomblob(4))),
        u VARCHAR(7) DEFAULT (hex(randomblob(4))), v VARCHAR(9) DEFAULT CURRENT_DATE)""",
    )
    plan = plan_of(path)
    defaults = {c.source: c.default for c in plan.table("t").columns}
    assert defaults == {
        "a": "'null'",
        "b": None,
        "c": "date_trunc('second', CURRENT_TIMESTAMP)",
        "d": "to_char((CURRENT_TIMESTAMP AT TIME ZONE 'UTC'), 'YYYY-MM-DD HH24:MI:SS')",
        "e": "7",
        "f": "TRUE",
        "g": "'dq'",
        "h": "3",
        "i": "-5",
        "j": "E'\\\\x00ff'",
        "k": "'5'",
        "l": None,
        "m": "(CURRENT_TIMESTAMP AT TIME ZONE 'UTC')::date",
        "n": "left(md5(gen_random_uuid()::text), 16)",
        "o": "floor(extract(epoch FROM CURRENT_TIMESTAMP))::bigint",
        "p": "'it''s'",
        "q": "FALSE",
        "r": "1",
        "s": "to_char(LOCALTIMESTAMP, 'YYYY-MM-DD HH24:MI:SS')",
        "t": "upper(left(md5(gen_random_uuid()::text), 8))",
        "u": None,
        "v": None,
    }
    assert sorted(str(f.column) for f in findings_of(plan, "default-not-carried")) == [
        "l",
        "u",
        "v",
    ]


def test_nocase_becomes_a_unique_index_that_folds_the_same(tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db",
        "CREATE TABLE t(name TEXT COLLATE NOCASE UNIQUE, mail TEXT)",
        "CREATE UNIQUE INDEX by_mail ON t(mail COLLATE NOCASE DESC) WHERE mail IS NOT NULL",
        "INSERT INTO t VALUES ('É', 'a'), ('é', 'b')",
    )
    indexes = {i.name: i for i in plan_of(path).table("t").indexes}
    assert indexes["t_name_key"].terms == ('lower("name" COLLATE "C")',)
    assert indexes["t_name_key"].unique
    assert indexes["by_mail"].terms == ('lower("mail" COLLATE "C") DESC',)
    assert indexes["by_mail"].where == '(NOT ("mail" IS NULL))'


def test_indexes_over_values_too_long_for_a_page(tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db",
        "CREATE TABLE t(a TEXT, b TEXT UNIQUE, c TEXT)",
        "CREATE INDEX one ON t(a)",
        "CREATE INDEX two ON t(a, c)",
        "CREATE INDEX some ON t(substr(a, 1, 9))",
        "INSERT INTO t VALUES (printf('%.*c', 5000, 'x'), printf('%.*c', 5000, 'x'), 'c')",
    )
    plan = plan_of(path)
    indexes = {i.name: i for i in plan.table("t").indexes}
    assert (indexes["one"].method, indexes["one"].terms) == ("hash", ('"a"',))
    assert indexes["t_b_key"].terms == ('md5(("b")::text)',)
    assert "some" in indexes
    assert "two" not in indexes
    assert [f.message.split(":")[0] for f in findings_of(plan, "index-not-carried")] == [
        "index two"
    ]


def test_json_that_an_index_compares_is_text(tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db",
        "CREATE TABLE t(a JSON, b JSON UNIQUE)",
        "INSERT INTO t VALUES ('{}', '{}')",
    )
    plan = plan_of(path)
    assert (column_of(plan, "t", "a").type, column_of(plan, "t", "b").type) == ("json", "text")


def test_generated_columns_are_recreated_or_kept_as_values(tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db",
        "CREATE TABLE t(a INTEGER, b INTEGER AS (a + 1) STORED, c AS (b * 2), d TEXT AS (date(a)))",
        "INSERT INTO t(a) VALUES (1)",
    )
    plan = plan_of(path)
    table = plan.table("t")
    generated = {c.target: c.generated for c in table.columns}
    assert generated["b"] == '((("a")::bigint + 1))::bigint'
    assert generated["c"] is not None
    assert '"b"' not in generated["c"], "one generated column may not refer to another"
    assert generated["d"] is None
    assert [c.target for c in table.copied] == ["a", "d"]
    assert findings_of(plan, "generated-as-plain")[0].column == "d"


def test_names(tmp_path: Path) -> None:
    long = "n" * 70
    path = database(
        tmp_path / "a.db",
        f'CREATE TABLE "{long}1"("from" INTEGER PRIMARY KEY, "a b", "q""d", ctid, "Ünï")',
        f'CREATE TABLE "{long}2"(a)',
        'CREATE TABLE "select"(a)',
    )
    plan = plan_of(path)
    first, second, third = (t.target for t in plan.tables)
    assert (first, third) == ("n" * 63, "select")
    assert second != first
    assert len(second.encode()) <= 63
    assert [c.target for c in plan.tables[0].columns] == ["from", "a b", 'q"d', "ctid_", "Ünï"]
    assert len(findings_of(plan, "name-cut")) == 1
    assert len(findings_of(plan, "renamed")) == 2


def test_names_that_postgresql_would_choose_for_itself(tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db",
        "CREATE TABLE t(id INTEGER PRIMARY KEY)",
        "CREATE TABLE t_id_seq(id INTEGER PRIMARY KEY)",
        "CREATE TABLE t_pkey(id INTEGER PRIMARY KEY)",
    )
    table = plan_of(path).table("t")
    assert table.primary_key_name not in (None, "t_pkey")
    assert table.columns[0].sequence not in (None, "t_id_seq")
    assert plan_of(path).table("t_pkey").primary_key_name is None


def test_rows_that_break_their_own_check(tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, n INT CHECK (n < 5))",
        "PRAGMA ignore_check_constraints = 1",
        "INSERT INTO t VALUES (1, 3), (2, 99)",
    )
    plan = plan_of(path)
    assert plan.table("t").checks == ()
    assert findings_of(plan, "check-violated")[0].count == 1
    aside = plan_of(path, "default: quarantine")
    assert aside.table("t").checks[0].expression == '("n" < 5)'
    assert aside.table("t").quarantine == ('t."id" IN (2)',)


def test_room_for_the_next_key(tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db",
        "CREATE TABLE full_(id INTEGER PRIMARY KEY)",
        "INSERT INTO full_ VALUES (2147483647)",
        "CREATE TABLE marked(id INTEGER PRIMARY KEY AUTOINCREMENT)",
        "INSERT INTO marked VALUES (5000000000)",
        "DELETE FROM marked",
        "CREATE TABLE child(p INTEGER REFERENCES full_)",
    )
    plan = plan_of(path)
    assert {t.target: t.columns[0].type for t in plan.tables} == {
        "full_": "bigint",
        "marked": "bigint",
        "child": "bigint",
    }


def test_a_reference_mapped_to_null_is_no_orphan(tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db",
        "CREATE TABLE p(id TEXT PRIMARY KEY)",
        "CREATE TABLE c(p TEXT REFERENCES p)",
        "INSERT INTO p VALUES ('a')",
        "INSERT INTO c VALUES (''), ('a')",
    )
    assert findings_of(plan_of(path), "orphans")[0].count == 1
    mapped = plan_of(path, "tables: {c: {columns: {p: {empty: null}}}}")
    assert not findings_of(mapped, "orphans")
    assert mapped.table("c").foreign_keys[0].validated


def test_views_in_whatever_order(tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, on_ BOOLEAN, n TEXT)",
        "INSERT INTO t VALUES (1, 1, 'x')",
        "CREATE VIEW outer_ AS SELECT * FROM inner_ WHERE n = 'x'",
        "CREATE VIEW inner_ AS SELECT * FROM t WHERE on_ = 1",
        "CREATE VIEW lost AS SELECT date(n) AS d FROM t",
        "CREATE VIEW after_lost AS SELECT d FROM lost",
        "CREATE TRIGGER tr AFTER INSERT ON t BEGIN DELETE FROM t WHERE 0; END",
    )
    plan = plan_of(path)
    assert [v.source for v in plan.views] == ["inner_", "outer_"]
    assert '("t"."on_" = TRUE)' in plan.views[0].query
    assert {f.table for f in findings_of(plan, "view-not-carried")} == {"lost", "after_lost"}
    assert findings_of(plan, "trigger-not-carried")[0].severity == "warning"
    acknowledged = plan_of(
        path,
        "default: block\nacknowledge: ['trigger-not-carried:tr', view-not-carried]",
    )
    assert not acknowledged.blocked


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le", "UTF-16be"])
def test_what_orders_texts_is_carried_from_utf8_alone(encoding: str, tmp_path: Path) -> None:
    """SQLite compares bytes, and those of UTF-16 stand in another order than letters do."""
    path = database(
        tmp_path / "a.db",
        f"PRAGMA encoding = '{encoding}'",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, b TEXT CHECK (b > '!'), n INTEGER CHECK (n > 0))",
        "CREATE INDEX some ON t(n) WHERE b BETWEEN 'a' AND 'x'",
        "CREATE INDEX equal ON t(n) WHERE b = 'x' AND n >= 1",
        "INSERT INTO t VALUES (1, 'x', 1)",
        "CREATE VIEW above AS SELECT id FROM t WHERE b > 0",
        "CREATE VIEW part AS SELECT id FROM t WHERE substr(b, 1, 1) > '0'",
        "CREATE VIEW nested AS SELECT w FROM (SELECT lower(b) AS w FROM t) WHERE w < 'x'",
        "CREATE VIEW highest AS SELECT max(b) AS m FROM t",
        "CREATE VIEW equal_ AS SELECT id FROM t WHERE b = 'Ā' AND n > 0",
    )
    plan = plan_of(path)
    table = plan.table("t")
    utf8 = encoding == "UTF-8"
    ordered = {"above", "part", "nested", "highest"}
    assert {v.source for v in plan.views} == ({*ordered, "equal_"} if utf8 else {"equal_"})
    assert [i.name for i in table.indexes] == (["some", "equal"] if utf8 else ["equal"])
    assert len(table.checks) == (2 if utf8 else 1)
    assert {f.table for f in findings_of(plan, "view-not-carried")} == (set() if utf8 else ordered)


@pytest.mark.parametrize(
    "make",
    [
        ("CREATE VIRTUAL TABLE ft USING fts5(a)", "INSERT INTO ft VALUES ('only here')"),
        ("CREATE VIRTUAL TABLE ft USING fts4(a)", "INSERT INTO ft VALUES ('only here')"),
        ("CREATE VIRTUAL TABLE ft USING rtree(id, a, b)", "INSERT INTO ft VALUES (1, 2, 3)"),
    ],
    ids=["fts5", "fts4", "rtree"],
)
def test_rows_of_a_virtual_table_alone_are_carried_unless_it_is_named(
    tmp_path: Path, make: tuple[str, str]
) -> None:
    path = database(tmp_path / "a.db", *make)
    plan = plan_of(path)
    assert [table.source for table in plan.tables] == ["ft"]
    (found,) = findings_of(plan, "virtual-table-as-plain")
    assert (found.severity, found.count, len(found.keys)) == ("warning", 1, 1)
    assert "1 row that exists nowhere else" in found.message
    left = plan_of(path, "acknowledge: [virtual-table-rows-left-behind:ft]")
    assert left.tables == ()
    (accepted,) = findings_of(left, "virtual-table-rows-left-behind")
    assert (accepted.severity, accepted.count) == ("warning", 1)


def test_rows_of_a_virtual_table_that_nobody_can_read_are_an_error(tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db",
        "CREATE VIRTUAL TABLE ft USING fts5(a)",
        "INSERT INTO ft VALUES ('only here')",
        "PRAGMA writable_schema = 1",
        "UPDATE sqlite_schema SET sql = replace(sql, 'fts5(', 'vec0(') WHERE name = 'ft'",
    )
    plan = plan_of(path)
    assert "ft" not in [table.source for table in plan.tables]
    (found,) = findings_of(plan, "virtual-table-rows-left-behind")
    assert found.severity == "error"
    assert "cannot read" in found.message
    (accepted,) = findings_of(plan_of(path, found.resolution), "virtual-table-rows-left-behind")
    assert accepted.severity == "warning"


def test_a_virtual_table_that_repeats_rows_is_a_warning(tmp_path: Path) -> None:
    """Content in a table, or a trigger that fills it; one of an update alone does not."""
    path = database(
        tmp_path / "a.db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, x REAL)",
        "CREATE VIRTUAL TABLE f USING fts5(a, content='t')",
        "CREATE VIRTUAL TABLE own USING fts5(a)",
        "CREATE VIRTUAL TABLE box USING rtree(id, x0, x1)",
        "CREATE VIRTUAL TABLE words USING fts5vocab(own, row)",
        "CREATE VIRTUAL TABLE empty USING fts5(a)",
        "CREATE TRIGGER o AFTER INSERT ON t BEGIN "
        "INSERT OR REPLACE INTO own (rowid, a) VALUES (new.id, new.a); END",
        'CREATE TRIGGER b AFTER INSERT ON t BEGIN INSERT INTO "BOX" VALUES (new.id, 1, 2); END',
        "INSERT INTO t VALUES (1, 'one', 2.0)",
    )
    plan = plan_of(path)
    assert findings_of(plan, "virtual-table-rows-left-behind") == []
    found = {f.table: f for f in findings_of(plan, "virtual-table-not-carried")}
    assert set(found) == {"f", "own", "box", "words", "empty"}
    assert {f.severity for f in found.values()} == {"warning"}
    assert found["box"].count == 1
    assert plan_of(path, "default: block").blocked


def test_a_trigger_of_an_update_alone_fills_no_virtual_table(tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT)",
        "CREATE VIRTUAL TABLE log USING fts5(a)",
        "CREATE TRIGGER u AFTER UPDATE ON t BEGIN INSERT INTO log (a) VALUES (old.a); END",
        "INSERT INTO t VALUES (1, 'one')",
        "UPDATE t SET a = 'two'",
    )
    assert [f.count for f in findings_of(plan_of(path), "virtual-table-as-plain")] == [1]


def test_a_plan_is_data(tmp_path: Path) -> None:
    path = orphaned(tmp_path)
    plan = plan_of(path, "orphans: quarantine")
    assert Plan.model_validate_json(plan.model_dump_json()) == plan
    assert plan.digest() == plan_of(path, "orphans: quarantine").digest()
    assert plan.digest() != plan_of(path).digest()


def test_no_tables(tmp_path: Path) -> None:
    plan = plan_of(database(tmp_path / "a.db", "PRAGMA user_version = 1"))
    assert plan.tables == ()
    assert not plan.findings


def test_an_application_s_own_function_in_a_generated_column(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    connection = apsw.Connection(str(path))
    connection.create_scalar_function("own", same_value, 1, deterministic=True)
    connection.execute("CREATE TABLE t(a, b AS (own(a)), c CHECK (own(c) IS NOT 5))")
    connection.execute("INSERT INTO t(a, c) VALUES (1, 2)")
    connection.close()
    plan = plan_of(path)
    assert [c.target for c in plan.table("t").columns] == ["a", "c"]
    assert [f.code for f in plan.blocked] == ["generated-unreadable"]
    assert not plan_of(path, plan.blocked[0].resolution).blocked


def test_views_that_stand_on_too_many_are_left_out_with_a_finding(tmp_path: Path) -> None:
    path = tmp_path / "nested.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY)")
        connection.execute("CREATE VIEW v1 AS SELECT id FROM t")
        for n in range(2, 301):
            connection.execute(f"CREATE VIEW v{n} AS SELECT id FROM v{n - 1}")
    connection.close()
    plan = plan_of(path)
    assert [v.source for v in plan.views] == [f"v{n}" for n in range(1, 101)]
    found = findings_of(plan, "view-not-carried")
    assert len(found) == 200
    assert "view v101: more than 100 views depend on one another" in [f.message for f in found]


def test_the_times_that_numbers_give_are_shown_and_doubted(tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, fine DATETIME, cocoa DATETIME, later DATETIME)",
        "INSERT INTO t VALUES (1, 1700000000, 694224000, 2401011000)",
        "INSERT INTO t VALUES (2, 1700000060, 750000000, 2412312359)",
        "CREATE TABLE zevent (z_pk INTEGER PRIMARY KEY, z_ent INTEGER, zat TIMESTAMP)",
        "INSERT INTO zevent VALUES (1, 1, 1700000000)",
    )
    found = {f"{f.table}.{f.column}": f for f in findings_of(plan_of(path), "epoch")}
    severities = {place: finding.severity for place, finding in found.items()}
    assert severities == {
        "t.fine": "note",
        "t.cocoa": "warning",
        "t.later": "warning",
        "zevent.zat": "warning",
    }
    assert "2023-11-14 22:13:20 to 2023-11-14 22:14:20" in found["t.fine"].message
    assert "it is 2023-01-01 00:00:00 to 2024-10-07 13:20:00" in found["t.cocoa"].message
    assert "still to come" in found["t.later"].message
    assert "Core Data" in found["zevent.zat"].message
    resolved = plan_of(path, "tables: {t: {columns: {cocoa: {epoch: apple}}}}")
    (cocoa,) = [f for f in findings_of(resolved, "epoch") if f.column == "cocoa"]
    assert cocoa.severity == "note"
    assert "seconds since 2001" in cocoa.message


def test_names_that_have_to_be_quoted_are_told(tmp_path: Path) -> None:
    path = database(tmp_path / "a.db", 'CREATE TABLE "UserAccount"(id INTEGER, "firstName" TEXT)')
    (found,) = findings_of(plan_of(path), "names-with-capitals")
    assert (found.severity, found.count) == ("note", 2)
    assert "UserAccount, UserAccount.firstName" in found.message


@pytest.mark.parametrize("declared", ["VARCHAR", "varchar", "CHARACTER VARYING", "NVARCHAR"])
def test_a_varchar_without_a_length_stays_one(declared: str, tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db",
        f"CREATE TABLE p(k {declared} PRIMARY KEY, c TEXT UNIQUE)",
        f"CREATE TABLE t(k {declared} REFERENCES p(k), c {declared} REFERENCES p(c))",
    )
    plan = plan_of(path)
    assert [column_of(plan, "t", name).type for name in "kc"] == ["varchar", "text"]
    assert not plan.blocked


def test_an_array_of_what_no_list_holds_is_refused(tmp_path: Path) -> None:
    path = database(tmp_path / "a.db", "CREATE TABLE t(a TEXT)")
    policy = "tables: {t: {columns: {a: {type: '%s'}}}}"
    assert column_of(plan_of(path, policy % "varchar(9) []"), "t", "a").type == "varchar(9)[]"
    with pytest.raises(InputError, match=r"an array \(TYPE"):
        plan_of(path, policy % "bytea[]")


def test_times_finer_than_their_type_are_told_as_cut(tmp_path: Path) -> None:
    """They are not the same moment, and two of them become one; only spellings are."""
    path = database(
        tmp_path / "a.db",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, at DATETIME UNIQUE, ns INTEGER, clock TIME)",
        "INSERT INTO t VALUES (1, '2023-01-02T03:04:05.123456789Z', 1700000000000000001, '03:04'),"
        "(2, '2023-01-02T03:04:05.123456780Z', 1700000000000001000, '03:04:05.1234567'),"
        "(3, '2023-01-02 03:04:06', 1700000000000000000, '03:05')",
    )
    plan = plan_of(path, "tables: {t: {columns: {ns: {epoch: ns}}}}")
    cut = {f.column: f for f in findings_of(plan, "cut-times")}
    assert {name: f.count for name, f in cut.items()} == {"at": 2, "ns": 1, "clock": 1}
    assert "cut to microseconds on the target, the original in the ledger" in cut["at"].message
    spelled = {f.column: f.count for f in findings_of(plan, "several-shapes")}
    assert spelled == {"at": 1}
