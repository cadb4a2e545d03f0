"""Other programs that hold the source's locks, in every journal mode: all commands wait for them;
and a decision whose commit fails is what the file says, whatever the error was."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import apsw
import psycopg
import pytest

from migration_job.errors import OperationError
from migration_job.protocol import decision, follow
from migration_job.protocol import offline_switch as plain_module
from migration_job.protocol import rollback as rollback_module
from migration_job.protocol import switch as switch_module
from migration_job.stores.sqlite import fence
from migration_job.stores.sqlite.database import open_readonly
from tests.integration.running import DONE, run
from tests.integration.wholeway import Way

pytestmark = pytest.mark.postgres

SCRIPT = "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t (v) VALUES ('a')"

JOURNALS = ("wal", "delete", "truncate", "persist", "memory")

HOLDER = """
import sqlite3, sys, time
path, journal, what = sys.argv[1:]
c = sqlite3.connect(path, timeout=30, isolation_level=None)
c.execute("PRAGMA journal_mode = " + journal)
print("ready", flush=True)
while True:
    try:
        if what == "write":
            c.execute("BEGIN EXCLUSIVE")
            c.execute("INSERT INTO t (v) VALUES ('x')")
        else:
            c.execute("BEGIN")
            c.execute("SELECT count(*) FROM t").fetchone()
        time.sleep(0.15)
        c.execute("COMMIT")
    except sqlite3.Error:
        if c.in_transaction:
            c.execute("ROLLBACK")
    time.sleep(0.05)
"""


@contextlib.contextmanager
def holding(way: Way, journal: str, what: str) -> Iterator[None]:
    """A program that holds the lock 150 ms at a time, three quarters of the time."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(way.source), journal, what],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@pytest.mark.parametrize("what", ["write", "read"])
@pytest.mark.parametrize("journal", JOURNALS)
def test_every_command_waits_for_a_lock(
    tmp_path: Path, postgres: str, journal: str, what: str
) -> None:
    way = Way.of(tmp_path, postgres, SCRIPT, journal)
    with holding(way, journal, what):
        ended = way.migrate()
        assert ended.status == DONE, ended.said
        for name, *options in (["sync", "--once"], ["sync", "--once"], ["switch"]):
            ended = way.command(name, *options)
            assert ended.status == DONE, (name, ended.said)
            assert "serves      unknown" not in way.status()
        assert way.closed()
        way.on_postgres("INSERT INTO t (v) VALUES ('there')")
        for name, *options in (["sync", "--once"], ["rollback"]):
            ended = way.command(name, *options)
            assert ended.status == DONE, (name, ended.said)
        assert not way.closed()
        assert way.on_sqlite("SELECT count(*) FROM t WHERE v = 'there'") == [(1,)]
        ended = way.command("switch")
        assert ended.status == DONE, ended.said
        ended = way.command("settle", "--force")
        assert ended.status == DONE, ended.said


def test_release_waits_for_a_lock(tmp_path: Path, postgres: str) -> None:
    way = Way.of(tmp_path, postgres, SCRIPT)
    assert way.migrate().status == DONE
    with holding(way, "delete", "write"):
        ended = run("release", way.source, "--state", tmp_path / "state")
        assert ended.status == DONE, ended.said
    assert way.on_sqlite("SELECT name FROM sqlite_schema WHERE type = 'trigger'") == []


def test_a_lock_that_never_ends_is_a_sentence_and_no_wrong_usage(
    tmp_path: Path, postgres: str
) -> None:
    way = Way.of(tmp_path, postgres, SCRIPT)
    assert way.migrate().status == DONE
    holder = apsw.Connection(str(way.source))
    holder.execute("BEGIN EXCLUSIVE")
    try:
        for name in ("sync", "switch", "settle"):
            once = ["--once"] if name == "sync" else []
            ended = way.command(name, *once, "--catch-up-seconds", "1")
            assert ended.status == 1, (name, ended.said)
            assert "locked" in ended.err
            assert "Traceback" not in ended.err
        assert "locked" in way.status()
    finally:
        holder.close()
    assert not way.closed()


def test_a_reader_that_stays_lets_the_fence_be_lifted(tmp_path: Path, postgres: str) -> None:
    """The commit waits for readers for as long as writers may be held, then they go on."""
    way = Way.of(tmp_path, postgres, SCRIPT)
    assert way.migrate().status == DONE
    reader = apsw.Connection(str(way.source))
    rows = reader.execute("SELECT 1 FROM t, t AS u, t AS w")
    next(rows)
    ended = way.command("switch", "--fence-seconds", "0.2", "--catch-up-seconds", "2")
    assert ended.status == 1, ended.said
    assert "SQLite serves, trying again" in ended.out
    reader.close()
    way.on_sqlite("INSERT INTO t (v) VALUES ('goes on')")
    assert way.command("switch").status == DONE
    assert way.on_postgres("SELECT count(*) FROM t WHERE v = 'goes on'") == [(1,)]


class FailingDisk(apsw.VFS):
    """A disk that fails when a rollback journal is taken away, once it is ``armed``: ``after`` the
    deed, when the transaction is durable, or ``before`` it, when it is not."""

    def __init__(self) -> None:
        self.name = f"failing-{next(_disks)}"
        self.when = ""
        self.failed = False
        super().__init__(self.name, "", makedefault=True)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        when = self.when if filename.endswith("app.db-journal") else ""
        self.when = ""
        self.failed = self.failed or bool(when)
        if when == "before":
            raise apsw.IOError("disk I/O error")
        super().xDelete(filename, syncdir)
        if when == "after":
            raise apsw.IOError("disk I/O error")


_disks = itertools.count()


@pytest.fixture
def disk() -> Iterator[FailingDisk]:
    found = FailingDisk()
    yield found
    assert found.failed
    apsw.set_default_vfs("unix")
    found.unregister()


def arm(monkeypatch: pytest.MonkeyPatch, disk: FailingDisk, when: str) -> None:
    """At the commit of the next decision, once."""
    commit = fence.commit

    def failing(connection: apsw.Connection, *, limit: float) -> None:
        disk.when = when
        monkeypatch.setattr(fence, "commit", commit)
        commit(connection, limit=limit)

    apsw.set_default_vfs(disk.name)  # `migrate` has started SQLite again, with its own default
    real = decision.commit_decision

    def at_decision(*arguments: object, **named: object) -> None:
        for module in (switch_module, rollback_module, plain_module):
            monkeypatch.setattr(module, "commit_decision", real)
        monkeypatch.setattr(fence, "commit", failing)
        real(*arguments, **named)  # type: ignore[arg-type]

    for module in (switch_module, rollback_module, plain_module):
        monkeypatch.setattr(module, "commit_decision", at_decision)


def test_a_switch_whose_commit_fails_after_it_is_durable_has_switched(
    tmp_path: Path, postgres: str, disk: FailingDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = Way.of(tmp_path, postgres, SCRIPT)
    assert way.migrate().status == DONE
    arm(monkeypatch, disk, "after")
    ended = way.command("switch")
    assert way.closed()
    assert ended.status == DONE, ended.said
    assert "PostgreSQL serves" in ended.out
    way.on_postgres("INSERT INTO t (v) VALUES ('there')")
    way.back()


def test_a_switch_whose_commit_fails_before_it_is_durable_has_not_switched(
    tmp_path: Path, postgres: str, disk: FailingDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = Way.of(tmp_path, postgres, SCRIPT)
    assert way.migrate().status == DONE
    arm(monkeypatch, disk, "before")
    ended = way.command("switch")
    assert ended.status == 1, ended.said
    assert "SQLite serves" in ended.err
    assert not way.closed()
    way.on_sqlite("INSERT INTO t (v) VALUES ('here')")
    assert way.command("switch").status == DONE


@pytest.mark.parametrize("when", ["after", "before"])
def test_a_rollback_whose_commit_fails_is_what_the_file_says(
    tmp_path: Path, postgres: str, disk: FailingDisk, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    way = Way.of(tmp_path, postgres, SCRIPT)
    way.there()
    arm(monkeypatch, disk, when)
    ended = way.command("rollback")
    assert way.closed() == (when == "before")
    assert ended.status == (DONE if when == "after" else 1), ended.said
    if when == "before":
        assert "PostgreSQL serves" in ended.err
        way.on_postgres("INSERT INTO t (v) VALUES ('there')")
        way.back()
    way.on_sqlite("INSERT INTO t (v) VALUES ('here')")


@pytest.mark.parametrize("when", ["after", "before"])
def test_a_plain_switch_whose_commit_fails_is_what_the_file_says(
    tmp_path: Path, postgres: str, disk: FailingDisk, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    way = Way.of(tmp_path, postgres, SCRIPT)
    ended = run("migrate", way.source, "--target", postgres, "--report", tmp_path / "report")
    assert ended.status == DONE, ended.said
    arm(monkeypatch, disk, when)
    ended = way.command("switch")
    assert ended.status == (DONE if when == "after" else 1), ended.said
    if when == "before":
        assert "SQLite serves" in ended.err
        assert way.command("switch").status == DONE
    assert way.closed()


def test_what_fails_after_the_decision_does_not_say_that_the_switch_failed(
    tmp_path: Path, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = Way.of(tmp_path, postgres, SCRIPT)
    assert way.migrate().status == DONE
    really = follow.follow_decision
    failures = iter([apsw.BusyError("database is locked"), psycopg.OperationalError("gone")])

    def failing(pair: object, ends: object) -> bool:
        if pair.state().closed:  # type: ignore[attr-defined]
            for error in failures:
                raise error
        return really(pair, ends)  # type: ignore[arg-type]

    monkeypatch.setattr(follow, "follow_decision", failing)
    ended = way.command("switch")
    assert ended.status == DONE, ended.said
    assert way.on_postgres("SELECT phase FROM migration.run") == [("switched",)]


def test_a_report_that_cannot_be_written_does_not_make_a_switch_a_failure(
    tmp_path: Path, postgres: str
) -> None:
    way = Way.of(tmp_path, postgres, SCRIPT)
    assert way.migrate().status == DONE
    (tmp_path / "report" / "switch.json").mkdir()
    ended = way.command("switch")
    assert ended.status == DONE, ended.said
    assert "warning" in ended.err
    assert way.closed()


def test_a_journal_that_a_dead_writer_left_is_no_state_to_read(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    script = (
        "import sqlite3, sys, os, signal\n"
        "c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "c.execute('CREATE TABLE t (v)')\n"
        "c.execute(\"INSERT INTO t VALUES ('old')\")\n"
        "c.execute('PRAGMA cache_size = 5')\n"
        "c.execute('BEGIN')\n"
        "c.execute(\"UPDATE t SET v = 'half'\")\n"
        "for n in range(2000): c.execute('INSERT INTO t VALUES (hex(randomblob(200)))')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert (tmp_path / "app.db-journal").stat().st_size > 0
    with pytest.raises(OperationError, match="journal is not rolled back"):
        open_readonly(path)
    connection = fence.open_source(path)
    assert connection.execute("SELECT v FROM t").fetchall() == [("old",)]
    connection.close()
    open_readonly(path).close()
