"""``migration-job migrate``: the whole way to ``verified``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from migration_job.errors import InputError
from migration_job.migration import Migration, Options
from migration_job.progress import Reporter
from migration_job.protocol.begin import LiveStart
from migration_job.report.model import Report
from migration_job.stores.postgres.database import read_dsn
from migration_job.stores.sqlite.memory import uncounted
from migration_job.stores.sqlite.waiting import patience
from migration_job.verify.application import demands


def register(app: typer.Typer) -> None:
    """Add ``migrate`` to the program."""
    app.command("migrate")(migrate)


def migrate(
    source: Annotated[Path, typer.Argument(help="The SQLite file; it is only read.")],
    report: Annotated[Path, typer.Option(help="Directory for report.json and the backup.")],
    target: Annotated[str | None, typer.Option(help="PostgreSQL's connection string.")] = None,
    target_file: Annotated[
        Path | None, typer.Option(help="A file that holds it, so that no command line shows it.")
    ] = None,
    profile: Annotated[str, typer.Option(help="'none', 'radcase', or a profile's file.")] = "none",
    policy: Annotated[Path | None, typer.Option(help="A policy file (YAML).")] = None,
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
            help="Directory of the application's queries (*.sql), replayed on both sides; the "
            "profile's own without it."
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
    live: Annotated[
        bool,
        typer.Option(
            "--live",
            help="The application goes on writing: its changes are captured (by triggers in the "
            "SQLite file) and `sync` brings them over.",
        ),
    ] = False,
    state: Annotated[
        Path | None,
        typer.Option(help="With --live: the directory for the lock, the same as `sync`'s."),
    ] = None,
    catch_up_seconds: Annotated[
        float,
        typer.Option(
            min=1,
            help="How long to wait for each of the source's locks that another program has.",
        ),
    ] = 600.0,
) -> None:
    """Plan, copy and verify a SQLite database into an empty PostgreSQL."""
    options = Options(
        source=source,
        dsn=read_dsn(target, target_file),
        report=report,
        profile=profile,
        policy=policy,
        deep=deep,
        jobs=jobs,
        demands=demands(
            checks,
            profile,
            performance_budget,
            None if pooler_file is None else read_dsn(None, pooler_file),
        ),
    )
    uncounted()
    reporter = Reporter()
    if live and state is None:
        raise InputError(
            "expected --state with --live, found none",
            advice="name the directory that `sync` and `switch` are given, or CONNECTION/.state",
        )
    start = (
        LiveStart(source, options.dsn, state, report, profile, policy) if live and state else None
    )
    with patience(catch_up_seconds):
        told = Migration(options, reporter, start).run()
    tell(reporter, told, report)


def tell(reporter: Reporter, told: Report, folder: Path) -> None:
    """The last words of a run that went well."""
    reporter.say(told.message)
    changed = (
        f"{told.ledger_count:,} values changed by rules and {told.quarantine_count:,} rows in "
        "quarantine: the report lists them"
    )
    if told.ledger_count or told.quarantine_count:
        reporter.say(changed)
    if told.certificate is not None:
        reporter.say(f"certificate {told.certificate.digest}")
    reporter.say(f"report: {folder / 'report.json'}")
