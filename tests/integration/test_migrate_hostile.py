"""Sources and targets that no migration can start from, and some that only look so."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from migration_job.embedded import EmbeddedPostgres
from tests.integration.running import DIFFERS, DONE, FAILED, USAGE, Ended, build, run
from tests.servers import MAJOR

pytestmark = pytest.mark.postgres

SIDECARS = ("-wal", "-shm", "-journal")


def _migrate(source: Path, dsn: str, report: Path, *options: str | Path) -> Ended:
    return run("migrate", source, "--target", dsn, "--report", report, *options)


def _report(folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return report


def _state(source: Path) -> dict[str, str]:
    """Every file of the source's, by name, as its hash."""
    family = [source, *(source.with_name(source.name + s) for s in SIDECARS)]
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in family if f.exists()}


def _good(path: Path, rows: int = 2_000) -> Path:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, word TEXT)")
    connection.execute("CREATE INDEX t_word ON t(word)")
    connection.executemany("INSERT INTO t(word) VALUES (?)", [("x" * 100,) for _ in range(rows)])
    connection.commit()
    connection.close()
    return path


def _damaged(path: Path) -> None:
    content = bytearray(_good(path).read_bytes())
    rng = random.Random(7)
    for page in (20, 40, 60):
        content[page * 4096 : page * 4096 + 300] = rng.randbytes(300)
    path.write_bytes(content)


def _damaged_index(path: Path) -> None:
    """The table's pages are sound; an index lacks an entry, which only integrity_check sees."""
    _good(path)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA writable_schema = ON")
    row = connection.execute("SELECT sql FROM sqlite_schema WHERE name = 't_word'").fetchone()
    connection.execute("DELETE FROM sqlite_schema WHERE name = 't_word'")
    connection.commit()
    connection.close()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE other(word TEXT)")
    connection.execute("CREATE INDEX t_word ON other(word)")
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute(
        "UPDATE sqlite_schema SET tbl_name = 't', sql = ? WHERE name = 't_word'", (row[0],)
    )
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    ("name", "make", "says"),
    [
        ("damaged", _damaged, "damaged"),
        ("an index that lacks its entries", _damaged_index, "damaged"),
        (
            "cut off",
            lambda p: p.write_bytes(_good(p).read_bytes()[:40_000]),
            "damaged",
        ),
        ("text", lambda p: p.write_text("just some text\n" * 20), "not a SQLite database"),
        ("empty", lambda p: p.touch(), "empty"),
        ("encrypted", lambda p: p.write_bytes(random.Random(3).randbytes(8192)), "encrypted"),
        ("a directory", lambda p: p.mkdir(), "directory"),
        ("missing", lambda p: None, "no such file"),
    ],
)
def test_a_source_that_is_none_ends_with_a_clear_error(
    name: str, make: Any, says: str, tmp_path: Path, postgres: str
) -> None:
    source = tmp_path / "source.db"
    make(source)
    before = _state(source) if source.is_file() else {}
    ended = _migrate(source, postgres, tmp_path / "report")
    assert ended.status == USAGE, ended.said
    assert says in ended.err
    assert "Traceback" not in ended.said
    report = _report(tmp_path / "report")
    assert report["outcome"] == "failed"
    assert says in report["message"]
    assert (_state(source) if source.is_file() else {}) == before
    assert report["phase"] != "verified"
    if make is not _damaged_index:  # that is only found while the copy is under way
        with psycopg.connect(postgres) as target:
            assert target.execute("SELECT to_regnamespace('migration')").fetchone() == (None,)


def test_a_locked_source_is_said_to_be_locked(tmp_path: Path, postgres: str) -> None:
    source = _good(tmp_path / "source.db")
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
            "c.execute('BEGIN EXCLUSIVE'); print('locked', flush=True); sys.stdin.read()",
            str(source),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        ended = _migrate(source, postgres, tmp_path / "report", "--catch-up-seconds", "1")
    finally:
        holder.communicate("")
    assert ended.status == FAILED
    assert "locked" in ended.err
    assert _migrate(source, postgres, tmp_path / "report").status == DONE


def test_no_tables(tmp_path: Path, postgres: str) -> None:
    source = tmp_path / "source.db"
    connection = sqlite3.connect(source)
    connection.executescript("PRAGMA user_version = 3; CREATE TABLE x(a); DROP TABLE x;")
    connection.close()
    ended = _migrate(source, postgres, tmp_path / "report")
    assert ended.status == DONE, ended.said
    assert _report(tmp_path / "report")["tables"] == {}


@pytest.mark.slow
def test_two_thousand_tables(tmp_path: Path, postgres: str) -> None:
    source = tmp_path / "source.db"
    connection = sqlite3.connect(source)
    for number in range(2_000):
        connection.execute(
            f"CREATE TABLE t{number}(id INTEGER PRIMARY KEY, a TEXT UNIQUE, b INTEGER)"
        )
        connection.execute(f"INSERT INTO t{number}(a, b) VALUES ('x', {number}), (NULL, 2)")
    connection.commit()
    connection.close()
    ended = _migrate(source, postgres, tmp_path / "report")
    assert ended.status == DONE, ended.said
    tables = _report(tmp_path / "report")["tables"]
    assert len(tables) == 2_000
    assert all(t["target_rows"] == 2 for t in tables.values())
    with psycopg.connect(postgres) as target:
        assert target.execute("SELECT b FROM t1999 WHERE id = 1").fetchone() == (1999,)


def test_every_table_has_statistics(tmp_path: Path) -> None:
    """The first queries after the switch are planned by them: all that PostgreSQL has for most
    tables, fewer classes for a wide one, and for one of a few pages those of the columns that rows
    are looked for by, until autovacuum adds the others by itself."""
    source = tmp_path / "source.db"
    connection = sqlite3.connect(source)
    wide = ", ".join(f"c{n} INTEGER" for n in range(200))
    connection.executescript(
        f"""CREATE TABLE many(v INTEGER);
        CREATE TABLE wide(v INTEGER, {wide});
        CREATE TABLE few(v INTEGER);
        CREATE TABLE pages(id INTEGER PRIMARY KEY, v INTEGER, w TEXT, x TEXT UNIQUE,
            y INTEGER REFERENCES pages(id), z INTEGER);
        CREATE INDEX pages_z ON pages(z DESC);
        CREATE TABLE computed(id INTEGER PRIMARY KEY, v INTEGER);
        CREATE INDEX computed_v ON computed(v + 1);"""
    )
    sizes = {"many": 25_000, "wide": 21_000, "few": 60, "pages": 900, "computed": 900}
    for table, size in sizes.items():
        connection.executemany(f"INSERT INTO {table}(v) VALUES (?)", ((n,) for n in range(size)))
    connection.execute("UPDATE pages SET w = v, x = v, y = id, z = v")
    connection.commit()
    connection.close()
    settings = {"autovacuum_naptime": "1s"}
    with EmbeddedPostgres(major=MAJOR, settings=settings) as server:
        dsn = server.create_database("analyzed")
        with psycopg.connect(dsn, autocommit=True) as target:
            # Not before the job's own statistics were looked at: autovacuum recreates them.
            target.execute("ALTER SYSTEM SET autovacuum = off")
            target.execute("SELECT pg_reload_conf()")
        ended = _migrate(source, dsn, tmp_path / "report")
        assert ended.status == DONE, ended.said
        with psycopg.connect(dsn, autocommit=True) as target:
            known = _columns_with_statistics(target)
            estimated: dict[str, int] = dict(
                target.execute("SELECT relname, reltuples::int FROM pg_class").fetchall()
            )
            classes: dict[str, int] = dict(
                target.execute(
                    "SELECT tablename, cardinality(histogram_bounds) - 1 FROM pg_stats "
                    "WHERE attname = 'v' AND tablename IN ('many', 'wide', 'few')"
                ).fetchall()
            )
            assert {table: estimated[table] for table in sizes} == sizes
            assert classes == {"many": 100, "wide": 20, "few": 59}
            assert known["computed"] == {"id", "v"}
            assert known["computed_v"] == {"expr"}
            keys, every = {"id", "x", "y", "z"}, {"id", "v", "w", "x", "y", "z"}
            assert known["pages"] == keys
            target.execute("ALTER SYSTEM RESET autovacuum")
            target.execute("SELECT pg_reload_conf()")
            deadline = time.monotonic() + 60
            while _columns_with_statistics(target)["pages"] != every:
                assert time.monotonic() < deadline, "autovacuum has not added the others"
                time.sleep(0.2)


def _columns_with_statistics(target: psycopg.Connection) -> dict[str, set[str]]:
    found: defaultdict[str, set[str]] = defaultdict(set)
    for table, column in target.execute(
        "SELECT tablename, attname FROM pg_stats WHERE schemaname = 'public'"
    ):
        found[table].add(column)
    return found


@pytest.mark.parametrize("huge", [0, 5_000_000])
def test_a_table_of_1500_columns(huge: int, tmp_path: Path, postgres: str) -> None:
    """SQLite's expressions may be 1,000 deep and its SELECTs 2,000 terms long."""
    source = tmp_path / "source.db"
    connection = sqlite3.connect(source)
    names = [f"c{n}" for n in range(1500)]
    kinds = ("TEXT", "INTEGER", "BLOB", "BOOLEAN", "DATE")
    listed = ", ".join(f"{n} {kinds[i % 5]}" for i, n in enumerate(names))
    connection.execute(f"CREATE TABLE t({listed})")
    values = ["x", 5, b"\x00", 1, "2024-01-01"] * 300
    marks = ", ".join("?" * 1500)
    short, long = [*values[:-5], "tab\t" * 9000], ["y" * huge, 5, *values[2:-4]]
    for row in (values, [*short, *[None] * 4], [*long, *[None] * 4]):
        connection.execute(f"INSERT INTO t VALUES ({marks})", row)
    connection.commit()
    connection.close()
    ended = _migrate(source, postgres, tmp_path / "report")
    assert ended.status == DONE, ended.said
    with psycopg.connect(postgres) as target:
        rows = target.execute("SELECT length(c0), c1, c2, c3, c1495 FROM t ORDER BY ctid")
        assert rows.fetchall() == [
            (1, 5, b"\x00", True, "x"),
            (1, 5, b"\x00", True, "tab\t" * 9000),
            (huge, 5, b"\x00", True, "x"),
        ]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_a_value_of_200_megabytes_arrives_in_little_memory(tmp_path: Path, postgres: str) -> None:
    source = tmp_path / "source.db"
    connection = sqlite3.connect(source)
    connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, b BLOB, s TEXT)")
    blob = random.Random(1).randbytes(200_000_000)
    connection.execute(
        "INSERT INTO t VALUES (1, x'00', 'a'), (2, ?, 'b\tc'), (4, NULL, NULL)", [blob]
    )
    connection.execute("INSERT INTO t VALUES (3, NULL, ?)", ["tab\t\\ä\n" * 10_000_000])
    connection.commit()
    connection.close()
    expected = hashlib.sha256(blob).hexdigest()
    job = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from migration_job.cli import main\n"
            "try:\n    main()\n"
            "finally:\n    print(open('/proc/self/status').read())",
            *["migrate", str(source), "--target", postgres],
            *["--report", str(tmp_path / "report")],
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    out, err = job.communicate(timeout=600)
    assert job.returncode == DONE, err
    peak = int(out.split("VmHWM:")[1].split()[0]) * 1024
    assert peak < 250_000_000
    with psycopg.connect(postgres) as target:
        row = target.execute("SELECT encode(sha256(b), 'hex'), s FROM t WHERE id = 2").fetchone()
        assert row == (expected, "b\tc")
        text = target.execute(
            "SELECT s = repeat(E'tab\\t\\\\ä\\n', 10000000) FROM t WHERE id = 3"
        ).fetchone()
        assert text == (True,)


def test_a_target_that_is_not_empty_is_refused(tmp_path: Path, postgres: str) -> None:
    source = _good(tmp_path / "source.db")
    with psycopg.connect(postgres, autocommit=True) as target:
        target.execute("CREATE TABLE mine(a int); INSERT INTO mine VALUES (1)")
    ended = _migrate(source, postgres, tmp_path / "report")
    assert ended.status == USAGE
    assert "table mine" in ended.err
    with psycopg.connect(postgres) as target:
        assert target.execute("SELECT * FROM mine").fetchall() == [(1,)]


@pytest.mark.parametrize("statement", ["CREATE VIEW v AS SELECT 1", "CREATE SCHEMA migration"])
def test_what_else_makes_a_target_somebody_elses(
    statement: str, tmp_path: Path, postgres: str
) -> None:
    source = _good(tmp_path / "source.db")
    with psycopg.connect(postgres, autocommit=True) as target:
        target.execute(statement.encode())
    assert _migrate(source, postgres, tmp_path / "report").status == USAGE


def test_the_target_of_another_source_is_refused(tmp_path: Path, postgres: str) -> None:
    source, other = _good(tmp_path / "source.db"), _good(tmp_path / "other.db")
    assert _migrate(source, postgres, tmp_path / "report").status == DONE
    ended = _migrate(other, postgres, tmp_path / "other")
    assert ended.status == USAGE
    assert str(source) in ended.err


def test_a_target_that_serves_is_refused(tmp_path: Path, postgres: str) -> None:
    source = _good(tmp_path / "source.db")
    assert _migrate(source, postgres, tmp_path / "report").status == DONE
    with psycopg.connect(postgres, autocommit=True) as target:
        target.execute("UPDATE migration.run SET phase = 'switched'")
        target.execute("INSERT INTO t(id, word) VALUES (999999, 'written since')")
    ended = _migrate(source, postgres, tmp_path / "report")
    assert ended.status == USAGE
    assert "switched" in ended.err
    with psycopg.connect(postgres) as target:
        assert target.execute("SELECT count(*) FROM t WHERE id = 999999").fetchone() == (1,)


def test_two_runs_at_once_do_not_meet(tmp_path: Path, postgres: str) -> None:
    source = _good(tmp_path / "source.db")
    from migration_job.stores.postgres import database, runlock

    with database.connect(postgres) as other:
        runlock.lock(other)
        ended = _migrate(source, postgres, tmp_path / "report")
    assert ended.status == USAGE
    assert "another run" in ended.err
    assert _migrate(source, postgres, tmp_path / "report").status == DONE


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://u:s3cret@127.0.0.1:1/x",
        "host=127.0.0.1 port=1 dbname=x user=u password=s3cret",
        "s3cret",
        "postgresql://u:s3cret@[nowhere/x",
    ],
)
def test_no_error_shows_a_password(dsn: str, tmp_path: Path) -> None:
    ended = _migrate(_good(tmp_path / "source.db"), dsn, tmp_path / "report")
    assert ended.status == USAGE
    assert "s3cret" not in ended.said
    for file in (tmp_path / "report").glob("*"):
        if file.is_file():
            assert b"s3cret" not in file.read_bytes()


def test_the_password_may_come_from_a_file(
    tmp_path: Path, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = _good(tmp_path / "source.db")
    parts = conninfo_to_dict(postgres)
    password = str(parts.pop("password"))
    passfile = tmp_path / "passwords"
    passfile.write_text(f"*:*:*:*:{password}\n")
    passfile.chmod(0o600)
    dsn = make_conninfo("", **{k: v for k, v in parts.items() if v is not None})
    monkeypatch.setenv("PGPASSFILE", str(passfile))
    assert _migrate(source, dsn, tmp_path / "report").status == DONE
    whole = tmp_path / "target"
    whole.write_text(postgres + "\n")
    ended = run("migrate", source, "--target-file", whole, "--report", tmp_path / "report")
    assert ended.status == DONE, ended.said
    assert password not in (tmp_path / "report" / "report.json").read_text()


def test_a_report_directory_that_cannot_be_written(tmp_path: Path, postgres: str) -> None:
    source = _good(tmp_path / "source.db")
    (tmp_path / "file").write_text("")
    ended = _migrate(source, postgres, tmp_path / "file" / "report")
    assert ended.status == USAGE
    assert "report" in ended.err


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
@pytest.mark.parametrize("at", ["rest", "work"])
def test_the_source_is_left_as_it_was(mode: str, at: str, tmp_path: Path, postgres: str) -> None:
    """Byte for byte, and without a file beside it that was not there before."""
    source = _good(tmp_path / "source.db")
    application = sqlite3.connect(source)
    application.execute(f"PRAGMA journal_mode = {mode}")
    application.execute("INSERT INTO t(word) VALUES ('in the log')")
    application.commit()
    if at == "rest":
        application.close()
    before = {n: h for n, h in _state(source).items() if not n.endswith("-shm")}
    present = set(_state(source))
    ended = _migrate(source, postgres, tmp_path / "report")
    assert ended.status == DONE, ended.said
    assert {n: h for n, h in _state(source).items() if not n.endswith("-shm")} == before
    assert set(_state(source)) == present
    if at == "work":
        application.execute("INSERT INTO t(word) VALUES ('afterwards')")
        application.commit()
        application.close()
    with psycopg.connect(postgres) as target:
        row = target.execute("SELECT count(*) FROM t WHERE word = 'in the log'").fetchone()
        assert row == (1,)


@pytest.mark.parametrize("kind", ["log", "journal"])
def test_a_writer_that_crashed_left_its_work(kind: str, tmp_path: Path, postgres: str) -> None:
    """A log to replay or a journal to roll back is dealt with, in a copy of the files."""
    origin = _good(tmp_path / "origin.db")
    application = sqlite3.connect(origin)
    if kind == "log":
        application.execute("PRAGMA journal_mode = WAL")
        application.execute("INSERT INTO t(word) VALUES ('committed')")
        application.commit()
    else:
        application.execute("PRAGMA cache_size = 5")
        application.execute("UPDATE t SET word = 'uncommitted'")
    folder = tmp_path / "crashed"
    folder.mkdir()
    for file in origin.parent.glob("origin.db*"):
        if not file.name.endswith("-shm"):
            shutil.copyfile(file, folder / file.name)
    application.close()
    source = folder / "origin.db"
    before = _state(source)
    assert len(before) == 2
    ended = _migrate(source, postgres, tmp_path / "report")
    assert ended.status == DONE, ended.said
    assert _state(source) == before
    with psycopg.connect(postgres) as target:
        committed = target.execute("SELECT count(*) FROM t WHERE word = 'committed'").fetchone()
        lost = target.execute("SELECT count(*) FROM t WHERE word = 'uncommitted'").fetchone()
    assert (committed, lost) == ((1 if kind == "log" else 0,), (0,))


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write to any directory")
def test_a_source_on_read_only_media(tmp_path: Path, postgres: str) -> None:
    folder = tmp_path / "media"
    folder.mkdir()
    source = _good(folder / "source.db")
    connection = sqlite3.connect(source)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    folder.chmod(0o500)
    try:
        assert _migrate(source, postgres, tmp_path / "report").status == DONE
    finally:
        folder.chmod(0o700)


QUARANTINED = """
    CREATE TABLE cases(id INTEGER PRIMARY KEY, title TEXT, n INT);
    CREATE TABLE images(id INTEGER PRIMARY KEY, case_id INT REFERENCES cases(id));
    CREATE VIEW shown AS SELECT id, title FROM cases WHERE n > 0;
    INSERT INTO cases VALUES (1, 'good', 5), (2, 'a' || char(0), 6), (3, CAST(x'ff' AS TEXT), 7);
    INSERT INTO images VALUES (1, 1), (2, 2), (3, 2);
"""


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("SELECT id, title FROM cases", DONE),
        ("SELECT count(*) FROM images", DONE),
        (
            "SELECT c.title, count(i.id) FROM cases c LEFT JOIN images i ON i.case_id = c.id"
            " GROUP BY c.id, c.title",
            DONE,
        ),
        ("SELECT * FROM shown ORDER BY id", DONE),
        ("SELECT count(*) + CASE WHEN max(title) = 'good' THEN 0 ELSE 1 END FROM cases", DONE),
        ("SELECT 5 / 2.0 - 5 / 2 FROM cases", DONE),
        ("SELECT 'a' = 'A' COLLATE \"C\" FROM cases", DIFFERS),
    ],
)
def test_the_applications_queries_without_what_is_in_quarantine(
    query: str, status: int, tmp_path: Path, postgres: str
) -> None:
    """What the policy set aside is accounted for; every query would answer otherwise by it."""
    source = tmp_path / "source.db"
    build(source, QUARANTINED)
    (tmp_path / "checks").mkdir()
    (tmp_path / "checks" / "one.sql").write_text(query)
    (tmp_path / "policy.yaml").write_text("default: quarantine\n")
    options = ("--checks", tmp_path / "checks", "--policy", tmp_path / "policy.yaml")
    ended = _migrate(source, postgres, tmp_path / "report", *options)
    assert ended.status == status, ended.said
    assert "without the rows in quarantine, which 2 tables of the source still have" in ended.said
    assert len(_report(tmp_path / "report")["quarantine"]) == 4


RADCASE = """
    CREATE TABLE cases(id TEXT PRIMARY KEY, title TEXT NOT NULL, modality TEXT, diagnosis TEXT,
                       difficulty INTEGER DEFAULT 2);
    CREATE TABLE users(id TEXT PRIMARY KEY, username TEXT UNIQUE NOT NULL, email TEXT UNIQUE,
                       password_hash TEXT NOT NULL);
    CREATE TABLE dicom_series(id TEXT PRIMARY KEY, case_id TEXT NOT NULL, series_uid TEXT,
                              folder_name TEXT NOT NULL, FOREIGN KEY (case_id) REFERENCES cases);
"""


@pytest.mark.parametrize("action", ["widen", "quarantine"])
def test_what_a_profile_wishes_of_values_that_are_too_long(
    action: str, tmp_path: Path, postgres: str
) -> None:
    source = tmp_path / "source.db"
    build(source, RADCASE)
    long = [random.Random(n).randbytes(2500).hex() for n in range(5)]
    words = " ".join(random.Random(9).randbytes(5).hex() for _ in range(120_000))
    one, two = "0d5a7b64-1111-4222-8333-000000000001", "0d5a7b64-1111-4222-8333-000000000002"
    connection = sqlite3.connect(source)
    connection.execute("INSERT INTO cases VALUES (?, 't', ?, ?, 3)", (one, long[0], words))
    connection.execute("INSERT INTO cases VALUES (?, 'u', 'CT', 'x', 3)", (two,))
    connection.execute("INSERT INTO users VALUES (?, ?, ?, 'p')", (one, *long[1:3]))
    connection.execute("INSERT INTO users VALUES (?, 'short', 'e', 'p')", (two,))
    connection.execute("INSERT INTO dicom_series VALUES (?, ?, ?, 'f')", (one, one, long[3]))
    connection.execute("INSERT INTO dicom_series VALUES (?, ?, '1.2', 'f')", (two, two))
    connection.commit()
    connection.close()
    (tmp_path / "policy.yaml").write_text(f"default: {action}\n")
    options = ("--profile", "radcase", "--policy", tmp_path / "policy.yaml")
    ended = _migrate(source, postgres, tmp_path / "report", *options)
    assert ended.status == DONE, ended.said
    found = [f["message"] for f in _report(tmp_path / "report")["findings"]]
    missing = {m.split(":")[0] for m in found if "values too long for a" in m}
    with psycopg.connect(postgres) as target:
        kept = {
            str(r[0])
            for r in target.execute("SELECT indexname FROM pg_indexes WHERE schemaname = 'public'")
        }
    if action == "quarantine":
        assert missing == set()
        assert {"idx_cases_modality", "users_username_key", "dicom_series_series_uid_key"} <= kept
    else:
        assert "the profile's index idx_cases_modality" in missing
        assert "the profile's index idx_cases_search" in missing
        assert "the profile's UNIQUE (series_uid)" in missing
        assert "idx_cases_modality" not in kept


def test_each_row_in_quarantine_says_why(tmp_path: Path, postgres: str) -> None:
    source = tmp_path / "source.db"
    build(
        source,
        "CREATE TABLE p(id INTEGER PRIMARY KEY, t TEXT, n INT NOT NULL, k TEXT CHECK (k <> 'no'));"
        "PRAGMA ignore_check_constraints = ON;"
        "INSERT INTO p VALUES (1, 'a' || char(0), 1, 'x'), (2, CAST(x'ff' AS TEXT), 1, 'x'),"
        " (3, 'c', 'many', 'x'), (4, 'd', 1, 'no'), (5, 'e', 1, 'x');"
        "CREATE TABLE c(p INT REFERENCES p(id)); INSERT INTO c VALUES (1), (5), (99);",
    )
    (tmp_path / "policy.yaml").write_text("default: quarantine\norphans: quarantine\n")
    ended = _migrate(source, postgres, tmp_path / "report", "--policy", tmp_path / "policy.yaml")
    assert ended.status == DONE, ended.said
    found = _report(tmp_path / "report")["quarantine"]
    assert [(q["table"], q["key"], q["column"], q["reason"]) for q in found] == [
        (
            "c",
            [1],
            None,
            "depends on a row in quarantine, by its foreign key (p) to p (id)",
        ),
        ("c", [3], "p", "no parent for the foreign key (p) to p (id)"),
        ("p", [1], "t", "nul-in-text: text with a NUL character, which PostgreSQL cannot hold"),
        ("p", [2], "t", "undecodable-text: text whose bytes are not valid in its encoding"),
        ("p", [3], "n", "text-in-integer: the value is not integer"),
        ("p", [4], None, "against CHECK (k <> 'no')"),
    ]


def test_a_long_chain_into_quarantine_takes_a_record_of_its_length(
    tmp_path: Path, postgres: str
) -> None:
    """Not of its square: each row's reason once named all rows."""
    source = tmp_path / "source.db"
    build(
        source,
        "CREATE TABLE o(id INTEGER PRIMARY KEY, up INT REFERENCES o);"
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)"
        " INSERT INTO o SELECT i, i + 1 FROM n;",
    )
    (tmp_path / "policy.yaml").write_text("orphans: quarantine\n")
    ended = _migrate(source, postgres, tmp_path / "report", "--policy", tmp_path / "policy.yaml")
    assert ended.status == DONE, ended.said
    with psycopg.connect(postgres) as target:
        row = target.execute("SELECT count(*), max(length(reason)) FROM migration.quarantine")
        count, longest = row.fetchone() or (0, 0)
    assert count == 2000
    assert longest < 100


@pytest.mark.parametrize("at", ["CREATE TABLE", "CREATE INDEX", "ALTER TABLE"])
def test_of_tables_loaded_together_the_one_that_is_refused_is_named(
    at: str, tmp_path: Path, postgres: str
) -> None:
    """Small tables share a transaction; its error must not be told of the first of them."""
    tables = "".join(
        f"CREATE TABLE t{n}(id INTEGER PRIMARY KEY, word TEXT); CREATE INDEX i{n} ON t{n}(word);"
        f"INSERT INTO t{n}(word) VALUES ('a'), ('b');"
        for n in range(9)
    )
    source = tmp_path / "source.db"
    build(source, tables)
    wanted = "i6" if at == "CREATE INDEX" else "t6"
    with psycopg.connect(postgres, autocommit=True) as target:
        target.execute("CREATE SCHEMA guard")
        target.execute(
            "CREATE FUNCTION guard.refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN "
            "IF EXISTS (SELECT FROM pg_event_trigger_ddl_commands() WHERE object_identity = "
            f"'public.{wanted}' AND command_tag = '{at}') THEN RAISE 'not here'; END IF; END $$"
        )
        target.execute(
            "CREATE EVENT TRIGGER guard ON ddl_command_end EXECUTE FUNCTION guard.refuse()"
        )
    ended = _migrate(source, postgres, tmp_path / "report")
    assert ended.status not in (DONE, DIFFERS), ended.said
    part = "its columns" if at == "CREATE TABLE" else "its keys and indexes"
    assert f"the target refused table t6, {part}: not here" in ended.said
    with psycopg.connect(postgres) as target:
        target.execute("DROP EVENT TRIGGER guard")
        names = target.execute("SELECT tab, count(*) FROM migration.progress GROUP BY tab")
        assert {count for _, count in names} == {4}, "each that arrived is whole"
    assert _migrate(source, postgres, tmp_path / "report").status == DONE
