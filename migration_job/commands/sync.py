"""``migration-job sync``: keeps the other side current, and finishes what died half-way."""

from __future__ import annotations

import signal
import threading
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Annotated

import typer

from migration_job.commands.live_options import LiveOptions
from migration_job.commands.option_groups import Once, with_options
from migration_job.protocol.metrics import MigrationCollector, serving
from migration_job.protocol.reverse_sync import LOCK_SECONDS
from migration_job.protocol.sync import Sync
from migration_job.stores.sqlite.waiting import patience


def register(app: typer.Typer) -> None:
    """Add ``sync`` to the program."""
    app.command("sync")(with_options(sync))


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncOptions(LiveOptions):
    """How to follow."""

    max_lag: Annotated[
        float,
        typer.Option(min=0.1, help="Reads that have moved go back when the lag exceeds this (s)."),
    ] = 5.0
    metrics_port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port for Prometheus metrics; 0 for none.")
    ] = 0
    once: Once = False
    catch_up_seconds: Annotated[
        float,
        typer.Option(
            min=1,
            help="With --once: how long to wait for each of the source's locks. Without it sync "
            "reports after 5 s that it waits.",
        ),
    ] = 600.0


def sync(options: SyncOptions) -> None:
    """Follow SQLite until the switch and PostgreSQL after it; runs until it is told to stop."""
    ends = options.endpoints()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    limit = (
        options.catch_up_seconds if options.once else min(options.catch_up_seconds, LOCK_SECONDS)
    )
    with (
        patience(limit),
        serving(MigrationCollector(options.report, ends.state), options.metrics_port)
        if options.metrics_port
        else nullcontext(),
    ):
        Sync(ends, max_lag=options.max_lag, say=options.say).run(stop.is_set, once=options.once)
