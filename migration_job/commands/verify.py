"""``migration-job verify``: compare source and target again, and say what differs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from migration_job.commands.migrate import tell
from migration_job.progress import Reporter
from migration_job.recheck import Recheck
from migration_job.target.database import read_dsn


def register(app: typer.Typer) -> None:
    """Add ``verify`` to the program."""
    app.command("verify")(verify)


def verify(
    source: Annotated[Path, typer.Argument(help="The SQLite file; it is only read.")],
    report: Annotated[Path, typer.Option(help="Directory for report.json.")],
    target: Annotated[str | None, typer.Option(help="PostgreSQL's connection string.")] = None,
    target_file: Annotated[
        Path | None, typer.Option(help="A file that holds it, so that no command line shows it.")
    ] = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Compare every value one by one, besides the digests.")
    ] = False,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Connections that work side by side.")
    ] = None,
) -> None:
    """Compare the source as it is now with a target that `migrate` has filled."""
    reporter = Reporter()
    told = Recheck(
        source=source,
        dsn=read_dsn(target, target_file),
        report_folder=report,
        reporter=reporter,
        deep=deep,
        jobs=jobs or max(2, os.cpu_count() or 2),
    ).run()
    tell(reporter, told, report)
