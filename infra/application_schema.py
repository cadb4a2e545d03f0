"""The resource ``ApplicationSchema``: the application's own step that makes its tables.

It runs once, before the migration, in a container of the image that the settings name, as the
owner's role against the new database. As soon as the database holds a run of the job its tables are
being filled: the step is then not run any more, whatever changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import pulumi
from pulumi.dynamic import CreateResult, Resource, UpdateResult

from infra import engine, job, live
from infra.dynamic import StageProvider, say
from infra.errors import StageError
from infra.inputs import AUTHORITY_FILE, Reach, SchemaInputs, with_secrets
from infra.setting_types import ApplicationStep
from migration_job.hosts import LEADER

DECISIVE = {"step", "target", "cluster"}
"""Inputs that make the step run again."""

FILLED = 3
_IS_FILLED = f"""
import sys
from pathlib import Path
from migration_job.errors import JobError
from migration_job.place import has_record
from migration_job.stores.postgres.database import connect

try:
    with connect(Path(sys.argv[1]).read_text()) as connection:
        run = has_record(connection, "run")
except JobError as error:
    sys.exit(f"error: {{error}}")
sys.exit({FILLED} if run else 0)
"""


def environment(inputs: Reach) -> dict[str, str]:
    """The variables by which libpq, and most applications, find the new database."""
    target = inputs.target
    found = {
        "PGHOST": target.host,
        "PGPORT": str(target.port),
        "PGDATABASE": target.database,
        "PGUSER": target.user,
        "PGPASSWORD": inputs.password,
        "DATABASE_URL": inputs.dsn,
    }
    if inputs.authority:
        found |= {"PGSSLMODE": "verify-full", "PGSSLROOTCERT": AUTHORITY_FILE}
    elif target.sslmode:
        found["PGSSLMODE"] = target.sslmode
    if target.is_cluster:
        found["PGTARGETSESSIONATTRS"] = LEADER
    if target.schema_name:
        found["PGOPTIONS"] = inputs.session_options
    return found


def step_of(inputs: Reach, step: ApplicationStep) -> job.Step:
    """The container of a step that is given the database of ``inputs``."""
    password = inputs.password
    return job.Step(
        image=step.image,
        command=step.command,
        environment={**step.environment, **environment(inputs)},
        files=inputs.authority_files,
        hidden=(password, quote(password, safe="")),
    )


class ApplicationSchemaProvider(StageProvider):
    """Runs the step on creation, and again for another step or database that is not filled yet."""

    def create(self, props: Any) -> CreateResult:
        inputs = SchemaInputs.of(props)
        _make(inputs)
        return CreateResult(f"{inputs.place.stage}/application-schema", props)

    def update(self, _id: str, olds: Any, news: Any) -> UpdateResult:
        if self.changed(olds, news) & DECISIVE:
            _make(SchemaInputs.of(news))
        return UpdateResult(news)


def _make(inputs: SchemaInputs) -> None:
    if _is_filled(inputs):
        say("the application's tables are being filled or serve already: schemaFrom is not run")
        return
    place = inputs.place
    client = engine.connect(place.docker_host)
    step = step_of(inputs, inputs.step)
    say(f"the application makes its tables: {step.image}")
    ended = job.run_step(client, place, f"{inputs.container}-schema", step, say)
    if ended.status:
        raise StageError(
            f"the application's own step (schemaFrom) ended with status {ended.status}; its last "
            f"output:\n{ended.words}",
            advice="no row was moved and the application is served as before; correct the cause "
            "and run `pulumi up` again, which runs the step again",
        )


def _is_filled(inputs: SchemaInputs) -> bool:
    """Whether the database holds a run of the job, or the application itself."""
    if live.serving(inputs) == "postgresql":
        return True
    place = inputs.place
    client = engine.connect(place.docker_host)
    call = job.Call(f"{inputs.container}-schema", inputs.target_files, entrypoint=("python3",))
    ended = job.run(client, place, call, ["-c", _IS_FILLED, live.TARGET_FILE], say)
    if ended.status not in {0, FILLED}:
        raise StageError(
            f"the new database cannot be inspected; the last output:\n{ended.words}",
            advice="no row was moved; correct the cause and run `pulumi up` again",
        )
    return ended.status == FILLED


class ApplicationSchema(Resource):
    """The application's own tables in the new database."""

    def __init__(self, name: str, inputs: Mapping[str, Any], opts: pulumi.ResourceOptions) -> None:
        """``inputs`` are :class:`SchemaInputs`; the step is secret as a whole."""
        super().__init__(
            ApplicationSchemaProvider(),
            name,
            SchemaInputs.declared(inputs),
            with_secrets(opts, SchemaInputs),
        )
