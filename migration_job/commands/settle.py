"""``migration-job settle``: the way back is given up, the SQLite file archived."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from migration_job.commands.live_options import LiveOptions
from migration_job.commands.option_groups import LockSeconds, with_options
from migration_job.protocol.outcome import write_outcome
from migration_job.protocol.settings import Endpoints
from migration_job.protocol.settle import settle as run_settle
from migration_job.shell_words import word


def register(app: typer.Typer) -> None:
    """Add ``settle`` to the program."""
    app.command("settle")(with_options(settle))


@dataclass(frozen=True, slots=True, kw_only=True)
class HowToSettle:
    """When to end."""

    window_hours: Annotated[
        float, typer.Option(min=0, help="How long after the switch the way back stays open.")
    ] = 48.0
    force: Annotated[
        bool, typer.Option("--force", help="Give up the way back before the window is over.")
    ] = False
    catch_up_seconds: LockSeconds = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SettleOptions(LiveOptions):
    """What to end, and when."""

    how: HowToSettle


def settle_one(
    ends: Endpoints, report: Path, how: HowToSettle, told: Callable[[str], None]
) -> Path:
    """Give the way back up, and write down how that went; the archive's directory. Raises a
    JobError."""
    with write_outcome(report, "settle") as outcome:
        archive = run_settle(
            ends,
            report,
            window=timedelta(hours=how.window_hours),
            force=how.force,
            lock_limit=how.catch_up_seconds,
            say=told,
        )
        outcome.update(phase="settled", archive=str(archive))
    return archive


def settle(options: SettleOptions) -> None:
    """End the migration: no rollback any more, the SQLite file archived and read-only."""
    archive = settle_one(options.endpoints(), options.report, options.how, options.say)
    options.say(
        f"settled; `migration-job restore-backup {word(str(archive))} FILE` restores the archive"
    )
