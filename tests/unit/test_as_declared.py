"""What the source's schema promises stands in the target's: sizes, keys, defaults, CHECKs."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from migration_job.plan.model import Plan
from tests.unit.planning import column_of, database, findings_of, plan_of


def types(plan: Plan, table: str = "t") -> dict[str, str]:
    return {c.target: c.type for c in plan.table(table).columns}


@pytest.mark.parametrize(
    "declared",
    [
        *("BIGINT", "bigint(20)", "INT8", "UNSIGNED BIG INT", "BIG INT", "LONG INTEGER", "INT64"),
        *("BIGINT UNSIGNED", "INT UNSIGNED", "INTEGER UNSIGNED", "UINT32"),
    ],
)
def test_a_declared_size_is_a_lower_bound(declared: str, tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db",
        f"CREATE TABLE t(id INT PRIMARY KEY, a {declared})",
        "INSERT INTO t VALUES (1, 5)",
    )
    assert types(plan_of(path)) == {"id": "integer", "a": "bigint"}


def test_values_alone_narrow_a_plain_integer(tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db",
        "CREATE TABLE p(id INTEGER PRIMARY KEY)",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, empty INTEGER, zero INT, some INTEGER, "
        "small SMALLINT, p INTEGER REFERENCES p)",
        "INSERT INTO t VALUES (1, NULL, 0, 7, NULL, NULL)",
    )
    assert types(plan_of(path)) == {
        "id": "integer",
        "empty": "bigint",
        "zero": "bigint",
        "some": "integer",
        "small": "integer",
        "p": "integer",
    }


def test_a_wide_reference_widens_its_key(tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db",
        "CREATE TABLE p(id INTEGER PRIMARY KEY)",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, p BIGINT REFERENCES p)",
    )
    plan = plan_of(path)
    assert types(plan)["p"] == types(plan, "p")["id"] == "bigint"


def test_a_key_from_a_parent_is_no_identity(tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db",
        "CREATE TABLE page(id INTEGER PRIMARY KEY, next INTEGER REFERENCES page)",
        "CREATE TABLE post(page_id INTEGER PRIMARY KEY REFERENCES page(id))",
        "CREATE TABLE own(id INTEGER PRIMARY KEY REFERENCES own(id))",
    )
    plan = plan_of(path)
    assert column_of(plan, "page", "id").identity
    assert not column_of(plan, "post", "page_id").identity
    assert column_of(plan, "own", "id").identity
    assert [s.table for s in plan.sequences] == ["page", "own"]


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        (
            "c DATETIME DEFAULT (datetime('now','localtime'))",
            "date_trunc('second', CURRENT_TIMESTAMP)",
        ),
        ("c TEXT DEFAULT (time('now', 'localtime'))", "to_char(LOCALTIMESTAMP, 'HH24:MI:SS')"),
        ("c DATE DEFAULT (date('now','localtime'))", "LOCALTIMESTAMP::date"),
        (
            "c DATETIME DEFAULT (STRFTIME('%Y-%m-%d %H:%M:%f', 'NOW'))",
            "date_trunc('milliseconds', CURRENT_TIMESTAMP)",
        ),
        (
            "c DATETIME DEFAULT (strftime('%Y-%m-%d %H:%M:%f000', 'now'))",
            "date_trunc('milliseconds', CURRENT_TIMESTAMP)",
        ),
        (
            "c DATETIME DEFAULT (datetime('now', 'subsec'))",
            "date_trunc('milliseconds', CURRENT_TIMESTAMP)",
        ),
        (
            "c BIGINT DEFAULT (CAST(STRFTIME('%s', 'now') AS INT))",
            "floor(extract(epoch FROM CURRENT_TIMESTAMP))::bigint",
        ),
        ("c BOOL NOT NULL DEFAULT 'false'", "FALSE"),
        ("c BOOLEAN DEFAULT 'True'", "TRUE"),
        ('c BOOL DEFAULT "no"', "FALSE"),
    ],
)
def test_defaults_that_are_carried(declared: str, expected: str, tmp_path: Path) -> None:
    plan = plan_of(database(tmp_path / "a.db", f"CREATE TABLE t(id INTEGER, {declared})"))
    assert column_of(plan, "t", "c").default == expected
    local = findings_of(plan, "default-in-local-time")
    assert len(local) == ("localtime" in declared)


@pytest.mark.parametrize(
    "declared",
    [
        *("c TEXT DEFAULT (datetime('now', '+1 day'))", "c TEXT DEFAULT (datetime('1970-01-01'))"),
        *("c TEXT DEFAULT (strftime('%s', 'now', 'localtime'))", "c DATE DEFAULT (random())"),
        "c TEXT DEFAULT (datetime('now', 'utc'))",
    ],
)
def test_defaults_that_are_not(declared: str, tmp_path: Path) -> None:
    plan = plan_of(database(tmp_path / "a.db", f"CREATE TABLE t(id INTEGER, {declared})"))
    assert column_of(plan, "t", "c").default is None
    assert len(findings_of(plan, "default-not-carried")) == 1


@pytest.mark.parametrize(
    ("check", "type_"),
    [
        ("typeof(c) = 'integer'", "bigint"),
        ("typeof(c) IN ('integer', 'null')", "bigint"),
        ("typeof(c) IN ('real', 'integer')", "numeric"),
        ("typeof(c) = 'real'", "double precision"),
        ("typeof(\"c\") == 'blob'", "bytea"),
        ("typeof(c) = 'text'", "text"),
        ("typeof(c) is 'text'", "text"),
    ],
)
def test_a_check_of_the_class_is_a_type(check: str, type_: str, tmp_path: Path) -> None:
    path = database(tmp_path / "a.db", f"CREATE TABLE t(id INTEGER, c CHECK ({check}))")
    plan = plan_of(path)
    assert column_of(plan, "t", "c").type == type_
    if type_ != "numeric":
        assert len(plan.table("t").checks) == 1


@pytest.mark.parametrize(
    "column",
    [
        "c CHECK (typeof(c) = 'integer' OR typeof(c) = 'real')",
        "c INTEGER CHECK (typeof(c) = 'text')",
        "c TEXT CHECK (c IS NULL OR typeof(c) = 'blob')",
    ],
)
def test_no_check_that_refuses_every_row(column: str, tmp_path: Path) -> None:
    plan = plan_of(database(tmp_path / "a.db", f"CREATE TABLE t(id INTEGER, {column})"))
    assert plan.table("t").checks == ()
    assert len(findings_of(plan, "check-not-carried")) == 1


def names(plan: Plan, table: str) -> set[str | None]:
    found = plan.table(table)
    given = {
        *(check.name for check in found.checks),
        *(unique.name for unique in found.uniques),
        *(key.name for key in found.foreign_keys),
        *(index.name for index in found.indexes),
    }
    return {found.primary_key_name, *given} - {None}


def test_names_of_constraints_are_kept(tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db",
        'CREATE TABLE p(a INT CONSTRAINT "p key" PRIMARY KEY, b TEXT CONSTRAINT b_uq UNIQUE '
        "CONSTRAINT b_ck CHECK (b <> 'CHECK') CONSTRAINT b_nn NOT NULL, "
        "c TEXT CONSTRAINT d DEFAULT 'x' CHECK (c <> ''))",
        "CREATE TABLE t(a INT, b TEXT COLLATE NOCASE, u INT CONSTRAINT t_fk REFERENCES p(a) "
        "ON DELETE SET NULL, v INT REFERENCES p, CONSTRAINT unique_ PRIMARY KEY (a, b) "
        "CONSTRAINT folded UNIQUE (b), CONSTRAINT [other fk] FOREIGN KEY (u) REFERENCES p(a))",
    )
    plan = plan_of(path)
    assert names(plan, "p") == {"p key", "b_uq", "b_ck", "p_check_2"}
    assert {k.name for k in plan.table("t").foreign_keys} == {"t_fk", "t_v_fkey", "other fk"}
    assert "folded" in names(plan, "t")
    assert not findings_of(plan, "constraint-renamed")


def test_names_that_collide_are_told(tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db",
        "CREATE TABLE a(x INT CONSTRAINT one UNIQUE CONSTRAINT two CHECK (x > 0), "
        "y INT CONSTRAINT two CHECK (y > 0), z INT CONSTRAINT a_pkey CHECK (z > 0), "
        "k INT PRIMARY KEY)",
        "CREATE TABLE b(x INT CONSTRAINT one UNIQUE, y INT CONSTRAINT a UNIQUE, "
        "z INT CONSTRAINT shown UNIQUE, i INT CONSTRAINT idx UNIQUE)",
        "CREATE INDEX idx ON b(x)",
        "CREATE VIEW shown AS SELECT x FROM a",
    )
    plan = plan_of(path)
    told = sorted(f.message.split()[2] for f in findings_of(plan, "constraint-renamed"))
    assert told == ["a", "a_pkey", "idx", "one", "shown", "two"]
    assert [v.target for v in plan.views] == ["shown"]
    assert "idx" in {i.name for i in plan.table("b").indexes}
    relations = [
        *(n for t in ("a", "b") for n in names(plan, t)),
        *(t.target for t in plan.tables),
    ]
    assert len(relations) == len(set(relations))


def test_a_unique_index_is_an_index_and_djangos_a_constraint(tmp_path: Path) -> None:
    statements = [
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a INT, b INT, UNIQUE (b))",
        "CREATE UNIQUE INDEX t_a_b_1_uniq ON t(a, b)",
        "CREATE UNIQUE INDEX t_some_uniq ON t(a) WHERE b = 1",
        "CREATE UNIQUE INDEX other ON t(a, b)",
    ]
    plain = plan_of(database(tmp_path / "a.db", *statements)).table("t")
    assert {u.name for u in plain.uniques} == {"t_b_key"}
    assert {i.name for i in plain.indexes} == {"t_a_b_1_uniq", "t_some_uniq", "other"}
    statements.append("CREATE TABLE django_migrations(id INTEGER PRIMARY KEY)")
    django = plan_of(database(tmp_path / "b.db", *statements)).table("t")
    assert {u.name for u in django.uniques} == {"t_b_key", "t_a_b_1_uniq"}
    assert {i.name for i in django.indexes} == {"t_some_uniq", "other"}


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ("a TEXT PRIMARY KEY ON CONFLICT REPLACE", [("warning", "PRIMARY KEY (a)", "23505")]),
        ("a INTEGER PRIMARY KEY ON CONFLICT IGNORE", [("warning", "PRIMARY KEY (a)", "23505")]),
        (
            "a INT CONSTRAINT u UNIQUE ON CONFLICT FAIL, b INT NOT NULL ON CONFLICT IGNORE",
            [("warning", "u: UNIQUE (a)", "23505"), ("warning", "NOT NULL (b)", "23502")],
        ),
        (
            'a INT, "ON" INT, UNIQUE (a, "ON") ON CONFLICT REPLACE',
            [("warning", "UNIQUE (a, ON)", "23505")],
        ),
        (
            "a INT, CONSTRAINT pos CHECK (a > 0) ON CONFLICT IGNORE, "
            "UNIQUE (a) ON CONFLICT ROLLBACK",
            [("note", "pos: CHECK", "23514"), ("note", "UNIQUE (a)", "23505")],
        ),
        ("a INT UNIQUE ON CONFLICT ABORT, b TEXT DEFAULT 'ON CONFLICT REPLACE'", []),
        ("a INT PRIMARY KEY, FOREIGN KEY (a) REFERENCES t(a) ON DELETE SET NULL", []),
    ],
)
def test_conflict_clauses_are_told(
    columns: str, said: list[tuple[str, str, str]], tmp_path: Path
) -> None:
    plan = plan_of(database(tmp_path / "a.db", f"CREATE TABLE t({columns})"))
    found = findings_of(plan, "on-conflict")
    assert len(found) == len(said)
    for finding, (severity, constraint, state) in zip(found, said, strict=True):
        assert finding.severity == severity
        assert finding.message.startswith(f"{constraint} ON CONFLICT ")
        assert f"SQLSTATE {state}" in finding.message


def test_sqlite_takes_no_notice_of_a_checks_clause(tmp_path: Path) -> None:
    """What the finding says of it."""
    connection = sqlite3.connect(tmp_path / "a.db")
    connection.execute("CREATE TABLE t(a INT, CHECK (a > 0) ON CONFLICT IGNORE)")
    with pytest.raises(sqlite3.IntegrityError):
        connection.execute("INSERT INTO t VALUES (0)")
    connection.close()
