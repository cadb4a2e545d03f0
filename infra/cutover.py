"""The resource ``Cutover``: the application on PostgreSQL, for as long as the resource is there.

Creating it runs ``migration-job switch``; deleting it runs ``migration-job rollback``, from the
state alone, before anything that the application uses is removed. It takes the migration's
certificate as an input: without one there is nothing to create it from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pulumi
from pulumi.dynamic import CreateResult, Resource, UpdateResult

from infra import engine, job
from infra.dynamic import StageProvider, say
from infra.errors import StageError
from infra.job import Place
from infra.migration import TARGET_FILE, place_of, target_secrets
from infra.rendering import ALIAS_DIRECTORY

CONSOLE_FILE = f"{job.SECRETS}/console"
APPLICATION_FILE = f"{job.SECRETS}/application.json"
POOLER_AUTHORITY_FILE = f"{job.SECRETS}/pooler-ca.crt"

DECISIVE = (
    "certificate",
    "source",
    "connection",
    "password",
    "application_password",
    "console_password",
    "pooler_authority",
)
"""Inputs that make the switch run again: it is idempotent, and rewrites the connection."""


def arguments(command: str, props: Mapping[str, Any]) -> list[str]:
    """``switch``, ``rollback`` or ``sync`` as the job takes it."""
    return [
        command,
        props["source"],
        *("--target-file", TARGET_FILE),
        *("--report", props["report_directory"]),
        *("--state", props["state_directory"]),
        *("--connection", props["connection_directory"]),
        *("--console-file", CONSOLE_FILE),
        *("--alias-file", f"{ALIAS_DIRECTORY}/alias.ini"),
        *("--application-file", APPLICATION_FILE),
    ]


def secrets(props: Mapping[str, Any]) -> dict[str, str]:
    """The files that those commands read: name to content."""
    console = props["console"]
    application = {**props["connection"], "password": props["application_password"]}
    tls, files = "", {}
    if authority := props.get("pooler_authority"):
        # A certificate of the operator's own does not bear the pooler's name inside the stage.
        mode = "verify-full" if authority == props["authority"] else "verify-ca"
        tls = f"?sslmode={mode}&sslrootcert={POOLER_AUTHORITY_FILE}"
        application["tls"] = {"mode": "verify-full", "authority_file": POOLER_AUTHORITY_FILE}
        files = {"pooler-ca.crt": authority}
    return {
        **target_secrets(props),
        **files,
        "console": f"postgresql://{console['user']}:{props['console_password']}@"
        f"{console['host']}:{int(console['port'])}/pgbouncer{tls}",
        "application.json": json.dumps(application),
    }


class CutoverProvider(StageProvider):
    """Switches on creation and rolls back on deletion."""

    outputs = ("phase",)

    def create(self, props: Any) -> CreateResult:
        _run("switch", props)
        return CreateResult(f"{props['place']['stage']}/cutover", {**props, "phase": "switched"})

    def update(self, _id: str, olds: Any, news: Any) -> UpdateResult:
        if not self.changed(olds, news).isdisjoint(DECISIVE):
            _run("switch", news)
        return UpdateResult({**news, "phase": "switched"})

    def delete(self, _id: str, props: Any) -> None:
        _run("rollback", props)


def _run(command: str, props: Mapping[str, Any]) -> None:
    place = place_of(props)
    client = engine.connect(place.docker_host)
    name = f"{props['container']}-{command}"
    ended = job.run(client, place, name, arguments(command, props), secrets(props), say)
    if ended.status:
        raise StageError(
            f"the {command} ended with status {ended.status}; its last words:\n{ended.words}",
            advice="the job never leaves both sides open: run the same command again and it goes "
            "on, or `make status` to see which side serves",
        )


class Cutover(Resource):
    """The application on PostgreSQL; its deletion is the way back."""

    phase: pulumi.Output[str]

    def __init__(
        self,
        name: str,
        *,
        place: Place,
        inputs: Mapping[str, Any],
        certificate: pulumi.Output[str],
        passwords: Mapping[str, pulumi.Output[str]],
        opts: pulumi.ResourceOptions,
    ) -> None:
        super().__init__(
            CutoverProvider(),
            name,
            {
                **inputs,
                **passwords,
                "place": asdict(place),
                "certificate": certificate,
                "phase": None,
            },
            pulumi.ResourceOptions.merge(
                opts, pulumi.ResourceOptions(additional_secret_outputs=list(passwords))
            ),
        )
