"""What the live commands are given: where the two databases, the pooler and the connection are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import psycopg
from psycopg.conninfo import conninfo_to_dict
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from migration_job.connection import (
    Connection,
    Pool,
    PostgresSide,
    SqliteSide,
    Tls,
    render_env,
)
from migration_job.errors import InputError
from migration_job.hosts import LEADER, SessionAttributes, is_list, plain_port, require_matching
from migration_job.plan.policy import Policy
from migration_job.pooler import Alias, Pooler
from migration_job.protocol.moved import relocated_alias, relocated_dsn
from migration_job.stores.postgres.database import located

POOLER_WANTS = (
    "expected one address by which PgBouncer reaches the server that takes writes (haproxy's, or a "
    "name that moves with it)"
)


class Server(BaseModel):
    """Where PgBouncer finds PostgreSQL; it may see it under another name than this job does."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str
    """One address: PgBouncer asks none of several whether it takes writes."""
    port: int = 5432
    database: str | None = None

    @field_validator("host")
    @classmethod
    def _one(cls, host: str) -> str:
        if is_list(host):
            raise ValueError(f"{POOLER_WANTS}, found a list of hosts")
        return host


class TlsTo(BaseModel):
    """That the application is to speak TLS, and which authority it is to trust."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Literal["require", "verify-ca", "verify-full"] = "verify-full"
    authority_file: Path | None = None
    """PEM; without it the application's system decides whom to trust."""
    certificate: str | None = None
    """The application's own certificate, a file as it sees it: it gets in by that."""
    key: str | None = None

    @model_validator(mode="after")
    def _both(self) -> TlsTo:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("expected certificate and key together, found one of them")
        return self


class ConnectTo(BaseModel):
    """What the application is to connect to after the switch: PgBouncer, or PostgreSQL itself.

    ``database`` is the alias where there is a pooler. ``host`` and ``port`` may be lists, as libpq
    has them; then ``target_session_attrs`` is ``read-write`` unless it is given.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str
    port: int | str = 5432
    target_session_attrs: SessionAttributes | None = None
    database: str
    user: str
    password: str | None = Field(None, repr=False)
    password_file: Path | None = None
    """Relative to the JSON file's directory; for those that keep secrets in files of their own."""
    passfile: str | None = None
    """libpq's file of passwords, as the application sees it."""
    service: str | None = None
    """An entry of the service file that the application's libpq reads."""
    authentication: Literal["peer", "trust"] | None = None
    """That PostgreSQL knows the application by its user on the machine, or asks for nothing."""
    pool: Pool = Pool()
    tls: TlsTo | None = None
    server: Server | None = None
    """For PgBouncer; where it is absent, host, port and database of ``--target``."""

    @model_validator(mode="after")
    def _lists(self) -> ConnectTo:
        require_matching(self.host, self.port)
        return self


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Everything that a live command acts on beside the two databases."""

    source: Path
    given_dsn: str
    """As the command line has it; :attr:`dsn` is what it means since an upgrade."""
    state: Path
    connection: Path
    sqlite: SqliteSide
    postgres: PostgresSide
    given_pooler: Pooler | None
    owner: tuple[int, int] | None = None
    asynchronous: bool = False
    """Whether the operator accepts that a failover of the target may lose acknowledged commits."""
    policy: Policy | None = None
    """What the operator has acknowledged since the plan was made."""

    @property
    def dsn(self) -> str:
        """The target's connection string, asked for again each time: an upgrade may have moved it
        while this command waited for its turn."""
        return relocated_dsn(self.state, self.given_dsn)

    @property
    def pooler(self) -> Pooler | None:
        """The alias at PgBouncer, leading to the server that :attr:`dsn` names."""
        if self.given_pooler is not None:
            self.given_pooler.alias = relocated_alias(self.state, self.given_pooler.given)
        return self.given_pooler

    def seen_at(self, source: str) -> Endpoints:
        """The same where the application sees the SQLite file at another path. Raises InputError
        for one that no .env file can hold."""
        sqlite = SqliteSide(path=source)
        render_env(Connection(write=self.postgres, read=sqlite))
        return replace(self, sqlite=sqlite)


def read_connect_to(file: Path) -> ConnectTo:
    """The JSON file of ``--connect-to``. Raises InputError, naming the field at fault."""
    try:
        return ConnectTo.model_validate_json(file.read_bytes())
    except OSError as error:
        raise InputError(
            f"cannot read {file}: {error.strerror}", advice="give the JSON file of --connect-to"
        ) from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InputError(
            f"{file} does not say what the application is to connect to: {where}: {first['msg']}",
            advice='expected {"host", "port", "database", "user", "password_file" (or "password", '
            '"passfile", "service", "authentication"), and optionally "target_session_attrs",'
            ' "pool": {"max", "min", "idle_timeout", "connection_timeout"}, '
            '"server": {"host", "port", "database"}}',
        ) from None


def read_secret(file: Path, what: str) -> str:
    """The one line of a secret's file. Raises InputError."""
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"cannot read {what} from {file}: {type(error).__name__}",
            advice="the file must hold the secret and nothing else, readable by this user",
        ) from error


@dataclass(frozen=True, slots=True)
class Reached:
    """How the application gets to PostgreSQL after the switch."""

    told: ConnectTo
    file: Path
    """That says it; the files that it names are beside it."""
    console: str | None
    """The connection string of PgBouncer's admin console; None where there is no PgBouncer."""
    alias_file: Path | None


def endpoints(
    source: Path,
    dsn: str,
    *,
    connection: Path,
    connect_to: Path,
    console: str | None,
    alias_file: Path | None,
) -> Endpoints:
    """Everything checked and put together, with the state in the connection's directory. Raises
    InputError for what does not fit."""
    reached = Reached(read_connect_to(connect_to), connect_to, console, alias_file)
    return put_together(source, dsn, connection, reached)


def put_together(source: Path, dsn: str, connection: Path, reached: Reached) -> Endpoints:
    """The same of what was read before. Raises InputError for what does not fit."""
    told, connect_to = reached.told, reached.file
    console, alias_file = reached.console, reached.alias_file
    if (console is None) != (alias_file is None):
        raise InputError(
            "expected --pooler and --alias-file together, found one of them",
            advice="give both, or neither where the application connects to PostgreSQL directly",
        )
    pooler = None
    if console is not None and alias_file is not None:
        _require_dsn(console)
        server = _server(told, dsn)
        pooler = Pooler(
            console,
            alias_file,
            Alias(
                told.database,
                server.host,
                server.port,
                server.database or told.database,
                pool_size=told.pool.max,
            ),
        )
    sqlite = SqliteSide(path=str(source.absolute()))
    postgres = PostgresSide(
        host=told.host,
        port=plain_port(told.port),
        target_session_attrs=told.target_session_attrs or (LEADER if is_list(told.host) else None),
        database=told.database,
        user=told.user,
        password=_password(told, connect_to),
        passfile=told.passfile,
        service=told.service,
        pool=told.pool,
        tls=_tls(told.tls, connect_to.parent),
    )
    # A value that no .env file can hold stops a command here, not after a decision.
    render_env(Connection(write=postgres, read=sqlite))
    return Endpoints(
        source=source,
        given_dsn=dsn,
        state=connection / ".state",
        connection=connection,
        sqlite=sqlite,
        postgres=postgres,
        given_pooler=pooler,
    )


def _tls(told: TlsTo | None, beside: Path) -> Tls | None:
    if told is None:
        return None
    if told.authority_file is None:
        return Tls(mode=told.mode, certificate=told.certificate, key=told.key)
    authority = read_secret(beside / told.authority_file, "the certificate authority")
    return Tls(
        mode=told.mode,
        authority=authority + "\n",
        certificate=told.certificate,
        key=told.key,
    )


def _password(told: ConnectTo, file: Path) -> str | None:
    ways = {
        "password": told.password,
        "password_file": told.password_file,
        "passfile": told.passfile,
        "service": told.service,
        "authentication": told.authentication,
        "tls.certificate": told.tls.certificate if told.tls is not None else None,
    }
    given = [name for name, value in ways.items() if value is not None]
    if len(given) != 1:
        raise InputError(
            f"expected one way by which the application gets in in {file}, found "
            + (" and ".join(given) or "none"),
            advice="give password, password_file, passfile, service, or a certificate and its key "
            'in tls; or "authentication": "peer" or "trust" where PostgreSQL asks for no secret',
        )
    if told.password_file is not None:
        return read_secret(file.parent / told.password_file, "the application's password")
    return told.password


def _server(told: ConnectTo, dsn: str) -> Server:
    parts = located(dsn)
    database = str(parts.get("dbname") or "")
    if told.server is not None:
        return told.server.model_copy(update={"database": told.server.database or database})
    host = str(parts.get("host") or parts.get("hostaddr") or "127.0.0.1")
    port = str(parts.get("port") or 5432)
    if is_list(host) or is_list(port):
        raise InputError(
            f"{POOLER_WANTS}, found a list of hosts in --target",
            advice='name it in the file of --connect-to: "server": {"host": "...", "port": 5432}; '
            "docs/clusters.md shows haproxy's part",
        )
    return Server(host=host, port=int(port), database=database)


def _require_dsn(console: str) -> None:
    try:
        conninfo_to_dict(console)
    except psycopg.ProgrammingError:
        # libpq's message quotes the string, which may hold the password.
        raise InputError(
            "expected the connection string of PgBouncer's admin console in --pooler, found "
            "something libpq cannot parse",
            advice="e.g. 'host=... port=6432 dbname=pgbouncer user=... password=...'",
        ) from None
