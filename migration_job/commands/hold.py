"""``migration-job hold`` and ``resume``: the application's traffic stands still for maintenance."""

from __future__ import annotations

import getpass
import socket
from typing import Annotated

import typer

from migration_job.commands import live_options as options
from migration_job.protocol import lease
from migration_job.protocol.outcome import write_outcome


def register(app: typer.Typer) -> None:
    """Add ``hold`` and ``resume`` to the program."""
    app.command("hold")(hold)
    app.command("resume")(resume)


def _me() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def hold(
    source: options.Source,
    report: options.ReportDir,
    connection: options.ConnectionDir,
    connect_to: options.ConnectTo,
    reason: Annotated[str, typer.Option(help="What for; `status` shows it.")],
    target: options.Target = None,
    target_file: options.TargetFile = None,
    pooler: options.Console = None,
    console_file: options.ConsoleFile = None,
    alias_file: options.AliasFile = None,
    state: options.State = None,
    application_source: options.ApplicationSource = None,
    owner: options.Owner = None,
    minutes: Annotated[
        float,
        typer.Option(min=0.01, max=24 * 60, help="The hold's end, from now; `sync` ends it then."),
    ] = 10.0,
    wait_seconds: Annotated[
        float, typer.Option(min=0.1, help="How long open transactions may take to end.")
    ] = 10.0,
    by: Annotated[
        str | None, typer.Option(help="Who holds; user@host where it is not given.")
    ] = None,
) -> None:
    """Hold the application's queries at PgBouncer for maintenance, until `resume` or the end."""
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
    with write_outcome(report, "hold") as outcome:
        held = lease.hold(
            ends,
            seconds=minutes * 60,
            reason=reason,
            by=by or _me(),
            wait=wait_seconds,
            say=options.say,
        )
        outcome.update(by=held.by, until=held.until, reason=held.reason)


def resume(
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
) -> None:
    """End a hold, or what somebody else has closed at PgBouncer: the application goes on."""
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
    with write_outcome(report, "resume"):
        lease.resume(ends, say=options.say)
