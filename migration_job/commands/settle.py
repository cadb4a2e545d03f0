"""``migration-job settle``: the way back is given up, the SQLite file archived."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from migration_job.commands import live_options as options
from migration_job.protocol.outcome import write_outcome
from migration_job.protocol.settle import settle as run_settle


def register(app: typer.Typer) -> None:
    """Add ``settle`` to the program."""
    app.command("settle")(settle)


def settle(
    source: options.Source,
    report: options.ReportDir,
    connection: options.ConnectionDir,
    connect_to: options.ConnectTo,
    target: options.Target = None,
    target_file: options.TargetFile = None,
    pooler: options.Console = None,
    console_file: options.ConsoleFile = None,
    alias_file: options.AliasFile = None,
    state: options.State = None,
    application_source: options.ApplicationSource = None,
    owner: options.Owner = None,
    window_hours: Annotated[
        float, typer.Option(min=0, help="How long after the switch the way back stays open.")
    ] = 48.0,
    force: Annotated[
        bool, typer.Option("--force", help="Give up the way back before the window is over.")
    ] = False,
    catch_up_seconds: options.LockSeconds = 600.0,
) -> None:
    """End the migration: no rollback any more, the SQLite file archived and read-only."""
    ends = options.collect(
        source,
        target=target,
        target_file=target_file,
        connection=connection,
        connect_to=connect_to,
        pooler=pooler,
        console_file=console_file,
        alias_file=alias_file,
        state=state,
        application_source=application_source,
        owner=owner,
    )
    with write_outcome(report, "settle") as outcome:
        archive = run_settle(
            ends,
            report,
            window=timedelta(hours=window_hours),
            force=force,
            lock_limit=catch_up_seconds,
            say=options.say,
        )
        outcome.update(phase="settled", archive=str(archive))
    options.say(f"settled; `migration-job restore-backup {archive} FILE` restores the archive")
