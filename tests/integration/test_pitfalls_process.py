"""Pitfalls 39 to 46: the process around the copy. What needs a live application (40, 43, 45) has
its tests with the live phases; here is what one command and one file can show."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.integration import independent_compare
from tests.integration.running import (
    BLOCKED,
    DIFFERS,
    DONE,
    FAILED,
    USAGE,
    Ended,
    build,
    digest,
    run,
)

pytestmark = pytest.mark.postgres


def migrate(path: Path, dsn: str, *more: str | Path) -> Ended:
    report = path.parent / "report"
    return run("migrate", path, "--target", dsn, "--report", report, "--profile", "none", *more)


def told(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((path.parent / "report" / "report.json").read_text())
    return found


def rows(dsn: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        return connection.execute(query.encode()).fetchall()


WRITER = """
import sqlite3, sys
c = sqlite3.connect(sys.argv[1], isolation_level=None)
c.execute("PRAGMA journal_mode = WAL")
c.execute("PRAGMA wal_autocheckpoint = 0")
for statement in sys.argv[2:]:
    c.execute(statement)
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def another_process(path: Path, *statements: str) -> Iterator[None]:
    """A writer that has run the statements and keeps its connection open."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), *statements],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        yield
        writer.communicate()


def test_pitfall_39_rows_that_are_only_in_the_write_ahead_log(
    tmp_path: Path, postgres: str
) -> None:
    path = tmp_path / "source.db"
    with another_process(
        path,
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT)",
        "INSERT INTO t VALUES (1, 'in the log')",
    ):
        # The file itself holds no table yet: whoever copies it alone copies nothing.
        alone = tmp_path / "alone.db"
        alone.write_bytes(path.read_bytes())
        with sqlite3.connect(alone) as copy:
            assert copy.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
        copy.close()
        ended = migrate(path, postgres)
    assert ended.status == DONE, ended.said
    assert rows(postgres, "SELECT id, v FROM t") == [(1, "in the log")]


def test_pitfall_39_a_transaction_that_is_not_committed_is_not_seen(
    tmp_path: Path, postgres: str
) -> None:
    path = tmp_path / "source.db"
    with another_process(
        path,
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT)",
        "INSERT INTO t VALUES (1, 'committed')",
        "BEGIN IMMEDIATE",
        "INSERT INTO t VALUES (2, 'open')",
        "UPDATE t SET v = 'changed' WHERE id = 1",
    ):
        ended = migrate(path, postgres)
    assert ended.status == DONE, ended.said
    assert rows(postgres, "SELECT id, v FROM t") == [(1, "committed")]


def test_pitfall_39_a_log_left_by_a_crash_is_read(tmp_path: Path, postgres: str) -> None:
    path = tmp_path / "crashed" / "source.db"
    path.parent.mkdir()
    live = tmp_path / "live.db"
    with another_process(
        live,
        "CREATE TABLE t(id INTEGER PRIMARY KEY)",
        "INSERT INTO t VALUES (7)",
    ):
        for suffix in ("", "-wal"):
            Path(f"{path}{suffix}").write_bytes(Path(f"{live}{suffix}").read_bytes())
    ended = migrate(path, postgres)
    assert ended.status == DONE, ended.said
    assert rows(postgres, "SELECT id FROM t") == [(7,)]


SOURCE = """
    CREATE TABLE parent(id INTEGER PRIMARY KEY, name TEXT UNIQUE, at DATETIME,
                        price DECIMAL(10,2));
    CREATE TABLE child(id INTEGER PRIMARY KEY AUTOINCREMENT,
                       parent_id INTEGER REFERENCES parent(id),
                       body TEXT NOT NULL DEFAULT 'none', CHECK (length(body) < 100));
    CREATE INDEX child_parent ON child(parent_id);
    CREATE VIEW cheap AS SELECT name FROM parent WHERE price < 10;
    INSERT INTO parent VALUES (1, 'one', '2024-03-01 10:00:00', 9.99),
                              (2, 'two', '2024-03-02 10:00:00', 19.99);
    INSERT INTO child(parent_id, body) VALUES (1, 'a'), (1, 'b'), (2, 'c'), (NULL, 'd');
"""


@pytest.mark.parametrize(
    ("corruption", "names"),
    [
        ("DELETE FROM child WHERE id = 3", ("child", "3")),
        ("INSERT INTO child(id, parent_id, body) VALUES (99, 1, 'extra')", ("child", "99")),
        ("UPDATE child SET body = 'B' WHERE id = 2", ("child", "2", "body")),
        ("UPDATE child SET parent_id = 2 WHERE id = 1", ("child", "1", "parent_id")),
        ("UPDATE parent SET at = at + interval '1 hour' WHERE id = 1", ("parent", "1", "at")),
        ("UPDATE parent SET price = 20 WHERE id = 2", ("parent", "2", "price")),
        ("ALTER TABLE child ALTER body DROP DEFAULT", ("child", "body")),
        ("ALTER TABLE child ALTER body DROP NOT NULL", ("child", "body")),
        ("DROP INDEX child_parent", ("child",)),
        (
            "DO $$ BEGIN EXECUTE (SELECT format('ALTER TABLE child DROP CONSTRAINT %I', conname) "
            "FROM pg_constraint WHERE contype = 'f'); END $$",
            ("child",),
        ),
        (
            "DO $$ BEGIN EXECUTE (SELECT format('ALTER TABLE child DROP CONSTRAINT %I', conname) "
            "FROM pg_constraint WHERE contype = 'c' AND conrelid = 'child'::regclass); END $$",
            ("child",),
        ),
        ("SELECT setval(pg_get_serial_sequence('child', 'id'), 1)", ("child",)),
        ("CREATE OR REPLACE VIEW cheap AS SELECT name FROM parent", ("cheap",)),
        ("DROP VIEW cheap", ("cheap",)),
        ("DROP TABLE child", ("child",)),
    ],
)
def test_pitfall_41_any_difference_is_a_failure(
    corruption: str, names: tuple[str, ...], tmp_path: Path, postgres: str
) -> None:
    path = tmp_path / "source.db"
    build(path, SOURCE)
    assert migrate(path, postgres).status == DONE
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(corruption.encode())
    ended = run("verify", path, "--target", postgres, "--report", tmp_path / "again")
    assert ended.status == DIFFERS, ended.said
    report = json.loads((tmp_path / "again" / "verify.json").read_text())
    assert report["outcome"] == "failed"
    assert report["certificate"] is None
    differences = json.dumps(report["differences"])
    for name in names:
        assert name in differences, (name, differences)


def test_pitfall_41_an_untouched_target_verifies_again(tmp_path: Path, postgres: str) -> None:
    path = tmp_path / "source.db"
    build(path, SOURCE)
    assert migrate(path, postgres).status == DONE
    ended = run("verify", path, "--target", postgres, "--report", tmp_path / "again")
    assert ended.status == DONE, ended.said


def contents(dsn: str) -> dict[str, Any]:
    """What a target holds, without what may differ between two runs."""
    return {
        name: (table.types, table.defaults, sorted(map(repr, table.rows)), table.foreign_keys)
        for name, table in independent_compare.read_target(dsn).items()
    }


def test_pitfall_42_a_second_run_is_the_same_as_the_first(tmp_path: Path, postgres: str) -> None:
    path = tmp_path / "source.db"
    build(path, SOURCE)
    assert migrate(path, postgres).status == DONE
    first = contents(postgres)
    certified = told(path)["certificate"]["plan_digest"]
    for _ in range(2):
        ended = migrate(path, postgres)
        assert ended.status == DONE, ended.said
        assert contents(postgres) == first
        assert told(path)["certificate"]["plan_digest"] == certified


def test_pitfall_42_a_source_that_went_on_is_copied_anew(tmp_path: Path, postgres: str) -> None:
    path = tmp_path / "source.db"
    build(path, SOURCE)
    assert migrate(path, postgres).status == DONE
    connection = sqlite3.connect(path)
    connection.executescript(
        "DELETE FROM child WHERE id = 2; INSERT INTO child(parent_id, body) VALUES (2, 'new');"
        "UPDATE parent SET name = 'TWO' WHERE id = 2; ALTER TABLE parent ADD COLUMN extra INT;"
    )
    connection.close()
    ended = migrate(path, postgres)
    assert ended.status == DONE, ended.said
    source, target = (
        independent_compare.read_source(path),
        independent_compare.read_target(postgres),
    )
    assert (
        independent_compare.compare(source, target, independent_compare.read_records(postgres))
        == []
    )


@pytest.mark.parametrize(
    "foreign",
    [
        "CREATE TABLE somebody(id INT); INSERT INTO somebody VALUES (1)",
        "CREATE TABLE parent(id INT)",
        "CREATE VIEW v AS SELECT 1 AS x",
        "CREATE SEQUENCE s",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE SCHEMA migration",
    ],
)
def test_pitfall_42_somebody_elses_target_is_refused(
    foreign: str, tmp_path: Path, postgres: str
) -> None:
    path = tmp_path / "source.db"
    build(path, SOURCE)
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(foreign.encode())
    before = contents(postgres)
    ended = migrate(path, postgres)
    assert ended.status == USAGE, ended.said
    assert re.search("expected (an empty database|no schema named migration)", ended.err)
    assert contents(postgres) == before
    assert told(path)["outcome"] == "failed"


def damage_a_page(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    middle = len(raw) // 2 // 4096 * 4096
    raw[middle : middle + 600] = bytes(range(256)) * 2 + bytes(88)
    path.write_bytes(raw)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def break_an_index(path: Path) -> None:
    """The table is whole, its index lacks an entry: no row is lost, but the file is damaged."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute(
        "UPDATE sqlite_master SET rootpage = (SELECT rootpage FROM sqlite_master WHERE name = 'i')"
        " WHERE name = 'j'"
    )
    connection.commit()
    connection.close()


@pytest.mark.parametrize("damage", [damage_a_page, cut_short, break_an_index])
def test_pitfall_44_a_damaged_source(damage: Any, tmp_path: Path, postgres: str) -> None:
    path = tmp_path / "source.db"
    build(
        path,
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT); CREATE INDEX i ON t(v);"
        "CREATE INDEX j ON t(id, v); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n"
        " WHERE i < 5000) INSERT INTO t SELECT i, hex(randomblob(20)) FROM n;",
    )
    damage(path)
    before = digest(path)
    ended = migrate(path, postgres)
    assert ended.status == USAGE, ended.said
    assert "damaged" in ended.err
    assert "Traceback" not in ended.err
    assert told(path)["outcome"] == "failed"
    assert told(path)["certificate"] is None
    assert digest(path) == before
    # The check runs beside the copy; what was copied by then is trusted by nobody.
    if independent_compare.read_target(postgres):
        assert rows(postgres, "SELECT phase IN ('prepared', 'copied') FROM migration.run") == [
            (True,)
        ]
        assert rows(postgres, "SELECT count(*) FROM migration.certificate") == [(0,)]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\n", "text"),
        (bytes((i * 37 + 11) % 256 for i in range(8192)), "not a SQLite database"),
        (b"SQLite format 3\x00" + bytes(50), "SQLite"),
        (b"SQLite format 3\x00" + bytes((i * 91 + 7) % 256 for i in range(8176)), "SQLite"),
    ],
    ids=["empty", "a dump", "encrypted", "a header alone", "a header and noise"],
)
def test_pitfall_44_what_is_no_database(
    content: bytes, says: str, tmp_path: Path, postgres: str
) -> None:
    path = tmp_path / "source.db"
    path.write_bytes(content)
    for ended in (migrate(path, postgres), run("inspect", path)):
        assert ended.status == USAGE, ended.said
        assert says in ended.err
        assert "Traceback" not in ended.err
    assert path.read_bytes() == content
    assert independent_compare.read_target(postgres) == {}


def test_pitfall_44_a_missing_file_is_not_created(tmp_path: Path, postgres: str) -> None:
    path = tmp_path / "none" / "source.db"
    ended = run("migrate", path, "--target", postgres, "--report", tmp_path / "report")
    assert ended.status == USAGE, ended.said
    assert "no such file" in ended.err
    assert not path.exists()


def test_pitfall_44_a_locked_source_ends_with_a_sentence(tmp_path: Path, postgres: str) -> None:
    path = tmp_path / "source.db"
    build(path, SOURCE)
    program = (
        "import sqlite3, sys\nc = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "c.execute('PRAGMA journal_mode = DELETE')\nc.execute('BEGIN EXCLUSIVE')\n"
        "print('ready', flush=True)\nsys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        ended = migrate(path, postgres, "--catch-up-seconds", "1")
        holder.communicate()
    assert ended.status == FAILED, ended.said
    assert "locked" in ended.err
    assert independent_compare.read_target(postgres) == {}


def write_checks(directory: Path, **queries: str) -> Path:
    directory.mkdir()
    for name, text in queries.items():
        (directory / f"{name.replace('__', '.')}.sql").write_text(text)
    return directory


def test_pitfall_46_the_applications_own_queries(tmp_path: Path, postgres: str) -> None:
    path = tmp_path / "source.db"
    build(path, SOURCE)
    checks = write_checks(
        tmp_path / "checks",
        by_parent="SELECT parent_id, count(*) FROM child GROUP BY parent_id",
        in_order__sqlite="SELECT id FROM child ORDER BY parent_id, id",
        in_order__postgresql="SELECT id FROM child ORDER BY parent_id NULLS FIRST, id",
    )
    ended = migrate(path, postgres, "--checks", checks)
    assert ended.status == DONE, ended.said
    assert told(path)["certificate"]["checks"]


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("SELECT id, parent_id FROM child ORDER BY parent_id, id", "row 1"),
        ('SELECT count(*) FROM child WHERE body = "a"', 'column "a" does not exist'),
        ("SELECT name FROM parent WHERE name LIKE 'O%'", "'one'"),
        ("SELECT total(price) FROM parent", "total"),
    ],
)
def test_pitfall_46_a_query_that_answers_otherwise_stops_it(
    query: str, says: str, tmp_path: Path, postgres: str
) -> None:
    path = tmp_path / "source.db"
    build(path, SOURCE)
    checks = write_checks(tmp_path / "checks", the_query=query)
    ended = migrate(path, postgres, "--checks", checks)
    assert ended.status == DIFFERS, ended.said
    assert "the_query" in ended.err
    report = told(path)
    assert report["outcome"] == "failed"
    assert report["certificate"] is None
    assert says in json.dumps(report, ensure_ascii=False).replace('\\"', '"')


def test_a_blocked_run_says_what_would_resolve_it(tmp_path: Path, postgres: str) -> None:
    """And the policy that ``inspect --suggest`` writes does resolve it, whatever the names are."""
    path = tmp_path / "source.db"
    build(
        path,
        """CREATE TABLE "no"("null" INTEGER PRIMARY KEY, "1.0" TEXT, "on: [x" INT, "" TEXT);
           INSERT INTO "no" VALUES (1, 'a' || char(0), 'x', CAST(x'ff' AS TEXT));
           CREATE TABLE "2024-01-01"("~" UUID);
           INSERT INTO "2024-01-01" VALUES ('12345678901234567890123456789012');""",
    )
    policy = tmp_path / "policy.yaml"
    looked = run("inspect", path, "--profile", "none", "--suggest", policy)
    assert looked.status in (DONE, BLOCKED), looked.said
    assert migrate(path, postgres).status == BLOCKED
    ended = migrate(path, postgres, "--policy", policy)
    assert ended.status == DONE, policy.read_text() + ended.said
    source, target = (
        independent_compare.read_source(path),
        independent_compare.read_target(postgres),
    )
    assert (
        independent_compare.compare(source, target, independent_compare.read_records(postgres))
        == []
    )
