"""``migration-job rollback``: the application goes back to SQLite."""

from __future__ import annotations

from typing import Annotated

import typer

from migration_job.commands import live_options as options
from migration_job.protocol.outcome import write_outcome
from migration_job.protocol.rollback import rollback as run_rollback


def register(app: typer.Typer) -> None:
    """Add ``rollback`` to the program."""
    app.command("rollback")(rollback)


def rollback(
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
    keep_reads: Annotated[
        bool,
        typer.Option("--keep-reads", help="Give back the writes alone (dual-write)."),
    ] = False,
    release: Annotated[
        bool,
        typer.Option("--release", help="Also take the change capture out of the SQLite file."),
    ] = False,
    accept_loss: Annotated[
        bool,
        typer.Option(
            "--accept-loss",
            help="Go back although PostgreSQL is gone or rows cannot come back; says what is lost.",
        ),
    ] = False,
    pause_seconds: Annotated[
        float, typer.Option(min=0.1, help="How long to wait for open transactions to end.")
    ] = 10.0,
    drain_seconds: Annotated[
        float, typer.Option(min=1, help="How long PostgreSQL's changes may take to come back.")
    ] = 600.0,
) -> None:
    """Have SQLite serve, with all that was written on PostgreSQL since."""
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
    with write_outcome(report, "rollback") as outcome:
        done = run_rollback(
            ends,
            pause_limit=pause_seconds,
            drain_limit=drain_seconds,
            accept_loss=accept_loss,
            keep_reads=keep_reads,
            release=release,
            say=options.say,
        )
        outcome.update(phase="rolled back", held_ms=round(done.held_ms, 1), lost=list(done.lost))
    options.say(f"SQLite serves; {connection} names it")
