"""The whole way from the command line: migrate --live, sync, switch, rollback, under load."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from migration_job.connection import SqliteSide, write_connection
from migration_job.embedded import EmbeddedPgBouncer, EmbeddedPostgres
from migration_job.protocol.fault_points import ROLLBACK_STEPS, SWITCH_STEPS
from migration_job.report import moves, writer
from tests.helpers import connection_of
from tests.integration.test_switch import Load, wait_for

pytestmark = [pytest.mark.postgres, pytest.mark.slow]

SCHEMA = """
PRAGMA journal_mode = WAL;
CREATE TABLE users (id TEXT PRIMARY KEY, name TEXT NOT NULL, joined DATETIME, score REAL);
CREATE TABLE notes (id INTEGER PRIMARY KEY AUTOINCREMENT, user_id TEXT REFERENCES users(id),
    body TEXT);
CREATE TABLE progress (user_id TEXT, note_id INTEGER, state TEXT, PRIMARY KEY (user_id, note_id));
CREATE TABLE heap (a TEXT, b INTEGER);
CREATE TABLE sums (id INTEGER PRIMARY KEY, a INTEGER, b INTEGER,
    total INTEGER GENERATED ALWAYS AS (a + b), shown TEXT AS (printf('%05d', a)) STORED);
"""


class Stage:
    """What the commands are given."""

    def __init__(self, directory: Path, dsn: str, pooler: EmbeddedPgBouncer) -> None:
        self.directory = directory
        self.source = directory / "app.db"
        self.dsn = dsn
        self.ends = self  # Load reads `ends.connection`
        self.connection = directory / "connection"
        database = psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]
        (directory / "secret").write_text("secret\n")
        (directory / "application.json").write_text(
            json.dumps(
                {
                    "host": "127.0.0.1",
                    "port": pooler.port,
                    "database": database,
                    "user": "app",
                    "password_file": "secret",
                }
            )
        )
        (directory / "target").write_text(dsn)
        (directory / "console").write_text(pooler.admin_dsn)
        self.pooler = pooler

    def command(self, name: str, *more: str) -> list[str]:
        words = [sys.executable, "-m", "migration_job", name, str(self.source)]
        words += ["--target-file", str(self.directory / "target")]
        words += ["--report", str(self.directory / "report")]
        words += ["--state", str(self.directory / "state")]
        if name != "migrate":
            words += ["--connection", str(self.connection)]
            words += ["--application-file", str(self.directory / "application.json")]
            words += ["--console-file", str(self.directory / "console")]
            words += ["--alias-file", str(self.pooler.alias_path)]
        return [*words, *more]

    def run(self, name: str, *more: str) -> str:
        ended = subprocess.run(
            self.command(name, *more), check=False, capture_output=True, text=True, timeout=120
        )
        print(ended.stdout, ended.stderr)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    @contextlib.contextmanager
    def syncing(self) -> Iterator[None]:
        log = (self.directory / "sync.log").open("w")
        process = subprocess.Popen(self.command("sync"), stdout=log, stderr=subprocess.STDOUT)
        try:
            yield
        finally:
            process.terminate()
            process.wait(20)
            log.close()
            print((self.directory / "sync.log").read_text())

    def rows(self, engine: str) -> dict[str, list[tuple[object, ...]]]:
        queries = {
            "users": "SELECT id, name, score FROM users ORDER BY id",
            "notes": "SELECT id, body FROM notes ORDER BY id",
            "progress": "SELECT note_id, state FROM progress ORDER BY 1, user_id",
            "heap": "SELECT a, b FROM heap ORDER BY a, b",
        }
        if engine == "sqlite":
            db = sqlite3.connect(self.source, timeout=10)
            found = {name: db.execute(query).fetchall() for name, query in queries.items()}
            db.close()
            return found
        with psycopg.connect(self.dsn) as target:
            return {name: target.execute(query).fetchall() for name, query in queries.items()}


@pytest.fixture
def stage(
    tmp_path: Path, postgres: str, postgres_server: EmbeddedPostgres, pgbouncer: EmbeddedPgBouncer
) -> Stage:
    with contextlib.suppress(psycopg.errors.DuplicateObject):
        postgres_server.create_role("app", "secret")
    with psycopg.connect(postgres, autocommit=True) as target:
        target.execute("ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO app")
        target.execute("ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO app")
    made = Stage(tmp_path, postgres, pgbouncer)
    db = sqlite3.connect(made.source)
    db.executescript(SCHEMA)
    for number in range(2000):
        db.execute(
            "INSERT INTO users VALUES (?, ?, '2024-02-03 04:05:06', ?)",
            (f"u{number}", f"Name {number}", number / 7),
        )
        db.execute("INSERT INTO heap VALUES (?, ?)", (f"a{number % 9}", number % 5))
    db.commit()
    db.close()
    side = SqliteSide(path=str(made.source))
    write_connection(made.connection, side, side)
    return made


def require_move(report: Path, command: str, steps: tuple[str, ...]) -> None:
    """The command has noted each of its steps, and the report's page shows it."""
    move = moves.read(report)[-1]
    assert (move.command, move.outcome) == (command, "done")
    assert tuple(step.name for step in move.steps if not step.failed) == steps
    assert move.run_id == writer.read(report).run_id
    told = json.loads((report / f"{command}.json").read_text())
    assert move.held_ms == told["held_ms"]
    page = (report / writer.PAGE).read_text()
    assert f"held for {move.held_ms:,.0f} ms" in page


def test_the_whole_way_under_load_and_back_to_the_schema_as_it_was(stage: Stage) -> None:
    db = sqlite3.connect(stage.source)
    before = db.execute("SELECT type, name, sql FROM sqlite_schema").fetchall()
    untouched = db.execute("SELECT * FROM users ORDER BY id").fetchall()
    db.close()
    load = Load(stage, 2)  # type: ignore[arg-type]
    stage.run("migrate", "--live")
    with stage.syncing():
        load.more()
        stage.run("switch")
        load.more()
        assert connection_of(stage.connection).write.engine == "postgresql"
        told = json.loads((stage.directory / "report" / "switch.json").read_text())
        assert told["outcome"] == "done"
        require_move(stage.directory / "report", "switch", SWITCH_STEPS)
        with psycopg.connect(stage.dsn, autocommit=True) as app:
            app.execute("UPDATE users SET name = 'changed' WHERE id = 'u5'")
            app.execute("INSERT INTO heap (a, b) VALUES ('new', 1)")
            app.execute("DELETE FROM heap WHERE a = 'a3'")
        stage.run("rollback", "--release")
        require_move(stage.directory / "report", "rollback", ROLLBACK_STEPS)
        load.more()
        acknowledged, longest = load.stop()
    print(f"{len(acknowledged)} writes, longest {longest:.0f} ms")
    rows = stage.rows("sqlite")
    bodies = [body for _, body in rows["notes"]]
    assert acknowledged <= set(bodies)
    assert len(bodies) == len(set(bodies))
    assert ("new", 1) in rows["heap"]
    assert not [row for row in rows["heap"] if row[0] == "a3"]
    db = sqlite3.connect(stage.source)
    assert db.execute("SELECT type, name, sql FROM sqlite_schema").fetchall() == before
    changed = dict(zip(untouched, db.execute("SELECT * FROM users ORDER BY id"), strict=True))
    assert [old[0] for old, new in changed.items() if old != new] == ["u5"]
    db.close()


def test_a_plain_migration_is_switched_only_while_nothing_has_changed(stage: Stage) -> None:
    stage.run("migrate")
    db = sqlite3.connect(stage.source)
    before = db.execute("SELECT type, name, sql FROM sqlite_schema").fetchall()
    db.execute("INSERT INTO users VALUES ('late', 'Late', NULL, NULL)")
    db.commit()
    db.close()
    ended = subprocess.run(
        stage.command("switch", "--one-way", "heap"), capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert "has changed since the snapshot" in ended.stderr
    db = sqlite3.connect(stage.source)
    db.execute("DELETE FROM users WHERE id = 'late'")
    db.commit()
    db.close()
    stage.run("migrate")
    ended = subprocess.run(stage.command("switch"), capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "--one-way heap" in ended.stderr
    stage.run("switch", "--one-way", "heap")
    with psycopg.connect(stage.dsn, autocommit=True) as app:
        app.execute("INSERT INTO users (id, name) VALUES ('new', 'New')")
        app.execute("INSERT INTO heap VALUES ('lost', 1)")
        app.execute("UPDATE heap SET b = 2 WHERE a = 'lost'")
    ended = subprocess.run(stage.command("rollback"), capture_output=True, text=True, check=False)
    assert ended.returncode == 4
    assert "changes to table heap" in ended.stderr
    stage.run("rollback", "--accept-loss")
    assert ("new", "New", None) in stage.rows("sqlite")["users"]
    db = sqlite3.connect(stage.source)
    assert db.execute("SELECT type, name, sql FROM sqlite_schema").fetchall() == before
    db.close()


def test_the_target_follows_while_sync_runs(stage: Stage) -> None:
    stage.run("migrate", "--live")
    with stage.syncing():
        db = sqlite3.connect(stage.source, isolation_level=None)
        db.execute("UPDATE heap SET b = 77 WHERE a = 'a1'")
        db.execute("INSERT OR REPLACE INTO users VALUES ('u1', 'Again', NULL, 0.5)")
        db.close()
        wait_for(lambda: stage.rows("sqlite") == stage.rows("postgresql"), "sync to catch up")


@pytest.mark.parametrize(
    "preparation",
    ["PRAGMA journal_mode = WAL", "PRAGMA journal_mode = DELETE", "PRAGMA encoding = 'UTF-16le'"],
)
def test_journal_modes_and_encodings(stage: Stage, preparation: str) -> None:
    stage.source.unlink()
    db = sqlite3.connect(stage.source, isolation_level=None)
    db.execute(preparation)
    db.executescript(SCHEMA.replace("PRAGMA journal_mode = WAL;", ""))
    db.execute("INSERT INTO users VALUES ('ü1', 'Zoë', '2024-01-02 03:04:05', 1.5)")
    db.execute("INSERT INTO heap VALUES ('a', 1), ('b', NULL)")
    db.execute("INSERT INTO sums (id, a, b) VALUES (1, 7, 8)")
    db.close()
    stage.run("migrate", "--live")
    db = sqlite3.connect(stage.source, isolation_level=None, timeout=10)
    db.execute("INSERT INTO users VALUES ('ü2', '日本', '2024-01-02 03:04:06', 0.1)")
    db.execute("DELETE FROM heap WHERE a = 'a'")
    stage.run("sync", "--once")
    stage.run("switch")
    with pytest.raises(sqlite3.IntegrityError, match="moved to PostgreSQL"):
        db.execute("INSERT INTO heap VALUES ('x', 1)")
    with psycopg.connect(stage.dsn, autocommit=True) as app:
        app.execute("UPDATE users SET joined = joined + interval '1 day', name = 'Ñandú'")
        app.execute("INSERT INTO heap (a) VALUES ('ß')")
        app.execute("UPDATE sums SET b = 5")
    stage.run("rollback", "--release")
    assert db.execute("SELECT * FROM sums").fetchall() == [(1, 7, 5, 12, "00007")]
    assert db.execute("SELECT id, name, joined FROM users ORDER BY id").fetchall() == [
        ("ü1", "Ñandú", "2024-01-03 03:04:05"),
        ("ü2", "Ñandú", "2024-01-03 03:04:06"),
    ]
    assert db.execute("SELECT a FROM heap ORDER BY rowid").fetchall() == [("b",), ("ß",)]
    db.close()


def test_radcase_there_and_back(stage: Stage, radcase_db: Path) -> None:
    stage.source = radcase_db
    side = SqliteSide(path=str(radcase_db))
    write_connection(stage.connection, side, side)
    db = sqlite3.connect(radcase_db)
    tables = [
        row[0]
        for row in db.execute(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
        )
    ]
    db.close()
    stage.run("migrate", "--live", "--profile", "radcase")
    db = sqlite3.connect(radcase_db, isolation_level=None, timeout=10)
    db.execute("PRAGMA foreign_keys = ON")
    case = "11111111-2222-4333-8444-555555555555"
    db.execute("INSERT INTO cases (id, title) VALUES (?, 'live')", (case,))
    db.execute("INSERT OR REPLACE INTO tags (id, name) SELECT id, name FROM tags LIMIT 1")
    db.execute("UPDATE users SET display_name = 'The System' WHERE id = 'system'")
    before = {t: db.execute(f'SELECT rowid, * FROM "{t}"').fetchall() for t in tables}
    stage.run("sync", "--once")
    stage.run("switch")
    with psycopg.connect(stage.dsn, autocommit=True) as app:
        app.execute("UPDATE cases SET title = 'changed there' WHERE id = %s", (case,))
        app.execute("UPDATE users SET email = 'system@example.org' WHERE username = 'system'")
    stage.run("rollback", "--release")
    assert db.execute("SELECT title FROM cases WHERE id = ?", (case,)).fetchone() == (
        "changed there",
    )
    assert db.execute("SELECT id, display_name FROM users WHERE id = 'system'").fetchall() == [
        ("system", "The System")
    ]
    for table in tables:
        after = db.execute(f'SELECT rowid, * FROM "{table}"').fetchall()
        if table not in ("cases", "users"):
            assert after == before[table], table
    kept = db.execute("SELECT rowid, * FROM cases").fetchall()
    assert [row[1] for row in before["cases"] if row not in kept] == [case]
    assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    db.close()


def test_the_report_of_a_blocked_start_has_its_findings(stage: Stage) -> None:
    db = sqlite3.connect(stage.source)
    db.execute("INSERT INTO users VALUES ('bad', 'N' || char(0), NULL, NULL)")
    db.commit()
    before = db.execute("SELECT type, name, sql FROM sqlite_schema").fetchall()
    ended = subprocess.run(
        stage.command("migrate", "--live"), check=False, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 3, ended.stderr
    assert "nothing was written" in ended.stderr
    report = writer.read(stage.directory / "report")
    assert report.outcome == "blocked"
    assert [f.severity for f in report.findings if f.table == "users"].count("error") == 1
    assert report.tables["users"].source_rows == 2001
    assert db.execute("SELECT type, name, sql FROM sqlite_schema").fetchall() == before
    db.close()
