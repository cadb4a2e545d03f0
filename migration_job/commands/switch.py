"""``migration-job switch``: the application goes over to PostgreSQL."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from migration_job.commands.live_options import LiveOptions, say
from migration_job.commands.option_groups import AcceptAsynchronous, with_options
from migration_job.plan.policy import load_policy
from migration_job.protocol.outcome import write_outcome
from migration_job.protocol.switch import move_reads
from migration_job.protocol.switch import switch as run_switch


def register(app: typer.Typer) -> None:
    """Add ``switch`` to the program."""
    app.command("switch")(with_options(switch))


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchOptions(LiveOptions):
    """How to switch."""

    reads_only: Annotated[
        bool,
        typer.Option(
            "--reads-only", help="Move only the reads; writes stay on SQLite (dual-write)."
        ),
    ] = False
    fence_seconds: Annotated[
        float, typer.Option(min=0.05, help="How long SQLite's writers may be held.")
    ] = 1.0
    catch_up_seconds: Annotated[
        float, typer.Option(min=1, help="How long to catch up before giving up.")
    ] = 600.0
    compare: Annotated[
        bool,
        typer.Option(
            "--compare/--no-compare",
            help="Compare the content of both sides in full before writers are held; without it an "
            "update by a program that disables triggers is not detected.",
        ),
    ] = True
    one_way: Annotated[
        list[str] | None,
        typer.Option(help="A table whose later changes need not come back (repeatable)."),
    ] = None
    accept_asynchronous: AcceptAsynchronous = False
    policy: Annotated[
        Path | None,
        typer.Option(
            help="A policy file (YAML) that acknowledges columns which a few values have given "
            "another type. The policy of `migrate` counts as well."
        ),
    ] = None


def switch(options: SwitchOptions) -> None:
    """Let PostgreSQL serve: hold the writers, verify the last changes, decide, open."""
    ends = replace(
        options.endpoints(),
        asynchronous=options.accept_asynchronous,
        policy=None if options.policy is None else load_policy(options.policy),
    )
    with write_outcome(options.report, "switch") as outcome:
        if options.reads_only:
            move_reads(ends, catch_up_limit=options.catch_up_seconds, say=say)
            outcome.update(phase="verified", reads="postgresql", writes="sqlite")
            say("PostgreSQL answers reads; SQLite takes the writes")
            return
        done = run_switch(
            ends,
            budget=options.fence_seconds,
            catch_up_limit=options.catch_up_seconds,
            one_way=tuple(options.one_way or ()),
            compare=options.compare,
            say=say,
        )
        outcome.update(
            phase="switched",
            held_ms=round(done.held_ms, 1),
            position=done.position,
            certificate=done.certificate,
        )
    say(f"PostgreSQL serves; {options.connection} names it")
