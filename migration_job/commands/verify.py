"""``migration-job verify``: compare source and target again, and say what differs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from migration_job.commands.migrate import tell
from migration_job.commands.option_groups import (
    ReadSource,
    SpeedOptions,
    TargetOptions,
    WorkOptions,
    with_options,
)
from migration_job.progress import Reporter
from migration_job.recheck import Recheck
from migration_job.stores.sqlite.memory import uncounted
from migration_job.workers import default_jobs


def register(app: typer.Typer) -> None:
    """Add ``verify`` to the program."""
    app.command("verify")(with_options(verify))


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyOptions:
    """What to compare with what, and what else has to hold."""

    source: ReadSource
    report: Annotated[Path, typer.Option(help="Directory for report.json.")]
    to: TargetOptions
    work: WorkOptions
    checks: Annotated[
        Path | None,
        typer.Option(
            help="Directory of the application's queries (*.sql), replayed on both sides."
        ),
    ] = None
    speed: SpeedOptions


def verify(options: VerifyOptions) -> None:
    """Compare the source as it is now with a target that `migrate` has filled."""
    uncounted()
    reporter = Reporter()
    told = Recheck(
        source=options.source,
        dsn=options.to.dsn(),
        report_folder=options.report,
        reporter=reporter,
        deep=options.work.deep,
        jobs=options.work.jobs or default_jobs(),
        demands=options.speed.demands(options.checks, "none"),
    ).run()
    tell(reporter, told, options.report)
