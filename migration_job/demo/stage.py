"""A stage in small, as plain processes: PostgreSQL, PgBouncer where it is installed, the roles.

It has what a stage on Docker has: the job logs in as the owner of the database, not as a superuser;
the application has a role of its own with rights on rows alone; PgBouncer's alias admits nobody
until the switch; every secret is in a file with mode 0600.
"""

from __future__ import annotations

import secrets
import shutil
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg
from psycopg import sql

from migration_job.binaries import DEFAULT_MAJOR
from migration_job.connection import PostgresSide
from migration_job.embedded import EmbeddedPgBouncer, EmbeddedPostgres, find_pgbouncer
from migration_job.errors import InputError
from migration_job.pooler import Alias, Pooler

DATABASE = "radcase"
REHEARSAL = "rehearsal"
"""The name of a target that is filled from somebody's own file."""
OWNER = "migration"
APPLICATION = "radcase_app"
MARK = ".migration-job-demo"
"""In a directory that a demo made, and may therefore empty at the next."""

RIGHTS = """
ALTER SCHEMA public OWNER TO {owner};
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO {application};
ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {application};
ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA public
    GRANT USAGE, SELECT ON SEQUENCES TO {application};
-- To end the application's sessions when a rollback closes the target.
GRANT pg_signal_backend TO {owner};
-- On PostgreSQL 14 only a superuser may suppress triggers while changes are applied: one lends it.
CREATE SCHEMA privileges;
CREATE FUNCTION privileges.act_as_replica() RETURNS void
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$ SELECT set_config('session_replication_role', 'replica', false) $$;
REVOKE ALL ON FUNCTION privileges.act_as_replica() FROM PUBLIC;
GRANT USAGE ON SCHEMA privileges TO {owner};
GRANT EXECUTE ON FUNCTION privileges.act_as_replica() TO {owner};
"""


class DemoStage:
    """The servers of one demo; they end with the block. ``directory`` is the demo's own."""

    def __init__(
        self, directory: Path, *, major: int = DEFAULT_MAJOR, database: str = DATABASE
    ) -> None:
        self.directory = directory
        self.database = database
        """The target's name, and that of the application's alias."""
        self.connection = directory / "connection"
        self.report = directory / "report"
        self.target_file = directory / "secrets" / "target"
        self.console_file = directory / "secrets" / "console"
        self.without_pooler = ""
        """Why there is no PgBouncer; '' where there is one."""
        self._stack = ExitStack()
        self._major = major
        self._passwords = {name: secrets.token_urlsafe(24) for name in (OWNER, APPLICATION)}

    def __enter__(self) -> Self:
        with self._stack:
            self.server = self._stack.enter_context(EmbeddedPostgres(major=self._major))
            self._make_roles()
            self.bouncer = self._bouncer()
            self._write_secrets()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    @property
    def target(self) -> str:
        """The job's connection string to the target."""
        return self.server.dsn_for(self.database, user=OWNER, password=self._passwords[OWNER])

    @property
    def application_side(self) -> PostgresSide:
        """What the application is to connect to: PgBouncer, where there is one."""
        return PostgresSide(
            host="127.0.0.1",
            port=self.server.port if self.bouncer is None else self.bouncer.port,
            database=self.database,
            user=APPLICATION,
            password=self._passwords[APPLICATION],
        )

    @property
    def pooler(self) -> Pooler | None:
        """The application's alias, or None without PgBouncer."""
        if self.bouncer is None:
            return None
        alias = Alias(self.database, "127.0.0.1", self.server.port, self.database)
        return Pooler(self.bouncer.admin_dsn, self.bouncer.alias_path, alias)

    @property
    def server_version(self) -> str:
        """PostgreSQL's version as it says it, e.g. ``14.23``."""
        with psycopg.connect(self.server.dsn) as session:
            row = session.execute("SHOW server_version").fetchone()
        return str(row[0]).split()[0] if row else ""

    def _bouncer(self) -> EmbeddedPgBouncer | None:
        try:
            find_pgbouncer()
        except InputError as error:
            self.without_pooler = error.message
            return None
        return self._stack.enter_context(EmbeddedPgBouncer(self.server))

    def _make_roles(self) -> None:
        for name, password in self._passwords.items():
            self.server.create_role(name, password)
        self.server.create_database(self.database, owner=OWNER)
        names = {"owner": sql.Identifier(OWNER), "application": sql.Identifier(APPLICATION)}
        with psycopg.connect(self.server.dsn_for(self.database)) as session:
            session.execute(sql.SQL(RIGHTS).format(**names))

    def _write_secrets(self) -> None:
        write_secret(self.target_file, self.target)
        if self.bouncer is not None:
            write_secret(self.console_file, self.bouncer.admin_dsn)


def write_secret(path: Path, text: str) -> None:
    """Write a file that only its owner can read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(text)


def require_own(directory: Path) -> None:
    """Raises InputError where the directory holds anything that no demo made."""
    if directory.exists():
        if not directory.is_dir():
            raise InputError(
                f"expected a directory for the demo, found a file: {directory}",
                advice="give another with --directory",
            )
        if any(directory.iterdir()) and not (directory / MARK).exists():
            raise InputError(
                f"expected an empty directory or an earlier demo's, found other files in "
                f"{directory}",
                advice="give another with --directory",
            )


def fresh_directory(directory: Path) -> Path:
    """The demo's directory, empty: what an earlier demo left there goes.

    Raises InputError as :func:`require_own` does.
    """
    require_own(directory)
    if directory.exists():
        for entry in directory.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
    directory.mkdir(parents=True, exist_ok=True)
    (directory / MARK).touch()
    return directory
