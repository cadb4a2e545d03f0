"""``migration-job status``: where things stand and what to do next."""

from __future__ import annotations

import contextlib
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from migration_job import shell_words
from migration_job.commands import live_options as options
from migration_job.commands.option_groups import (
    AsJson,
    LockSeconds,
    SchemaName,
    Target,
    print_json,
    with_options,
)
from migration_job.errors import InputError
from migration_job.place import in_schema
from migration_job.plan.policy import load_policy
from migration_job.protocol.moved import relocated_dsn
from migration_job.protocol.refusals import Accepted
from migration_job.protocol.settings import read_connect_to
from migration_job.protocol.status import Given, standing
from migration_job.protocol.whole_command import Known, SwitchOptions
from migration_job.stores.postgres.database import named_by_environment, read_dsn
from migration_job.stores.sqlite.waiting import patience


def register(app: typer.Typer) -> None:
    """Add ``status`` to the program."""
    app.command("status")(with_options(status))


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusOptions:
    """Whom to ask, and how to print."""

    source: options.Source
    target: Target = None
    target_file: options.TargetFile = None
    connection: Annotated[
        Path | None, typer.Option("--connection", help=options.CONNECTION_HELP)
    ] = None
    schema_name: SchemaName = None
    state: options.State = None
    catch_up_seconds: LockSeconds = 10.0
    as_json: AsJson = False

    def dsn(self) -> str | None:
        """The target's connection string, where it is to be asked. Raises InputError."""
        if self.target is None and self.target_file is None and not named_by_environment():
            return None
        dsn = in_schema(read_dsn(self.target, self.target_file), self.schema_name)
        state = self.directory()
        return dsn if state is None else relocated_dsn(state, dsn)

    def directory(self) -> Path | None:
        """The state directory, where one is known."""
        return self.state or (None if self.connection is None else self.connection / ".state")

    def given(self) -> Given:
        """What the commands of this migration were given, as far as it is known here."""
        state = self.directory()
        recalled = "" if state is None else options.recall(state)
        switch = SwitchOptions() if state is None else options.recall_switch(state)
        return Given(
            known=Known(
                source=self.source,
                recalled=recalled,
                switch=switch,
                target=self._named_target(),
                connection=self.connection,
                state=self.state,
                schema_name=self.schema_name,
            ),
            accepted=_accepted(switch),
            user=_user(recalled),
        )

    def _named_target(self) -> str:
        if self.target_file is not None:
            return f"--target-file {shell_words.word(str(self.target_file.absolute()))}"
        return "" if self.target is None and named_by_environment() else '--target "$TARGET"'


def _accepted(switch: SwitchOptions) -> Accepted:
    policy = None
    if switch.policy is not None:
        # Where it cannot be read here, nothing of it counts.
        with contextlib.suppress(InputError):
            policy = load_policy(switch.policy)
    budget = float(switch.fence_seconds or Accepted().budget)
    return Accepted(switch.one_way, policy, switch.accept_asynchronous, budget)


def _user(recalled: str) -> str | None:
    """Whom the application is to write as, by the file of the last --connect-to."""
    try:
        words = shlex.split(recalled)
        return read_connect_to(Path(words[words.index("--connect-to") + 1])).user
    except (ValueError, IndexError, InputError):
        return None


def status(given: StatusOptions) -> None:
    """Print which side serves, how far the other one is, and what to do next; changes nothing.

    Ends with 2 where the file is gone, or is no SQLite database, and neither the target nor the
    connection says that PostgreSQL serves.
    """
    dsn = given.dsn()
    with patience(given.catch_up_seconds):
        found = standing(
            given.source,
            dsn=dsn,
            connection=given.connection,
            state=given.state,
            given=given.given(),
        )
    if found.unfit is not None and dsn is None and given.directory() is None:
        raise found.unfit  # nobody else was asked, so the lines would say nothing
    if given.as_json:
        print_json(structured(found.lines))
    else:
        for line in found.lines:
            options.say(line)
    if found.unfit is not None:
        raise found.unfit


def structured(lines: list[str]) -> dict[str, list[str]]:
    """The lines by their first words; the further lines of one follow it in its list."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in lines:
        name = line[:LABEL].strip().replace(" ", "_") or name
        found.setdefault(name, []).append(line[LABEL:])
    return found


LABEL = 12
"""Characters of a line of `status` before what it says."""
