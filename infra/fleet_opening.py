"""The resource ``Opening``: PgBouncer admits a fleet's applications for as long as it is there.

Creating it gives the application's role its rights on the fleet's schemas, has the connection name
PostgreSQL, and gives PgBouncer the alias. Deleting it takes these back from the state alone, before
anything that the applications use is removed. In between it looks whether PostgreSQL has anything
that was written there since: that is in no SQLite file, so it is not given up without a word.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pulumi
from pulumi.dynamic import CreateResult, ReadResult, Resource, UpdateResult

from infra import engine, job, live, settled
from infra.dynamic import StageProvider, say
from infra.errors import StageError
from infra.inputs import OpenedInputs, OpeningInputs, with_secrets

DECISIVE = {
    "certificate",
    "connection",
    "pooler_authority",
    "application",
    "reader",
    *OpeningInputs.secrets(),
}
"""Inputs that make it be opened again, which changes nothing of what is as it is to be."""

WORDS = {"admit": "let in", "dismiss": "kept out"}

_ACT = """
import sys
import time
from pathlib import Path
from psycopg import sql
from migration_job.connection import write_connection
from migration_job.errors import JobError, OperationError
from migration_job.fleet.checking import schemas
from migration_job.protocol.settings import endpoints, read_secret
from migration_job.stores.postgres.database import connect

act, source, connection, application, target, console, alias, *roles = sys.argv[1:]

ADMIT = (
    "GRANT USAGE ON SCHEMA {schema} TO {application}, {reader}",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {application}",
    "GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA {schema} TO {application}",
    "GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {reader}",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES"
    " TO {application}",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT USAGE, SELECT ON SEQUENCES TO {application}",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT SELECT ON TABLES TO {reader}",
)
DISMISS = ("REVOKE USAGE ON SCHEMA {schema} FROM {application}, {reader}",)
THEIRS = "FROM pg_stat_activity WHERE datname = current_database() AND usename = ANY (%s)"
SECONDS = 30

def act_on(session, statements, places):
    names = {"application": sql.Identifier(roles[0]), "reader": sql.Identifier(roles[1])}
    with session.transaction():
        for schema in places:
            for statement in statements:
                session.execute(sql.SQL(statement).format(schema=sql.Identifier(schema), **names))

def end_sessions(session):
    until = time.monotonic() + SECONDS
    while session.execute(f"SELECT count(*) {THEIRS}", (roles,)).fetchone()[0]:
        if time.monotonic() > until:
            raise OperationError("expected the applications' sessions to end, found some left")
        session.execute(f"SELECT pg_terminate_backend(pid) {THEIRS}", (roles,))
        time.sleep(0.1)

try:
    dsn = read_secret(Path(target), "the target")
    ends = endpoints(
        Path(source),
        dsn,
        connection=Path(connection),
        connect_to=Path(application),
        console=read_secret(Path(console), "the console"),
        alias_file=Path(alias),
    )
    found = schemas(dsn)
    with connect(dsn) as session:
        if act == "admit":
            # First: whatever comes between, going back knows that somebody may have been let in.
            write_connection(ends.connection, ends.postgres, ends.postgres, owner=ends.owner)
            act_on(session, DISMISS, found.begun)
            act_on(session, ADMIT, found.whole)
            for schema in found.begun:
                print(f"nobody is admitted to {schema}: a move into it has begun and not ended")
            if not ends.pooler.is_open() and not ends.pooler.is_paused():
                ends.pooler.open_alias()
        else:
            ends.pooler.close_alias()
            act_on(session, DISMISS, (*found.whole, *found.begun))
            end_sessions(session)
except JobError as error:
    sys.exit(f"error: {error}")
except Exception as error:
    first = str(error).strip().splitlines()[0]
    sys.exit(f"error: the fleet's schemas cannot be opened or closed: {first}")
"""


class OpeningProvider(StageProvider):
    """Admits on creation and dismisses on deletion."""

    outputs = ("phase",)

    def create(self, props: Any) -> CreateResult:
        inputs = OpeningInputs.of(props)
        admit(inputs)
        return CreateResult(f"{inputs.place.stage}/opening", {**props, "phase": "switched"})

    def update(self, _id: str, olds: Any, news: Any) -> UpdateResult:
        if not self.changed(olds, news).isdisjoint(DECISIVE):
            admit(OpeningInputs.of(news))
        return UpdateResult({**news, "phase": "switched"})

    def read(self, id_: str, props: Any) -> ReadResult:
        """Never gone: that would lose the look before the end. An alias that went with its volume
        is a change, and the update writes it."""
        if live.alias_is_lost(OpeningInputs.of(props)):
            return ReadResult(id_, {**props, "certificate": ""})
        return ReadResult(id_, props)

    def delete(self, _id: str, props: Any) -> None:
        close(OpeningInputs.of(props))


def admit(inputs: OpenedInputs) -> None:
    """Let the applications in. StageError where a part does not answer."""
    _act("admit", inputs)


def dismiss(inputs: OpenedInputs) -> None:
    """Let nobody in, and end who is in; the connection names PostgreSQL still."""
    _act("dismiss", inputs)


def _act(what: str, inputs: OpenedInputs) -> None:
    client = engine.connect(inputs.place.docker_host)
    words = ["-c", _ACT, what, inputs.source, inputs.connection_directory, live.APPLICATION_FILE]
    words += [live.TARGET_FILE, live.CONSOLE_FILE, str(live.ALIAS_FILE)]
    words += [inputs.application, inputs.reader, inputs.second]
    call = job.Call(f"{inputs.container}-{what}", live.secrets(inputs), entrypoint=("python3",))
    ended = job.run(client, inputs.place, call, words, say)
    if ended.status:
        raise StageError(
            f"the applications could not be {WORDS[what]}; the last output:\n{ended.words}",
            advice="PostgreSQL has the data as before; correct the cause and run the same command "
            "again",
        )


def close(inputs: OpenedInputs) -> None:
    """Let nobody in for good. StageError where PostgreSQL has what no file has, unless the loss was
    accepted."""
    accepted = settled.loss_is_accepted()
    try:
        dismiss(inputs)
        _require_as_left(inputs)
    except StageError as error:
        if not accepted:
            raise
        say(f"{settled.ACCEPT_LOSS}=yes: going on, although {error.message}")
    # From here on the stage names no PostgreSQL: the files serve, as they did all the time.
    for path in Path(inputs.connection_directory).iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _require_as_left(inputs: OpenedInputs) -> None:
    """StageError where PostgreSQL has what no file has; the applications are admitted again."""
    client = engine.connect(inputs.place.docker_host)
    call = job.Call(f"{inputs.container}-check", inputs.target_files)
    words = ["fleet-check", inputs.source, "--target-file", live.TARGET_FILE]
    ended = job.run(client, inputs.place, call, words, say)
    if not ended.status:
        return
    if not settled.loss_is_accepted():
        admit(inputs)
    raise StageError(
        f"what PostgreSQL has would be lost; what was found:\n{ended.words}",
        advice="nothing was removed, and PgBouncer admits the applications as before. To keep it, "
        "leave the stage as it is, or copy it first. To lose it, "
        f"`{settled.ACCEPT_LOSS}=yes make down`",
    )


class Opening(Resource):
    """PgBouncer open to a fleet's applications; its deletion closes it."""

    phase: pulumi.Output[str]

    def __init__(self, name: str, inputs: Mapping[str, Any], opts: pulumi.ResourceOptions) -> None:
        """``inputs`` are :class:`OpeningInputs`, with the fleet's certificate."""
        super().__init__(
            OpeningProvider(),
            name,
            {**OpeningInputs.declared(inputs), "phase": None},
            with_secrets(opts, OpeningInputs),
        )
