"""``migration-job rollback``: the application goes back to SQLite."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from migration_job.commands.live_options import LiveOptions
from migration_job.commands.option_groups import with_options
from migration_job.protocol.outcome import write_outcome
from migration_job.protocol.rollback import RolledBack
from migration_job.protocol.rollback import rollback as run_rollback
from migration_job.protocol.settings import Endpoints


def register(app: typer.Typer) -> None:
    """Add ``rollback`` to the program."""
    app.command("rollback")(with_options(rollback))


@dataclass(frozen=True, slots=True, kw_only=True)
class HowToGoBack:
    """How to go back."""

    release: Annotated[
        bool,
        typer.Option("--release", help="Also remove the change capture from the SQLite file."),
    ] = False
    accept_loss: Annotated[
        bool,
        typer.Option(
            "--accept-loss",
            help="Go back although PostgreSQL is gone or rows cannot come back; says what is lost.",
        ),
    ] = False
    one_way: Annotated[
        list[str] | None,
        typer.Option(
            "--one-way",
            metavar="TABLE",
            help="A table whose schema was changed on PostgreSQL so that its changes do "
            "not come back: give them up (repeatable).",
        ),
    ] = None
    pause_seconds: Annotated[
        float, typer.Option(min=0.1, help="How long to wait for open transactions to end.")
    ] = 10.0
    drain_seconds: Annotated[
        float, typer.Option(min=1, help="How long PostgreSQL's changes may take to come back.")
    ] = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackOptions(LiveOptions):
    """What to take back, and how."""

    keep_reads: Annotated[
        bool,
        typer.Option("--keep-reads", help="Move only the writes back (dual-write)."),
    ] = False
    how: HowToGoBack


def rollback_one(
    ends: Endpoints,
    report: Path,
    how: HowToGoBack,
    told: Callable[[str], None],
    *,
    keep_reads: bool = False,
) -> RolledBack:
    """Have SQLite serve, and write down how that went. Raises a JobError."""
    with write_outcome(report, "rollback") as outcome:
        done = run_rollback(
            ends,
            pause_limit=how.pause_seconds,
            drain_limit=how.drain_seconds,
            accept_loss=how.accept_loss,
            keep_reads=keep_reads,
            release=how.release,
            one_way=tuple(how.one_way or ()),
            say=told,
        )
        outcome.update(phase="rolled back", held_ms=done.held_ms, lost=list(done.lost))
    return done


def rollback(options: RollbackOptions) -> None:
    """Let SQLite serve, with everything that was written on PostgreSQL since."""
    ends = options.endpoints()
    done = rollback_one(
        ends, options.report, options.how, options.say, keep_reads=options.keep_reads
    )
    if done.never_switched:
        options.say(
            f"there was nothing to roll back: {options.source} was not switched, and SQLite serves"
        )
    else:
        options.say(f"SQLite serves; {options.connection} names it")
