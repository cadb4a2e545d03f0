"""A stage in small that can be put back to a prepared state within a fraction of a second.

Its parts are processes that can be killed: PostgreSQL, PgBouncer, job, sync, application.

The job and the application run as processes forked from one that has imported them already, since
starting Python takes longer than most of the faults that are tried here.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg import sql

from migration_job.embedded import EmbeddedPgBouncer, EmbeddedPostgres
from tests.servers import MAJOR

DATABASE, OWNER, APPLICATION = "live", "migration", "app"
PASSWORD = "secret"

SETTINGS = {"fsync": "off", "full_page_writes": "off", "max_connections": "60"}
"""No fsync: what is killed here are processes, never the machine. Commits stay synchronous, or a
killed PostgreSQL would forget some."""

AS_REPLICA = """
CREATE SCHEMA privileges;
CREATE FUNCTION privileges.act_as_replica() RETURNS void LANGUAGE sql SECURITY DEFINER
    SET search_path = pg_catalog
    AS $$ SELECT set_config('session_replication_role', 'replica', false) $$;
GRANT USAGE ON SCHEMA privileges TO {owner};
GRANT EXECUTE ON FUNCTION privileges.act_as_replica() TO {owner};
"""
"""What a stage has, so that the job need not be a superuser on PostgreSQL 14."""

RECOVERY_SECONDS = float(os.environ.get("FAULTS_SECONDS", "5"))
"""What is granted to `sync` to finish or undo what a dead job has left."""

WAIT_SECONDS = 60.0

forks = multiprocessing.get_context("forkserver")
forks.set_forkserver_preload(
    [
        "migration_job.cli",
        *(f"migration_job.commands.{name}" for name in ("migrate", "switch", "rollback", "sync")),
        "example_app.__main__",
    ]
)


def _run(module: str, arguments: list[str], environment: Mapping[str, str], log: str) -> None:
    """In the forked process: the program's own entry point, its output in a file."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for number in (1, 2):
        os.dup2(descriptor, number)
    os.environ.update(environment)
    sys.argv = [module, *arguments]
    if module == "migration_job":
        from migration_job import cli

        cli.main()
    else:
        from example_app import __main__ as example

        example.main()


class Program:
    """One forked process."""

    def __init__(
        self, module: str, arguments: list[str], log: Path, environment: Mapping[str, str]
    ) -> None:
        self.log = log
        log.touch()
        self._skip = log.stat().st_size
        self._process: BaseProcess = forks.Process(
            target=_run, args=(module, arguments, dict(environment), str(log)), daemon=True
        )
        self._process.start()

    @property
    def output(self) -> str:
        """What it has printed."""
        return self.log.read_text(errors="replace")[self._skip :]

    @property
    def ended(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self._process.exitcode

    def wait(self, seconds: float = WAIT_SECONDS) -> int:
        """Wait for its end; the exit status."""
        self._process.join(seconds)
        if self._process.exitcode is None:
            self.kill()
            raise TimeoutError(f"still running after {seconds} s; it said:\n{self.output}")
        return self._process.exitcode

    def stands_still(self) -> bool:
        """Whether it has stopped itself (SIGSTOP)."""
        try:
            status = Path(f"/proc/{self._process.pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):  # it ends in this moment
            return False
        return status.rpartition(")")[2].split()[0] == "T"

    def send(self, number: signal.Signals) -> None:
        """A signal, where it still runs."""
        if self._process.exitcode is None and self._process.pid is not None:
            os.kill(self._process.pid, number)

    def kill(self) -> None:
        """SIGKILL, and its end waited for."""
        self._process.kill()
        self._process.join()

    def end(self) -> int:
        """SIGTERM, and its end waited for."""
        self._process.terminate()
        return self.wait()


def until(
    condition: Callable[[], bool], what: str, seconds: float = WAIT_SECONDS, poll: float = 0.005
) -> None:
    """Wait for a condition. Raises TimeoutError, saying for what."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds} s for {what}")
        time.sleep(poll)


class LiveStage:
    """The servers, for many runs; :meth:`restore` begins a run."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.live = directory / "live"
        self.source = self.live / "app.db"
        self.connection = self.live / "connection"
        self.logs = self.live / "logs"
        self.journal = "wal"
        """In which journal mode of SQLite's the application keeps its file."""
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with self._stack:
            self.postgres = self._stack.enter_context(
                EmbeddedPostgres(major=MAJOR, settings=SETTINGS)
            )
            for role in (OWNER, APPLICATION):
                self.postgres.create_role(role, PASSWORD)
            self._admin(sql.SQL("GRANT pg_signal_backend TO {}").format(sql.Identifier(OWNER)))
            self.bouncer = self._stack.enter_context(EmbeddedPgBouncer(self.postgres))
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    # ------------------------------------------------------------------------- programs

    @property
    def target(self) -> str:
        """The job's connection string to the target."""
        return self.postgres.dsn_for(DATABASE, user=OWNER, password=PASSWORD)

    def application_dsn(self) -> str:
        """The application's, past PgBouncer, straight to PostgreSQL."""
        return self.postgres.dsn_for(DATABASE, user=APPLICATION, password=PASSWORD)

    def superuser_dsn(self) -> str:
        """The superuser's, to the target."""
        return self.postgres.dsn_for(DATABASE)

    def start_job(
        self, command: str, *options: str, fault: str = "", log: str | None = None
    ) -> Program:
        """``migration-job COMMAND`` with the options that an operator gives it."""
        arguments = [command, str(self.source), "--target", self.target]
        arguments += ["--report", str(self.live / "report"), "--state", str(self.live / "state")]
        if command != "migrate":
            arguments += ["--connection", str(self.connection)]
            arguments += ["--connect-to", str(self.live / "application.json")]
            arguments += ["--pooler", self.bouncer.admin_dsn]
            arguments += ["--alias-file", str(self.bouncer.alias_path)]
        environment = {"MIGRATION_FAULT": fault}
        path = self.logs / f"{log or command}.log"
        return Program("migration_job", [*arguments, *options], path, environment)

    def run_job(self, command: str, *options: str) -> str:
        """The same, to its end, which has to be a good one; its output."""
        program = self.start_job(command, *options)
        status = program.wait()
        if status != 0:
            raise AssertionError(
                f"{command} ended with {status}:\n{program.output}\n"
                f"PgBouncer's log ends:\n{self.bouncer.log_tail()}"
            )
        return program.output

    def start_application(self, *options: str) -> tuple[Program, str]:
        """The example application, and its address."""
        arguments = ["--sqlite", str(self.source), "--connection", str(self.connection)]
        arguments += ["--port", "0", *options]
        environment = {"EXAMPLE_JOURNAL_MODE": self.journal}
        program = Program("example_app", arguments, self.logs / "application.log", environment)
        until(lambda: "listening on" in program.output, "the application")
        address = program.output.partition("listening on ")[2].split()[0]
        return program, f"http://{address}"

    # ------------------------------------------------------------------- prepared states

    def begin(self) -> None:
        """An empty target, and an empty directory with what the commands are given."""
        self.postgres.start()
        shutil.rmtree(self.live, ignore_errors=True)
        self.logs.mkdir(parents=True)
        self.empty_target()
        told = {"host": "127.0.0.1", "port": self.bouncer.port, "database": DATABASE}
        told |= {"user": APPLICATION, "password": PASSWORD}
        (self.live / "application.json").write_text(json.dumps(told))
        self._restart_bouncer("")

    def empty_target(self) -> None:
        """A target that holds nothing, with the application's rights."""
        self._replace_database("template0")
        with psycopg.connect(self.postgres.dsn_for(DATABASE), autocommit=True) as session:
            session.execute(f"ALTER SCHEMA public OWNER TO {OWNER}".encode())
            session.execute(f"GRANT USAGE ON SCHEMA public TO {APPLICATION}".encode())
            for rights, things in (("ALL", "TABLES"), ("ALL", "SEQUENCES")):
                session.execute(
                    f"ALTER DEFAULT PRIVILEGES FOR ROLE {OWNER} IN SCHEMA public "
                    f"GRANT {rights} ON {things} TO {APPLICATION}".encode()
                )
            session.execute(AS_REPLICA.format(owner=OWNER).encode())

    def keep(self, name: str) -> None:
        """Remember the present state under a name; nothing may be running on it."""
        checkpoint = sqlite3.connect(self.source)
        checkpoint.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        checkpoint.close()
        kept = self.directory / name
        shutil.copytree(self.live, kept, symlinks=True)
        (kept / "alias").write_text(self.bouncer.alias_path.read_text())
        self.bouncer.kill()  # and with it its sessions, since no database in use can be copied
        self._copy(f"kept_{name}", DATABASE)
        self.bouncer.start()

    def restore(self, name: str) -> None:
        """Put everything back to a state that was kept."""
        self.postgres.start()
        shutil.rmtree(self.live, ignore_errors=True)
        shutil.copytree(self.directory / name, self.live, symlinks=True)
        self.bouncer.kill()
        self._replace_database(f"kept_{name}")
        self._restart_bouncer((self.live / "alias").read_text())

    def _restart_bouncer(self, alias: str) -> None:
        self.bouncer.kill()
        self.bouncer.alias_path.write_text(alias)
        self.bouncer.start()

    def _replace_database(self, template: str) -> None:
        self._drop(DATABASE)
        self._copy(DATABASE, template)

    def _drop(self, name: str) -> None:
        self._admin(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def _copy(self, name: str, template: str) -> None:
        self._admin(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {}").format(
                sql.Identifier(name), sql.Identifier(template), sql.Identifier(OWNER)
            )
        )

    def _admin(self, statement: sql.Composed) -> None:
        def attempt() -> bool:
            try:
                with psycopg.connect(self.postgres.dsn, autocommit=True) as session:
                    session.execute(statement)
            except psycopg.errors.ObjectInUse:  # a session that is just ending
                return False
            return True

        until(attempt, "a database that nobody uses")

    def remember_target(self) -> None:
        """Keep all of the server's files as they are, for :meth:`forget_target`."""
        self.postgres.kill()
        shutil.rmtree(self._remembered, ignore_errors=True)
        # With its owner, who is not this process's where that is root's.
        subprocess.run(
            ["cp", "-a", str(self.postgres.data_dir), str(self._remembered)],
            check=True,
        )
        self.postgres.start()

    def forget_target(self) -> None:
        """The server is put back to that, as by a failover to a standby that got nothing since, or
        by an old copy; it does not run then."""
        self.postgres.kill()
        shutil.rmtree(self.postgres.data_dir)
        self._remembered.rename(self.postgres.data_dir)

    @property
    def _remembered(self) -> Path:
        return self.postgres.data_dir.with_name("remembered")

    # ------------------------------------------------------------------------- looking

    def named(self) -> dict[str, Any]:
        """What ``database.json`` says."""
        content: dict[str, Any] = json.loads((self.connection / "database.json").read_text())
        return content

    def query_target(self, query: str) -> list[tuple[Any, ...]]:
        """Rows, as the superuser."""
        with psycopg.connect(self.superuser_dsn(), autocommit=True) as session:
            return session.execute(query.encode()).fetchall()

    def query_source(self, query: str) -> list[tuple[Any, ...]]:
        """Rows, read-only."""
        connection = sqlite3.connect(f"{self.source.as_uri()}?mode=ro", uri=True)
        try:
            return connection.execute(query).fetchall()
        finally:
            connection.close()
