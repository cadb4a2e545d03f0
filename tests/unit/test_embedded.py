"""The embedded servers start, admit whom they should, and end with their owner."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from migration_job import binaries
from migration_job.binaries import advice_on
from migration_job.embedded import EmbeddedPgBouncer, EmbeddedPostgres, find_pgbouncer
from migration_job.errors import InputError, OperationError
from tests.servers import MAJOR

pytestmark = pytest.mark.postgres


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_refuses_a_wrong_password(postgres_server: EmbeddedPostgres) -> None:
    dsn = postgres_server.dsn_for("postgres", user="postgres", password="not it")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(dsn)


def test_passwords_are_stored_as_scram(postgres_server: EmbeddedPostgres) -> None:
    with psycopg.connect(postgres_server.dsn) as connection:
        row = connection.execute("SELECT rolpassword FROM pg_authid WHERE rolname = 'postgres'")
        (stored,) = row.fetchone() or ("",)
    assert stored.startswith("SCRAM-SHA-256$")


def test_listens_on_loopback_only(postgres_server: EmbeddedPostgres) -> None:
    with psycopg.connect(postgres_server.dsn) as connection:
        row = connection.execute("SHOW listen_addresses").fetchone()
    assert row == ("127.0.0.1",)


def test_is_fourteen_unless_told(tmp_path: Path) -> None:
    assert EmbeddedPostgres(tmp_path / "server").major == 14


def test_is_the_version_that_was_asked_for(postgres_server: EmbeddedPostgres) -> None:
    with psycopg.connect(postgres_server.dsn) as connection:
        assert connection.info.server_version // 10_000 == MAJOR


def test_a_database_of_any_name(postgres_server: EmbeddedPostgres) -> None:
    name = "Spaces, 'quotes' and \"more\""
    dsn = postgres_server.create_database(name)
    try:
        with psycopg.connect(dsn) as connection:
            assert connection.execute("SELECT current_database()").fetchone() == (name,)
    finally:
        postgres_server.drop_database(name)


def test_committed_rows_outlive_a_kill_and_a_restart(tmp_path: Path) -> None:
    with EmbeddedPostgres() as server:
        with psycopg.connect(server.dsn) as connection:
            connection.execute("CREATE TABLE t AS SELECT 1 AS x")
        port = server.port
        for interruption in (server.kill, server.stop):
            interruption()
            assert not server.running
            server.start()
            assert server.port == port
            with psycopg.connect(server.dsn) as connection:
                assert connection.execute("SELECT x FROM t").fetchone() == (1,)


def test_takes_up_a_directory_again(tmp_path: Path) -> None:
    with EmbeddedPostgres() as outer:  # its directory is one that the server's user may enter
        directory = outer.directory / "second"
        with EmbeddedPostgres(directory, fast=True) as first:
            first.create_database("kept")
        with EmbeddedPostgres(directory, fast=True) as second:
            psycopg.connect(second.dsn_for("kept")).close()


def test_the_password_file_is_private(postgres_server: EmbeddedPostgres) -> None:
    mode = (postgres_server.directory / "superuser-password").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600


def test_ends_and_cleans_up_when_its_owner_is_killed() -> None:
    program = (
        "import signal\n"
        "from migration_job.embedded import EmbeddedPostgres\n"
        "s = EmbeddedPostgres(fast=True); s.start()\n"
        "print(s.pid, s.directory, flush=True)\n"
        "signal.pause()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        pid, directory = owner.stdout.readline().split()
        owner.send_signal(signal.SIGKILL)
    until(lambda: not alive(int(pid)))
    until(lambda: not Path(os.fsdecode(directory)).exists())


def test_a_taken_port_is_reported_with_the_log() -> None:
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", 0))
        squatter.listen()
        server = EmbeddedPostgres(fast=True, port=squatter.getsockname()[1])
        try:
            with pytest.raises(OperationError, match="Address already in use"):
                server.start()
        finally:
            server.close()


def test_an_unknown_major_version_is_refused() -> None:
    with pytest.raises(InputError, match="13 is not one of the supported versions"):
        binaries.postgres_programs(13)


def test_a_failed_fetch_says_so_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(binaries.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(binaries, "_installers", lambda: iter(()))
    if Path("/usr/lib/postgresql/18/bin/initdb").exists():
        pytest.skip("this machine has a PostgreSQL 18 of its own, so nothing is fetched")
    with pytest.raises(OperationError, match=r"could it be fetched"):
        binaries.postgres_programs(18)
    assert [p.name for p in (tmp_path / "cache").iterdir()] == [".lock"]


@pytest.mark.parametrize(
    ("library", "package"),
    [("libxml2.so.2", "libxml2"), ("libgssapi_krb5.so.2", "libgssapi-krb5-2")],
)
def test_a_library_that_the_system_lacks_is_named(library: str, package: str) -> None:
    log = f"postgres: error while loading shared libraries: {library}: cannot open shared object"
    assert f"apt-get install {package})" in advice_on(log)


def test_another_failure_of_initdb_has_an_advice_too() -> None:
    assert "directory" in advice_on("could not change directory: Permission denied")


def test_a_library_that_the_system_lacks_is_told_before_anything_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking = {**binaries.LIBRARIES, "libnone-such.so.7": "none-such7"}
    monkeypatch.setattr(binaries, "LIBRARIES", lacking)
    monkeypatch.setattr(binaries, "installed_programs", lambda major: None)
    monkeypatch.setenv(binaries.CACHE_VARIABLE, str(tmp_path / "cache"))
    fetched: list[str] = []
    monkeypatch.setattr(binaries, "_fetch", lambda *given: fetched.append("fetched"))
    if sys.platform != "linux":
        pytest.skip("macOS's releases load other libraries")
    with pytest.raises(OperationError, match=r"found no .*libnone-such\.so\.7") as refused:
        binaries.postgres_programs(14)
    assert "none-such7" in str(refused.value)
    assert fetched == []


@pytest.mark.skipif(shutil.which("ldd") is None, reason="no ldd here")
def test_the_libraries_are_those_that_postgresql_loads(postgres_server: EmbeddedPostgres) -> None:
    program = binaries.installed_programs()
    assert program is not None
    if "sqlite-to-postgresql" not in str(program) and binaries.CACHE_VARIABLE not in os.environ:
        pytest.skip("this machine has a PostgreSQL 14 of its own")
    told = subprocess.run(
        ["ldd", program / "postgres"], capture_output=True, text=True, check=True
    ).stdout
    assert {name for name in binaries.LIBRARIES if name not in told} == set()
    assert binaries.missing_libraries() == []


def test_every_release_is_pinned_by_digest() -> None:
    for major, (version, digests) in binaries.RELEASES.items():
        assert version.startswith(f"{major}.")
        assert all(len(d) == hashlib.sha256().digest_size * 2 for d in digests)


def test_nobody_is_admitted_without_an_alias(
    pgbouncer: EmbeddedPgBouncer, postgres_server: EmbeddedPostgres
) -> None:
    dsn = pgbouncer.dsn("app", user="postgres", password=postgres_server.password)
    with pytest.raises(psycopg.OperationalError, match="no such database"):
        psycopg.connect(dsn)


def test_an_alias_admits_and_outlives_a_restart(
    pgbouncer: EmbeddedPgBouncer, postgres_server: EmbeddedPostgres
) -> None:
    postgres_server.create_role("an app", "p'w\\ord \"x")
    name = "behind"
    postgres_server.create_database(name, owner="an app")
    try:
        pgbouncer.alias_path.write_text(pgbouncer.alias_line("app", name))
        with psycopg.connect(pgbouncer.admin_dsn, autocommit=True) as console:
            psycopg.ClientCursor(console).execute("RELOAD")
        dsn = pgbouncer.dsn("app", user="an app", password="p'w\\ord \"x")
        for _ in range(2):
            with psycopg.connect(dsn, prepare_threshold=None) as connection:
                row = connection.execute("SELECT current_user, current_database()").fetchone()
            assert row == ("an app", name)
            pgbouncer.restart()
    finally:
        pgbouncer.close()
        postgres_server.drop_database(name)
        with psycopg.connect(postgres_server.dsn) as connection:
            connection.execute('DROP ROLE "an app"')


def test_a_missing_pgbouncer_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr("migration_job.embedded.PGBOUNCER_PLACES", ())
    with pytest.raises(InputError, match="not installed") as caught:
        find_pgbouncer()
    assert "apt-get install pgbouncer" in caught.value.advice
