"""``migration-job upgrade``: to a newer PostgreSQL server, and back, without a lost write."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from migration_job.commands.live_options import Spoken, say
from migration_job.commands.option_groups import (
    ALIAS_FILE_HELP,
    HOLDS_IT,
    AsJson,
    Console,
    ConsoleFile,
    PauseSeconds,
    Report,
    print_json,
    with_options,
)
from migration_job.errors import InputError
from migration_job.protocol import upgrade as protocol
from migration_job.protocol import upgrade_end
from migration_job.protocol.lock import Lock
from migration_job.protocol.outcome import write_outcome
from migration_job.protocol.settings import read_secret
from migration_job.protocol.upgrade_ends import UpgradeEnds, address, opened, read_alias
from migration_job.protocol.upgrade_follow import recover
from migration_job.protocol.upgrade_guard import wait_for_end
from migration_job.stores.postgres.database import read_dsn

GUARD = "--guard"


def register(app: typer.Typer) -> None:
    """Add ``upgrade`` to the program."""
    app.command("upgrade")(with_options(upgrade))


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradeOptions(Spoken):
    """Two servers, the pooler before them, and what to do."""

    report: Report
    state: Annotated[
        Path,
        typer.Option(
            help="The directory for the lock and the note that `sync` follows; the same as of the "
            "migration's other commands."
        ),
    ]
    alias_file: Annotated[Path, typer.Option(help=ALIAS_FILE_HELP)]
    from_target: Annotated[
        str | None, typer.Option(help="The old server's connection string, a superuser's.")
    ] = None
    from_target_file: Annotated[Path | None, typer.Option(help=HOLDS_IT)] = None
    to_target: Annotated[
        str | None,
        typer.Option(help="The new server's connection string, a superuser's; an empty database."),
    ] = None
    to_target_file: Annotated[Path | None, typer.Option(help=HOLDS_IT)] = None
    pooler: Console = None
    console_file: ConsoleFile = None
    alias: Annotated[
        str | None,
        typer.Option(help="The alias' name: refused if the file holds another, or more."),
    ] = None
    auth_database: Annotated[
        str | None,
        typer.Option(
            help="PgBouncer's auth_dbname, if it is an entry of pgbouncer.ini for a "
            "database of that name on the old server. A line in the alias file then directs it to "
            "the server that serves."
        ),
    ] = None
    from_server: Annotated[
        str | None,
        typer.Option(
            help="HOST:PORT/DATABASE by which PgBouncer and the new server reach the old one, "
            "if they know it by another name than this command."
        ),
    ] = None
    to_server: Annotated[
        str | None, typer.Option(help="The same of the new server, for PgBouncer and the old one.")
    ] = None
    programs: Annotated[
        Path | None,
        typer.Option(help="The directory of pg_dump, pg_dumpall and psql of the new version."),
    ] = None
    pause_seconds: PauseSeconds = 10.0
    drain_seconds: Annotated[
        float,
        typer.Option(min=0.5, help="How long the last changes may take to arrive in the hold."),
    ] = 5.0
    prepare_only: Annotated[
        bool, typer.Option("--prepare-only", help="Copy and follow; do not move the application.")
    ] = False
    back: Annotated[
        bool, typer.Option("--back", help="Move the application back to the old server.")
    ] = False
    settle: Annotated[
        bool, typer.Option("--settle", help="Give up the way back: the new server stays.")
    ] = False
    abandon: Annotated[
        bool, typer.Option("--abandon", help="Give up the upgrade: the old server stays.")
    ] = False
    status: Annotated[
        bool, typer.Option("--status", help="Print which server serves; nothing is changed.")
    ] = False
    as_json: AsJson = False
    guard: Annotated[bool, typer.Option(GUARD, hidden=True)] = False

    def ends(self) -> UpgradeEnds:
        """The options put together and checked. Raises InputError."""
        if (self.pooler is None) == (self.console_file is None):
            raise InputError("expected --pooler or --console-file, found neither or both")
        console = self.pooler or read_secret(
            self.console_file or Path(), "the admin console's connection string"
        )
        old = _dsn("--from-target", self.from_target, self.from_target_file)
        new = _dsn("--to-target", self.to_target, self.to_target_file)
        old_at, new_at = address(old, self.from_server), address(new, self.to_server)
        alias = read_alias(self.alias_file, self.alias, self.auth_database)
        leads = (alias.host, alias.port, alias.database)
        if leads not in [(a.host, a.port, a.database) for a in (old_at, new_at)]:
            raise InputError(
                f"expected the alias {alias.name!r} to lead to {old_at} or {new_at}, found "
                f"{alias.host}:{alias.port}/{alias.database}",
                advice="name the servers as PgBouncer reaches them: --from-server and --to-server",
            )
        return UpgradeEnds(
            old=old,
            new=new,
            old_at=old_at,
            new_at=new_at,
            console=console,
            alias_file=self.alias_file,
            alias=alias,
            state=self.state,
            programs=self.programs,
            pause_seconds=self.pause_seconds,
            drain_seconds=self.drain_seconds,
            guard=(sys.executable, "-m", "migration_job", *sys.argv[1:], GUARD),
        )


def _dsn(option: str, text: str | None, file: Path | None) -> str:
    if (text is None) == (file is None):
        raise InputError(
            f"expected {option} or {option}-file, found " + ("neither" if text is None else "both"),
            advice="two servers are never taken from the environment: name each",
        )
    return read_dsn(text, file)


def upgrade(options: UpgradeOptions) -> None:
    """Move the application to a newer PostgreSQL server while it runs, or back; the state of the
    last upgrade is finished or undone first."""
    chosen = [n for n in ("back", "settle", "abandon", "status") if getattr(options, n)]
    if len(chosen) > 1 or (chosen and options.prepare_only):
        raise InputError(
            "expected one of --prepare-only, --back, --settle, --abandon and --status, found two"
        )
    ends = options.ends()
    if options.guard:
        _guard(ends)
        return
    if options.status:
        _status(ends, as_json=options.as_json)
        return
    ending: dict[str, Callable[[], None]] = {
        "settle": lambda: upgrade_end.settle(ends, options.say),
        "abandon": lambda: upgrade_end.abandon(ends, options.say),
    }
    with write_outcome(options.report, "upgrade") as outcome:
        outcome["step"] = chosen[0] if chosen else "upgrade"
        if chosen and chosen[0] in ending:
            ending[chosen[0]]()
            return
        done = (
            protocol.back(ends, options.say)
            if options.back
            else protocol.upgrade(ends, options.say, prepare_only=options.prepare_only)
        )
        outcome.update(asdict(done) if done is not None else {})


def _guard(ends: UpgradeEnds) -> None:
    """The process beside: it acts where the one that started it died or stands still."""
    if not wait_for_end():
        return
    with protocol.alone(ends), opened(ends) as servers, Lock(ends.state).command("upgrade"):
        recover(ends, servers, lambda _: None)


def _status(ends: UpgradeEnds, *, as_json: bool) -> None:
    found = upgrade_end.standing(ends)
    if as_json:
        print_json(found.as_json())
        return
    side = {"from": "old", "to": "new"}[found.serves]
    say(f"serves   the {side} server")
    say(f"follows  {'the other server' if found.follows else 'nothing'}")
    say(f"moves    {found.moves_in_words()}")
