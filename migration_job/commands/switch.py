"""``migration-job switch``: the application goes over to PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from migration_job.commands.live_options import LiveOptions, remember_switch
from migration_job.commands.option_groups import AcceptAsynchronous, with_options
from migration_job.plan.policy import load_policy
from migration_job.protocol import whole_command
from migration_job.protocol.outcome import write_outcome
from migration_job.protocol.settings import Endpoints
from migration_job.protocol.switch import move_reads
from migration_job.protocol.switch import switch as run_switch


def register(app: typer.Typer) -> None:
    """Add ``switch`` to the program."""
    app.command("switch")(with_options(switch))


@dataclass(frozen=True, slots=True, kw_only=True)
class HowToSwitch:
    """How to switch."""

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

    def remembered(self) -> whole_command.SwitchOptions:
        """What a later command of the same migration is to be given again."""
        return whole_command.SwitchOptions(
            policy=self.policy,
            one_way=tuple(self.one_way or ()),
            accept_asynchronous=self.accept_asynchronous,
            fence_seconds="" if self.fence_seconds == 1.0 else f"{self.fence_seconds:g}",
        )

    def accepted(self, ends: Endpoints) -> Endpoints:
        """What the command acts on, with what the operator accepts. Raises InputError."""
        return replace(
            ends,
            asynchronous=self.accept_asynchronous,
            policy=None if self.policy is None else load_policy(self.policy),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchOptions(LiveOptions):
    """What to switch, and how."""

    reads_only: Annotated[
        bool,
        typer.Option(
            "--reads-only", help="Move only the reads; writes stay on SQLite (dual-write)."
        ),
    ] = False
    how: HowToSwitch


def switch(options: SwitchOptions) -> None:
    """Let PostgreSQL serve: hold the writers, verify the last changes, decide, open."""
    ends = options.how.accepted(options.endpoints())
    remember_switch(ends.state, options.how.remembered())
    if options.reads_only:
        with write_outcome(options.report, "switch") as outcome:
            move_reads(ends, catch_up_limit=options.how.catch_up_seconds, say=options.say)
            outcome.update(phase="verified", reads="postgresql", writes="sqlite")
            options.say("PostgreSQL answers reads; SQLite takes the writes")
        return
    switch_one(ends, options.report, options.how, options.say)
    options.say(f"PostgreSQL serves; {options.connection} names it")


def switch_one(
    ends: Endpoints, report: Path, how: HowToSwitch, told: Callable[[str], None]
) -> None:
    """Have PostgreSQL serve, and write down how that went. Raises a JobError."""
    with write_outcome(report, "switch") as outcome:
        done = run_switch(
            ends,
            budget=how.fence_seconds,
            catch_up_limit=how.catch_up_seconds,
            one_way=tuple(how.one_way or ()),
            compare=how.compare,
            say=told,
        )
        outcome.update(
            phase="switched",
            held_ms=done.held_ms,
            position=done.position,
            certificate=done.certificate,
        )
