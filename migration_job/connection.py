"""The directory that the application reads to find its database.

::

    DIRECTORY/database.env   -> current/database.env    the strategy's names: DB_HOST, ...
    DIRECTORY/database.json  -> current/database.json   the same, for programs
    DIRECTORY/ca.crt         -> current/ca.crt          where the database speaks TLS: its authority
    DIRECTORY/current        -> versions/00000007       replaced by one atomic rename
    DIRECTORY/versions/00000007/database.env, database.json    mode 0600

A reader sees the whole of one version or the whole of the next, never a mixture, and after a power
cut one of the two. Reads and writes are named separately, since under ``strategy: dual-write``
reads move first; plain ``DB_*`` names the side that takes writes.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from migration_job.durable import sync_directory, write_durably
from migration_job.errors import InputError, OperationError
from migration_job.hosts import SessionAttributes

KEPT_VERSIONS = 2
"""The present version and the one before it: a reader that resolved ``current`` a moment ago may
still open its second file there."""

AUTHORITY_FILE = "ca.crt"

UNSAID = ("target_session_attrs", "password", "passfile", "service", "certificate", "key")
"""What ``database.json`` has only where there is something to say."""

_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,=~-]*")
"""What every reader of ``.env`` files (Docker, dotenv, sh) takes as it stands."""


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Pool(_Data):
    """The application's own pool, with the strategy's values; times in milliseconds."""

    max: int = Field(default=20, ge=1)
    min: int = Field(default=5, ge=0)
    idle_timeout: int = Field(default=30_000, ge=0)
    connection_timeout: int = Field(default=2_000, ge=0)


class SqliteSide(_Data):
    engine: Literal["sqlite"] = "sqlite"
    path: str
    """The file as the application sees it."""


class Tls(_Data):
    """How the application checks whom it speaks to; libpq's words for the mode."""

    mode: Literal["require", "verify-ca", "verify-full"] = "verify-full"
    authority: str = ""
    """The certificate authority, PEM; '' for those that the application's system trusts."""
    certificate: str | None = None
    """The application's own certificate, a file as it sees it, and its key."""
    key: str | None = None


class PostgresSide(_Data):
    engine: Literal["postgresql"] = "postgresql"
    host: str
    """One server, or several with commas between them, as libpq takes them."""
    port: int | str = 5432
    """Of all of them; a text of several for one each."""
    database: str
    user: str
    password: str | None = Field(None, repr=False)
    """None where the application gets in without one: by its user (peer, trust), a certificate,
    or what ``passfile`` and ``service`` say."""
    passfile: str | None = None
    """libpq's file of passwords, as the application sees it."""
    service: str | None = None
    """An entry of libpq's service file, which may hold the password."""
    pool: Pool = Pool()
    tls: Tls | None = None
    target_session_attrs: SessionAttributes | None = None
    """Which of several servers is meant; None where one is named."""


Side = Annotated[SqliteSide | PostgresSide, Field(discriminator="engine")]


class Connection(_Data):
    """Which database takes writes and which answers reads."""

    write: Side
    read: Side
    generation: int = 0
    """Grows by one with each change, so that a reader knows whether to look again."""
    changed_at: str = ""
    """UTC, ISO 8601; for people only."""

    def same_sides(self, other: Connection) -> bool:
        """Whether both name the same databases in the same way."""
        return self.write == other.write and self.read == other.read


def read_connection(directory: Path) -> Connection | None:
    """What the directory says now, or None before the first :func:`write_connection`.

    Raises OperationError where the file is there but is not this program's.
    """
    file = directory / "database.json"
    try:
        return Connection.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError:
        # The parser's message quotes its input, and the input holds a password.
        raise OperationError(
            f"expected {file} as this program writes it, found something else",
            advice="move the file away and run the command again",
        ) from None


def write_connection(
    directory: Path, write: Side, read: Side, *, owner: tuple[int, int] | None = None
) -> Connection:
    """Replace what the application reads, atomically and durably; nothing where it says so already.

    ``owner`` is the user and group id that may read the files (the application's); without it they
    stay this process's. Raises InputError where the directory holds files of somebody else's
    making, or a value that no ``.env`` file can hold.
    """
    present = read_connection(directory)
    wanted = Connection(
        write=write,
        read=read,
        generation=1 if present is None else present.generation + 1,
        changed_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
    )
    if present is not None and present.same_sides(wanted):
        return present
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    _refuse_foreign(directory)
    version = _write_version(directory, wanted, owner)
    for name in sorted(path.name for path in version.iterdir()):
        _point(directory / name, f"current/{name}")
    _point(directory / "current", f"versions/{version.name}")
    _forget_old(directory, version)
    return wanted


def render_env(connection: Connection) -> str:
    """``database.env``: the side for writes as ``DB_*``, the side for reads as ``DB_READ_*``."""
    lines = [
        "# Written by migration-job; replaced whenever the database moves.",
        f"DB_GENERATION={connection.generation}",
        *_side_lines("DB_", connection.write),
        *_side_lines("DB_READ_", connection.read),
    ]
    return "\n".join(lines) + "\n"


def render_json(connection: Connection) -> str:
    """``database.json``: ``{"generation", "changed_at", "write": side, "read": side}``."""
    content = connection.model_dump()
    for side in (content["write"], content["read"]):
        for part in (side, side.get("tls") or {}):
            for name in UNSAID:
                if part.get(name, "") is None:
                    del part[name]
    return json.dumps(content, indent=2) + "\n"


def _side_lines(prefix: str, side: SqliteSide | PostgresSide) -> list[str]:
    if isinstance(side, SqliteSide):
        values = {"ENGINE": side.engine, "PATH": side.path}
    else:
        values = {
            "ENGINE": side.engine,
            "HOST": side.host,
            "PORT": str(side.port),
            **_attributes(side),
            "NAME": side.database,
            "USER": side.user,
            **_secret(side),
            "POOL_MAX": str(side.pool.max),
            "POOL_MIN": str(side.pool.min),
            "POOL_IDLE_TIMEOUT": str(side.pool.idle_timeout),
            "CONNECTION_TIMEOUT": str(side.pool.connection_timeout),
        }
        if side.tls is not None:
            values["SSLMODE"] = side.tls.mode
            if side.tls.authority:
                # Beside this file: the directory may have another path for the application.
                values["SSL_CA"] = AUTHORITY_FILE
            own = {"SSLCERT": side.tls.certificate, "SSLKEY": side.tls.key}
            values |= {name: path for name, path in own.items() if path is not None}
    return [f"{prefix}{name}={_env_value(prefix + name, value)}" for name, value in values.items()]


def _secret(side: PostgresSide) -> dict[str, str]:
    found = {"PASSWORD": side.password, "PASSFILE": side.passfile, "SERVICE": side.service}
    return {name: value for name, value in found.items() if value is not None}


def _attributes(side: PostgresSide) -> dict[str, str]:
    wanted = side.target_session_attrs
    return {} if wanted is None else {"TARGET_SESSION_ATTRS": wanted}


def _env_value(name: str, value: str) -> str:
    if _PLAIN.fullmatch(value):
        return value
    if any(c in value for c in "\n\r\x00'"):
        raise InputError(
            f"the value of {name} holds a quote, a line break or NUL, which no .env file can hold "
            "for every reader",
            advice="choose another value; generated passwords have letters and digits alone",
        )
    return f"'{value}'"


def _refuse_foreign(directory: Path) -> None:
    for name in ("database.env", "database.json", "current"):
        path = directory / name
        if path.exists() and not path.is_symlink():
            raise InputError(
                f"expected {path} to be this program's link, found another program's file",
                advice="give an empty directory with --connection, or move that file away",
            )


def _write_version(directory: Path, connection: Connection, owner: tuple[int, int] | None) -> Path:
    versions = directory / "versions"
    versions.mkdir(mode=0o755, exist_ok=True)
    version = versions / f"{connection.generation:08d}"
    if version.exists():
        # Left by a death before `current` pointed to it: nobody has read it.
        shutil.rmtree(version)
    version.mkdir(mode=0o755)
    contents = {
        "database.env": render_env(connection),
        "database.json": render_json(connection),
    }
    for side in (connection.read, connection.write):
        if isinstance(side, PostgresSide) and side.tls is not None and side.tls.authority:
            contents[AUTHORITY_FILE] = side.tls.authority
    for name, content in contents.items():
        write_durably(version / name, content.encode(), mode=0o600, owner=owner)
    sync_directory(versions)
    return version


def _point(link: Path, target: str) -> None:
    """Make ``link`` a symbolic link to ``target`` by one rename."""
    if link.is_symlink() and str(link.readlink()) == target:
        return
    temporary = link.with_name(f".{link.name}.new")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    temporary.symlink_to(target)
    temporary.replace(link)
    sync_directory(link.parent)


def _forget_old(directory: Path, present: Path) -> None:
    """Old versions hold passwords; all but the last few go."""
    others = sorted(p for p in (directory / "versions").iterdir() if p.name <= present.name)
    for version in others[:-KEPT_VERSIONS]:
        shutil.rmtree(version)
