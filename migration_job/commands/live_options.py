"""The options that ``switch``, ``rollback``, ``sync`` and ``settle`` have in common."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from migration_job.errors import InputError
from migration_job.log_format import is_json, line, printable
from migration_job.protocol.settings import Endpoints, endpoints, read_secret
from migration_job.stores.postgres.database import read_dsn

Source = Annotated[Path, typer.Argument(help="The SQLite file.")]
Target = Annotated[str | None, typer.Option(help="PostgreSQL's connection string.")]
TargetFile = Annotated[
    Path | None, typer.Option(help="A file with PostgreSQL's connection string.")
]
ReportDir = Annotated[Path, typer.Option(help="The directory for the report.")]
ConnectionDir = Annotated[
    Path, typer.Option("--connection", help="The directory that the application reads.")
]
ConnectTo = Annotated[
    Path,
    typer.Option(
        "--connect-to",
        "--application-file",
        help="A JSON file: what the application connects to (host, port, database, user, "
        "password_file or password, pool).",
    ),
]
Console = Annotated[
    str | None, typer.Option("--pooler", help="PgBouncer's admin console, a connection string.")
]
ConsoleFile = Annotated[
    Path | None,
    typer.Option("--console-file", help="A file with the admin console's connection string."),
]
AliasFile = Annotated[
    Path | None, typer.Option(help="The file that PgBouncer includes for the application's alias.")
]
State = Annotated[
    Path | None,
    typer.Option(
        help="The directory for the lock and the heartbeat; .state in the connection's directory "
        "where it is not given. All commands of one migration must name the same."
    ),
]
ApplicationSource = Annotated[
    str | None,
    typer.Option(help="The SQLite file's path as the application sees it, where it differs."),
]
LockSeconds = Annotated[
    float,
    typer.Option(
        "--catch-up-seconds",
        min=1,
        help="How long to wait for each of the source's locks that another program has.",
    ),
]
Owner = Annotated[
    str | None,
    typer.Option(help="UID:GID of the application, which the connection's files are given to."),
]


def collect(
    source: Path,
    *,
    target: str | None,
    target_file: Path | None,
    connection: Path,
    connect_to: Path,
    pooler: str | None,
    console_file: Path | None,
    alias_file: Path | None,
    state: Path | None,
    application_source: str | None,
    owner: str | None,
) -> Endpoints:
    """The options put together and checked. Raises InputError."""
    if pooler is not None and console_file is not None:
        raise InputError("expected --pooler or --console-file, found both")
    if console_file is not None:
        pooler = read_secret(console_file, "the admin console's connection string")
    return endpoints(
        source,
        read_dsn(target, target_file),
        connection=connection,
        connect_to=connect_to,
        console=pooler,
        alias_file=alias_file,
        state=state,
        application_source=application_source,
        owner=_owner(owner),
    )


def say(text: str) -> None:
    """One line of progress."""
    sys.stdout.write(f"{line(text) if is_json() else printable(text)}\n")
    sys.stdout.flush()


def _owner(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    user, _, group = text.partition(":")
    if not (user.isdigit() and group.isdigit()):
        raise InputError(
            f"expected UID:GID after --owner, found {text!r}",
            advice="for instance --owner 1000:1000",
        )
    if os.geteuid() != 0 and int(user) != os.geteuid():
        raise InputError(
            f"expected to run as root to give files to user {user}, found user {os.geteuid()}",
            advice="run the job as the application's user, or leave --owner out",
        )
    return int(user), int(group)
