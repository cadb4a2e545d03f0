"""``migration-job release``: the change capture is taken out of the SQLite file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from migration_job.commands import live_options as options
from migration_job.commands.option_groups import LockSeconds
from migration_job.errors import OperationError
from migration_job.protocol.decision import truthful
from migration_job.protocol.lock import Lock
from migration_job.protocol.replaced import mark_released
from migration_job.stores.sqlite import capture, fence
from migration_job.stores.sqlite.waiting import patience


def register(app: typer.Typer) -> None:
    """Add ``release`` to the program."""
    app.command("release")(release)


def release(
    source: options.Source,
    state: Annotated[Path, typer.Option(help="The directory for the lock, as `sync` has it.")],
    catch_up_seconds: LockSeconds = 600.0,
) -> None:
    """Remove the triggers and tables of `migrate --live` from the SQLite file: its schema is then
    what it was before. Refused while PostgreSQL serves.

    What the target holds is given up: the next `migrate --live` may fill it from another file."""
    with (
        truthful(source, "release"),
        patience(catch_up_seconds),
        Lock(state).command("release"),
    ):
        connection = fence.open_source(source)
        try:
            with fence.writing(connection, limit=catch_up_seconds):
                found = fence.read_state(connection)
                if found is not None and found.closed:
                    raise OperationError(
                        "expected SQLite to serve, found PostgreSQL serving",
                        advice="`migration-job rollback --release` goes back and releases",
                    )
                capture.remove(connection)
                mark_released(state)
        finally:
            connection.close()
    options.say(f"{source} no longer has anything of this job")
