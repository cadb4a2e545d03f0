"""PgBouncer's admin console and the alias file.

The alias is the database name that the application uses. It is admitted while its line stands in
the alias file and PgBouncer has read that file; without it nobody gets in, also after a restart.

The file may hold the aliases of other runs too (``shared``), each in a line of its own: then only
this one's line is replaced, and what is done to PgBouncer concerns this alias alone.

PAUSE has two traps (pgbouncer#715, #369): a RESUME leaves a PAUSE that is still waiting hanging
for ever, and PAUSE waits for open transactions without a limit. So PAUSE has a session of its own,
each command a time limit, and the code that pauses resumes on every exit.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from migration_job.deadline import time_limit
from migration_job.durable import write_durably
from migration_job.errors import InputError, OperationError
from migration_job.quoting import compose, postgres_name

COMMAND_SECONDS = 5.0
"""For commands that PgBouncer answers at once; a console that does not is as good as down."""

POLL_SECONDS = 0.02

LOGIN_SECONDS = 1.0
"""How long logins under way may take to end before the alias is taken away all the same."""

SERVER_LOGIN_SECONDS = 3.0
"""How long PgBouncer's own login to PostgreSQL is waited for before a PAUSE: nobody is held yet."""

LOOKUPS = 2
"""Sessions by which PgBouncer looks passwords up on a server that an alias leads that to."""

_ALIAS = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class Alias:
    """One line of ``[databases]``: the application's name for the database, and where it is."""

    name: str
    host: str
    port: int
    database: str
    pool_size: int | None = None
    beside: str | None = None
    """The entry by which PgBouncer looks passwords up, led to the same server; None where it is
    as pgbouncer.ini has it."""
    shared: bool = False
    """Whether the file holds other runs' aliases beside this one."""
    schema: str | None = None
    """That PgBouncer is to set as the search_path of its server connections; None for none."""

    def __post_init__(self) -> None:
        if not _ALIAS.fullmatch(self.name) or self.name == "pgbouncer":
            raise InputError(
                f"expected an alias of letters, digits, '_', '.' and '-', found {self.name!r}",
                advice="choose another database name for the application",
            )

    @property
    def quoted(self) -> str:
        """The name as the console's commands take it: without quotation marks they know letters,
        digits and '_' alone."""
        return f'"{self.name}"'

    def line(self) -> str:
        """The alias as pgbouncer.ini has it, without a password: clients bring their own."""
        terms = [
            f"host={_value(self.host)}",
            f"port={self.port}",
            f"dbname={_value(self.database)}",
        ]
        if self.pool_size is not None:
            terms.append(f"pool_size={self.pool_size}")
        if self.schema is not None:
            path = compose("SET search_path TO {schema}", schema=postgres_name(self.schema))
            terms.append(f"connect_query={_value(path)}")
        return f"{self._lookup()}{self.name} = {' '.join(terms)}\n"

    def _lookup(self) -> str:
        """The other entry again: the file is included last, and the last one holds."""
        if self.beside is None:
            return ""
        at = f"host={_value(self.host)} port={self.port} dbname={_value(self.beside)}"
        return f"{self.beside} = {at} pool_size={LOOKUPS}\n"


class Console:
    """PgBouncer's admin console; ``dsn`` is its connection string."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._session: psycopg.Connection | None = None

    def run(
        self,
        command: str,
        *,
        limit: float = COMMAND_SECONDS,
        tolerate: tuple[str, ...] = (),
        apart: bool = False,
    ) -> list[dict[str, Any]]:
        """One command; its rows by column name. With ``apart`` in a session of its own, else in one
        that is kept: a login costs more than the command, and at a switch writers wait for it."""
        kept, self._session = self._session, None
        if kept is not None and not apart:
            try:
                rows = _ask(kept, command, limit)
            except psycopg.Error:
                kept.close()  # PgBouncer may have been restarted since: asked again
            else:
                self._session = kept
                return rows
        console = self._log_in()
        try:
            rows = _ask(console, command, limit)
        except psycopg.Error as error:
            console.close()
            if any(words in str(error) for words in tolerate):
                return []
            raise OperationError(
                f"PgBouncer failed to {command.split()[0]} within {limit:g} s: {_first_line(error)}"
            ) from None
        if apart:
            console.close()
            self._session = kept
        else:
            self._session = console
        return rows

    def _log_in(self) -> psycopg.Connection:
        try:
            return psycopg.connect(self._dsn, autocommit=True, connect_timeout=int(COMMAND_SECONDS))
        except psycopg.Error as error:
            raise OperationError(
                f"PgBouncer's admin console does not answer: {_first_line(error)}",
                advice="check that PgBouncer runs, and the console's address, user and password",
            ) from None

    def close(self) -> None:
        """End the kept session; the next question opens another."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def __del__(self) -> None:
        self.close()


class Pooler:
    """One alias of one PgBouncer. ``console`` is the connection string of its admin console."""

    def __init__(self, console: str, alias_file: Path, alias: Alias) -> None:
        self.given = alias
        self.alias = alias
        """As the file is to have it; another server than in ``given`` after an upgrade."""
        self._console = Console(console)
        self._alias_file = alias_file
        self._pools_left = False
        """Whether ``min_pool_size`` was set to 0 for a PAUSE."""

    # ------------------------------------------------------------------------ the alias

    def open_alias(self, *, limit: float = 30.0) -> None:
        """Admit the application: write the alias, have it read, end any PAUSE.

        PgBouncer may be down for a moment: asked again until ``limit`` seconds are over. The file
        stands in any case, and PgBouncer reads it when it starts. Raises OperationError.
        """
        self._write(self.alias.line())
        if self.alias.shared:  # what was cut off while it closed the alias may have disabled it
            with contextlib.suppress(OperationError):
                self._console.run(f"ENABLE {self.alias.quoted}", tolerate=("no such database",))
        self._reload_until(lambda shown: shown is not None and not shown["paused"], limit)

    def close_alias(self, *, limit: float = 30.0) -> None:
        """Admit nobody: take the alias away. Clients that are connected, and those that PAUSE
        holds, are told "database removed" and disconnected. Raises OperationError."""
        self._write("")
        # A console that does not answer now is asked again below.
        with contextlib.suppress(OperationError):
            self._end_logins()
        self._reload_until(lambda shown: shown is None, limit)

    def is_open(self) -> bool:
        """Whether the alias is written, read and not paused. Raises OperationError where the
        console does not answer."""
        shown = self._shown()
        return self._written() == self.alias.line() and shown is not None and not shown["paused"]

    def leads_here(self) -> bool:
        """Whether PgBouncer sends the alias to this one's server. Raises OperationError where the
        console does not answer."""
        shown = self._shown()
        wanted = (self.alias.host, self.alias.port, self.alias.database)
        return shown is not None and wanted == (
            shown["host"],
            int(shown["port"]),
            shown["database"],
        )

    def is_paused(self) -> bool:
        """Whether the alias is known and paused. Raises OperationError where the console does not
        answer."""
        shown = self._shown()
        return shown is not None and bool(shown["paused"])

    def is_closed(self) -> bool:
        """Whether the alias is neither written nor known. Raises OperationError."""
        return not self._written() and self._shown() is None

    def require_path_kept(self) -> None:
        """Raises InputError where PgBouncer would not keep the ``search_path`` that it sets for the
        alias, OperationError where its console does not answer."""
        if self.alias.schema is None:
            return
        said = {str(row["key"]): str(row["value"]) for row in self._console.run("SHOW CONFIG")}
        reset = said.get("server_reset_query", "").strip()
        always = said.get("server_reset_query_always", "0") in ("1", "yes")
        if reset and (said.get("pool_mode") == "session" or always):
            raise InputError(
                "expected a PgBouncer that keeps an alias's search_path, found that it runs "
                f"{reset!r} when a client leaves its server connection",
                advice="set pool_mode = transaction without server_reset_query_always; or give "
                "each tenant a role with a search_path of its own, and the manifest's `live` "
                "search_path: role",
            )

    def close(self) -> None:
        """End the session at the console; the next question opens another."""
        self._console.close()

    def version(self) -> str:
        """What the console answers to SHOW VERSION. Raises OperationError where it is down."""
        return str(self._console.run("SHOW VERSION")[0].popitem()[1])

    # ---------------------------------------------------------------------- PAUSE, RESUME

    @contextlib.contextmanager
    def paused(self, *, limit: float) -> Iterator[None]:
        """Hold the application's queries: open transactions end first, for ``limit`` seconds at
        most. The way out of the block resumes, however it is left; a caller that has removed the
        alias in the block has nothing left to resume."""
        try:
            self.pause(limit=limit)
            yield
        finally:
            self.resume()

    def pause(self, *, limit: float) -> None:
        """PAUSE, or OperationError (and no PAUSE left behind) after ``limit`` seconds."""
        shown = self._shown()
        if shown is None:
            return
        if shown["paused"]:
            # Somebody's who died; it may be waiting still, so it is not to be relied on.
            self.resume()
        self._leave_pools()
        self._await_servers()
        try:
            self._console.run(f"PAUSE {self.alias.quoted}", limit=limit, apart=True)
        except OperationError as error:
            self.resume()
            raise OperationError(
                f"PgBouncer could not hold the application's queries within {limit:g} s: "
                f"{error.message}; open transactions: {self._busy()}",
                advice="the application is served as before; end the long transactions "
                "(SHOW CLIENTS on PgBouncer's console names them) and run the command again",
            ) from error

    def resume(self) -> None:
        """RESUME where there is something to resume. Raises OperationError where PgBouncer does not
        answer (one that restarts has forgotten the PAUSE)."""
        shown = self._shown()
        paused = shown is not None and bool(shown["paused"])
        if paused:
            self._console.run(
                f"RESUME {self.alias.quoted}", tolerate=("not paused", "no such database")
            )
        if paused or self._pools_left:
            # The application is served again; pools that stay small are no reason to stop.
            with contextlib.suppress(OperationError):
                self._console.run("RELOAD")
                self._pools_left = False

    def least_servers(self) -> int:
        """``min_pool_size`` as it is now. Raises OperationError where the console does not
        answer."""
        rows = self._console.run("SHOW CONFIG")
        return next(int(row["value"]) for row in rows if row["key"] == "min_pool_size")

    def reconnect(self) -> None:
        """Have server sessions replaced as they come free, so that none runs a cached plan from
        before a change of type."""
        self._console.run(f"RECONNECT {self.alias.quoted}", tolerate=("no such database",))

    # ---------------------------------------------------------------------------- within

    def _end_logins(self) -> None:
        """Have nobody in the middle of a login when PgBouncer drops the database: it closes those
        who are logged in, forgets the others, and crashes when one of them goes on (seen with 1.18;
        kill_pool() is the same in 1.25; pgbouncer#1401).

        With no client more allowed, new ones are refused before they are given the database, and
        those under way soon end. The next RELOAD sets the limit back to the file's.
        """
        if self._shown() is None:
            return
        if self.alias.shared:
            # The limit is that of all aliases. A disabled one refuses its own new clients; that it
            # was disabled is forgotten with it.
            self._console.run(f"DISABLE {self.alias.quoted}", tolerate=("no such database",))
        else:
            self._console.run("SET max_client_conn = 0")
        deadline = time.monotonic() + LOGIN_SECONDS
        while self._logging_in() and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS / 4)

    def _leave_pools(self) -> None:
        """Have no pool filled up to ``min_pool_size`` while it is paused: PgBouncer does that three
        times a second (check_pool_size() of 1.18 to 1.25 asks for a PAUSE of all alone), cuts the
        login off at once, and takes it for one that failed. The RELOAD of :meth:`resume` sets it
        back to the file's; without one, pools are filled as clients need them."""
        self._console.run("SET min_pool_size = 0")
        self._pools_left = True

    def _await_servers(self) -> None:
        """Have no server connection in the middle of its login when PAUSE closes it: PgBouncer
        takes that for a login that failed, and refuses the first queries after the RESUME."""
        deadline = time.monotonic() + SERVER_LOGIN_SECONDS
        while time.monotonic() < deadline:
            rows = self._console.run("SHOW POOLS")
            if not any(int(r["sv_login"]) for r in rows if r["database"] == self.alias.name):
                return
            time.sleep(POLL_SECONDS / 4)

    def _logging_in(self) -> bool:
        for row in self._console.run("SHOW SOCKETS"):
            database = row["database"]
            if database in ("(nodb)", "pgbouncer"):
                continue  # it has no database yet, or the console's
            # Those who wait in the alias' own pool are closed with it.
            waits = row["state"] == "cl_waiting_login" and database != self.alias.name
            logs_in = row["state"] == "cl_login" and (
                not self.alias.shared or database == self.alias.name
            )
            if waits or logs_in:
                return True
        return False

    def _busy(self) -> str:
        try:
            rows = self._console.run("SHOW POOLS")
        except OperationError:
            return "unknown"
        return str(sum(int(row["cl_active"]) for row in rows if row["database"] == self.alias.name))

    def _reload_until(self, done: Any, limit: float) -> None:
        deadline = time.monotonic() + limit
        while True:
            try:
                self._console.run("RELOAD")
                self.resume()
                if done(self._shown()):
                    return
                problem = "it has not read the alias file"
            except OperationError as error:
                problem = error.message
            if time.monotonic() > deadline:
                raise OperationError(
                    f"PgBouncer did not take the change of alias {self.alias.name!r} within "
                    f"{limit:g} s: {problem}",
                    advice=f"{self._alias_file} is written and is read when PgBouncer starts: "
                    "start it, then run the command again",
                )
            time.sleep(POLL_SECONDS)

    def _shown(self) -> dict[str, Any] | None:
        for row in self._console.run("SHOW DATABASES"):
            if row["name"] == self.alias.name:
                return {**row, "paused": str(row["paused"]) not in ("0", "no", "f")}
        return None

    def _written(self) -> str:
        """What the file has of this alias."""
        return "".join(self._lines(own=True)) if self.alias.shared else self._read()

    def _read(self) -> str:
        try:
            return self._alias_file.read_text()
        except FileNotFoundError:
            return ""

    def _lines(self, *, own: bool) -> list[str]:
        """The lines of a shared file that are this alias's, or those that are not."""
        begins = f"{self.alias.name} = "
        lines = self._read().splitlines(keepends=True)
        return [line for line in lines if line.startswith(begins) == own]

    def _write(self, content: str) -> None:
        if not self.alias.shared:
            self._replace(content)
            return
        lock = self._alias_file.with_name(f".{self._alias_file.name}.lock")
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            # Another run's command reads the file and replaces it at the same time.
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            self._replace("".join([*self._lines(own=False), content]))
        finally:
            os.close(descriptor)

    def _replace(self, content: str) -> None:
        if self._read() == content and self._alias_file.exists():
            return
        # PgBouncer runs as another user: its file keeps the owner and the mode that it has.
        try:
            present = self._alias_file.stat()
            mode, owner = present.st_mode & 0o777, (present.st_uid, present.st_gid)
        except FileNotFoundError:
            mode, owner = 0o644, None
        if os.geteuid() != 0 and owner is not None and owner[0] != os.geteuid():
            mode, owner = 0o644, None
        write_durably(self._alias_file, content.encode(), mode=mode, owner=owner)


def _ask(console: psycopg.Connection, command: str, limit: float) -> list[dict[str, Any]]:
    # ClientCursor: the console knows the simple protocol only.
    cursor = psycopg.ClientCursor(console)
    with time_limit(console, limit):
        cursor.execute(command.encode())
    if cursor.description is None:
        return []
    names = [column.name for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _value(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _first_line(error: psycopg.Error) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
