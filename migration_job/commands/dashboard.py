"""``migration-job dashboard``: the panels as a light page, where Grafana cannot be had."""

from __future__ import annotations

import signal
import sys
from typing import Annotated

import typer

from migration_job.commands.live_options import say
from migration_job.dashboard.panels import boards
from migration_job.dashboard.server import Dashboard, Prometheus


def register(app: typer.Typer) -> None:
    """Add ``dashboard`` to the program."""
    app.command("dashboard")(dashboard)


def dashboard(
    prometheus: Annotated[
        str, typer.Option(help="The address of the stage's Prometheus.")
    ] = "http://127.0.0.1:9090",
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 chooses a free port.")] = 8090,
    name: Annotated[
        list[str] | None,
        typer.Option(
            help="A host name by which the page may be requested, besides localhost, --host "
            "and IP addresses (repeatable). Any other is refused."
        ),
    ] = None,
    minutes: Annotated[int, typer.Option(min=1, help="How far back the curves go.")] = 30,
    backup: Annotated[bool, typer.Option(help="Show the backups' panels.")] = True,
    members: Annotated[
        bool, typer.Option(help="Show the panels of a PostgreSQL on several servers.")
    ] = False,
) -> None:
    """Serve the stage's panels as one page, until interrupted."""
    # As a container's first process it would not end until it is killed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    asked = Prometheus(prometheus, span=minutes * 60)
    shown = boards(backup=backup, members=members)
    page = Dashboard(asked, shown, host=host, port=port, names=name or ())
    say(f"the dashboard is at {page.url} (Ctrl-C ends it)")
    page.serve_forever()
