"""What an upgrade acts on: two servers, the pooler before them, and a directory for its state."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from migration_job.errors import InputError
from migration_job.plural import counted
from migration_job.pooler import Alias, Pooler
from migration_job.protocol.moved import beside_at
from migration_job.stores.postgres import side
from migration_job.stores.postgres.database import connect, limit_waiting, located
from migration_job.stores.postgres.replication import Address

SESSION = "migration-job upgrade"
LOCK_MS = 10_000
HELD_FILE = "upgrade-holds"
"""In the state directory while PgBouncer may be paused by an upgrade."""

_TERM = re.compile(r"(\w+)\s*=\s*(?:'((?:[^']|'')*)'|(\S+))")
_KNOWN = {"host", "port", "dbname", "pool_size", "min_pool_size"}


@dataclass(frozen=True, slots=True)
class UpgradeEnds:
    """The command's words, checked."""

    old: str
    new: str
    old_at: Address
    new_at: Address
    console: str
    alias_file: Path
    alias: Alias
    state: Path
    programs: Path | None = None
    pause_seconds: float = 10.0
    drain_seconds: float = 5.0
    guard: tuple[str, ...] = ()
    """The command that ends what this process began, where it dies; none in tests of a part."""

    def pooler(self, at: Address) -> Pooler:
        """The alias, leading to that server."""
        to = Alias(
            self.alias.name,
            at.host,
            at.port,
            at.database,
            pool_size=self.alias.pool_size,
            # With the old server the entry is as pgbouncer.ini has it, unless an earlier upgrade
            # has brought the application there from another one.
            beside=self.alias.beside if at == self.new_at else beside_at(self.state, at),
        )
        return Pooler(self.console, self.alias_file, to)


def address(dsn: str, given: str | None) -> Address:
    """``HOST:PORT/DATABASE`` of ``given``, each part from the connection string where it is not
    there. Raises InputError."""
    parts = located(dsn)
    match = re.fullmatch(r"(?:([^:/]+)(?::(\d+))?)?(?:/(.+))?", given or "")
    if match is None:
        raise InputError(
            f"expected HOST:PORT/DATABASE, found {given!r}", advice="for instance postgres18:5432"
        )
    host = match[1] or parts.get("host") or parts.get("hostaddr") or "127.0.0.1"
    port = match[2] or (5432 if match[1] else parts.get("port") or 5432)
    return Address(str(host), int(port), str(match[3] or parts.get("dbname") or ""))


def _entries(file: Path) -> list[tuple[str, str, str]]:
    """The lines of the alias file but for comments, each cut at its first ``=``."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"cannot read the alias file {file}: {type(error).__name__}",
            advice="give the file that PgBouncer includes for the application's alias",
        ) from error
    return [line.partition("=") for line in lines if line.strip() and line.lstrip()[0] != ";"]


def read_alias(file: Path, name: str | None, beside: str | None = None) -> Alias:
    """The application's alias, as it stands in the file, and ``beside`` it the entry by which
    PgBouncer looks passwords up. Raises InputError where the application is not admitted by it, or
    by something that this job did not write."""
    found = [parts for parts in _entries(file) if beside is None or parts[0].strip() != beside]
    wanted = [(n.strip(), rest) for n, _, rest in found if name in (None, n.strip())]
    if len(found) != 1 or len(wanted) != 1:
        raise InputError(
            f"expected the alias {name or 'of the application'} alone in {file}, found "
            + counted(len(found), "line"),
            advice="give a file that holds this one alias: the job writes all of it again"
            if found
            else "the application has to be served by PostgreSQL through that alias: `switch` "
            "first where SQLite serves",
        )
    terms = {k: (q or v).replace("''", "'") for k, q, v in _TERM.findall(wanted[0][1])}
    if not {"host", "port", "dbname"} <= terms.keys() <= _KNOWN:
        raise InputError(
            f"expected host, port, dbname and pool sizes in the line of {file}, found "
            + ", ".join(sorted(terms)),
            advice="move other settings to pgbouncer.ini: this job writes the line again",
        )
    size = terms.get("pool_size")
    return Alias(
        wanted[0][0],
        terms["host"],
        int(terms["port"]),
        terms["dbname"],
        pool_size=None if size is None else int(size),
        beside=beside,
    )


@dataclass(slots=True)
class Server:
    """One side, and this process's session on it."""

    name: str
    """``from`` or ``to``."""
    dsn: str
    at: Address
    connection: psycopg.Connection

    @property
    def label(self) -> str:
        """Its name for people."""
        return f"{'old' if self.name == 'from' else 'new'} server ({self.version})"

    @property
    def version(self) -> str:
        """PostgreSQL and its major version."""
        return f"PostgreSQL {self.connection.info.server_version // 10000}"

    def side(self) -> side.Side | None:
        """Its own record."""
        return side.read(self.connection)


@dataclass(slots=True)
class Servers:
    """Both sides. Sessions that were lost are recreated by :meth:`again`."""

    old: Server
    new: Server
    more: list[psycopg.Connection] = field(default_factory=list)

    def sides(self) -> dict[str, side.Side | None]:
        """Both records, by the servers' names. Raises InputError where one is of another upgrade:
        an earlier one that was not settled, or the servers were exchanged."""
        found = {server.name: server.side() for server in (self.old, self.new)}
        for server in (self.old, self.new):
            record = found[server.name]
            if record is not None and record.name != server.name:
                raise InputError(
                    f"expected the {server.label} to be in no upgrade but this one, found it as "
                    f"the {'new' if record.name == 'to' else 'old'} server of another",
                    advice="settle that one first (`--settle`, with its own two servers); or, "
                    "where --from-target and --to-target are exchanged, exchange them again",
                )
        return found

    def opposite(self, server: Server) -> Server:
        """The other one."""
        return self.new if server is self.old else self.old

    def spare(self) -> list[int]:
        """The process ids of this process's own sessions, which no fence ends."""
        own = [self.old.connection, self.new.connection, *self.more]
        return [c.info.backend_pid for c in own if not c.closed]

    def again(self) -> None:
        """A new session for each that is broken. Raises InputError where a server is not there."""
        for server in (self.old, self.new):
            if server.connection.closed or server.connection.broken:
                server.connection.close()
                server.connection = session(server.dsn)
            elif server.connection.info.transaction_status:
                server.connection.rollback()

    def close(self) -> None:
        """End the sessions."""
        for server in (self.old, self.new):
            server.connection.close()


def session(dsn: str) -> psycopg.Connection:
    """A session of this command's."""
    connection = connect(dsn, purpose=SESSION)
    limit_waiting(connection, LOCK_MS)
    return connection


@contextlib.contextmanager
def opened(ends: UpgradeEnds, *, look: bool = False) -> Iterator[Servers]:
    """Sessions on both servers; those of a process that died are ended, unless this one is only to
    ``look``."""
    servers = Servers(
        Server("from", ends.old, ends.old_at, session(ends.old)),
        Server("to", ends.new, ends.new_at, session(ends.new)),
    )
    try:
        for server in () if look else (servers.old, servers.new):
            server.connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = "
                "%s AND pid <> ALL (%s) AND backend_type = 'client backend' "
                "AND datname = current_database()",
                (SESSION, servers.spare()),
            )
        yield servers
    finally:
        servers.close()
