"""``migration-job restore-backup``: put the snapshot that a run took back in place."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from migration_job.stores.sqlite import backup


def register(app: typer.Typer) -> None:
    """Add ``restore-backup`` to the program."""
    app.command("restore-backup")(restore_backup)


def restore_backup(
    folder: Annotated[Path, typer.Argument(help="The backup's directory (REPORT/backup).")],
    destination: Annotated[Path, typer.Argument(help="Where to write the database.")],
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Replace a database there; it is kept beside the new one."),
    ] = False,
) -> None:
    """Restore the SQLite database as it was when the run began, once its checksum is proven."""
    kept = backup.restore(folder, destination, replace=replace)
    typer.echo(f"restored {destination} from {folder}")
    if kept is not None:
        typer.echo(f"the database that was there is kept as {kept}")
