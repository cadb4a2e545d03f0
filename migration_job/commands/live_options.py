"""The options that the commands of a live migration have in common: ``switch``, ``rollback``,
``sync``, ``settle``, ``hold``, ``resume``."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from migration_job import shell_words
from migration_job.commands.option_groups import (
    ALIAS_FILE_HELP,
    Console,
    ConsoleFile,
    Quiet,
    Report,
    SchemaName,
    Target,
)
from migration_job.durable import write_durably
from migration_job.errors import InputError
from migration_job.log_format import is_json, line, printable
from migration_job.place import in_schema
from migration_job.protocol.settings import Endpoints, endpoints, read_secret
from migration_job.protocol.whole_command import SwitchOptions
from migration_job.stores.postgres.database import read_dsn

Source = Annotated[Path, typer.Argument(help="The SQLite file.")]
TargetFile = Annotated[
    Path | None, typer.Option(help="A file with PostgreSQL's connection string.")
]
CONNECTION_HELP = "The directory that the application reads."
State = Annotated[
    Path | None,
    typer.Option(
        help="The directory for the lock and the heartbeat; by default .state in "
        "the connection's directory. All commands of one migration must name the same."
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoken:
    """Whether a command tells its progress."""

    quiet: Quiet = False

    def say(self, text: str) -> None:
        """One line of progress, unless only errors are to be said."""
        if not self.quiet:
            say(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveOptions(Spoken):
    """Both sides, the pooler and the application's connection."""

    source: Source
    report: Report
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
    pooler: Console = None
    console_file: ConsoleFile = None
    alias_file: Annotated[Path | None, typer.Option(help=ALIAS_FILE_HELP)] = None
    schema_name: SchemaName = None
    state: State = None
    application_source: Annotated[
        str | None,
        typer.Option(help="The SQLite file's path as the application sees it, if different."),
    ] = None
    owner: Annotated[
        str | None,
        typer.Option(help="UID:GID of the application, which the connection's files are given to."),
    ] = None

    def endpoints(self) -> Endpoints:
        """The options put together and checked. Raises InputError."""
        ends = endpoints(
            self.source,
            in_schema(read_dsn(self.target, self.target_file), self.schema_name),
            connection=self.connection,
            connect_to=self.connect_to,
            console=console_of(self.pooler, self.console_file),
            alias_file=self.alias_file,
        )
        ends = replace(ends, state=self.state or ends.state, owner=owner_of(self.owner))
        if self.application_source:
            ends = ends.seen_at(self.application_source)
        remember(ends.state, self.arguments())
        return ends

    def arguments(self) -> list[str]:
        """The same options for another command of the same migration, secrets left out: where one
        was given by itself and not by a file, a variable stands in its place."""
        named = {
            "--report": self.report,
            "--connection": self.connection,
            "--connect-to": self.connect_to,
            "--target-file": self.target_file,
            "--console-file": self.console_file,
            "--alias-file": self.alias_file,
            "--state": self.state,
        }
        found = [str(self.source.absolute())]
        for name, path in named.items():
            found += [] if path is None else [name, str(path.absolute())]
        for name, text in (
            ("--application-source", self.application_source),
            ("--owner", self.owner),
            ("--schema-name", self.schema_name),
        ):
            found += [] if text is None else [name, text]
        found = [shell_words.word(word) for word in found]
        found += ['--target "$TARGET"'] if self.target is not None else []
        found += ['--pooler "$POOLER"'] if self.pooler is not None else []
        return found


def remember(state: Path, arguments: list[str]) -> None:
    """Keep the arguments for `status`, which names whole commands. That is for people: where it
    cannot be written, nothing else depends on it."""
    with contextlib.suppress(OSError):
        text = " ".join(arguments)
        if recall(state) != text:
            # The lock would make the directory next.
            state.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_durably(state / "arguments", text.encode(), mode=0o600)


def recall(state: Path) -> str:
    """The arguments of the last live command with that state; '' where there were none."""
    try:
        return (state / "arguments").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


SWITCH_FILE = "switch-options.json"
"""Not as the switch's end is called, which may be in the same directory."""


def remember_switch(state: Path, options: SwitchOptions) -> None:
    """The same of what a switch was given beside them."""
    with contextlib.suppress(OSError):
        if recall_switch(state) != options:
            policy = None if options.policy is None else str(options.policy.absolute())
            content = json.dumps({**asdict(options), "policy": policy})
            state.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_durably(state / SWITCH_FILE, content.encode(), mode=0o600)


def recall_switch(state: Path) -> SwitchOptions:
    """What the last switch with that state was given; nothing where there was none."""
    try:
        found = json.loads((state / SWITCH_FILE).read_text(encoding="utf-8"))
        policy = None if found["policy"] is None else Path(found["policy"])
        float(found["fence_seconds"] or 1)
        return SwitchOptions(**{**found, "policy": policy, "one_way": tuple(found["one_way"])})
    except (OSError, ValueError, TypeError, KeyError):
        return SwitchOptions()


def say(text: str) -> None:
    """One line of progress."""
    sys.stdout.write(f"{line(text) if is_json() else printable(text)}\n")
    sys.stdout.flush()


def console_of(pooler: str | None, file: Path | None) -> str | None:
    """The connection string of PgBouncer's admin console; None where none is given. Raises
    InputError where both ways are used, or the file cannot be read."""
    if pooler is not None and file is not None:
        raise InputError("expected --pooler or --console-file, found both")
    if file is None:
        return pooler
    return read_secret(file, "the admin console's connection string")


def owner_of(text: str | None) -> tuple[int, int] | None:
    """The user and group id after --owner. Raises InputError."""
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
