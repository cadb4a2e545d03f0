"""How the program calls the job's commands that act on both databases.

All that a command needs stands in a resource's properties, so that ``pulumi destroy`` can call it
from the state alone. Secrets are files below :data:`infra.job.SECRETS`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from docker.errors import DockerException, NotFound

from infra import engine, job
from infra.dynamic import say
from infra.errors import StageError
from infra.job import Place
from infra.rendering import ALIAS_DIRECTORY

TARGET_FILE = f"{job.SECRETS}/target"
AUTHORITY_FILE = f"{job.SECRETS}/ca.crt"
CONSOLE_FILE = f"{job.SECRETS}/console"
APPLICATION_FILE = f"{job.SECRETS}/application.json"
POOLER_AUTHORITY_FILE = f"{job.SECRETS}/pooler-ca.crt"

PASSWORDS = ("password", "application_password", "console_password")
"""Properties that are secret: the migration role's, the application's and the console's."""


def place_of(props: Mapping[str, Any]) -> Place:
    """The place as the state keeps it; numbers come back from there as floats."""
    kept = dict(props["place"])
    for name in ("memory", "log_size", "log_files"):
        kept[name] = int(kept[name])
    for name in ("binds", "read_only"):
        kept[name] = tuple(kept[name])
    return Place(**kept)


def dsn(props: Mapping[str, Any]) -> str:
    """The job's connection string."""
    target = props["target"]
    if props.get("authority"):
        tls = f"?sslmode=verify-full&sslrootcert={AUTHORITY_FILE}"
    else:
        tls = f"?sslmode={target['sslmode']}" if target.get("sslmode") else ""
    user, password, database = (
        quote(word, safe="") for word in (target["user"], props["password"], target["database"])
    )
    host = f"[{target['host']}]" if ":" in target["host"] else target["host"]
    return f"postgresql://{user}:{password}@{host}:{int(target['port'])}/{database}{tls}"


def target_secrets(props: Mapping[str, Any]) -> dict[str, str]:
    """The files by which the job reaches the target: name to content."""
    authority = {"ca.crt": props["authority"]} if props.get("authority") else {}
    return {"target": dsn(props), **authority}


def arguments(command: str, props: Mapping[str, Any]) -> list[str]:
    """``switch``, ``rollback`` or ``sync`` as the job takes it."""
    words = [
        command,
        props["source"],
        *("--target-file", TARGET_FILE),
        *("--report", props["report_directory"]),
        *("--state", props["state_directory"]),
        *("--connection", props["connection_directory"]),
        *("--application-file", APPLICATION_FILE),
    ]
    if props["console"]:
        words += ["--console-file", CONSOLE_FILE, "--alias-file", f"{ALIAS_DIRECTORY}/alias.ini"]
    return words


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
    if console:
        files["console"] = (
            f"postgresql://{console['user']}:{props['console_password']}@"
            f"{console['host']}:{int(console['port'])}/pgbouncer{tls}"
        )
    application_file = {"application.json": json.dumps(_whole(application))}
    return {**target_secrets(props), **files, **application_file}


def acceptances(props: Mapping[str, Any]) -> list[str]:
    """The options by which the operator accepts what ``check-target`` and ``switch`` refuse."""
    return ["--accept-asynchronous"] if props["target"].get("accept_asynchronous") else []


def run(command: str, props: Mapping[str, Any], options: Sequence[str] = ()) -> None:
    """Run ``switch`` or ``rollback`` to its end; StageError with its last words where it fails."""
    place = place_of(props)
    client = engine.connect(place.docker_host)
    name = f"{props['container']}-{command}"
    words = [*arguments(command, props), *options]
    ended = job.run(client, place, name, words, secrets(props), say)
    if ended.status:
        raise StageError(
            f"the {command} ended with status {ended.status}; its last words:\n{ended.words}",
            advice="the job never leaves both sides open: run the same command again and it goes "
            "on, or `make status` to see which side serves",
        )


def serving(props: Mapping[str, Any]) -> str:
    """``sqlite`` or ``postgresql``: where the application's connection has its writes go."""
    place = place_of(props)
    path = PurePosixPath(props["connection_directory"]) / "current" / "database.json"
    try:
        if engine.is_local(place.docker_host):
            said = json.loads(Path(path).read_text())
        else:
            client = engine.connect(place.docker_host)
            said = job.read_json(client, place, f"{props['container']}-connection", path)
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
