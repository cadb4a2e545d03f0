"""``migration-job verify``: compare source and target again, and say what differs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from migration_job.commands.migrate import tell
from migration_job.progress import Reporter
from migration_job.recheck import Recheck
from migration_job.stores.postgres.database import read_dsn
from migration_job.stores.sqlite.memory import uncounted
from migration_job.verify.application import demands
from migration_job.workers import default_jobs


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
        int | None,
        typer.Option(
            min=1, help="Connections that work side by side; else one for each core, two to eight."
        ),
    ] = None,
    checks: Annotated[
        Path | None,
        typer.Option(
            help="Directory of the application's queries (*.sql), replayed on both sides."
        ),
    ] = None,
    performance_budget: Annotated[
        str | None,
        typer.Option(
            help="Measure the queries and loads of users, and fail beyond the budget: "
            "'slowdown=3,floor_ms=50,load_p95_ms=2000,collapse=0.5,pool=20,seconds=3', any of "
            "them, '' for these."
        ),
    ] = None,
    pooler_file: Annotated[
        Path | None,
        typer.Option(
            help="A file that holds PgBouncer's connection string to this database, so that speed "
            "is measured the way the application will go."
        ),
    ] = None,
) -> None:
    """Compare the source as it is now with a target that `migrate` has filled."""
    uncounted()
    reporter = Reporter()
    told = Recheck(
        source=source,
        dsn=read_dsn(target, target_file),
        report_folder=report,
        reporter=reporter,
        deep=deep,
        jobs=jobs or default_jobs(),
        demands=demands(
            checks,
            "none",
            performance_budget,
            None if pooler_file is None else read_dsn(None, pooler_file),
        ),
    ).run()
    tell(reporter, told, report)
