"""The options that the commands of a live migration have in common: ``switch``, ``rollback``,
``sync``, ``settle``, ``hold``, ``resume``."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from migration_job.commands.option_groups import Target
from migration_job.errors import InputError
from migration_job.log_format import is_json, line, printable
from migration_job.protocol.settings import Endpoints, endpoints, read_secret
from migration_job.stores.postgres.database import read_dsn

Source = Annotated[Path, typer.Argument(help="The SQLite file.")]
TargetFile = Annotated[
    Path | None, typer.Option(help="A file with PostgreSQL's connection string.")
]
CONNECTION_HELP = "The directory that the application reads."
State = Annotated[
    Path | None,
    typer.Option(
        help="The directory for the lock and the heartbeat; .state in the connection's directory "
        "where it is not given. All commands of one migration must name the same."
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveOptions:
    """Both sides, the pooler and the application's connection."""

    source: Source
    report: Annotated[Path, typer.Option(help="The directory for the report.")]
    connection: Annotated[Path, typer.Option("--connection", help=CONNECTION_HELP)]
    connect_to: Annotated[
        Path,
        typer.Option(
            "--connect-to",
            "--application-file",
            help="A JSON file: what the application connects to (host, port, database, user, "
            "password_file or password, pool).",
        ),
    ]
    target: Target = None
    target_file: TargetFile = None
    pooler: Annotated[
        str | None,
        typer.Option("--pooler", help="PgBouncer's admin console, a connection string."),
    ] = None
    console_file: Annotated[
        Path | None,
        typer.Option("--console-file", help="A file with the admin console's connection string."),
    ] = None
    alias_file: Annotated[
        Path | None,
        typer.Option(help="The file that PgBouncer includes for the application's alias."),
    ] = None
    state: State = None
    application_source: Annotated[
        str | None,
        typer.Option(help="The SQLite file's path as the application sees it, where it differs."),
    ] = None
    owner: Annotated[
        str | None,
        typer.Option(help="UID:GID of the application, which the connection's files are given to."),
    ] = None

    def endpoints(self) -> Endpoints:
        """The options put together and checked. Raises InputError."""
        pooler = self.pooler
        if pooler is not None and self.console_file is not None:
            raise InputError("expected --pooler or --console-file, found both")
        if self.console_file is not None:
            pooler = read_secret(self.console_file, "the admin console's connection string")
        return endpoints(
            self.source,
            read_dsn(self.target, self.target_file),
            connection=self.connection,
            connect_to=self.connect_to,
            console=pooler,
            alias_file=self.alias_file,
            state=self.state,
            application_source=self.application_source,
            owner=_owner(self.owner),
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
