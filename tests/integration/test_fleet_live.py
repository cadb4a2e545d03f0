"""Live fleets: one process follows all files, and each tenant goes over and back by itself."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import apsw
import psycopg
import pytest

from migration_job.connection import PostgresSide, SqliteSide
from migration_job.embedded import EmbeddedPgBouncer, EmbeddedPostgres
from tests.helpers import connection_of
from tests.integration.livefleet import LiveKit, until
from tests.integration.running import DONE, FAILED, USAGE

pytestmark = pytest.mark.postgres

NAMES = ("t0", "t1", "t2", "t3")

SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'migration-job%'"

INSERT = "INSERT INTO note (person, body, score, size) VALUES (1, '{}', 0.5, {})"


@pytest.fixture
def kit(tmp_path: Path, postgres: str) -> LiveKit:
    """A fleet without PgBouncer."""
    return LiveKit.moved(tmp_path, postgres, NAMES)


@pytest.fixture
def pooled(
    tmp_path: Path,
    postgres: str,
    postgres_server: EmbeddedPostgres,
    pgbouncer: EmbeddedPgBouncer,
) -> LiveKit:
    """A fleet behind PgBouncer, an alias a tenant."""
    with contextlib.suppress(psycopg.errors.DuplicateObject):
        postgres_server.create_role("app", "secret")
    made = LiveKit(tmp_path, postgres, pgbouncer)
    made.make(*NAMES)
    ended = made.run(made.manifest_path)
    assert ended.status == DONE, ended.said
    made.grant(*NAMES)
    return made


@contextlib.contextmanager
def at_work(kit: LiveKit, name: str) -> Iterator[list[str]]:
    """The tenant's application logs in again and again and is in a transaction most of the time;
    what went wrong for it."""
    failures: list[str] = []
    done = threading.Event()
    begun = threading.Event()

    def work() -> None:
        try:
            while not done.is_set():
                with kit.application(name) as session, session.transaction():
                    session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                    session.execute("SELECT count(*), pg_sleep(0.1) FROM note")
                    session.execute("UPDATE note SET size = size + 1 WHERE id = 1")
                    begun.set()
        except psycopg.Error as error:
            failures.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    assert begun.wait(30) or failures
    try:
        yield failures
    finally:
        done.set()
        thread.join()


def beats_after(kit: LiveKit, at: str) -> bool:
    """Whether `fleet-sync` has said that it lives since then."""
    return str(kit.beat()["at"]) > at


def follows(kit: LiveKit, name: str) -> Callable[[], bool]:
    """Whether PostgreSQL has what SQLite has."""
    return lambda: kit.on_postgres(name) == kit.on_sqlite(name)


def test_one_process_follows_all_files(kit: LiveKit) -> None:
    with kit.followed():
        until(lambda: all((kit.connection(n) / "database.json").exists() for n in NAMES))
        for number, name in enumerate(NAMES):
            assert isinstance(connection_of(kit.connection(name)).write, SqliteSide)
            kit.write(name, INSERT.format(f"öl of {name}", number))
        most = 0
        for name in NAMES:
            until(follows(kit, name), what=name)
            most = max(most, int(kit.ask(SESSIONS)[0][0]))
        assert most <= 8
        kit.write("t2", "DELETE FROM note WHERE id < 4; UPDATE person SET name = 'x' WHERE id = 1")
        until(lambda: kit.on_postgres("t2") == kit.on_sqlite("t2"))
        told = kit.status()
        assert told["sync"]["files"] == told["sync"]["sqlite"] == len(NAMES)
        assert {one["state"] for one in told["tenants"].values()} == {"caught up"}
        until(lambda: {one["behind"] for one in kit.status()["tenants"].values()} == {0})


def test_files_that_sleep_are_not_visited(kit: LiveKit) -> None:
    ended = kit.live("fleet-sync", "--once")
    assert ended.status == DONE, ended.said
    with kit.followed() as follower:
        files = [kit.connection(name) / ".state" / "sync.json" for name in NAMES]

        def visited() -> list[int]:
            return [file.stat().st_mtime_ns for file in files]

        def at_rest() -> bool:
            """No file was due or visited from one heartbeat to the next but one."""
            before = visited()
            dues = []
            for _ in range(3):
                beat = kit.beat()
                dues.append(beat["due"])
                until(partial(beats_after, kit, str(beat["at"])))
            return visited() == before and not any(dues)

        until(lambda: kit.beat()["pid"] == follower.pid)
        until(at_rest, what="files that nobody writes to are visited again and again")
        before = visited()
        kit.write("t1", INSERT.format("one", 1))
        until(lambda: kit.on_postgres("t1") == kit.on_sqlite("t1"))
        until(at_rest)
        after = visited()
        assert [a != b for a, b in zip(after, before, strict=True)] == [False, True, False, False]
        # An application that goes on keeps the log.
        with contextlib.closing(apsw.Connection(os.fspath(kit.path("t2")))) as application:
            application.execute(INSERT.format("two", 2))
            until(lambda: kit.on_postgres("t2") == kit.on_sqlite("t2"))
            until(at_rest, what="a file that is open is visited again and again")
            application.execute(INSERT.format("three", 3))
            until(lambda: kit.on_postgres("t2") == kit.on_sqlite("t2"))


def test_a_second_process_is_refused(kit: LiveKit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("migration_job.fleet.following.LOCK_SECONDS", 0.5)
    with kit.followed():
        until(lambda: (kit.report / "fleet-sync.json").exists())
        ended = kit.live("fleet-sync", "--once")
        assert ended.status == USAGE, ended.said
        assert "found another run of the migration job" in ended.said


def test_a_second_run_leaves_followed_files_alone(kit: LiveKit) -> None:
    query = "SELECT run_id FROM migration_c_{}.run"
    before = [kit.ask(query.format(name)) for name in NAMES]
    kit.write("t1", INSERT.format("later", 1))
    kit.make("t9")
    again = kit.run(kit.manifest_path)
    assert again.status == DONE, again.said
    assert [kit.ask(query.format(name)) for name in NAMES] == before
    text = kit.text.replace("live: true", "live: false")
    kit.manifest(text)
    refused = kit.run(kit.manifest_path)
    assert refused.status == USAGE, refused.said
    assert "expected `live: true` or --live" in refused.said
    assert "t1" in refused.said
    with_option = kit.run(kit.manifest_path, "--live")
    assert with_option.status == DONE, with_option.said
    ended = kit.live("fleet-sync", "--once")
    assert ended.status == DONE, ended.said
    for name in (*NAMES, "t9"):
        assert kit.on_postgres(name) == kit.on_sqlite(name)


def test_one_tenant_goes_over_and_comes_back_by_itself(pooled: LiveKit) -> None:
    kit = pooled
    with kit.followed():
        until(lambda: all((kit.connection(n) / "database.json").exists() for n in NAMES))
        before = [connection_of(kit.connection(name)) for name in NAMES]
        switched = kit.live("fleet-switch", "--tenant", "t1")
        assert switched.status == DONE, switched.said
        side = connection_of(kit.connection("t1")).write
        assert isinstance(side, PostgresSide)
        assert side.database == "c_t1"
        others = [name for name in NAMES if name != "t1"]
        for name, was in zip(NAMES, before, strict=True):
            assert (connection_of(kit.connection(name)) == was) == (name in others)
        with pytest.raises(psycopg.OperationalError):
            kit.application("t0")
        with kit.application("t1") as application:
            application.execute(INSERT.format("on PostgreSQL", 7))
        until(lambda: ("on PostgreSQL",) in [row[2:3] for row in kit.on_sqlite("t1")["note"]])
        kit.write("t0", INSERT.format("still on SQLite", 8))
        until(lambda: kit.on_postgres("t0") == kit.on_sqlite("t0"))
        told = kit.status("--in-state", "switched")
        assert list(told["tenants"]) == ["t1"]
        assert told["tenants"]["t1"]["serves"] == "PostgreSQL"
        second = kit.live("fleet-switch", "--tenant", "t2")
        assert second.status == DONE, second.said
        with kit.application("t1") as one, kit.application("t2") as two:
            with at_work(kit, "t2") as failures:
                back = kit.live("fleet-rollback", "--tenant", "t1")
                assert back.status == DONE, back.said
            assert failures == []
            with pytest.raises(psycopg.Error):
                one.execute("SELECT 1")
            assert two.execute("SELECT count(*) FROM note").fetchone() == (12,)
        assert isinstance(connection_of(kit.connection("t1")).write, SqliteSide)
        assert isinstance(connection_of(kit.connection("t2")).write, PostgresSide)
        kit.write("t1", INSERT.format("back on SQLite", 9))
        until(lambda: kit.on_postgres("t1") == kit.on_sqlite("t1"))
        lines = kit.bouncer.alias_path.read_text().splitlines() if kit.bouncer else []
        assert [line.split(" = ")[0] for line in lines] == ["c_t2"]


def test_a_tenant_is_held_and_let_go_and_settled(pooled: LiveKit) -> None:
    kit = pooled
    with kit.followed():
        until(lambda: all((kit.connection(n) / "database.json").exists() for n in NAMES))
        assert kit.live("fleet-switch", "--tenant", "t[12]").status == DONE
        held = kit.live("fleet-hold", "--tenant", "t1", "--reason", "the disk")
        assert held.status == DONE, held.said
        assert "does not run" not in held.said
        assert kit.bouncer is not None
        with psycopg.connect(kit.bouncer.admin_dsn, autocommit=True) as console:
            rows = psycopg.ClientCursor(console).execute("SHOW DATABASES").fetchall()
        assert "the disk" in kit.status()["tenants"]["t1"]["held"]
        assert len([row for row in rows if str(row[0]).startswith("c_t")]) == 2
        with kit.application("t2") as other:
            assert other.execute("SELECT 1").fetchone() == (1,)
        assert kit.live("fleet-resume", "--tenant", "t1").status == DONE
        assert kit.status()["tenants"]["t1"]["held"] == ""
        short = kit.live("fleet-hold", "--tenant", "t1", "--reason", "short", "--minutes", "0.01")
        assert short.status == DONE, short.said
        until(lambda: kit.status()["tenants"]["t1"]["held"] == "", what="the hold's own end")
        early = kit.live("fleet-settle", "--tenant", "t1")
        assert early.status == FAILED, early.said
        settled = kit.live("fleet-settle", "--tenant", "t1", "--force")
        assert settled.status == DONE, settled.said
        until(lambda: kit.status()["sync"]["settled"] == 1)
        states = {name: one["state"] for name, one in kit.status()["tenants"].items()}
        assert states == {
            "t0": "caught up",
            "t1": "settled",
            "t2": "switched",
            "t3": "caught up",
        }


def test_one_tenants_failure_stops_no_other(kit: LiveKit) -> None:
    ended = kit.live("fleet-sync", "--once")
    assert ended.status == DONE, ended.said
    kit.path("t1").rename(kit.folder / "gone")
    failed = kit.live("fleet-sync", "--once")
    assert failed.status == FAILED, failed.said
    assert "1 file that cannot be followed: t1" in failed.said
    told = kit.status("--tenant", "t1")["tenants"]
    assert list(told) == ["t1"]
    assert told["t1"]["serves"] == "unknown"
    switched = kit.live("fleet-switch", "--all")
    assert switched.status != DONE
    assert "switch of 1 tenant failed, of 4: t1" in switched.said
    states = {name: one["state"] for name, one in kit.status()["tenants"].items()}
    assert [states[name] for name in ("t0", "t2", "t3")] == ["switched"] * 3
    nobody = kit.live("fleet-switch", "--tenant", "x*")
    assert nobody.status == USAGE
    assert "found none for 'x*'" in nobody.said


def test_each_file_has_a_database_of_its_own(tmp_path: Path, postgres: str) -> None:
    marked = str(psycopg.conninfo.conninfo_to_dict(postgres)["dbname"])
    kit = LiveKit(
        tmp_path,
        postgres,
        text=f"files: 'in/*.db'\nlayout: database-per-file\nname: '{marked}_{{tenant}}'\n"
        "live: true\n",
    )
    kit.make("a", "b")
    try:
        ended = kit.run(kit.manifest_path)
        assert ended.status == DONE, ended.said
        with kit.followed():
            kit.write("a", INSERT.format("more", 1))
            until(lambda: len(kit.ask("SELECT id FROM note", database=f"{marked}_a")) == 13)
            switched = kit.live("fleet-switch", "--tenant", "a")
            assert switched.status == DONE, switched.said
            with psycopg.connect(postgres, dbname=f"{marked}_a", autocommit=True) as application:
                application.execute(INSERT.format("there", 2))
                until(lambda: len(kit.on_sqlite("a")["note"]) == 14)
            kit.write("b", INSERT.format("more", 1))
            until(lambda: len(kit.ask("SELECT id FROM note", database=f"{marked}_b")) == 13)
            back = kit.live("fleet-rollback", "--tenant", "a")
            assert back.status == DONE, back.said
    finally:
        for name in ("a", "b"):
            kit.do(f'DROP DATABASE IF EXISTS "{marked}_{name}" WITH (FORCE)')


@pytest.mark.slow
def test_kills_of_the_process_lose_no_change(kit: LiveKit) -> None:
    """Writers on both sides, a tenant that goes over and back, and the process killed anywhere."""
    seed = int(os.environ.get("FLEET_SEED", "21"))
    print("seed", seed)
    random_ = random.Random(seed)
    kills = int(os.environ.get("FLEET_KILLS", "8"))
    assert kit.live("fleet-sync", "--once").status == DONE
    for number in range(kills):
        process = kit.process(*kit.arguments("fleet-sync"))
        deadline = time.monotonic() + random_.uniform(0.5, 3.0)
        while time.monotonic() < deadline:
            name = random_.choice(NAMES)
            if kit.status("--tenant", name)["tenants"][name]["serves"] == "PostgreSQL":
                kit.do(f"SET search_path TO c_{name}; {INSERT.format(f'pg {number}', number)}")
            else:
                with contextlib.suppress(Exception):
                    kit.write(name, INSERT.format(f"lite {number}", number))
        if random_.random() < 0.5:
            word = random_.choice(("fleet-switch", "fleet-rollback"))
            command = kit.process(*kit.arguments(word, "--tenant", random_.choice(NAMES)))
            time.sleep(random_.uniform(0.2, 2.0))
            command.kill()
            command.wait()
        process.send_signal(signal.SIGKILL)
        process.wait()
    ended = kit.live("fleet-sync", "--once")
    assert ended.status == DONE, ended.said
    for name in NAMES:
        assert kit.on_postgres(name) == kit.on_sqlite(name), name
