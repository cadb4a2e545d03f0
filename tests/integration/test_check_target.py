"""What ``check-target`` says of databases that somebody else runs."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from migration_job.errors import InputError
from migration_job.stores.postgres import runlock
from migration_job.stores.postgres.database import connect
from migration_job.stores.postgres.suitability import Accepted, Check, examine
from tests.conftest import MakeSqlite
from tests.integration.running import run

PASSWORD = "for-this-test-alone"


@pytest.fixture
def role(postgres: str) -> Iterator[str]:
    """The connection string of a plain role that may connect, and no more."""
    name = f"plain_{psycopg.conninfo.conninfo_to_dict(postgres)['dbname']}"
    with psycopg.connect(postgres, autocommit=True) as server:
        server.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
        server.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        yield make_conninfo(postgres, user=name, password=PASSWORD)
        server.execute(f"DROP OWNED BY {name} CASCADE")
        server.execute(f"DROP ROLE {name}")


def grant(postgres: str, role: str) -> None:
    name = psycopg.conninfo.conninfo_to_dict(role)["user"]
    database = psycopg.conninfo.conninfo_to_dict(role)["dbname"]
    with psycopg.connect(postgres, autocommit=True) as server:
        server.execute(f"GRANT CREATE ON SCHEMA public TO {name}")
        server.execute(f"GRANT CREATE ON DATABASE {database} TO {name}")


def look(dsn: str, *, live: bool = False, connections: int = 10) -> dict[str, Check]:
    with connect(dsn) as connection:
        checks = examine(connection, source_bytes=10_000, connections=connections, live=live)
    return {check.name: check for check in checks}


def test_a_plain_role_with_rights_is_enough(postgres: str, role: str) -> None:
    grant(postgres, role)
    refused = {name for name, check in look(role).items() if check.verdict == "refused"}
    # The tests' server is not durable, and it says so.
    assert refused <= {"durability"}


def test_missing_rights_are_each_named_with_what_to_grant(role: str) -> None:
    found = look(role)
    for name in ("make schemas", "make tables"):
        assert found[name].verdict == "refused"
        assert "GRANT CREATE" in found[name].advice


def test_following_changes_needs_more_than_copying(postgres: str, role: str) -> None:
    grant(postgres, role)
    assert "follow changes" not in look(role)
    assert look(role, live=True)["follow changes"].verdict == "refused"
    assert look(postgres, live=True)["follow changes"].verdict == "ok"


def test_a_lent_function_is_as_good_as_the_right(postgres: str, role: str) -> None:
    with psycopg.connect(postgres, autocommit=True) as server:
        name = psycopg.conninfo.conninfo_to_dict(role)["user"]
        server.execute("CREATE SCHEMA privileges")
        server.execute(
            "CREATE FUNCTION privileges.act_as_replica() RETURNS void LANGUAGE sql "
            "SECURITY DEFINER AS "
            "$$ SELECT set_config('session_replication_role', 'replica', false) $$"
        )
        server.execute(f"GRANT USAGE ON SCHEMA privileges TO {name}")
    assert look(role, live=True)["follow changes"].verdict == "ok"


def test_a_database_in_use_is_refused_and_named(postgres: str) -> None:
    with psycopg.connect(postgres, autocommit=True) as server:
        server.execute("CREATE TABLE somebody_elses (i int)")
    emptiness = look(postgres)["emptiness"]
    assert emptiness.verdict == "refused"
    assert "somebody_elses" in emptiness.found
    with connect(postgres) as connection:
        allowed = Accepted(tables=True)
        checks = examine(connection, source_bytes=1, connections=1, live=False, accepted=allowed)
    (emptiness,) = [check for check in checks if check.name == "emptiness"]
    assert emptiness.verdict == "ok"
    assert "somebody_elses" in emptiness.found


def test_too_few_connections_are_counted(postgres: str) -> None:
    found = look(postgres, connections=10_000)["connections"]
    assert found.verdict == "refused"
    assert "10000 are needed" in found.advice


def test_what_a_power_cut_could_lose_is_refused(postgres: str) -> None:
    assert look(postgres)["durability"].verdict == "refused"


def test_event_triggers_are_told_until_they_are_disabled(postgres: str) -> None:
    assert look(postgres)["event triggers"].verdict == "ok"
    with psycopg.connect(postgres, autocommit=True) as server:
        server.execute(
            "CREATE FUNCTION public.meddle() RETURNS event_trigger LANGUAGE plpgsql "
            "AS $$ BEGIN NULL; END $$"
        )
        server.execute(
            "CREATE EVENT TRIGGER meddler ON ddl_command_end EXECUTE FUNCTION public.meddle()"
        )
        found = look(postgres)["event triggers"]
        assert found.verdict == "warning"
        assert "meddler (ddl_command_end, meddle())" in found.found
        assert "DISABLE" in found.advice
        server.execute("ALTER EVENT TRIGGER meddler DISABLE")
        assert look(postgres)["event triggers"].verdict == "ok"
        server.execute("DROP EVENT TRIGGER meddler")
        assert look(postgres)["event triggers"].found == "none"


def test_another_roles_session_on_the_runs_lock_is_ended_or_named(postgres: str, role: str) -> None:
    name = psycopg.conninfo.conninfo_to_dict(role)["user"]
    taking, number = "SELECT pg_advisory_lock(%s)", (runlock.LOCK,)
    with ExitStack() as stack:
        held, waiting = (
            stack.enter_context(psycopg.connect(role, autocommit=True)) for _ in range(2)
        )
        job = stack.enter_context(connect(postgres))
        # Another plain role, which may end nobody's session.
        job.execute(f"CREATE ROLE {name}_job LOGIN PASSWORD '{PASSWORD}'")
        stack.callback(psycopg.connect(postgres, autocommit=True).execute, f"DROP ROLE {name}_job")
        weak = stack.enter_context(
            connect(make_conninfo(postgres, user=f"{name}_job", password=PASSWORD))
        )
        held.execute(taking, number)
        with pytest.raises(InputError, match=f"role '{name}' holding the run's lock") as told:
            runlock.lock(weak)
        assert f"pg_terminate_backend({held.info.backend_pid})" in told.value.advice
        queued = stack.enter_context(ThreadPoolExecutor(1)).submit(
            lambda: waiting.execute(taking, number)
        )
        deadline = time.monotonic() + 30
        while job.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone() is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        (told_of,) = runlock.lock(job)
        assert f"ended a session of role {name!r} (process {held.info.backend_pid})" in told_of
        queued.exception()  # waits for its end
        with pytest.raises(psycopg.Error):  # nor does the next one keep it
            waiting.execute("SELECT 1")
        with connect(postgres) as second, pytest.raises(InputError, match="another run") as told:
            runlock.lock(second)
        assert "role 'postgres'" in told.value.message, "a superuser's may be a run's"


def test_the_command_counts_the_source_that_it_is_given(
    postgres: str, make_sqlite: MakeSqlite
) -> None:
    """As the documentation has it: `check-target --target ... --source ... --live`."""
    source = make_sqlite("CREATE TABLE t (id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1)")
    ended = run("check-target", "--target", postgres, "--source", source, "--live")
    # The tests' server is not durable: that alone may be refused.
    refused = [line.split()[1] for line in ended.out.splitlines() if line.startswith("refused")]
    assert refused in ([], ["durability"]), ended.said
    assert "may suppress triggers while it applies them" in ended.out
    assert re.search(r"about \d+ kB are needed", ended.out)


def test_without_a_source_it_says_what_computes_the_space(postgres: str) -> None:
    ended = run("check-target", "--target", postgres)
    assert "what is needed is not computed without --source" in ended.out
    assert "0 B" not in ended.out


def test_a_check_is_one_line_whatever_the_width(
    postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    with psycopg.connect(postgres, autocommit=True) as server:
        server.execute(f'CREATE TABLE "a[b]{"x" * 50}" (i int); CREATE TABLE "forged\nok" (i int)')
    ended = run("check-target", "--target", postgres)
    told = ended.out.splitlines()
    found = look(postgres)
    assert [line.split()[0] for line in told] == [check.verdict for check in found.values()]
    for line, name in zip(told, found, strict=True):
        assert line[9:].startswith(name)
        assert line == line.rstrip()
    assert f"a[b]{'x' * 50}" in ended.out
    assert "\x1b" not in ended.out
