"""A name is never SQL: hostile names through every command, live, there and back."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from tests.integration.hostile import Database, Rows, quote
from tests.integration.journey import Journey, Refused, there_and_back
from tests.integration.running import run

pytestmark = pytest.mark.postgres


def one_table(table: str, key: str, column: str) -> tuple[Database, list[str]]:
    """A table with a key and a value under these names, and what the application does to it."""
    name, k, v = quote(table), quote(key), quote(column)
    database = Database(
        tables=(f"CREATE TABLE {name} ({k} TEXT PRIMARY KEY, {v} TEXT)",),
        rows=(Rows(table, (key, column), (("a", "b"), ("c", "d"), ("e", None))),),
    )
    return database, [
        f"UPDATE {name} SET {v} = {v} || 'x'",
        f"INSERT INTO {name} ({k}, {v}) VALUES (hex(randomblob(4)), 'new')",
        f"DELETE FROM {name} WHERE {k} = 'c'",
    ]


def refer(parent: str, child: str, key: str) -> tuple[Database, list[str]]:
    p, c, k = quote(parent), quote(child), quote(key)
    database = Database(
        tables=(
            f"CREATE TABLE {p} ({k} INTEGER PRIMARY KEY)",
            f"CREATE TABLE {c} (id INTEGER PRIMARY KEY, {k} INTEGER REFERENCES {p}({k}))",
        ),
        rows=(
            Rows(parent, (key,), ((1,), (2,), (3,))),
            Rows(child, ("id", key), ((1, 1), (2, 2))),
        ),
    )
    return database, [
        f"INSERT INTO {p} ({k}) SELECT max({k}) + 1 FROM {p}",
        f"UPDATE {c} SET {k} = (SELECT max({k}) FROM {p}) WHERE id = 1",
        f"DELETE FROM {p} WHERE {k} = 3",
    ]


@pytest.mark.parametrize(
    "name",
    [
        "$log$SET check_function_bodies=0;SET check_function_bodies=0--",
        "$log$;CREATE TABLE pwned AS SELECT current_user;--",
        "$body$; $$ ; $_$",
        "it's \\ 'all'",
        "% done",
        "100%s",
        "growth %",
        "%(a)s",
        "$1",
        "found",
        "tg_op",
        "new",
        "old",
        "fresh",
        "gone",
        "É",
        "n" * 63,
    ],
)
def test_a_key_of_any_name_goes_there_and_back(name: str, tmp_path: Path, postgres: str) -> None:
    database, changes = one_table("t", name, "v")
    there_and_back(Journey(tmp_path, postgres, database), changes)


@pytest.mark.parametrize("name", ["% done", "100%s", 'a"b%s', "fresh", "pg_class", "migration"])
def test_a_table_of_any_name_goes_there_and_back(name: str, tmp_path: Path, postgres: str) -> None:
    database, changes = one_table(name, "k", name)
    there_and_back(Journey(tmp_path, postgres, database), changes)


@pytest.mark.parametrize("name", ["% done", "n" * 70, "é" * 40])
def test_references_under_any_name_are_proved(name: str, tmp_path: Path, postgres: str) -> None:
    database, changes = refer(name + "p", name + "c", name)
    there_and_back(Journey(tmp_path, postgres, database), changes)


@pytest.mark.parametrize(
    ("first", "second"), [("n" * 63 + "1", "n" * 63 + "2"), ("é" * 60, "é" * 61), ("É", "é")]
)
def test_names_that_are_alike_are_two(
    first: str, second: str, tmp_path: Path, postgres: str
) -> None:
    a, b = quote(first), quote(second)
    database = Database(
        tables=(
            f"CREATE TABLE {a} ({a} TEXT, {b} TEXT, PRIMARY KEY ({a}, {b}))",
            f"CREATE TABLE {b} ({a} INTEGER, {b} INTEGER)",
        ),
        rows=(
            Rows(first, (first, second), (("1", "2"), ("2", "1"))),
            Rows(second, (first, second), ((1, 2), (2, 1))),
        ),
    )
    there_and_back(
        Journey(tmp_path, postgres, database),
        [
            f"INSERT INTO {a} VALUES (hex(randomblob(4)), 'x')",
            f"UPDATE {b} SET {a} = {a} + 1",
            f"INSERT INTO {b} VALUES (7, 8)",
        ],
    )


def test_a_column_of_the_programs_own_name_is_the_applications(
    tmp_path: Path, postgres: str
) -> None:
    """`settle` drops the column that it made, not the one that the application has."""
    database = Database(
        tables=('CREATE TABLE t ("_migration_rowid" INTEGER, v TEXT)',),
        rows=(Rows("t", ("_migration_rowid", "v"), ((7, "a"), (7, "b"))),),
    )
    there_and_back(
        Journey(tmp_path, postgres, database), ["INSERT INTO t VALUES (9, 'c')", "DELETE FROM t"]
    )
    with psycopg.connect(postgres) as target:
        described = target.execute("SELECT * FROM t").description or ()
        assert [column.name for column in described] == ["_migration_rowid", "v"]


@pytest.mark.parametrize("named", ["notes", "NOTES", "Notes"])
def test_one_way_names_a_table_as_sqlite_does(named: str, tmp_path: Path, postgres: str) -> None:
    database = Database(
        tables=("CREATE TABLE notes (body TEXT)",), rows=(Rows("notes", ("body",), (("a",),)),)
    )
    journey = Journey(tmp_path, postgres, database)
    journey.command("migrate", "--profile", "none")
    journey.command("switch", "--one-way", named)
    with psycopg.connect(postgres, autocommit=True) as app:
        app.execute("INSERT INTO notes VALUES ('b')")
    journey.command("sync", "--once")
    with pytest.raises(Refused, match=r"changes to table notes \(--one-way\)"):
        journey.command("rollback")
    journey.command("rollback", "--accept-loss")


def test_one_way_tells_letters_apart_that_sqlite_tells_apart(tmp_path: Path, postgres: str) -> None:
    database = Database(tables=('CREATE TABLE "É" (body TEXT)',))
    journey = Journey(tmp_path, postgres, database)
    journey.command("migrate", "--profile", "none")
    ended = run(
        *("switch", journey.source, "--target", postgres, "--report", tmp_path / "report"),
        *("--connection", tmp_path / "connection", "--state", tmp_path / "state"),
        *("--connect-to", tmp_path / "application.json", "--one-way", "é"),
    )
    assert ended.status == 2
    assert "found 'é'" in ended.err


def test_a_default_of_a_utf_16_file_stops_no_switch(tmp_path: Path, postgres: str) -> None:
    database = Database(
        tables=("CREATE TABLE t (k TEXT PRIMARY KEY NOT NULL, v TEXT DEFAULT '\U0001f600')",),
        rows=(Rows("t", ("k", "v"), (("a", "b"),)),),
        more=("CREATE INDEX i ON t (v)",),
        encoding="UTF-16le",
    )
    there_and_back(Journey(tmp_path, postgres, database), ["UPDATE t SET v = v || 'x'"])
