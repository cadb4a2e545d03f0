"""The resource ``ApplicationSchema``: the application's own step that makes its tables.

It runs once, before the migration, in a container of the image that the settings name, as the
owner's role against the new database. As soon as the database holds a run of the job its tables are
being filled: the step is then not run any more, whatever changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any
from urllib.parse import quote

import pulumi
from pulumi.dynamic import CreateResult, Resource, UpdateResult

from infra import engine, job, live
from infra.dynamic import StageProvider, say
from infra.errors import StageError
from infra.job import Place
from infra.setting_types import SchemaFrom
from migration_job.hosts import LEADER, is_list

DECISIVE = {"step", "target", "cluster"}
"""Inputs that make the step run again."""

FILLED = 3
_IS_FILLED = f"""
import sys
from pathlib import Path
from migration_job.errors import JobError
from migration_job.stores.postgres.database import connect

try:
    with connect(Path(sys.argv[1]).read_text()) as connection:
        (run,) = connection.execute("SELECT to_regclass('migration.run') IS NOT NULL").fetchone()
except JobError as error:
    sys.exit(f"error: {{error}}")
sys.exit({FILLED} if run else 0)
"""


def environment(props: Mapping[str, Any]) -> dict[str, str]:
    """The variables by which libpq, and most applications, find the new database."""
    target = props["target"]
    found = {
        "PGHOST": str(target["host"]),
        # A number comes back from the state as a float.
        "PGPORT": ",".join(str(int(float(port))) for port in str(target["port"]).split(",")),
        "PGDATABASE": target["database"],
        "PGUSER": target["user"],
        "PGPASSWORD": props["password"],
        "DATABASE_URL": live.dsn(props),
    }
    if props.get("authority"):
        found |= {"PGSSLMODE": "verify-full", "PGSSLROOTCERT": live.AUTHORITY_FILE}
    elif target.get("sslmode"):
        found["PGSSLMODE"] = target["sslmode"]
    if is_list(target["host"]):
        found["PGTARGETSESSIONATTRS"] = LEADER
    return found


def step_of(props: Mapping[str, Any]) -> job.Step:
    """The container's part of the properties."""
    password = props["password"]
    return job.Step(
        image=props["step"]["image"],
        command=tuple(props["step"]["command"]),
        environment={**props["step"]["environment"], **environment(props)},
        files={"ca.crt": props["authority"]} if props.get("authority") else {},
        hidden=(password, quote(password, safe="")),
    )


class ApplicationSchemaProvider(StageProvider):
    """Runs the step on creation, and again for another step or database that is not filled yet."""

    def create(self, props: Any) -> CreateResult:
        _make(props)
        return CreateResult(f"{props['place']['stage']}/application-schema", props)

    def update(self, _id: str, olds: Any, news: Any) -> UpdateResult:
        if self.changed(olds, news) & DECISIVE:
            _make(news)
        return UpdateResult(news)


def _make(props: Mapping[str, Any]) -> None:
    if _is_filled(props):
        say("the application's tables are being filled or serve already: schemaFrom is not run")
        return
    place = live.place_of(props)
    client = engine.connect(place.docker_host)
    step = step_of(props)
    say(f"the application makes its tables: {step.image}")
    ended = job.run_step(client, place, f"{props['container']}-schema", step, say)
    if ended.status:
        raise StageError(
            f"the application's own step (schemaFrom) ended with status {ended.status}; its last "
            f"words:\n{ended.words}",
            advice="no row was moved and the application is served as before; correct the cause "
            "and run `pulumi up` again, which runs the step again",
        )


def _is_filled(props: Mapping[str, Any]) -> bool:
    """Whether the database holds a run of the job, or the application itself."""
    if live.serving(props) == "postgresql":
        return True
    place = live.place_of(props)
    client = engine.connect(place.docker_host)
    name = f"{props['container']}-schema"
    words = ["-c", _IS_FILLED, live.TARGET_FILE]
    files = live.target_secrets(props)
    ended = job.run(client, place, name, words, files, say, entrypoint=["python3"])
    if ended.status not in {0, FILLED}:
        raise StageError(
            f"the new database cannot be looked at; the last words:\n{ended.words}",
            advice="no row was moved; correct the cause and run `pulumi up` again",
        )
    return ended.status == FILLED


class ApplicationSchema(Resource):
    """The application's own tables in the new database."""

    def __init__(
        self,
        name: str,
        *,
        place: Place,
        inputs: Mapping[str, Any],
        step: SchemaFrom,
        opts: pulumi.ResourceOptions,
    ) -> None:
        kept = ("container", "connection_directory", "target", "password", "authority", "cluster")
        super().__init__(
            ApplicationSchemaProvider(),
            name,
            {
                **{key: inputs[key] for key in kept if key in inputs},
                "place": asdict(place),
                "step": pulumi.Output.secret(step.model_dump(mode="json")),
            },
            pulumi.ResourceOptions.merge(
                opts, pulumi.ResourceOptions(additional_secret_outputs=["password", "step"])
            ),
        )
