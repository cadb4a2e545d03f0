"""The resources of an upgrade: the application on the stage's PostgreSQL of a newer version.

``Upgrade`` runs ``migration-job upgrade`` in a container, as ``upgradeStep`` says. It is deleted
before the cutover is, when nothing is to be done yet; ``UpgradeEnd`` after it: what its deletion
finds is either SQLite serving, and no upgrade is needed any more, or the older server serving, and
the upgrade is given up. Where the newer one serves nothing of it is removed.

Upgrades one after another are the same two resources with other servers: what was settled has no
resource of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pulumi
from docker.errors import DockerException
from pulumi.dynamic import CreateResult, Resource, UpdateResult

from infra import engine, job, live, rendering, settled
from infra.dynamic import StageProvider, say
from infra.errors import StageError
from infra.inputs import JobInputs, Secret, with_secrets
from infra.roles import PSQL_SCRIPT_FAILED, identifier, psql
from infra.stage_paths import UPGRADED
from migration_job.quoting import compose

FROM, TO = f"{job.SECRETS}/from", f"{job.SECRETS}/to"

_RECORD = "SELECT FROM _migration_upgrade.side;\n"
"""It fails where the server takes part in no upgrade."""

_FORGET = """
import sys
from pathlib import Path
from migration_job.protocol.moved import forget_all_moved
forget_all_moved(Path(sys.argv[1]))
"""


class UpgradeInputs(JobInputs):
    """Of the move from one server to the other."""

    step: str
    """``move``, ``back`` or ``settle``."""
    cutover: str
    upgrader: str
    """The image with the newer version's programs."""
    superuser: str
    superuser_password: Secret
    hosts: tuple[str, str]
    """The older server's and the newer one's, on the stage's network."""
    containers: tuple[str, str]
    lookup: str
    """The database in which PgBouncer looks passwords up."""

    def server(self, host: str) -> str:
        """A superuser's connection string, for the job and for the other server."""
        # Both find the authority there: the server's own file, and a link in the job's image.
        authority = f"{rendering.POSTGRES_CONFIG}/ca.crt"
        tls = f"?sslmode=verify-full&sslrootcert={authority}" if self.authority else ""
        password = quote(self.superuser_password, safe="")
        at = f"{host}:{self.target.port}/{self.target.database}"
        return f"postgresql://{self.superuser}:{password}@{at}{tls}"


class UpgradeProvider(StageProvider):
    """Moves the application at its creation and where its step changes."""

    def create(self, props: Any) -> CreateResult:
        inputs = UpgradeInputs.of(props)
        _act(inputs)
        return CreateResult(f"{inputs.place.stage}/upgrade", props)

    def update(self, _id: str, _olds: Any, news: Any) -> UpdateResult:
        _act(UpgradeInputs.of(news))
        return UpdateResult(news)


class UpgradeEndProvider(StageProvider):
    """Does nothing until it is deleted."""

    def create(self, props: Any) -> CreateResult:
        return CreateResult(f"{props['place']['stage']}/upgrade-end", props)

    def update(self, _id: str, olds: Any, news: Any) -> UpdateResult:
        """Another server in the place of the newer one: that one is about to go, and the upgrade
        to it is given up before. Not where a further upgrade begins from it."""
        old, new = UpgradeInputs.of(olds), UpgradeInputs.of(news)
        if old.step != "settle" and old.containers[1] not in new.containers:
            if live.serving(old) != "postgresql":
                raise StageError(
                    f"expected PostgreSQL to serve before the upgrade to {old.hosts[1]} is given "
                    "up, found SQLite serving",
                    advice="`cutover: switch` comes first; nothing of the server was removed",
                )
            run(old, ["--abandon"])
        return UpdateResult(news)

    def delete(self, _id: str, props: Any) -> None:
        inputs = UpgradeInputs.of(props)
        if live.serving(inputs) == "postgresql" and not settled.loss_is_accepted():
            run(inputs, ["--abandon"])
            _end_login(inputs, inputs.containers[0])
            return
        _forget(inputs)


def _act(inputs: UpgradeInputs) -> None:
    """As the step says; nothing where it was done, or where SQLite serves."""
    if live.serving(inputs) != "postgresql":
        say("SQLite serves: the application is on no PostgreSQL that could be left for a newer one")
        return
    if inputs.step != "settle":
        run(inputs, ["--back"] if inputs.step == "back" else [])
        return
    if _in_upgrade(inputs, inputs.containers[1]):
        run(inputs, ["--settle"])
    _end_login(inputs, inputs.containers[1])


def run(inputs: UpgradeInputs, options: list[str]) -> None:
    """Run ``upgrade`` to its end; StageError with its last words where it fails."""
    place = replace(inputs.place, image=inputs.upgrader)
    files = {"from": inputs.server(inputs.hosts[0]), "to": inputs.server(inputs.hosts[1])}
    call = job.Call(f"{inputs.container}-upgrade", {**live.secrets(inputs), **files})
    words = [
        *("upgrade", "--from-target-file", FROM, "--to-target-file", TO),
        *("--console-file", live.CONSOLE_FILE, "--alias-file", str(live.ALIAS_FILE)),
        *("--state", inputs.state_directory, "--report", inputs.report_directory),
        *("--auth-database", inputs.lookup, *options),
    ]
    ended = job.run(engine.connect(place.docker_host), place, call, words, say)
    if ended.status:
        raise StageError(
            f"the upgrade ended with status {ended.status}; its last output:\n{ended.words}",
            advice="the application is on the server that served it, and nothing is lost: correct "
            "the cause and run `make up` again, it goes on. To give it up: `make upgrade "
            "STAGE=... BACK=1`",
        )


def _forget(inputs: UpgradeInputs) -> None:
    """The other commands go by the first server again: the newer one is about to go."""
    call = job.Call(f"{inputs.container}-upgrade", entrypoint=("python3",))
    client = engine.connect(inputs.place.docker_host)
    words = ["-c", _FORGET, inputs.state_directory]
    ended = job.run(client, inputs.place, call, words, say)
    if ended.status:
        raise StageError(
            f"the note of the upgrade could not be removed; the last output:\n{ended.words}",
            advice=f"remove {UPGRADED} in {inputs.state_directory} and run the same command again",
        )


def _in_upgrade(inputs: UpgradeInputs, container: str) -> bool:
    """Whether the server there has its record of an upgrade; a settled one has none."""
    script = f"\\set ON_ERROR_STOP on\n\\connect {identifier(inputs.target.database)}\n{_RECORD}"
    client = engine.connect(inputs.place.docker_host)
    try:
        status, said = psql(client.containers.get(container), script)
    except DockerException as error:
        status, said = 1, str(error)
    if status not in (0, PSQL_SCRIPT_FAILED):
        raise StageError(
            f"expected PostgreSQL's record of the upgrade in {container}, found: {said}",
            advice="nothing was settled; run the same command again",
        )
    return status == 0


def _end_login(inputs: UpgradeInputs, container: str) -> None:
    """The superuser that the network knows is for the upgrade alone."""
    client = engine.connect(inputs.place.docker_host)
    try:
        status, said = psql(
            client.containers.get(container),
            compose("ALTER ROLE {role} NOLOGIN NOSUPERUSER;", role=identifier(inputs.superuser)),
        )
    except DockerException as error:
        status, said = 1, str(error)
    if status:
        raise StageError(
            f"the login {inputs.superuser} could not be ended: {said}",
            advice="run the same command again",
        )


class Upgrade(Resource):
    """The application on the server that ``upgradeStep`` says."""

    def __init__(self, name: str, inputs: Mapping[str, Any], opts: pulumi.ResourceOptions) -> None:
        """``inputs`` are :class:`UpgradeInputs`."""
        super().__init__(
            UpgradeProvider(),
            name,
            UpgradeInputs.declared(inputs),
            with_secrets(opts, UpgradeInputs),
        )


class UpgradeEnd(Resource):
    """The upgrade given up, before anything of the newer server is removed."""

    def __init__(self, name: str, inputs: Mapping[str, Any], opts: pulumi.ResourceOptions) -> None:
        """``inputs`` are :class:`UpgradeInputs`."""
        super().__init__(
            UpgradeEndProvider(),
            name,
            UpgradeInputs.declared(inputs),
            with_secrets(opts, UpgradeInputs),
        )
