"""The switch and the way back under load, through PgBouncer, with an application of its own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import apsw
import psycopg
import pytest

from migration_job.connection import PostgresSide, SqliteSide, read_connection
from migration_job.embedded import EmbeddedPgBouncer, EmbeddedPostgres
from migration_job.errors import OperationError, VerificationError
from migration_job.protocol import rollback as rollback_module
from migration_job.protocol.rollback import rollback
from migration_job.protocol.settings import Endpoints, endpoints
from migration_job.protocol.switch import move_reads, switch
from migration_job.protocol.sync import Sync
from migration_job.stores.sqlite.capture import MOVED
from tests.helpers import connection_of, report_of
from tests.integration.livekit import Migration, begin, fresh_source

pytestmark = pytest.mark.postgres

HERE = Path(__file__).parent


@dataclass
class Stage:
    migration: Migration
    ends: Endpoints
    pooler: EmbeddedPgBouncer
    directory: Path

    def application(self) -> psycopg.Connection:
        """A session of the application's through PgBouncer."""
        side = self.ends.postgres
        return psycopg.connect(
            host=side.host,
            port=side.port,
            dbname=side.database,
            user="app",
            password="secret",
            prepare_threshold=None,
            autocommit=True,
        )


@pytest.fixture
def stage(
    tmp_path: Path, postgres: str, postgres_server: EmbeddedPostgres, pgbouncer: EmbeddedPgBouncer
) -> Stage:
    name = psycopg.conninfo.conninfo_to_dict(postgres)["dbname"]
    with contextlib.suppress(psycopg.errors.DuplicateObject):
        postgres_server.create_role("app", "secret")
    migration = begin(fresh_source(tmp_path), postgres)
    with psycopg.connect(postgres, autocommit=True) as target:
        target.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO app")
        target.execute("GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO app")
    told = tmp_path / "application.json"
    told.write_text(
        json.dumps(
            {
                "host": "127.0.0.1",
                "port": pgbouncer.port,
                "database": str(name),
                "user": "app",
                "password": "secret",
            }
        )
    )
    ends = endpoints(
        migration.source,
        postgres,
        connection=tmp_path / "connection",
        connect_to=told,
        console=pgbouncer.admin_dsn,
        alias_file=pgbouncer.alias_path,
    )
    return Stage(migration, ends, pgbouncer, tmp_path)


@contextlib.contextmanager
def syncing(stage: Stage) -> Iterator[subprocess.Popen[bytes]]:
    """``sync`` in a process of its own would be the real thing; see the fault tests."""
    command = [
        *(sys.executable, "-m", "migration_job", "sync", str(stage.migration.source)),
        *("--target", stage.migration.dsn, "--report", str(stage.directory / "report")),
        *("--connection", str(stage.ends.connection)),
        *("--connect-to", str(stage.directory / "application.json")),
        *("--pooler", stage.pooler.admin_dsn, "--alias-file", str(stage.pooler.alias_path)),
    ]
    log = (stage.directory / "sync.log").open("w")
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_for(lambda: read_connection(stage.ends.connection) is not None, "sync to start")
        yield process
    finally:
        process.terminate()
        process.wait(20)
        log.close()
        print((stage.directory / "sync.log").read_text())


def wait_for(condition: Callable[[], bool], what: str, limit: float = 30.0) -> None:
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {limit} s in vain for {what}")
        time.sleep(0.02)


class Load:
    """Some applications at work; ``stop`` gives what they say was acknowledged."""

    def __init__(self, stage: Stage, count: int) -> None:
        self.journals = [stage.directory / f"journal{i}" for i in range(count)]
        self.processes = [
            subprocess.Popen(
                [
                    sys.executable,
                    str(HERE / "application.py"),
                    str(stage.ends.connection),
                    str(journal),
                    str(i),
                ],
                stdin=subprocess.PIPE,
            )
            for i, journal in enumerate(self.journals)
        ]
        for journal in self.journals:
            wait_for(partial(self.has, journal, 6), "the load to begin")

    @staticmethod
    def count(journal: Path) -> int:
        return journal.read_text().count("\n") if journal.exists() else 0

    @classmethod
    def has(cls, journal: Path, rows: int) -> bool:
        return cls.count(journal) >= rows

    def more(self, rows: int = 20) -> None:
        """Until each application has done that many requests more."""
        goals = [self.count(j) + rows for j in self.journals]
        for journal, goal in zip(self.journals, goals, strict=True):
            wait_for(partial(self.has, journal, goal), "requests to go on")

    def stop(self) -> tuple[set[str], float]:
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in self.processes:
            assert process.wait(60) == 0
        done: set[str] = set()
        longest = 0.0
        for number, journal in enumerate(self.journals):
            for line in journal.read_text().splitlines():
                word, request, *took = line.split()
                assert word == "done", line
                done.add(f"00000000-0000-0000-0000-{number:012d}/{request}")
                longest = max(longest, float(took[0]))
        return done, longest


def on_sqlite(stage: Stage) -> list[str]:
    connection = apsw.Connection(str(stage.migration.source))
    connection.set_busy_timeout(5000)
    rows = [row[0] for row in connection.execute("SELECT body FROM notes")]
    connection.close()
    return rows


def on_postgres(stage: Stage) -> list[str]:
    with psycopg.connect(stage.migration.dsn) as target:
        return [row[0] for row in target.execute("SELECT body FROM notes")]


def test_there_and_back_and_there_again_under_load(stage: Stage) -> None:
    with syncing(stage):
        load = Load(stage, 3)
        done = switch(stage.ends, say=print)
        load.more()
        assert connection_of(stage.ends.connection).write == stage.ends.postgres
        back = rollback(stage.ends, say=print)
        load.more()
        assert connection_of(stage.ends.connection).write == stage.ends.sqlite
        again = switch(stage.ends, say=print)
        load.more()
        acknowledged, longest = load.stop()
        wait_for(lambda: len(on_sqlite(stage)) == len(on_postgres(stage)), "the way back")
    print(
        f"{len(acknowledged)} writes, longest {longest:.0f} ms; held {done.held_ms:.0f}, "
        f"{back.held_ms:.0f}, {again.held_ms:.0f} ms"
    )
    there = on_postgres(stage)
    assert len(there) == len(set(there)), "a request was carried out twice"
    assert acknowledged <= set(there)
    assert sorted(there) == sorted(on_sqlite(stage))
    assert longest < 5_000


def test_after_the_switch_sqlite_refuses_and_stays_readable_and_current(stage: Stage) -> None:
    writer = stage.migration.writer()
    writer.execute("INSERT INTO events VALUES ('before', 1)")
    switch(stage.ends)
    with pytest.raises(apsw.ConstraintError, match=MOVED):
        writer.execute("INSERT INTO events VALUES ('late', 2)")
    with psycopg.connect(stage.migration.dsn, autocommit=True) as app:
        app.execute("INSERT INTO events (what, n) VALUES ('after', 3)")
        app.execute("UPDATE events SET n = 9 WHERE what = 'before'")
    Sync(stage.ends).run(once=True)
    assert writer.execute("SELECT what, n FROM events ORDER BY n").fetchall() == [
        ("after", 3),
        ("before", 9),
    ]
    assert report_of(stage.ends.state).direction == "back"
    assert stage.ends.connection.joinpath("database.env").read_text().count("DB_HOST=127.0.0.1")


def test_numbers_go_on_from_the_higher_mark_in_both_directions(stage: Stage) -> None:
    writer = stage.migration.writer()
    writer.execute("INSERT INTO notes (id, body) VALUES (41, 'x'); DELETE FROM notes")
    switch(stage.ends)
    with psycopg.connect(stage.migration.dsn, autocommit=True) as app:
        ((given,),) = app.execute("INSERT INTO notes (body) VALUES ('y') RETURNING id").fetchall()
        assert given == 42
        app.execute("INSERT INTO notes (body) VALUES ('z')")
        app.execute("DELETE FROM notes")
    rollback(stage.ends)
    writer.execute("INSERT INTO notes (body) VALUES ('w')")
    assert writer.execute("SELECT id FROM notes").fetchall() == [(44,)]


def test_truncate_and_cascades_come_back(stage: Stage) -> None:
    writer = stage.migration.writer()
    writer.execute("INSERT INTO users VALUES ('00000000-0000-0000-0000-000000000001', 'a', 1)")
    writer.execute("INSERT INTO notes VALUES (1, '00000000-0000-0000-0000-000000000001', 'x')")
    writer.execute("INSERT INTO events VALUES ('a', 1), ('b', 2)")
    switch(stage.ends)
    with psycopg.connect(stage.migration.dsn, autocommit=True) as app:
        app.execute("DELETE FROM users")
        app.execute("TRUNCATE events")
        app.execute("INSERT INTO events (what) VALUES ('c')")
    rollback(stage.ends)
    assert writer.execute("SELECT count(*) FROM notes").fetchall() == [(0,)]
    assert writer.execute("SELECT what FROM events").fetchall() == [("c",)]


def test_no_certificate_no_switch(stage: Stage) -> None:
    with psycopg.connect(stage.migration.dsn, autocommit=True) as target:
        target.execute("DELETE FROM migration.certificate")
    with pytest.raises(VerificationError, match="certificate"):
        switch(stage.ends)
    stage.migration.writer().execute("INSERT INTO events VALUES ('still', 1)")


def test_a_difference_stops_the_switch_with_sqlite_serving(stage: Stage) -> None:
    writer = stage.migration.writer()
    writer.execute("PRAGMA foreign_keys = OFF")
    writer.execute("INSERT INTO notes VALUES (1, '00000000-0000-0000-0000-00000000000f', 'lost')")
    with pytest.raises(VerificationError, match="notes_user"):
        switch(stage.ends)
    writer.execute("INSERT INTO events VALUES ('still', 1)")
    with (
        psycopg.connect(stage.migration.dsn, autocommit=True) as app,
        pytest.raises(psycopg.Error, match="moved to SQLite"),
    ):
        app.execute("INSERT INTO events (what) VALUES ('never')")


def test_rows_written_around_the_capture_stop_the_switch(stage: Stage) -> None:
    writer = stage.migration.writer()
    writer.execute("INSERT INTO events VALUES ('seen', 1)")
    writer.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
    writer.execute("INSERT INTO events VALUES ('unseen', 2)")
    with pytest.raises(VerificationError, match="around the change capture"):
        switch(stage.ends)
    writer.execute("DELETE FROM events WHERE what = 'unseen'")
    switch(stage.ends)


def test_a_long_transaction_stops_the_rollback_with_postgresql_serving(stage: Stage) -> None:
    switch(stage.ends)
    with stage.application() as app, app.transaction():
        app.execute("INSERT INTO events (what) VALUES ('slow')")
        with pytest.raises(OperationError, match="could not hold"):
            rollback(stage.ends, pause_limit=0.3)
        app.execute("INSERT INTO events (what) VALUES ('and on')")
    rollback(stage.ends)
    rows = stage.migration.writer().execute("SELECT what FROM events").fetchall()
    assert sorted(rows) == [("and on",), ("slow",)]


def test_a_repeatable_read_snapshot_does_not_slip_through_the_fence(stage: Stage) -> None:
    switch(stage.ends)
    direct = psycopg.connect(stage.migration.dsn)
    direct.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    direct.execute("SELECT count(*) FROM events")
    rollback(stage.ends)
    with pytest.raises(psycopg.Error):
        direct.execute("INSERT INTO events (what) VALUES ('ghost'); COMMIT")
    assert stage.migration.writer().execute("SELECT what FROM events").fetchall() == []


def test_reads_move_first_and_writes_follow(stage: Stage) -> None:
    writer = stage.migration.writer()
    writer.execute("INSERT INTO events VALUES ('a', 1)")
    move_reads(stage.ends)
    told = connection_of(stage.ends.connection)
    assert isinstance(told.write, SqliteSide)
    assert isinstance(told.read, PostgresSide)
    writer.execute("INSERT INTO events VALUES ('b', 2)")
    Sync(stage.ends).run(once=True)
    with stage.application() as app:
        assert app.execute("SELECT count(*) FROM events").fetchone() == (2,)
        with pytest.raises(psycopg.Error, match="moved to SQLite"):
            app.execute("INSERT INTO events (what) VALUES ('no')")
    switch(stage.ends)
    assert connection_of(stage.ends.connection).write == stage.ends.postgres
    rollback(stage.ends, keep_reads=True)
    told = connection_of(stage.ends.connection)
    assert (told.write, told.read) == (stage.ends.sqlite, stage.ends.postgres)
    rollback(stage.ends)
    assert connection_of(stage.ends.connection).read == stage.ends.sqlite
    assert stage.pooler.alias_path.read_text() == ""


def test_a_target_that_is_gone_needs_the_loss_accepted(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = stage.migration.writer()
    switch(stage.ends)
    with psycopg.connect(stage.migration.dsn, autocommit=True) as app:
        app.execute("INSERT INTO events (what) VALUES ('came back')")
    Sync(stage.ends).run(once=True)

    def gone(*_: object) -> None:
        raise psycopg.OperationalError("connection refused")

    monkeypatch.setattr(rollback_module, "opened", gone)
    with pytest.raises(OperationError, match="changes up to 20"):
        rollback(stage.ends)
    with pytest.raises(apsw.ConstraintError):
        writer.execute("INSERT INTO events VALUES ('no', 1)")
    done = rollback(stage.ends, accept_loss=True)
    assert "changes up to 20" in done.lost[0]
    writer.execute("INSERT INTO events VALUES ('yes', 1)")
    assert connection_of(stage.ends.connection).write == stage.ends.sqlite
    monkeypatch.undo()
    with pytest.raises(OperationError, match="follow this source"):
        Sync(stage.ends).run(once=True)


@pytest.mark.parametrize("fault", ["before:switch.decide", "after:switch.decide"])
def test_sync_finishes_or_undoes_what_a_dead_switch_left(stage: Stage, fault: str) -> None:
    with syncing(stage):
        load = Load(stage, 2)
        command = [
            *(sys.executable, "-m", "migration_job", "switch", str(stage.migration.source)),
            *("--target", stage.migration.dsn, "--report", str(stage.directory / "report")),
            *("--connection", str(stage.ends.connection)),
            *("--connect-to", str(stage.directory / "application.json")),
            *("--pooler", stage.pooler.admin_dsn, "--alias-file", str(stage.pooler.alias_path)),
        ]
        ended = subprocess.run(
            command, env={**os.environ, "MIGRATION_FAULT": fault}, check=False, timeout=60
        )
        assert ended.returncode == -9
        start = time.monotonic()
        load.more(5)
        print(f"{fault}: served again after {time.monotonic() - start:.2f} s")
        assert time.monotonic() - start < 5
        expected = stage.ends.postgres if fault.startswith("after") else stage.ends.sqlite
        wait_for(
            lambda: connection_of(stage.ends.connection).write == expected, "the connection", 5
        )
        acknowledged, _ = load.stop()
        wait_for(lambda: sorted(on_sqlite(stage)) == sorted(on_postgres(stage)), "both sides")
    assert acknowledged <= set(on_sqlite(stage))
    assert len(on_sqlite(stage)) == len(set(on_sqlite(stage)))


def test_reads_go_back_when_the_target_cannot_be_followed(stage: Stage) -> None:
    writer = stage.migration.writer()
    move_reads(stage.ends)
    with psycopg.connect(stage.migration.dsn, autocommit=True) as target:
        target.execute("ALTER TABLE events ADD CONSTRAINT never CHECK (n < 100)")
    writer.execute("INSERT INTO events VALUES ('too much', 100)")
    sync = Sync(stage.ends, max_lag=0.2)
    deadline = time.monotonic() + 30

    def moved_back() -> bool:
        return isinstance(connection_of(stage.ends.connection).read, SqliteSide)

    sync.run(lambda: moved_back() or time.monotonic() > deadline)
    assert moved_back()
    assert "never" in report_of(stage.ends.state).problem
    assert stage.pooler.alias_path.read_text() == ""
    writer.execute("UPDATE events SET n = 99")
    sync.run(once=True)
    assert report_of(stage.ends.state).problem == ""


def test_a_target_that_hangs_lifts_the_fence(stage: Stage) -> None:
    writer = stage.migration.writer()
    with psycopg.connect(stage.migration.dsn) as blocker:
        # Nothing that the switch prepares needs this lock; what it drains does.
        blocker.execute("LOCK TABLE migration.certificate IN EXCLUSIVE MODE")
        start = time.monotonic()
        with pytest.raises(OperationError, match=r"writers (may )?wait"):
            switch(stage.ends, budget=0.3)
        assert time.monotonic() - start < 20
        writer.execute("INSERT INTO events VALUES ('served', 1)")
    switch(stage.ends)
    with pytest.raises(apsw.ConstraintError, match=MOVED):
        writer.execute("INSERT INTO events VALUES ('late', 2)")
