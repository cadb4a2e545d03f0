"""``migration-job fleet-sync``, ``fleet-switch`` and so on: the live tenants of a fleet."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from migration_job import last_resort
from migration_job.commands.hold import HowToHold, hold_one
from migration_job.commands.live_options import Spoken, TargetFile, console_of, owner_of, say
from migration_job.commands.option_groups import (
    ALIAS_FILE_HELP,
    AsJson,
    Console,
    ConsoleFile,
    Once,
    Report,
    Target,
    Tenants,
    print_json,
    with_options,
)
from migration_job.commands.rollback import HowToGoBack, rollback_one
from migration_job.commands.settle import HowToSettle, settle_one
from migration_job.commands.switch import HowToSwitch, switch_one
from migration_job.errors import InputError, JobError, OperationError
from migration_job.fleet import standing
from migration_job.fleet.following import FleetSync
from migration_job.fleet.manifest import NO_LIVE_COLUMN, Live, Manifest, read_manifest
from migration_job.fleet.places import Places, connections_of
from migration_job.fleet.telling import KIND, common_status
from migration_job.plan.findings import some
from migration_job.plural import counted
from migration_job.protocol import lease
from migration_job.protocol.outcome import write_outcome
from migration_job.protocol.reverse_sync import LOCK_SECONDS
from migration_job.protocol.settings import Endpoints, Reached, read_connect_to
from migration_job.shell_words import word
from migration_job.stores.postgres import database, role_path
from migration_job.stores.postgres.fleet_ledger import FleetLedger
from migration_job.stores.sqlite.waiting import patience

Say = Callable[[str], None]
Act = Callable[[Endpoints, Path, Say], None]
"""What is done to one tenant, with the directory of its reports."""


def register(app: typer.Typer) -> None:
    """Add the commands of live tenants to the program."""
    app.command("fleet-sync")(with_options(fleet_sync))
    app.command("fleet-status")(with_options(fleet_status))
    app.command("fleet-switch")(with_options(fleet_switch))
    app.command("fleet-rollback")(with_options(fleet_rollback))
    app.command("fleet-hold")(with_options(fleet_hold))
    app.command("fleet-resume")(with_options(fleet_resume))
    app.command("fleet-settle")(with_options(fleet_settle))


@dataclass(frozen=True, slots=True, kw_only=True)
class BookOptions:
    """Which fleet, and where its book is."""

    manifest: Annotated[Path, typer.Argument(help="The fleet's manifest.")]
    report: Report
    target: Target = None
    target_file: TargetFile = None

    def read(self) -> Manifest:
        """The manifest. Raises InputError for one whose files cannot stay in use."""
        manifest = read_manifest(self.manifest)
        if manifest.layout == "tenant-column":
            raise InputError(NO_LIVE_COLUMN)
        return manifest

    @property
    def folder(self) -> Path:
        """The manifest's directory."""
        return self.manifest.absolute().parent

    def server(self) -> str:
        """The connection string of the book's database. Raises InputError."""
        return database.read_dsn(self.target, self.target_file)


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetOptions(BookOptions):
    """The fleet, the pooler and what the applications connect to."""

    connect_to: Annotated[
        Path,
        typer.Option(
            "--connect-to",
            "--application-file",
            help="A JSON file as of `switch`; {tenant} and {place} in database, user, password and "
            "their files stand for the tenant's. With PgBouncer the database is its alias.",
        ),
    ]
    pooler: Console = None
    console_file: ConsoleFile = None
    alias_file: Annotated[Path | None, typer.Option(help=ALIAS_FILE_HELP)] = None
    owner: Annotated[
        str | None,
        typer.Option(
            help="UID:GID of the applications, which the connections' files are given to."
        ),
    ] = None
    words: Spoken

    def places(self) -> Places:
        """The options put together. Raises InputError."""
        told = read_connect_to(self.connect_to)
        console = console_of(self.pooler, self.console_file)
        reached = Reached(told, self.connect_to, console, self.alias_file)
        owner = owner_of(self.owner)
        places = Places(self.read(), self.folder, self.server(), self.report, reached, owner)
        places.require_own_aliases()
        return places


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantOptions(FleetOptions):
    """Which of the fleet's tenants."""

    tenant: Tenants = None
    all_tenants: Annotated[bool, typer.Option("--all", help="All tenants, one by one.")] = False


# ------------------------------------------------------------------------------------ following


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowOptions(FleetOptions):
    """How to follow."""

    once: Once = False


def fleet_sync(options: FollowOptions) -> None:
    """Follow all live files of a fleet, on either side, in one process; runs until it is told to
    stop.

    It finishes what a command that died has begun, as `sync` does for one file.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with patience(LOCK_SECONDS):
        FleetSync(options.places(), options.words.say).run(stop.is_set, once=options.once)


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusOptions(BookOptions):
    """Of which tenants, and how."""

    tenant: Tenants = None
    in_state: Annotated[
        list[str] | None,
        typer.Option(help="Only tenants in this state, as the table has it (repeatable)."),
    ] = None
    as_json: AsJson = False


def fleet_status(options: StatusOptions) -> None:
    """Where each tenant of a fleet stands: a table with a line each."""
    manifest = options.read()
    live, server = manifest.live or Live(), options.server()
    with _book(server, manifest, connections_of(live, options.folder)) as book:
        rows = book.files()
    rows = standing.chosen(rows, options.tenant)
    asking = standing.asking(server, manifest.layout)
    found = standing.standings(rows, live, options.folder, asking)
    if options.in_state:
        found = {t: one for t, one in found.items() if one.state in options.in_state}
    if options.as_json:
        print_json(standing.as_data(found, options.report))
        return
    for line in (*standing.table(found), standing.summary(found)):
        say(line)
    say(standing.follower_line(options.report))


# ---------------------------------------------------------------------------------- each tenant


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSwitchOptions(TenantOptions):
    """Whom to switch, and how."""

    how: HowToSwitch


def fleet_switch(options: FleetSwitchOptions) -> None:
    """Let PostgreSQL serve some tenants of a fleet, one after the other; the others go on as they
    are."""

    def act(ends: Endpoints, report: Path, told: Say) -> None:
        if ends.pooler is not None:
            ends.pooler.require_path_kept()
        by_role = ends.pooler is None or ends.pooler.alias.schema is None
        if by_role and (said := role_path.elsewhere(ends.dsn, ends.postgres.user)):
            told(f"warning: {said}")
        switch_one(options.how.accepted(ends), report, options.how, told)
        told(f"PostgreSQL serves; {ends.connection} names it")

    _each(options, "switch", act)


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetRollbackOptions(TenantOptions):
    """Whom to take back, and how."""

    how: HowToGoBack


def fleet_rollback(options: FleetRollbackOptions) -> None:
    """Let SQLite serve some tenants of a fleet, with everything that was written on PostgreSQL
    since; the others go on as they are."""

    def act(ends: Endpoints, report: Path, told: Say) -> None:
        done = rollback_one(ends, report, options.how, told)
        if done.never_switched:
            told("there was nothing to roll back: it was not switched, and SQLite serves")
        else:
            told(f"SQLite serves; {ends.connection} names it")

    _each(options, "rollback", act)


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetHoldOptions(TenantOptions):
    """Whose traffic to hold, and how long."""

    how: HowToHold


def fleet_hold(options: FleetHoldOptions) -> None:
    """Hold the queries of some tenants at PgBouncer, until `fleet-resume` or the end of the
    hold."""
    _each(options, "hold", lambda ends, report, told: hold_one(ends, report, options.how, told))


def fleet_resume(options: TenantOptions) -> None:
    """End the hold of some tenants, or one made by another program."""

    def act(ends: Endpoints, report: Path, told: Say) -> None:
        with write_outcome(report, "resume"):
            lease.resume(ends, say=told)

    _each(options, "resume", act)


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSettleOptions(TenantOptions):
    """Whom to settle, and when."""

    how: HowToSettle


def fleet_settle(options: FleetSettleOptions) -> None:
    """End the migration of some tenants: no rollback any more, their SQLite files archived and
    read-only."""

    def act(ends: Endpoints, report: Path, told: Say) -> None:
        archive = settle_one(ends, report, options.how, told)
        command = f"migration-job restore-backup {word(str(archive))} FILE"
        told(f"settled; `{command}` restores the archive")

    _each(options, "settle", act)


@contextlib.contextmanager
def _book(server: str, manifest: Manifest, connections: str) -> Iterator[FleetLedger]:
    """The fleet's book. Raises InputError where the database holds none, or one with other
    directories of ``connections``."""
    with contextlib.closing(database.connect(server, purpose="migration-job fleet")) as target:
        book = FleetLedger(target)
        book.require(manifest.layout)
        book.require_connections(connections)
        yield book


def _each(options: TenantOptions, command: str, act: Act) -> None:
    """Do it to each tenant that is named; one that fails stops no other. Raises the JobError of the
    only one, or one that names those that failed."""
    places = options.places()
    with _book(places.server, places.manifest, places.connections) as book:
        files = {tenant: (Path(path), place) for tenant, path, place in book.followed()}
    chosen = _chosen(files, options)
    failed: dict[str, JobError] = {}
    for tenant in chosen:

        def told(text: str, tenant: str = tenant) -> None:
            options.words.say(f"{tenant}: {text}")

        try:
            act(places.endpoints(tenant, *files[tenant]), places.report_of(tenant), told)
        except JobError as error:
            if len(chosen) == 1:
                raise
            failed[tenant] = error
            say(f"{tenant}: {_failure(error, command)}")
        except Exception as error:  # it is that tenant's end, and no other's
            if len(chosen) == 1:
                raise
            failed[tenant] = _unforeseen(error, command)
            say(f"{tenant}: {_failure(failed[tenant], command)}")
    if failed:
        first = min(failed)
        raise KIND[common_status({int(e.status) for e in failed.values()})](
            f"{command} of {counted(len(failed), 'tenant')} failed, of {len(chosen):,}: "
            f"{some(sorted(failed))}; {first}: {failed[first].message}",
            advice=f"what was done to the others stays done; {failed[first].advice}",
        )


def _failure(error: JobError, command: str) -> str:
    """That the command failed, said once: some errors say it themselves."""
    failed = f"{command} failed: "
    return failed + error.message.removeprefix(failed)


def _unforeseen(error: Exception, command: str) -> OperationError:
    said, _, details = last_resort.sentence(error, [f"fleet-{command}"]).partition("\n")
    return OperationError(said.removeprefix("error: "), advice=details)


def _chosen(files: Collection[str], options: TenantOptions) -> list[str]:
    """The tenants that are named, in order. Raises InputError where there are none."""
    if bool(options.tenant) == options.all_tenants:
        raise InputError(
            "expected --tenant or --all, found "
            + ("both" if options.all_tenants else "neither of them"),
            advice="name the tenants one by one, or by a pattern such as --tenant 'a*'",
        )
    if options.all_tenants:
        return sorted(files)
    chosen: set[str] = set()
    for pattern in options.tenant or ():
        matching = standing.matching(files, pattern)
        if not matching:
            raise InputError(
                f"expected tenants of this fleet that were verified, found none for {pattern!r}",
                advice="`migration-job fleet-status` lists them",
            )
        chosen |= matching
    return sorted(chosen)
