"""``migration-job verify``: compare source and target again, and say what differs."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from migration_job.commands.migrate import tell
from migration_job.commands.option_groups import (
    AsJson,
    ReadSource,
    SpeedOptions,
    TargetOptions,
    WordOptions,
    WorkOptions,
    print_json,
    with_options,
)
from migration_job.progress import Reporter
from migration_job.recheck import Recheck
from migration_job.report import writer
from migration_job.stores.sqlite.memory import stop_memory_accounting, use_few_arenas
from migration_job.workers import default_jobs


def register(app: typer.Typer) -> None:
    """Add ``verify`` to the program."""
    app.command("verify")(with_options(verify))


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyOptions:
    """What to compare with what, and what else has to hold."""

    source: ReadSource
    report: Annotated[Path, typer.Option(help="Directory for verify.json and verify.html.")]
    to: TargetOptions
    work: WorkOptions
    checks: Annotated[
        Path | None,
        typer.Option(
            help="Directory of the application's queries (*.sql), replayed on both sides."
        ),
    ] = None
    speed: SpeedOptions
    words: WordOptions
    as_json: AsJson = False


def verify(options: VerifyOptions) -> None:
    """Compare the source as it is now with a target that `migrate` has filled."""
    stop_memory_accounting()
    use_few_arenas()
    reporter = Reporter(quiet=options.words.quiet or options.as_json)
    recheck = Recheck(
        source=options.source,
        dsn=options.to.dsn(),
        report_folder=options.report,
        reporter=reporter,
        deep=options.work.deep,
        jobs=options.work.jobs or default_jobs(),
        demands=options.speed.demands(options.checks, "none"),
    )
    if not options.as_json:
        tell(reporter, recheck.run(), options.report, verbose=options.words.verbose)
        return
    try:
        recheck.run()
    finally:
        _print_report(options.report)


def _print_report(folder: Path) -> None:
    """The report without its lists of single values, which the file has."""
    with contextlib.suppress(FileNotFoundError):
        report = writer.read(folder, "verify")
        print_json(report.model_dump(mode="json", exclude={"ledger", "quarantine"}))
