"""``migration-job switch``: the application goes over to PostgreSQL."""

from __future__ import annotations

from typing import Annotated

import typer

from migration_job.commands import live_options as options
from migration_job.protocol.outcome import write_outcome
from migration_job.protocol.switch import move_reads
from migration_job.protocol.switch import switch as run_switch


def register(app: typer.Typer) -> None:
    """Add ``switch`` to the program."""
    app.command("switch")(switch)


def switch(
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
    reads_only: Annotated[
        bool,
        typer.Option(
            "--reads-only", help="Move the reads alone; writes stay with SQLite (dual-write)."
        ),
    ] = False,
    fence_seconds: Annotated[
        float, typer.Option(min=0.05, help="How long SQLite's writers may be held.")
    ] = 1.0,
    catch_up_seconds: Annotated[
        float, typer.Option(min=1, help="How long to catch up before giving up.")
    ] = 600.0,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare/--no-compare",
            help="Compare the content of both sides in full before anybody is held; without it an "
            "update by a program that switches triggers off stays unseen.",
        ),
    ] = True,
    one_way: Annotated[
        list[str] | None,
        typer.Option(help="A table whose later changes need not come back; may be repeated."),
    ] = None,
) -> None:
    """Have PostgreSQL serve: hold the writers for a moment, prove the rest, decide, open."""
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
    with write_outcome(report, "switch") as outcome:
        if reads_only:
            move_reads(ends, catch_up_limit=catch_up_seconds, say=options.say)
            outcome.update(phase="verified", reads="postgresql", writes="sqlite")
            options.say("PostgreSQL answers reads; SQLite takes the writes")
            return
        done = run_switch(
            ends,
            budget=fence_seconds,
            catch_up_limit=catch_up_seconds,
            one_way=tuple(one_way or ()),
            compare=compare,
            say=options.say,
        )
        outcome.update(
            phase="switched",
            held_ms=round(done.held_ms, 1),
            position=done.position,
            certificate=done.certificate,
        )
    options.say(f"PostgreSQL serves; {connection} names it")
