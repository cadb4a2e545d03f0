"""Inputs at the edge of what SQLite and PostgreSQL take: carried, or refused by a sentence."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from migration_job.plan import rowsize
from migration_job.plan.planner import row_faults
from tests.integration.running import BLOCKED, DONE, USAGE, Ended, run
from tests.integration.wholeway import Way

pytestmark = pytest.mark.postgres


def made(folder: Path, script: str) -> Path:
    """A source by SQLite with a function ``slug()``, as an application has one of its own."""
    path = folder / "app.db"
    with sqlite3.connect(path) as source:
        source.create_function("slug", 1, lambda s: s.lower(), deterministic=True)
        source.executescript(script)
    source.close()
    return path


def inspected(folder: Path, script: str, *options: str | Path) -> Ended:
    return run("inspect", made(folder, script), *options)


VIRTUAL = """
CREATE TABLE p (id INTEGER PRIMARY KEY, t TEXT, s TEXT GENERATED ALWAYS AS (slug(t)) VIRTUAL);
INSERT INTO p (t) VALUES ('A');
CREATE TABLE other (id INTEGER PRIMARY KEY, n INTEGER);
INSERT INTO other VALUES (1, 7);
"""


def test_a_virtual_column_by_a_function_of_the_application(tmp_path: Path, postgres: str) -> None:
    ended = inspected(tmp_path, VIRTUAL)
    assert ended.status == BLOCKED, ended.said
    assert "the generated column cannot be read: unknown function: slug()" in ended.said
    accepted = tmp_path / "policy.yaml"
    accepted.write_text("acknowledge: ['generated-unreadable:p.s']\n")
    way = Way(tmp_path, postgres, tmp_path / "app.db")
    whole = run(
        *("migrate", way.source, "--target", postgres, "--report", tmp_path / "r"),
        *("--policy", accepted),
    )
    assert whole.status == DONE, whole.said
    assert way.on_postgres("SELECT id, t FROM p") == [(1, "A")]
    assert way.on_postgres("SELECT id, n FROM other") == [(1, 7)]


def test_such_a_column_cannot_be_followed(tmp_path: Path, postgres: str) -> None:
    made(tmp_path, VIRTUAL)
    accepted = tmp_path / "policy.yaml"
    accepted.write_text("acknowledge: ['generated-unreadable:p.s']\n")
    ended = Way(tmp_path, postgres, tmp_path / "app.db").migrate("--policy", accepted)
    assert ended.status == USAGE, ended.said
    assert "a function that only the application has (unknown function: slug())" in ended.said


def test_damage_beside_such_a_column_is_found(tmp_path: Path) -> None:
    path = made(tmp_path, VIRTUAL)
    with sqlite3.connect(path) as source:
        (size,) = source.execute("PRAGMA page_size").fetchone()
        (page,) = source.execute(
            "SELECT rootpage FROM sqlite_schema WHERE name = 'other'"
        ).fetchone()
    source.close()
    with path.open("r+b") as stream:
        stream.seek((page - 1) * size)
        stream.write(b"\x63")
    assert "the source is damaged" in run("inspect", path).said


@pytest.mark.parametrize(
    ("default", "meant"),
    [("'Max''s'", "Max's"), ("('a' || 'Max''ff')", "aMax'ff"), ('"Max\'s"', "Max's")],
)
def test_a_default_that_looks_like_bytes(
    tmp_path: Path, postgres: str, default: str, meant: str
) -> None:
    way = Way.of(
        tmp_path, postgres, f"CREATE TABLE p (id INTEGER PRIMARY KEY, t DEFAULT {default})"
    )
    way.on_sqlite("INSERT INTO p (id) VALUES (1)")
    way.there()
    way.on_postgres("INSERT INTO p (id) VALUES (2)")
    assert way.on_postgres("SELECT t FROM p ORDER BY id") == [(meant,), (meant,)]


@pytest.mark.parametrize(
    ("script", "says"),
    [
        (
            "CREATE TABLE a (k ANY PRIMARY KEY, v TEXT) STRICT, WITHOUT ROWID; "
            "INSERT INTO a VALUES ('abc', '1'), (x'616263', '2')",
            "its key (k) holds NULL, values that are distinct on the source alone",
        ),
        (
            "CREATE TABLE a (k TIMESTAMP PRIMARY KEY, v TEXT) WITHOUT ROWID; INSERT INTO a VALUES "
            "('2024-06-02 03:04:05.5 +0200 CEST', 'b'), ('2024-01-02 03:04:05.5 +0000 UTC', 'a')",
            "or values that change on their way",
        ),
    ],
    ids=["one as bytes", "times of Go"],
)
def test_values_that_leave_no_key_to_follow(
    tmp_path: Path, postgres: str, script: str, says: str
) -> None:
    ended = Way.of(tmp_path, postgres, script).migrate()
    assert ended.status == USAGE, ended.said
    assert says in ended.said


def test_a_generated_column_beside_a_long_text(tmp_path: Path, postgres: str) -> None:
    way = Way.of(
        tmp_path,
        postgres,
        "CREATE TABLE g (id INTEGER PRIMARY KEY, t TEXT, n INT GENERATED ALWAYS AS (length(t))); "
        "INSERT INTO g (t) VALUES (printf('%.*c', 1200000, 'x')), (printf('%.*c', 2000000, 'y'))",
    )
    way.there()
    assert way.on_postgres("SELECT n, length(t) FROM g ORDER BY id") == [
        (1_200_000, 1_200_000),
        (2_000_000, 2_000_000),
    ]


def test_a_long_text_beside_a_generated_column_is_looked_through(tmp_path: Path) -> None:
    ended = inspected(
        tmp_path,
        "CREATE TABLE g (id INTEGER PRIMARY KEY, t TEXT, n INT GENERATED ALWAYS AS (1)); "
        "INSERT INTO g (t) VALUES (CAST(zeroblob(1200000) AS TEXT))",
    )
    assert "NUL" in ended.said
    assert "Traceback" not in ended.said


@pytest.mark.parametrize("count", [1_601, 1_998])
def test_more_columns_than_postgresql_has(tmp_path: Path, count: int) -> None:
    columns = ", ".join(f"c{i} TEXT" for i in range(count - 1))
    ended = inspected(
        tmp_path,
        f"CREATE TABLE w (id INTEGER PRIMARY KEY, {columns}); INSERT INTO w (id) VALUES (1)",
    )
    assert ended.status == BLOCKED, ended.said
    assert f"{count:,} columns; a PostgreSQL table has 1,600 at most" in ended.said


def test_hundreds_of_terms_in_one_condition(tmp_path: Path, postgres: str) -> None:
    """As many as SQLite takes: conditions, an index, a generated column and a view."""
    any_of = " OR ".join(f"t = '{i}'" for i in range(400))
    few = " OR ".join(f"t = '{i}'" for i in range(150))
    none_of = " AND ".join(f"t <> '-{i}'" for i in range(900))
    way = Way.of(
        tmp_path,
        postgres,
        f"CREATE TABLE w (id INTEGER PRIMARY KEY, t TEXT CHECK ({any_of}), "
        f"g INT GENERATED ALWAYS AS (CASE WHEN {any_of} THEN 1 ELSE 2 END) STORED, "
        f"CHECK ({none_of})); "
        f"CREATE INDEX i ON w (t) WHERE {any_of}; "
        f"CREATE INDEX j ON w (t) WHERE {few}; "
        f"CREATE VIEW v AS SELECT id FROM w WHERE {any_of}; "
        "INSERT INTO w (t) VALUES ('7')",
    )
    ended = run("inspect", way.source)
    assert "index i: its expressions are longer than PostgreSQL keeps for one" in ended.said
    assert "index j" not in ended.said
    assert way.migrate().status == DONE
    assert way.on_postgres("SELECT t, g FROM w") == [("7", 1)]
    assert way.on_postgres(
        "SELECT count(*) FROM pg_constraint WHERE conrelid = 'w'::regclass AND contype = 'c' "
        "AND length(pg_get_constraintdef(oid)) > 4000"
    ) == [(2,)]


def test_hundreds_of_terms_in_one_another(tmp_path: Path) -> None:
    """What cannot be translated is said, and carried without."""
    sum_of = "+".join(["id"] * 900)
    ended = inspected(
        tmp_path,
        f"CREATE TABLE w (id INTEGER PRIMARY KEY, CHECK ({sum_of} > 0)); "
        f"CREATE INDEX i ON w ({sum_of}); CREATE VIEW v AS SELECT {sum_of} AS n FROM w; "
        "INSERT INTO w VALUES (1)",
    )
    assert ended.status == DONE, ended.said
    assert ended.said.count("nested too deeply") >= 2


def test_a_row_that_is_too_long_as_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit of kilobytes stands for that of hundreds of megabytes."""
    for module in (row_faults, rowsize):
        monkeypatch.setattr(module, "MAX_TEXT_BYTES", 10_000)
    ended = inspected(
        tmp_path,
        "CREATE TABLE b (id INTEGER PRIMARY KEY, x BLOB, t TEXT); "
        "INSERT INTO b VALUES (1, zeroblob(5000), 'a'), (2, zeroblob(4999), 'a'), "
        "(3, NULL, printf('%.*c', 10001, 'x')), (4, NULL, NULL)",
    )
    assert ended.status == BLOCKED, ended.said
    assert "2 rows of more than 10,000 bytes as text" in ended.said
    assert "id=1" in ended.said
    assert "id=3" in ended.said


def test_names_of_more_than_63_bytes_there_and_back(tmp_path: Path, postgres: str) -> None:
    long = "n" * 70
    way = Way.of(
        tmp_path,
        postgres,
        f'CREATE TABLE "{long}A" (id INTEGER PRIMARY KEY, "{long}B" TEXT, "{long}C" TEXT); '
        f'CREATE TABLE "{long}B" (id INTEGER PRIMARY KEY, r INT REFERENCES "{long}A" (id)); '
        f"INSERT INTO \"{long}A\" VALUES (1, 'a', 'b')",
    )
    assert way.migrate().status == DONE
    way.on_sqlite(
        f"INSERT INTO \"{long}A\" VALUES (2, 'c', 'd'); INSERT INTO \"{long}B\" VALUES (1, 2)"
    )
    switched = way.command("switch")
    assert switched.status == DONE, switched.said
    ((table,),) = way.on_postgres(
        "SELECT conrelid::regclass::text FROM pg_constraint WHERE contype = 'f'"
    )
    way.on_postgres(f"INSERT INTO {table} VALUES (5, 1)")
    way.back()
    assert way.on_sqlite(f'SELECT id, r FROM "{long}B" ORDER BY 1') == [(1, 2), (5, 1)]
    assert way.on_sqlite(f'SELECT "{long}C" FROM "{long}A" ORDER BY id') == [("b",), ("d",)]
