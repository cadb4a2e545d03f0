"""``migration-job fleet``: many files of one kind."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from migration_job.commands.option_groups import TargetOptions, WordOptions, with_options
from migration_job.errors import VerificationError
from migration_job.fleet import checking
from migration_job.fleet.manifest import read_fleet, read_manifest
from migration_job.fleet.run import FleetOptions, FleetRun
from migration_job.fleet.telling import SHOWN
from migration_job.plan.findings import some
from migration_job.plural import counted
from migration_job.progress import Reporter
from migration_job.report import fleet as page


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command("fleet")(with_options(fleet))
    app.command("fleet-check")(with_options(fleet_check))


Manifest = Annotated[
    Path,
    typer.Argument(
        help="A YAML file: which files, whose each is, the layout on PostgreSQL, the policy."
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetCommand:
    """Which files, and where to."""

    manifest: Manifest
    report: Annotated[
        Path,
        typer.Option(help="Directory for fleet.json, fleet.html, and each file's own report."),
    ]
    to: TargetOptions
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1, max=64, help="Files at a time; else the manifest's `jobs`, or one for each core."
        ),
    ] = None
    live: Annotated[
        bool,
        typer.Option(
            "--live",
            help="The applications continue to write: triggers in each file capture the changes, "
            "and `fleet-sync` applies them. The manifest's `live: true` says the same.",
        ),
    ] = False
    words: WordOptions


def fleet(options: FleetCommand) -> None:
    """Plan, copy and verify many SQLite files, which may stay in use.

    Each goes into a schema or a database of its own, or all go into common tables. A second run
    takes what the first has left.
    """
    reporter = Reporter(quiet=options.words.quiet)
    wanted = FleetOptions(
        options.manifest, options.to.dsn(), options.report, options.live, options.jobs
    )
    told = FleetRun(read_fleet(options.manifest), wanted, reporter).run()
    if options.words.verbose:
        for tenant, file in sorted(told.files.items()):
            reporter.say(
                f"{tenant}: {file.state}, {counted(file.rows, 'row')}, certificate "
                f"{file.certificate}"
            )
    reporter.say(told.message)
    if told.certificate is not None:
        reporter.say(f"certificate {told.certificate.digest}")
    reporter.say(f"report: {options.report / page.PAGE}")


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetCheckCommand:
    """Of which fleet, and where it is."""

    manifest: Manifest
    to: TargetOptions
    words: WordOptions


def fleet_check(options: FleetCheckCommand) -> None:
    """Whether what a fleet has moved is on PostgreSQL as it was verified: nobody has written there.

    The files are not looked at. It ends with 4 where somebody has, and names the tenants: what
    PostgreSQL has of them is nowhere else.
    """
    reporter = Reporter(quiet=options.words.quiet)
    changed = checking.changed(options.to.dsn(), read_manifest(options.manifest).layout)
    if changed:
        named = [f"{tenant}: {said}" for tenant, said in sorted(changed.items())]
        shown = len(named) if options.words.verbose else SHOWN
        raise VerificationError(
            "expected what the fleet moved on the target as it was verified, found another state "
            f"of {counted(len(changed), 'tenant')}: {some(named, shown)}",
            advice="somebody has worked there since: what PostgreSQL has of them is in no file",
        )
    reporter.say("all that the fleet moved is on the target as it was verified")
