"""``migration-job status``: where things stand and what to do next."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from migration_job.commands import live_options as options
from migration_job.commands.option_groups import AsJson, LockSeconds, Target, print_json
from migration_job.protocol.status import status as look
from migration_job.stores.postgres.database import read_dsn
from migration_job.stores.sqlite.waiting import patience


def register(app: typer.Typer) -> None:
    """Add ``status`` to the program."""
    app.command("status")(status)


def status(
    source: options.Source,
    target: Target = None,
    target_file: options.TargetFile = None,
    connection: Annotated[Path | None, typer.Option(help=options.CONNECTION_HELP)] = None,
    state: options.State = None,
    catch_up_seconds: LockSeconds = 10.0,
    as_json: AsJson = False,
) -> None:
    """Say which side serves, how far the other one is, and what to do next; changes nothing."""
    dsn = None if target is None and target_file is None else read_dsn(target, target_file)
    folder = state or (None if connection is None else connection / ".state")
    with patience(catch_up_seconds):
        lines = look(
            source,
            dsn=dsn,
            connection=connection,
            state=state,
            arguments="" if folder is None else options.recall(folder),
        )
    if as_json:
        print_json(structured(lines))
        return
    for line in lines:
        options.say(line)


def structured(lines: list[str]) -> dict[str, list[str]]:
    """The lines by their first words; the further lines of one follow it in its list."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in lines:
        name = line[:LABEL].strip().replace(" ", "_") or name
        found.setdefault(name, []).append(line[LABEL:])
    return found


LABEL = 12
"""Characters of a line of `status` before what it says."""
