"""``migration-job demo``: the whole way on this machine, without Docker, Pulumi or an account."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from migration_job.binaries import DEFAULT_MAJOR, postgres_programs
from migration_job.commands.option_groups import with_options
from migration_job.demo.radcase import (
    DEFAULT_ROWS,
    DEFAULT_SEED,
    make_radcase,
    radcase_catalogue,
    require_rows,
)
from migration_job.demo.rehearsal import exceptions, rehearse, say
from migration_job.demo.stage import DATABASE, REHEARSAL, DemoStage, fresh_directory, require_own
from migration_job.errors import ExitStatus, InputError
from migration_job.plan.policy import load_policy
from migration_job.plan.profile import load_profile
from migration_job.plural import counted
from migration_job.shell_words import words
from migration_job.signals import StoppedError, stopped_by_signals
from migration_job.stores.sqlite.catalogue import read_catalogue
from migration_job.stores.sqlite.database import looking
from migration_job.stores.sqlite.model import Catalogue

if TYPE_CHECKING:
    from migration_job.demo.live import Shown

STOPPED_STATUS = 130
"""What a shell says of a program that Ctrl-C has ended; the Makefile knows it."""


def register(app: typer.Typer) -> None:
    """Add ``demo`` to the program."""
    app.command("demo")(with_options(demo))


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """What to show, and on what data."""

    source: Annotated[
        Path | None,
        typer.Argument(help="Your own SQLite file, which is only read; a made-up one without it."),
    ] = None
    profile: Annotated[
        str | None,
        typer.Option(help="radcase, none or a file; radcase for the made-up database."),
    ] = None
    policy: Annotated[
        Path | None, typer.Option(help="What to do with values that do not fit (YAML).")
    ] = None
    rows: Annotated[int, typer.Option(help="Rows of the made-up database.")] = DEFAULT_ROWS
    seed: Annotated[int, typer.Option(help="The same seed makes the same rows.")] = DEFAULT_SEED
    hostile: Annotated[
        bool, typer.Option("--hostile", help="Also make the rows that the profile refuses.")
    ] = False
    directory: Annotated[
        Path,
        typer.Option(
            help="Where the report and other files go; an earlier demo's directory is emptied."
        ),
    ] = Path(".state/demo")
    postgres: Annotated[int, typer.Option(help="PostgreSQL's major version.")] = DEFAULT_MAJOR
    still: Annotated[
        bool,
        typer.Option(
            "--still", help="No application and no made-up writes: only the data is moved."
        ),
    ] = False
    back: Annotated[
        bool, typer.Option("--back", help="Under load, go back to SQLite after the switch.")
    ] = False
    fleet: Annotated[
        int | None,
        typer.Option(
            min=3,
            max=5_000,
            help="Instead: so many made-up tenants with a file each, under load; some are "
            "switched, and some of these back.",
        ),
    ] = None
    dwell: Annotated[
        float, typer.Option(min=0, help="Seconds to show the application on either side.")
    ] = 2.0
    metrics_port: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=65535,
            help="The port on which the demo's `sync` serves its metrics to your Prometheus.",
        ),
    ] = None
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the servers running until Enter is pressed.")
    ] = False


def demo(options: DemoOptions) -> None:
    """Migrate a database to an embedded PostgreSQL, verify, and switch a connection to it.

    A made-up database is served by the example application all the while, under load. A file of
    your own is only read: a copy of it is written to all the while, with writes made up from its
    schema, switched, and brought back.
    """
    _require_fitting(options)
    try:
        with stopped_by_signals():
            status = _shown(options)
    except StoppedError:
        read = "" if options.source is None else f"; {options.source} was only read"
        say(f"\nstopped: the servers and programs that the demo started have ended{read}")
        raise typer.Exit(STOPPED_STATUS) from None
    raise typer.Exit(int(status))


def _require_fitting(options: DemoOptions) -> None:
    """Raises InputError for options with which the demo cannot be shown: before the directory is
    emptied, which may hold an earlier demo's report."""
    catalogue = _catalogue(options)
    given = {"source": options.source, "policy": options.policy, "profile": _profile_file(options)}
    for what, path in given.items():
        if path is not None and options.directory.resolve() in path.resolve().parents:
            raise InputError(
                f"the {what} {path} is in {options.directory}, which this empties",
                advice="give another with --directory",
            )
    if options.fleet is not None and options.source is not None:
        raise InputError(
            "expected no file beside --fleet, found one",
            advice="a fleet's tenants are made up; docs/how-to/fleet-live.md moves your own",
        )
    if options.source is None:
        require_rows(options.rows)
    if options.policy is not None:
        load_policy(options.policy).check(catalogue)
    load_profile(_profile(options))
    require_own(options.directory)


def _catalogue(options: DemoOptions) -> Catalogue:
    """What is to be moved. Raises InputError where the source cannot be read."""
    if options.source is not None:
        with looking(options.source) as source:
            return read_catalogue(source)
    if not find_spec("example_app"):
        return radcase_catalogue()
    from example_app.databases import REQUESTS

    return radcase_catalogue(REQUESTS)


def _profile_file(options: DemoOptions) -> Path | None:
    file = Path(options.profile or "none")
    return file if file.is_file() else None


def _profile(options: DemoOptions) -> str:
    return options.profile or ("radcase" if options.source is None else "none")


def _shown(options: DemoOptions) -> ExitStatus:
    """All of it, from an empty directory; how it ended."""
    # Fetched where it is not here; a failure of that costs no earlier demo's report.
    postgres_programs(options.postgres)
    if options.fleet is not None:
        return _show_fleet(options, options.fleet)
    home = fresh_directory(options.directory)
    source = options.source or _made_up(home / "radcase.db", options)
    made_up = options.source is None
    profile = _profile(options)
    last_line = ""
    named = DATABASE if made_up else REHEARSAL
    with DemoStage(home, major=options.postgres, database=named) as stage:
        _say_started(stage)
        shown = _shown_live(source, stage, options, profile=profile)
        if shown is None:
            status = rehearse(source, stage, profile=profile, policy=options.policy)
        else:
            status, last_line = shown.status, shown.last_line
        # After any other end the message that is above says what to do.
        if status in (ExitStatus.DONE, ExitStatus.BLOCKED):
            blocked = status is ExitStatus.BLOCKED
            _say_next(source, stage, profile=profile, made_up=made_up, blocked=blocked)
        if last_line:
            say(f"\n{last_line}")
        if options.keep:
            say(f'\nto inspect it: {stage.server.program("psql")} "$(cat {stage.target_file})"')
            input("press Enter to end the servers and remove the target ")
    return status


def _show_fleet(options: DemoOptions, tenants: int) -> ExitStatus:
    from migration_job.demo.tenants import TenantsShow

    home = fresh_directory(options.directory)
    with DemoStage(home, major=options.postgres, database="tenants") as stage:
        _say_started(stage)
        shown = TenantsShow(stage, tenants, seed=options.seed, dwell=options.dwell).run()
        say("\nnext\n  docs/how-to/fleet-live.md   the same with files of your own")
        say(f"\n{shown.last_line}")
    return shown.status


def _shown_live(
    source: Path, stage: DemoStage, options: DemoOptions, *, profile: str
) -> Shown | None:
    """The way under load; None where the data alone is to be moved."""
    if options.still or options.hostile or not find_spec("example_app"):
        return None
    from migration_job.demo import live, replayed

    back = options.back
    if options.source is not None:
        if not replayed.room_for(source, stage.directory):
            say(f"without made-up writes: the disk has no room for a copy of {source} to write to")
            return None
        # A rehearsal goes the whole way; without PgBouncer nothing would hold the queries.
        back = stage.bouncer is not None
    wish = live.Wish(back, options.dwell, options.metrics_port, options.policy)
    if options.source is None:
        return live.show(source, stage, profile=profile, wish=wish)
    return replayed.rehearse_live(source, stage, profile=profile, wish=wish)


def _made_up(path: Path, options: DemoOptions) -> Path:
    made = make_radcase(path, rows=options.rows, seed=options.seed, hostile=options.hostile)
    rows, tables = counted(made.rows, "row"), counted(made.tables, "table")
    say(f"made {path}: {rows} in {tables}, {made.seconds:.1f} s")
    return path


def _say_started(stage: DemoStage) -> None:
    say(f"started PostgreSQL {stage.server_version} on port {stage.server.port}, for this only")
    if stage.bouncer is not None:
        version = ".".join(str(part) for part in stage.bouncer.version)
        say(f"started PgBouncer {version} on port {stage.bouncer.port}")
    else:
        say(f"continuing without a pooler: {stage.without_pooler}")


def _say_next(
    source: Path, stage: DemoStage, *, profile: str, made_up: bool, blocked: bool
) -> None:
    say("\nnext")
    if blocked or exceptions(stage):
        by = ("--profile", profile, "--suggest", "policy.yaml")
        say(f"  migration-job inspect {words((str(source), *by))}")
        say("                             a policy for the findings: read it, take its lines up")
        say(f"  migration-job demo {_again(source, profile, made_up=made_up)} --policy policy.yaml")
        say("                             the same with that policy")
    if made_up:
        say("  make demo SOURCE=my.db     the same on a file of your own, which is only read")
        say("  make up STAGE=dev          the same on Docker, by Pulumi, with the way back")
    else:
        say("  docs/tutorial.md           a stage of your own: its file, its settings, make up")


def _again(source: Path, profile: str, *, made_up: bool) -> str:
    return "--hostile" if made_up else words((str(source), "--profile", profile))
