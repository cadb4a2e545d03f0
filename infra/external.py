"""The resource ``ExternalTarget``: a PostgreSQL of somebody else's, looked at before it is used.

The job's ``check-target`` says what is missing, and changes nothing. Then the job's role lets the
application's role read and write what it is going to make: all that it owns, and no superuser is
asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NoReturn

import pulumi
from pulumi.dynamic import CreateResult, Resource, UpdateResult

from infra import engine, job, live
from infra.dynamic import StageProvider, say
from infra.errors import StageError
from infra.inputs import PLANNED, TargetInputs, with_secrets

_GRANT = """
import sys
from pathlib import Path
from psycopg import sql
from migration_job.errors import JobError
from migration_job.place import schema_of_session
from migration_job.stores.postgres.database import connect

role = sql.Identifier(sys.argv[2])
try:
    connection = connect(Path(sys.argv[1]).read_text())
    schema = sql.Identifier(schema_of_session(connection))
    (me,) = connection.execute("SELECT current_user").fetchone()
    if sys.argv[3:]:
        connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(schema))
        connection.execute(sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(schema, role))
    if me != sys.argv[2]:
        for kind, rights in (
            ("TABLES", "SELECT, INSERT, UPDATE, DELETE"),
            ("SEQUENCES", "USAGE, SELECT"),
        ):
            words = f"ALTER DEFAULT PRIVILEGES IN SCHEMA {{}} GRANT {rights} ON {kind} TO {{}}"
            connection.execute(sql.SQL(words).format(schema, role))
except JobError as error:
    sys.exit(f"error: {error}")
except Exception as error:
    first = str(error).strip().splitlines()[0]
    sys.exit(f"error: the application's role cannot be granted its rights: {first}")
"""


class ExternalTargetProvider(StageProvider):
    """Looks, and grants, at creation and whenever one of the two ends has changed."""

    def create(self, props: Any) -> CreateResult:
        inputs = TargetInputs.of(props)
        _prepare(inputs)
        return CreateResult(f"{inputs.place.stage}/target", props)

    def update(self, _id: str, olds: Any, news: Any) -> UpdateResult:
        if self.changed(olds, news) & {
            "target",
            "password",
            "application_user",
            "authority",
            "schema",
        }:
            _prepare(TargetInputs.of(news))
        return UpdateResult(news)


def _prepare(inputs: TargetInputs) -> None:
    place = inputs.place
    client = engine.connect(place.docker_host)
    call = job.Call(f"{inputs.container}-target", inputs.target_files)
    words = ["check-target", "--target-file", live.TARGET_FILE, "--source", inputs.source]
    words += ["--connections", str(inputs.connections), "--live"]
    if inputs.target_schema != PLANNED:
        words += ["--schema", inputs.target_schema]
    words += live.acceptances(inputs.target) + live.collation_acceptance(inputs.target)
    found: list[str] = []
    # What Pulumi is still to show of a failed update may be lost; what its error says never is.
    ended = job.run(client, place, call, words, found.append)
    if ended.status:
        _fail("the target is not usable", "\n".join([*found, ended.words]))
    for line in found:
        say(line)
    words = ["-c", _GRANT, live.TARGET_FILE, inputs.application_user]
    words += [inputs.target.schema_name] if inputs.target.schema_name else []
    ended = job.run(client, place, replace(call, entrypoint=("python3",)), words, say)
    if ended.status:
        _fail("the application's role cannot be given its rights on the target", ended.words)


def _fail(problem: str, found: str) -> NoReturn:
    raise StageError(
        f"{problem}; what was found:\n{found}",
        advice="nothing was moved; fix it (docs/how-to/external-database.md has the "
        "statements) and run `pulumi up` again",
    )


class ExternalTarget(Resource):
    """A PostgreSQL that was found fit to be the target."""

    def __init__(self, name: str, inputs: Mapping[str, Any], opts: pulumi.ResourceOptions) -> None:
        """``inputs`` are :class:`TargetInputs`."""
        super().__init__(
            ExternalTargetProvider(),
            name,
            TargetInputs.declared(inputs),
            with_secrets(opts, TargetInputs),
        )
