"""How the program calls the job's commands that act on both databases.

All that a command needs stands in a resource's properties, so that ``pulumi destroy`` can call it
from the state alone. Secrets are files below :data:`infra.job.SECRETS`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from docker.errors import DockerException, NotFound

from infra import engine, job
from infra.dynamic import say
from infra.errors import StageError
from infra.inputs import Command, JobInputs, Served, Target
from infra.rendering import ALIAS_DIRECTORY

TARGET_FILE = f"{job.SECRETS}/target"
CONSOLE_FILE = f"{job.SECRETS}/console"
APPLICATION_FILE = f"{job.SECRETS}/application.json"
ALIAS_FILE = PurePosixPath(ALIAS_DIRECTORY) / "alias.ini"
POOLER_AUTHORITY_FILE = f"{job.SECRETS}/pooler-ca.crt"

_CONNECT = """
import sys
from dataclasses import replace
from pathlib import Path
from migration_job.connection import read_connection, write_connection
from migration_job.errors import JobError
from migration_job.protocol.settings import endpoints, read_secret

source, connection, state, application, target, console, alias, writes = sys.argv[1:]
try:
    ends = endpoints(
        Path(source),
        read_secret(Path(target), "the target"),
        connection=Path(connection),
        connect_to=Path(application),
        console=read_secret(Path(console), "the console") if console else None,
        alias_file=Path(alias) if console else None,
    )
    ends = replace(ends, state=Path(state))
    # An alias that is there and paused is somebody's hold: it stays.
    if ends.pooler is not None and not ends.pooler.is_open() and not ends.pooler.is_paused():
        ends.pooler.open_alias()
        print("PgBouncer has the application's alias again")
    named = read_connection(ends.connection)
    both = named is not None and named.write == named.read == ends.postgres
    if writes and not both:
        write_connection(ends.connection, ends.postgres, ends.postgres, owner=ends.owner)
        print("the connection names PostgreSQL as the settings have it now")
    if writes:
        Path(state, "settled").write_text("the way back was given up\\n")
except JobError as error:
    sys.exit(f"error: {error}")
"""


def arguments(command: str, inputs: Command) -> list[str]:
    """``switch``, ``rollback`` or ``sync`` as the job takes it."""
    words = [
        command,
        inputs.source,
        *("--target-file", TARGET_FILE),
        *("--report", inputs.report_directory),
        *("--state", inputs.state_directory),
        *("--connection", inputs.connection_directory),
        *("--application-file", APPLICATION_FILE),
    ]
    if inputs.console:
        words += ["--console-file", CONSOLE_FILE, "--alias-file", str(ALIAS_FILE)]
    return words


def secrets(inputs: JobInputs) -> dict[str, str]:
    """The files that those commands read: name to content."""
    application = {**inputs.connection, "password": inputs.application_password}
    tls, files = "", {}
    if authority := inputs.pooler_authority:
        # A certificate of the operator's own does not bear the pooler's name inside the stage.
        mode = "verify-full" if authority == inputs.authority else "verify-ca"
        tls = f"?sslmode={mode}&sslrootcert={POOLER_AUTHORITY_FILE}"
        application["tls"] = {"mode": "verify-full", "authority_file": POOLER_AUTHORITY_FILE}
        files = {"pooler-ca.crt": authority}
    if console := inputs.console:
        files["console"] = (
            f"postgresql://{console.user}:{inputs.console_password}@"
            f"{console.host}:{console.port}/pgbouncer{tls}"
        )
    application_file = {"application.json": json.dumps(_whole(application))}
    return {**inputs.target_files, **files, **application_file}


def acceptances(target: Target) -> list[str]:
    """The options by which the operator accepts what ``check-target`` and ``switch`` refuse."""
    return ["--accept-asynchronous"] if target.accept_asynchronous else []


def collation_acceptance(target: Target) -> list[str]:
    """The same for what ``check-target`` and ``migrate`` would otherwise see to."""
    return ["--accept-collation"] if target.accept_collation else []


def run(
    command: str,
    inputs: JobInputs,
    options: Sequence[str] = (),
    files: Mapping[str, str] | None = None,
) -> None:
    """Run ``switch`` or ``rollback`` to its end, with ``files`` beside its secrets; StageError with
    its last words where it fails."""
    place = inputs.place
    client = engine.connect(place.docker_host)
    call = job.Call(f"{inputs.container}-{command}", {**secrets(inputs), **(files or {})})
    ended = job.run(client, place, call, [*arguments(command, inputs), *options], say)
    if ended.status:
        raise StageError(
            f"the {command} ended with status {ended.status}; its last output:\n{ended.words}",
            advice="the job never leaves both sides open: run the same command again and it goes "
            "on, or `make status` to see which side serves",
        )


def connect(inputs: JobInputs, *, writes: bool = False) -> None:
    """Have PgBouncer admit the application, unless somebody holds it; with ``writes`` have the
    connection name PostgreSQL as the settings have it now, and note that the stage is settled.
    Neither asks the source. StageError where a part does not answer."""
    place = inputs.place
    client = engine.connect(place.docker_host)
    words = ["-c", _CONNECT, inputs.source, inputs.connection_directory]
    words += [inputs.state_directory, APPLICATION_FILE, TARGET_FILE]
    words += [CONSOLE_FILE if inputs.console else "", str(ALIAS_FILE), "yes" if writes else ""]
    call = job.Call(f"{inputs.container}-connect", secrets(inputs), entrypoint=("python3",))
    ended = job.run(client, place, call, words, say)
    if ended.status:
        raise StageError(
            f"the application could not be connected; the last output:\n{ended.words}",
            advice="PostgreSQL has the data as before; correct the cause and run `pulumi up` again",
        )


def alias_is_lost(inputs: JobInputs) -> bool:
    """Whether the pooler has no alias of the application's database although the application is
    served through it. False where that cannot be told, or where nothing needs one."""
    if not inputs.console or serving(inputs) != "postgresql":
        return False
    place = inputs.place
    client = engine.connect(place.docker_host)
    (volume,) = [name for name, path in place.volumes.items() if path == ALIAS_DIRECTORY]
    try:
        client.volumes.get(volume)
    except NotFound:
        return True
    except DockerException:
        return False
    try:
        said = job.read_text(client, place, f"{inputs.container}-alias", ALIAS_FILE)
    except NotFound:
        return True
    except DockerException:
        return False
    return not said.strip()


def serving(inputs: Served) -> str:
    """``sqlite`` or ``postgresql``: where the application's connection has its writes go."""
    place = inputs.place
    path = PurePosixPath(inputs.connection_directory) / "current" / "database.json"
    try:
        if engine.is_local(place.docker_host):
            said = json.loads(Path(path).read_text())
        else:
            client = engine.connect(place.docker_host)
            said = job.read_json(client, place, f"{inputs.container}-connection", path)
    except PermissionError as error:
        raise StageError(
            f"expected to be able to read {path}, found {error.strerror}",
            advice="run `pulumi` as the application's user or as root",
        ) from error
    except (FileNotFoundError, NotFound):
        return "sqlite"
    except DockerException as error:
        raise StageError(f"the engine could not read {path}: {error}") from error
    return str(said["write"]["engine"])


def _whole(value: Any) -> Any:
    """Numbers come back from Pulumi's state as floats; the job's ports and sizes are whole."""
    if isinstance(value, Mapping):
        return {key: _whole(item) for key, item in value.items()}
    return int(value) if isinstance(value, float) and value == int(value) else value
