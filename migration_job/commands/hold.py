"""``migration-job hold`` and ``resume``: the application's traffic stands still for maintenance."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from migration_job.commands.live_options import LiveOptions
from migration_job.commands.option_groups import PauseSeconds, with_options
from migration_job.protocol import lease
from migration_job.protocol.outcome import write_outcome
from migration_job.protocol.settings import Endpoints


def register(app: typer.Typer) -> None:
    """Add ``hold`` and ``resume`` to the program."""
    app.command("hold")(with_options(hold))
    app.command("resume")(with_options(resume))


def _me() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HowToHold:
    """How long to hold, and what for."""

    reason: Annotated[str, typer.Option(help="What for; `status` shows it.")]
    minutes: Annotated[
        float,
        typer.Option(min=0.01, max=24 * 60, help="The hold's end, from now; `sync` ends it then."),
    ] = 10.0
    wait_seconds: PauseSeconds = 10.0
    by: Annotated[str | None, typer.Option(help="Who holds; user@host by default.")] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldOptions(LiveOptions):
    """Whose traffic to hold, and how long."""

    how: HowToHold


def hold_one(ends: Endpoints, report: Path, how: HowToHold, told: Callable[[str], None]) -> None:
    """Hold the traffic, and write down how that went. Raises a JobError."""
    with write_outcome(report, "hold") as outcome:
        held = lease.hold(
            ends,
            seconds=how.minutes * 60,
            reason=how.reason,
            by=how.by or _me(),
            wait=how.wait_seconds,
            say=told,
        )
        outcome.update(by=held.by, until=held.until, reason=held.reason)


def hold(options: HoldOptions) -> None:
    """Hold the application's queries at PgBouncer, until `resume` or the end of the hold."""
    hold_one(options.endpoints(), options.report, options.how, options.say)


def resume(options: LiveOptions) -> None:
    """End a hold, or one made by another program: PgBouncer serves the application again."""
    ends = options.endpoints()
    with write_outcome(options.report, "resume"):
        lease.resume(ends, say=options.say)
