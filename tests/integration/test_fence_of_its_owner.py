"""The fence against roles and settings that are not the job's: who may stop or evade it."""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from migration_job.embedded import EmbeddedPostgres
from migration_job.errors import OperationError
from migration_job.protocol.run_context import open_target
from migration_job.stores.postgres import capture, target_fence
from tests.integration.livekit import PLAN, begin, fresh_source, uid

pytestmark = pytest.mark.postgres

PASSWORD = "for-this-test-alone"


@dataclass
class Roles:
    """A target as a stage has it: the job is no superuser, the application and a reader have what
    their work takes."""

    superuser: str
    job: str
    application: str
    reader: str


@pytest.fixture
def roles(tmp_path: Path, postgres_server: EmbeddedPostgres, postgres: str) -> Iterator[Roles]:
    database = str(conninfo_to_dict(postgres)["dbname"])
    names = {role: f"{database}_{role}" for role in ("job", "application", "reader")}
    quoted = {role: sql.Identifier(name) for role, name in names.items()}
    with psycopg.connect(postgres, autocommit=True) as server:
        for name in names.values():
            postgres_server.create_role(name, PASSWORD)
        server.execute(sql.SQL("GRANT pg_signal_backend TO {job}").format(**quoted))
        server.execute(
            sql.SQL("GRANT ALL ON DATABASE {d} TO {job}").format(
                d=sql.Identifier(database), **quoted
            )
        )
        server.execute(sql.SQL("GRANT ALL ON SCHEMA public TO {job}").format(**quoted))
        server.execute(
            sql.SQL(
                "CREATE SCHEMA privileges; "
                "CREATE FUNCTION privileges.act_as_replica() RETURNS void LANGUAGE sql "
                "SECURITY DEFINER SET search_path = pg_catalog AS "
                "$$ SELECT set_config('session_replication_role', 'replica', false) $$; "
                "GRANT USAGE ON SCHEMA privileges TO {job}"
            ).format(**quoted)
        )
        dsns = {
            role: make_conninfo(postgres, user=name, password=PASSWORD)
            for role, name in names.items()
        }
        begin(fresh_source(tmp_path), dsns["job"])
        server.execute(
            sql.SQL(
                "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public "
                "TO {application}; "
                "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {application}; "
                "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {reader}"
            ).format(**quoted)
        )
        with open_target(dsns["job"]) as job:
            target_fence.open_fence(job)
        yield Roles(postgres, **dsns)
        for role in quoted.values():
            server.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(role))
    postgres_server.drop_database(database)
    with psycopg.connect(postgres_server.dsn, autocommit=True) as server:
        for role in quoted.values():
            server.execute(sql.SQL("DROP ROLE {}").format(role))
    postgres_server.create_database(database)


def write(dsn: str, number: int = 1, *, replica: bool = False) -> None:
    with psycopg.connect(dsn, autocommit=True) as session:
        session.execute("SET statement_timeout = '5s'")
        if replica:
            session.execute("SET session_replication_role = replica")
        session.execute("INSERT INTO users (id) VALUES (%s)", (uid(number),))


def logged(dsn: str) -> set[tuple[int, str]]:
    with psycopg.connect(dsn) as session:
        rows = session.execute("SELECT tab, key[1] FROM migration.reverse_log").fetchall()
    return {(int(tab), str(key)) for tab, key in rows}


def advisory_keys(dsn: str) -> list[tuple[int, int]]:
    """What advisory locks a writing transaction holds, as anybody can see."""
    with psycopg.connect(dsn) as session:
        session.execute("INSERT INTO users (id) VALUES (%s)", (uid(99),))
        rows = session.execute(
            "SELECT classid::bigint, objid::bigint FROM pg_locks WHERE locktype = 'advisory'"
        ).fetchall()
        session.rollback()
    return [(int(row[0]), int(row[1])) for row in rows]


def test_a_role_that_may_only_read_cannot_stop_the_writers(roles: Roles) -> None:
    keys = [(c << 32) | o for c, o in advisory_keys(roles.application)] + [
        target_fence.EARLIER_LOCK
    ]
    with psycopg.connect(roles.reader, autocommit=True) as reader:
        for key in keys:
            reader.execute("SELECT pg_advisory_lock(%s)", (key,))
        for table in ("fence_lock", "fence", "fence_token", "reverse_log"):
            for mode in ("ACCESS SHARE", "ROW SHARE", "SHARE", "EXCLUSIVE", "ACCESS EXCLUSIVE"):
                with (
                    pytest.raises(psycopg.errors.InsufficientPrivilege),
                    reader.transaction(),
                ):
                    reader.execute(f"LOCK TABLE migration.{table} IN {mode} MODE")
        write(roles.application)
        with open_target(roles.job) as job:
            target_fence.close_fence(job, limit=2)


def test_who_may_read_everything_is_in_nobodys_way(roles: Roles) -> None:
    """As ``pg_dump`` does, for hours: it locks every table in ACCESS SHARE mode."""
    name = sql.Identifier(str(conninfo_to_dict(roles.reader)["user"]))
    with psycopg.connect(roles.superuser, autocommit=True) as server:
        server.execute(sql.SQL("GRANT pg_read_all_data TO {}").format(name))
    with psycopg.connect(roles.reader) as reader:
        for table in ("fence_lock", "fence", "fence_token", "reverse_log"):
            reader.execute(f"LOCK TABLE migration.{table} IN ACCESS SHARE MODE")
        write(roles.application)
        with open_target(roles.job) as job:
            target_fence.close_fence(job, limit=2)


@pytest.mark.parametrize("mode", ["ROW SHARE", "ROW EXCLUSIVE", "SHARE", "EXCLUSIVE"])
def test_stronger_locks_on_the_fence_take_the_right_to_write_it(roles: Roles, mode: str) -> None:
    name = sql.Identifier(str(conninfo_to_dict(roles.reader)["user"]))
    with psycopg.connect(roles.superuser, autocommit=True) as server:
        server.execute(sql.SQL("GRANT pg_read_all_data TO {}").format(name))
    with (
        psycopg.connect(roles.reader) as reader,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        reader.execute(f"LOCK TABLE migration.fence_lock IN {mode} MODE")


def test_the_fence_waits_for_a_writer_and_holds_up_the_next(roles: Roles) -> None:
    with psycopg.connect(roles.application) as writer:
        writer.execute("INSERT INTO users (id) VALUES (%s)", (uid(1),))
        with open_target(roles.job) as job, pytest.raises(OperationError, match="1 that have"):
            target_fence.close_fence(job, limit=0.2)
        writer.commit()
    with open_target(roles.job) as job:
        target_fence.close_fence(job, limit=5)
    with pytest.raises(psycopg.Error, match="moved to SQLite"):
        write(roles.application, 2)


def test_a_snapshot_older_than_the_fence_writes_nothing(roles: Roles) -> None:
    """Also where the job is no superuser, and sees nothing of others' transactions."""
    with psycopg.connect(roles.application) as old:
        old.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        old.execute("SELECT count(*) FROM users")
        with open_target(roles.job) as job, open_target(roles.job) as other:
            target_fence.close_fence(job, limit=2)
            assert target_fence.end_sessions(other, limit=5) == 1
        with pytest.raises(psycopg.OperationalError):
            old.execute("INSERT INTO users (id) VALUES (%s)", (uid(1),))
    with psycopg.connect(roles.superuser) as look:
        assert look.execute("SELECT count(*) FROM users").fetchone() == (0,)


def test_who_goes_on_opening_transactions_does_not_stop_the_way_back(roles: Roles) -> None:
    stop = threading.Event()

    def again_and_again() -> None:
        while not stop.is_set():
            with contextlib.suppress(psycopg.Error), psycopg.connect(roles.reader) as session:
                for _ in range(50):
                    session.execute("SELECT 1")
                    stop.wait(0.001)

    readers = [threading.Thread(target=again_and_again) for _ in range(4)]
    for reader in readers:
        reader.start()
    try:
        with open_target(roles.job) as job, open_target(roles.job) as other:
            target_fence.close_fence(job, limit=5)
            target_fence.end_sessions(other, limit=5)
    finally:
        stop.set()
        for reader in readers:
            reader.join()


def test_a_session_that_takes_the_jobs_name_is_not_the_jobs(roles: Roles) -> None:
    with (
        psycopg.connect(roles.reader, application_name=target_fence.SESSION) as named,
        open_target(roles.job) as job,
    ):
        assert target_fence.take_over(job, limit=1) == 0
        named.execute("SELECT 1")


def test_a_dead_jobs_session_is_ended(roles: Roles) -> None:
    with open_target(roles.job) as dead, open_target(roles.job) as job:
        assert target_fence.take_over(job, limit=5) == 1
        with pytest.raises(psycopg.OperationalError):
            dead.execute("SELECT 1")


def test_a_session_that_switches_triggers_off_is_captured_and_fenced(roles: Roles) -> None:
    write(roles.superuser, 1, replica=True)
    assert logged(roles.superuser) == {(1, uid(1))}
    with open_target(roles.job) as job:
        target_fence.close_fence(job, limit=5)
    with pytest.raises(psycopg.Error, match="moved to SQLite"):
        write(roles.superuser, 2, replica=True)


@pytest.mark.parametrize("where", ["DATABASE", "ROLE"])
def test_triggers_switched_off_by_a_setting_are_captured_and_fenced(
    roles: Roles, where: str
) -> None:
    parts = conninfo_to_dict(roles.application)
    name = sql.Identifier(str(parts["dbname"] if where == "DATABASE" else parts["user"]))
    with psycopg.connect(roles.superuser, autocommit=True) as server:
        server.execute(
            sql.SQL("ALTER {} {} SET session_replication_role = replica").format(
                sql.SQL(where), name
            )
        )
    write(roles.application, 1)
    assert logged(roles.superuser) == {(1, uid(1))}
    with open_target(roles.job) as job:
        target_fence.close_fence(job, limit=5)
    with pytest.raises(psycopg.Error, match="moved to SQLite"):
        write(roles.application, 2)


def test_a_guessed_token_passes_no_fence(roles: Roles) -> None:
    with open_target(roles.job) as job:
        target_fence.close_fence(job, limit=5)
    for guess in ("", secrets.token_hex(16)):
        with psycopg.connect(roles.superuser, autocommit=True) as session:
            session.execute("SET session_replication_role = replica")
            session.execute("SELECT set_config('migration.token', %s, false)", (guess,))
            with pytest.raises(psycopg.Error, match="moved to SQLite"):
                session.execute("INSERT INTO users (id) VALUES (%s)", (uid(1),))


def test_the_jobs_own_writes_pass_and_are_not_logged(roles: Roles) -> None:
    with open_target(roles.job) as job:
        job.execute("INSERT INTO users (id) VALUES (%s)", (uid(1),))
        target_fence.close_fence(job, limit=5)
        job.execute("DELETE FROM users")
        job.execute("TRUNCATE events")
    assert logged(roles.superuser) == set()


def test_a_trigger_that_was_dropped_or_disabled_is_put_back(roles: Roles) -> None:
    with psycopg.connect(roles.job, autocommit=True) as owner:
        owner.execute("DROP TRIGGER migration_job_guard ON users")
        owner.execute("ALTER TABLE notes DISABLE TRIGGER migration_job_update")
        owner.execute("ALTER TABLE events ENABLE TRIGGER migration_job_insert")
    with open_target(roles.job) as job:
        assert sorted(capture.missing(job, PLAN)) == [
            "events.migration_job_insert",
            "notes.migration_job_update",
            "users.migration_job_guard",
        ]
        capture.install(job, PLAN)
        assert capture.missing(job, PLAN) == []


def test_a_target_of_an_earlier_release_is_closed_in_its_own_way(roles: Roles) -> None:
    with psycopg.connect(roles.job, autocommit=True) as owner:
        owner.execute(
            "CREATE OR REPLACE FUNCTION migration.guard() RETURNS trigger LANGUAGE plpgsql "
            "SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$ BEGIN "
            f"PERFORM pg_advisory_xact_lock_shared({target_fence.EARLIER_LOCK}); "
            "IF (SELECT closed FROM migration.fence) IS NOT FALSE THEN "
            "RAISE EXCEPTION 'moved to SQLite'; END IF; RETURN NULL; END $$"
        )
        owner.execute("DROP TABLE migration.fence_lock, migration.fence_token")
        owner.execute("ALTER TABLE users ENABLE TRIGGER migration_job_guard")
        owner.execute("DROP TRIGGER migration_job_update ON users")
    with psycopg.connect(roles.application) as writer, open_target(roles.job) as job:
        writer.execute("UPDATE users SET score = 1")
        with pytest.raises(OperationError, match="to end within"):
            target_fence.close_fence(job, limit=0.2)
        writer.commit()
        target_fence.close_fence(job, limit=5)
        with pytest.raises(psycopg.Error, match="moved to SQLite"):
            writer.execute("UPDATE users SET score = 2")
        job.execute("UPDATE users SET score = 3")
