"""``migration-job check-target``: whether a database of one's own can be the target."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from migration_job.commands.live_options import say
from migration_job.commands.option_groups import (
    HOLDS_IT,
    AcceptAsynchronous,
    AcceptCollation,
    AsJson,
    SchemaKind,
    SchemaName,
    Target,
    print_json,
    with_options,
)
from migration_job.errors import InputError
from migration_job.place import in_schema
from migration_job.stores.postgres.database import connect, describe, read_dsn
from migration_job.stores.postgres.suitability import Accepted, Check, examine


def register(app: typer.Typer) -> None:
    """Add ``check-target`` to the program."""
    app.command("check-target")(with_options(check_target))


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOptions:
    """Which PostgreSQL, and what it is for."""

    target: Target = None
    target_file: Annotated[Path | None, typer.Option(help=HOLDS_IT)] = None
    source: Annotated[
        Path | None, typer.Option(help="The SQLite file, to compute the space needed.")
    ] = None
    connections: Annotated[
        int, typer.Option(min=1, help="Connections that the pool and the job will open.")
    ] = 28
    live: Annotated[bool, typer.Option(help="The migration will capture and follow changes.")] = (
        False
    )
    schema: Annotated[
        SchemaKind,
        typer.Option(
            "--schema",
            help="'planned': the database has to be empty. 'existing': it may hold the tables that "
            "the application has made.",
        ),
    ] = SchemaKind.PLANNED
    schema_name: SchemaName = None
    accept_asynchronous: AcceptAsynchronous = False
    accept_collation: AcceptCollation = False
    as_json: AsJson = False

    def source_bytes(self) -> int | None:
        """The source's size; None where none was named. Raises InputError where it is not there."""
        try:
            return None if self.source is None else self.source.stat().st_size
        except OSError as error:
            raise InputError(
                f"expected the SQLite file {self.source}, found none to read: {error.strerror}",
                advice="give --source PATH",
            ) from error


def check_target(options: CheckOptions) -> None:
    """Check a PostgreSQL of your own, change nothing, and list what is missing."""
    dsn = in_schema(read_dsn(options.target, options.target_file), options.schema_name)
    size = options.source_bytes()
    with connect(dsn) as connection:
        checks = examine(
            connection,
            source_bytes=size,
            connections=options.connections,
            live=options.live,
            accepted=Accepted(
                options.accept_asynchronous,
                options.accept_collation,
                options.schema == SchemaKind.EXISTING,
            ),
        )
    refused = [check for check in checks if check.verdict == "refused"]
    if options.as_json:
        told = [asdict(check) for check in checks]
        print_json({"target": describe(dsn), "fit": not refused, "checks": told})
    else:
        _show(checks)
    if refused:
        names = ", ".join(check.name for check in refused)
        raise InputError(
            f"{describe(dsn)} cannot be the target yet: {names}",
            advice="fix what the list names and run the command again; nothing was changed",
        )


def _show(checks: list[Check]) -> None:
    # Lines are left whole, as `doctor` leaves them: a terminal wraps them itself.
    verdict, name = (max(map(len, column)) for column in zip(*map(_head, checks), strict=True))
    for check in checks:
        words = check.found + (f" - {check.advice}" if check.advice else "")
        say(f"{check.verdict:{verdict}}  {check.name:{name}}  {words}")


def _head(check: Check) -> tuple[str, str]:
    return check.verdict, check.name
