"""PostgreSQL and PgBouncer as plain processes: for the demo, the tests and the benchmarks.

A real server of the pinned release with SCRAM, a loopback port and a socket, owned by this
process and ended with it, also when this process is killed. Both servers refuse to run as root;
root runs them as ``postgres``, or ``nobody`` where there is no such user.
"""

from __future__ import annotations

import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from migration_job.binaries import DEFAULT_MAJOR, advice_on, postgres_programs
from migration_job.errors import InputError, OperationError

START_SECONDS = 60.0
STOP_SECONDS = 30.0
POLL_SECONDS = 0.01

FAST_SETTINGS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
"""For tests and benchmarks only: a power cut may cost the whole database."""

LOCALE = "C.UTF-8" if os.uname().sysname == "Linux" else "C"
"""What letters are. Order is bytes' (``lc_collate`` C): it is SQLite's BINARY order, and indexes
on text are built in half the time."""

PGBOUNCER_PLACES = ("/usr/sbin", "/usr/local/sbin", "/usr/local/bin", "/opt/homebrew/bin")

# Ends the server when this process is gone: its standard input is a pipe that only this process
# holds open. A parent-death signal would also fire when the *thread* that started it ends.
_WATCH = """
cat >/dev/null
pid=$(head -n 1 "$1" 2>/dev/null) && [ -n "$pid" ] || pid=
[ -z "$pid" ] || kill -INT "$pid" 2>/dev/null
while [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
[ -z "$2" ] || rm -rf "$2"
"""


class _Server:
    """One child process under another user where this one is root, and its watcher."""

    def __init__(self, directory: Path | None, prefix: str) -> None:
        self._owner = _unprivileged()
        self._temporary = directory is None
        if directory is None:
            # Not $TMPDIR: a socket's path may have 107 bytes, and macOS's default is long.
            directory = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory.resolve()
        self._give(self.directory)
        self.log_path = self.directory / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether the process of the last ``start()`` is alive."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The server's process id. Raises OperationError where it does not run."""
        if self._process is None or self._process.poll() is not None:
            raise OperationError("the embedded server is not running")
        return self._process.pid

    def log_tail(self, lines: int = 15) -> str:
        """The last lines of the server's log, for an error message."""
        if not self.log_path.exists():
            return ""
        text = self.log_path.read_text(errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def _give(self, path: Path) -> None:
        """Make the server's user the owner of a file or directory of ours."""
        if self._owner is not None:
            os.chown(path, self._owner.pw_uid, self._owner.pw_gid)

    def _spawn(
        self, command: list[str], *, stdin: int = subprocess.DEVNULL, log: bool = True
    ) -> subprocess.Popen[bytes]:
        """A child in a session of its own, so that a terminal's Ctrl-C reaches only us."""
        owner = self._owner
        output = self.log_path.open("ab") if log else None
        try:
            return subprocess.Popen(  # noqa: S603
                command,
                stdin=stdin,
                stdout=output or subprocess.DEVNULL,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
                start_new_session=True,
                user=None if owner is None else owner.pw_uid,
                group=None if owner is None else owner.pw_gid,
                extra_groups=None if owner is None else [],
            )
        except PermissionError as error:
            raise OperationError(
                f"{command[0]} cannot be run in {self.directory}: {error.strerror}",
                advice="choose a directory that other users may enter, such as one below /tmp",
            ) from error
        finally:
            if output is not None:
                self._give(self.log_path)
                output.close()

    def _watch(self, pid_file: Path) -> None:
        if self._watcher is None or self._watcher.poll() is not None:
            remove = str(self.directory) if self._temporary else ""
            command = ["/bin/sh", "-c", _WATCH, "watch", str(pid_file), remove]
            self._watcher = self._spawn(command, stdin=subprocess.PIPE, log=False)

    def _unwatch(self) -> None:
        if self._watcher is not None:
            self._watcher.kill()
            self._watcher.wait()
            if self._watcher.stdin is not None:
                self._watcher.stdin.close()
            self._watcher = None

    def _discard(self) -> None:
        self._unwatch()
        if self._temporary:
            shutil.rmtree(self.directory, ignore_errors=True)


class _Managed(_Server, ABC):
    """A server that runs while its ``with`` block does."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @abstractmethod
    def start(self) -> None:
        """Start the server, and return when it takes connections."""

    @abstractmethod
    def close(self) -> None:
        """Stop, and remove the directory where it is a temporary one."""


class EmbeddedPostgres(_Managed):
    """A PostgreSQL server of this process's own.

    ``directory`` holds the data, the log and the socket; without it a temporary one is made and
    removed at the end. A directory that already holds a cluster is taken up again with its
    password. ``fast`` gives up durability (tests, benchmarks). ``settings`` are postgresql.conf's.
    The constructor touches nothing but the directory; :meth:`start` does the work.

    >>> with EmbeddedPostgres() as server:      # doctest: +SKIP
    ...     dsn = server.create_database("radcase")
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        major: int = DEFAULT_MAJOR,
        fast: bool = False,
        settings: Mapping[str, str] | None = None,
        port: int | None = None,
    ) -> None:
        super().__init__(directory, f"postgresql-{major}-")
        self.major = major
        self.superuser = "postgres"
        self.data_dir = self.directory / "data"
        self._settings = {**(FAST_SETTINGS if fast else {}), **(settings or {})}
        self._wanted_port = port
        self.port = port or 0
        self._programs: Path | None = None
        secret = self.directory / "superuser-password"
        if not secret.exists():
            secret.touch(mode=0o600)
            secret.write_text(secrets.token_urlsafe(24))
            self._give(secret)
        self.password = secret.read_text()
        self._secret = secret

    # ------------------------------------------------------------------------ running

    def start(self) -> None:
        """Make the cluster where there is none, start it, and return when it takes connections.

        Raises OperationError with the log's last lines where it does not come up.
        """
        if self.running:
            return
        self._programs = self._programs or postgres_programs(self.major)
        if not (self.data_dir / "PG_VERSION").exists():
            self._initialise()
        deadline = time.monotonic() + START_SECONDS
        while True:
            self.port = self._wanted_port or self.port or free_port()
            if self._came_up(deadline):
                return
            # A server killed a moment ago may still have a child on the shared memory; a free
            # port may be taken between our look and the server's. Both pass.
            log = self.log_tail()
            transient = "pre-existing shared memory" in log
            if "Address already in use" in log and not self._wanted_port:
                self.port, transient = 0, True
            if not transient or time.monotonic() > deadline:
                raise OperationError(
                    f"PostgreSQL {self.major} did not start in {self.directory}; its log ends:\n"
                    f"{log}"
                )
            self.log_path.unlink(missing_ok=True)

    def _came_up(self, deadline: float) -> bool:
        (self.data_dir / "postmaster.pid").unlink(missing_ok=True)
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.directory),
            **self._settings,
        }
        command = [str(self.program("postgres")), "-D", str(self.data_dir)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        self._process = self._spawn(command)
        self._watch(self.data_dir / "postmaster.pid")
        while self._process.poll() is None:
            if self._ready():
                return True
            if time.monotonic() > deadline:
                self.kill()
                return False
            time.sleep(POLL_SECONDS)
        return False

    def _ready(self) -> bool:
        """PostgreSQL's own word: the status line of ``postmaster.pid``."""
        try:
            lines = (self.data_dir / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) >= 8 and lines[7].strip() == "ready"

    def stop(self, *, immediate: bool = False) -> None:
        """Shut down: sessions are ended (fast), or as after a crash (``immediate``)."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGQUIT if immediate else signal.SIGINT)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def kill(self) -> None:
        """SIGKILL the server and every child of it, as the kernel or a power cut would."""
        if self._process is None or self._process.poll() is not None:
            return
        postmaster = self._process.pid
        os.kill(postmaster, signal.SIGSTOP)  # so that it starts no further child
        for child in _children(postmaster):
            _signal(child, signal.SIGKILL)
        os.kill(postmaster, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def restart(self) -> None:
        """Stop fast and start again on the same port."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop, and remove the directory where it is a temporary one."""
        self.stop(immediate=self._temporary)
        self._discard()

    # ------------------------------------------------------------------------- using

    def program(self, name: str) -> Path:
        """The path of one of PostgreSQL's programs: ``psql``, ``pg_dump``, ``pg_ctl``."""
        if self._programs is None:
            self._programs = postgres_programs(self.major)
        return self._programs / name

    @property
    def dsn(self) -> str:
        """The superuser's connection string, to database ``postgres``."""
        return self.dsn_for("postgres")

    def dsn_for(
        self, database: str, *, user: str | None = None, password: str | None = None
    ) -> str:
        """A libpq connection string (key=value, quoted as needed) over the loopback port."""
        return make_conninfo(
            host="127.0.0.1",
            port=self.port,
            dbname=database,
            user=user or self.superuser,
            password=self.password if user is None else password,
        )

    def create_database(
        self, name: str | None = None, *, owner: str | None = None, template: str = "template0"
    ) -> str:
        """Make an empty database and return the superuser's connection string to it."""
        name = name or f"db_{secrets.token_hex(6)}"
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
            sql.Identifier(name), sql.Identifier(template)
        )
        if owner is not None:
            statement += sql.SQL(" OWNER {}").format(sql.Identifier(owner))
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(statement)
        return self.dsn_for(name)

    def drop_database(self, name: str) -> None:
        """Remove a database, ending the sessions in it; no error where there is none."""
        statement = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(statement)

    def create_role(self, name: str, password: str, *, options: str = "LOGIN") -> None:
        """Make a role with a SCRAM password; ``options`` are CREATE ROLE's own words."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            # CREATE ROLE takes no parameters; the password goes as a literal, escaped by libpq.
            connection.execute(
                sql.SQL("CREATE ROLE {} WITH {} PASSWORD {}").format(
                    sql.Identifier(name),
                    sql.SQL(options),
                    sql.Literal(password),
                )
            )

    def _initialise(self) -> None:
        shutil.rmtree(self.data_dir, ignore_errors=True)  # half a cluster is none
        command = [
            *(str(self.program("initdb")), "-D", str(self.data_dir)),
            *("--username", self.superuser, "--pwfile", str(self._secret)),
            *("--auth=scram-sha-256", "--encoding=UTF8", f"--locale={LOCALE}"),
            "--lc-collate=C",
        ]
        if self._settings.get("fsync") == "off":
            command.append("--no-sync")
        status = self._spawn(command).wait()
        if status != 0:
            shutil.rmtree(self.data_dir, ignore_errors=True)
            raise OperationError(
                f"initdb failed with status {status} in {self.directory}; its log ends:\n"
                f"{self.log_tail()}",
                advice=advice_on(self.log_tail()),
            )


class EmbeddedPgBouncer(_Managed):
    """PgBouncer in front of an :class:`EmbeddedPostgres`, with its databases in an alias file.

    ``alias_path`` is included at the end of ``[databases]`` and starts empty, so that nobody is
    admitted until somebody writes an alias there (one line, as pgbouncer.ini has it) and sends
    RELOAD on the admin console (:attr:`admin_dsn`). Users are looked up in PostgreSQL by
    ``auth_query``; only the console's user is in the userlist.
    """

    def __init__(
        self,
        postgres: EmbeddedPostgres,
        directory: Path | None = None,
        *,
        settings: Mapping[str, str] | None = None,
        port: int | None = None,
    ) -> None:
        self.program_path = find_pgbouncer()
        super().__init__(directory, "pgbouncer-")
        self.postgres = postgres
        self.version = pgbouncer_version(self.program_path)
        self.port = port or free_port()
        self.admin_user = "pgbouncer_admin"
        self.admin_password = secrets.token_urlsafe(24)
        self.config_path = self.directory / "pgbouncer.ini"
        self.alias_path = self.directory / "aliases.ini"
        self._userlist = self.directory / "userlist.txt"
        self._pid_file = self.directory / "pgbouncer.pid"
        self._settings = dict(settings or {})

    def start(self) -> None:
        """Render the configuration, start, and return when the admin console answers."""
        if self.running:
            return
        self._write(self._userlist, self._users())
        if not self.alias_path.exists():
            self._write(self.alias_path, "")
        self._write(self.config_path, self.config())
        self._pid_file.unlink(missing_ok=True)
        self._process = self._spawn([str(self.program_path), str(self.config_path)])
        self._watch(self._pid_file)
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise OperationError(
                    f"PgBouncer did not start in {self.directory}; its log ends:\n{self.log_tail()}"
                )
            time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """Shut down at once (SIGTERM), ending the clients."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Stop and start again on the same port; the aliases stay as they are."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop, and remove the directory where it is a temporary one."""
        self.stop()
        self._discard()

    @property
    def admin_dsn(self) -> str:
        """The admin console's connection string (autocommit, simple protocol only)."""
        return make_conninfo(
            host="127.0.0.1",
            port=self.port,
            dbname="pgbouncer",
            user=self.admin_user,
            password=self.admin_password,
        )

    def dsn(self, alias: str, *, user: str, password: str) -> str:
        """An application's connection string through the pooler."""
        return make_conninfo(
            host="127.0.0.1", port=self.port, dbname=alias, user=user, password=password
        )

    def alias_line(self, alias: str, database: str) -> str:
        """The line for the alias file that sends ``alias`` to ``database`` on the server."""
        return f"{alias} = host=127.0.0.1 port={self.postgres.port} dbname={database}\n"

    def config(self) -> str:
        """pgbouncer.ini, as :meth:`start` writes it."""
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": str(self.port),
            "unix_socket_dir": "",
            "auth_type": "scram-sha-256",
            "auth_file": str(self._userlist),
            "auth_user": self.postgres.superuser,
            "auth_dbname": "postgres",
            "auth_query": "SELECT rolname, rolpassword FROM pg_catalog.pg_authid "
            "WHERE rolname = $1 AND rolcanlogin",
            "admin_users": self.admin_user,
            "pidfile": str(self._pid_file),
            "pool_mode": "transaction",
            "max_client_conn": "500",
            "default_pool_size": "20",
            "min_pool_size": "2",
            "server_login_retry": "0.2",
            "server_idle_timeout": "30",
            "server_connect_timeout": "2",
            "ignore_startup_parameters": "extra_float_digits,options",
            "log_connections": "0",
            "log_disconnections": "0",
        }
        if self.version >= (1, 21):
            settings["max_prepared_statements"] = "200"
        if self.version < (1, 19):
            del settings["auth_dbname"]  # older ones ask the database that the alias names
        settings |= self._settings
        lines = ["[databases]", f"%include {self.alias_path}", "", "[pgbouncer]"]
        return "\n".join([*lines, *(f"{k} = {v}" for k, v in settings.items()), ""])

    def _users(self) -> str:
        users = {
            self.admin_user: self.admin_password,
            self.postgres.superuser: self.postgres.password,
        }
        return "".join(f'"{name}" "{password}"\n' for name, password in users.items())

    def _write(self, path: Path, text: str) -> None:
        path.touch(mode=0o600)
        path.write_text(text)
        self._give(path)

    def _answers(self) -> bool:
        try:
            with psycopg.connect(self.admin_dsn, autocommit=True, connect_timeout=2) as console:
                # The console speaks the simple protocol, and psycopg uses it for ClientCursor.
                psycopg.ClientCursor(console).execute("SHOW VERSION")
        except psycopg.Error:
            return False
        return True


# ------------------------------------------------------------------------------- the machine


def find_pgbouncer() -> Path:
    """The program's path. Raises InputError, with what to install, where there is none."""
    places = os.pathsep.join([os.environ.get("PATH", ""), *PGBOUNCER_PLACES])
    found = shutil.which("pgbouncer", path=places)
    if found is None:
        raise InputError(
            "PgBouncer is not installed on this machine",
            advice="install it (Debian and Ubuntu: apt-get install pgbouncer; macOS: brew install "
            "pgbouncer) and run the command again",
        )
    return Path(found)


def pgbouncer_version(program: Path) -> tuple[int, int]:
    """Major and minor version, e.g. ``(1, 24)``."""
    words = subprocess.run(  # noqa: S603
        [program, "--version"], capture_output=True, text=True, check=False, timeout=30
    ).stdout
    match = re.search(r"PgBouncer (\d+)\.(\d+)", words)
    if match is None:
        raise InputError(f"expected PgBouncer at {program}, found a program that says: {words!r}")
    return int(match[1]), int(match[2])


def free_port() -> int:
    """A loopback port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _unprivileged() -> pwd.struct_passwd | None:
    """The user to run servers as, or None where this process's own user will do."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise InputError(
        "PostgreSQL refuses to run as root, and there is no user postgres or nobody",
        advice="run the command as an ordinary user, or make one: useradd --system postgres",
    )


def _children(parent: int) -> list[int]:
    """The process ids of the direct children of ``parent``."""
    listing = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid="],  # noqa: S607
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    pairs = (line.split() for line in listing.splitlines())
    return [int(pid) for pid, ppid in pairs if int(ppid) == parent]


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
