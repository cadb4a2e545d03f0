"""``migration-job sync``: keeps the other side current, and finishes what died half-way."""

from __future__ import annotations

import signal
import threading
from contextlib import nullcontext
from typing import Annotated

import typer

from migration_job.commands import live_options as options
from migration_job.protocol.metrics import MigrationCollector, serving
from migration_job.protocol.reverse_sync import LOCK_SECONDS
from migration_job.protocol.sync import Sync
from migration_job.stores.sqlite.waiting import patience


def register(app: typer.Typer) -> None:
    """Add ``sync`` to the program."""
    app.command("sync")(sync)


def sync(
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
    max_lag: Annotated[
        float,
        typer.Option(min=0.1, help="Reads that have moved go back when the lag exceeds this (s)."),
    ] = 5.0,
    metrics_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Serve metrics for Prometheus; 0 does not.")
    ] = 0,
    once: Annotated[
        bool, typer.Option("--once", help="End when there is nothing left to do.")
    ] = False,
    catch_up_seconds: Annotated[
        float,
        typer.Option(
            min=1,
            help="With --once: how long to wait for each of the source's locks; a sync that runs "
            "on says after 5 s that it waits.",
        ),
    ] = 600.0,
) -> None:
    """Follow SQLite until the switch and PostgreSQL after it; runs until it is told to stop."""
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
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    limit = catch_up_seconds if once else min(catch_up_seconds, LOCK_SECONDS)
    with (
        patience(limit),
        serving(MigrationCollector(report, ends.state), metrics_port)
        if metrics_port
        else nullcontext(),
    ):
        Sync(ends, max_lag=max_lag, say=options.say).run(stop.is_set, once=once)
