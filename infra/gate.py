"""The gate's container: `migration-job gate` before an application that has to be restarted.

It speaks to no database: it is given the connection, the job's state and, only where it restarts a
container itself, the engine's socket with the group that may write to it.
"""

from __future__ import annotations

import ipaddress
import json
import shlex
import stat
from dataclasses import dataclass
from typing import Any

import docker
import pulumi
from docker.errors import APIError, ContainerError, DockerException, ImageNotFound, NotFound
from docker.models.containers import Container
from docker.types import Mount

from infra import engine
from infra.containers import MEBIBYTE, Health, Service
from infra.errors import StageError
from infra.names import Names
from infra.setting_types import Gate
from infra.settings import Settings
from infra.stage_paths import Paths
from migration_job.log_format import VARIABLE as LOG_FORMAT

PORT = 8080
CONFIG = "/run/gate"
SOCKET = "/run/docker.sock"
RESTART = "/usr/local/lib/gate/restart.py"
MEMORY = 256 * MEBIBYTE


@dataclass(frozen=True)
class EngineSocket:
    """The engine's socket, as the gate is given it."""

    path: str
    """On the engine's host."""
    group: str
    """The number of the group that may write to it."""


def service(
    gate: Gate,
    names: Names,
    image: pulumi.Input[str],
    user: str,
    *,
    where: Paths,
    socket: EngineSocket | None,
) -> Service:
    """The gate as a service of the stage, on ``gate.port`` of the bind address."""
    state, connection = where.job, where.connection
    alive = f"test -n \"$(find {shlex.quote(str(state / 'gate.json'))} -newermt '-10 seconds')\""
    return Service(
        name=names.gate,
        host="gate",
        image=image,
        user=user,
        memory=MEMORY,
        health=Health(["bash", "-c", f"{alive} && exec 3<>/dev/tcp/127.0.0.1/{PORT}"]),
        config_directory=CONFIG,
        # A file: a command may hold a supervisor's password.
        files={"restart": pulumi.Output.secret(f"{gate.command}\n")} if gate.command else {},
        command=[
            "gate",
            *("--listen", f"0.0.0.0:{PORT}"),
            *("--upstream", gate.upstream),
            *("--connection", str(connection)),
            *("--state", str(state)),
            *("--restart", restart_command(gate)),
        ],
        environment={LOG_FORMAT: "json"},
        ports={PORT: gate.port},
        binds=(str(state),),
        read_only=(str(connection),),
        sockets={SOCKET: socket.path} if socket else {},
        groups=(socket.group,) if socket else (),
        network=gate.network,
        knows_host=True,
        temporary={"/tmp": "mode=1777"},  # noqa: S108 - the container's own
        pids=128,
        stop_seconds=30,
        open_files=16384,
    )


def restart_command(gate: Gate) -> str:
    """What the gate runs to have the application restarted."""
    if gate.command:
        return f"sh {CONFIG}/restart"
    return shlex.join(["python3", RESTART, gate.container])


# ------------------------------------------------------------------ looked at before anything


def require_application(client: docker.DockerClient, settings: Settings) -> None:
    """StageError where the network or the container that `gate` names is not on the engine, or
    where that container cannot reach the database that its connection is going to name."""
    gate = settings.gate
    if gate is None:
        return
    try:
        if gate.network:
            client.networks.get(gate.network)
        if gate.container:
            _require_reach(client.containers.get(gate.container), settings)
    except NotFound as error:
        raise StageError(
            f"expected the network and the container that `gate` names, found: {error.explanation}",
            advice="start the application, which is to serve before its database moves, or correct "
            "`gate.network` and `gate.container` in the stage file",
        ) from error
    except DockerException as error:
        raise StageError(f"the engine could not find the application: {error}") from error


def _require_reach(container: Container, settings: Settings) -> None:
    host = settings.connection_host or settings.bind_address
    on_host = container.attrs["HostConfig"]["NetworkMode"] == "host"
    if settings.pooler and _is_loopback(host) and not on_host:
        raise StageError(
            f"expected an address at which the container {container.name} reaches PgBouncer, "
            f"found {host}, which inside a container is the container itself",
            advice="set `bindAddress` to an address of the host that containers reach, such as "
            "that of the engine's bridge (`docker network inspect bridge`), or `connectionHost`, "
            "or put the application on the host's network",
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


_LOOK = f"""
import json, os
found = os.stat({SOCKET!r})
print(json.dumps({{"mode": found.st_mode, "uid": found.st_uid, "gid": found.st_gid}}))
"""


def engine_socket(
    client: docker.DockerClient, docker_host: str, image: str, user: str, *, dry_run: bool
) -> EngineSocket:
    """The engine's socket and its group, as a container sees them: the same way for an engine on
    this machine, in a virtual one and behind ssh. StageError where ``user`` could not write."""
    path = engine.socket_path(docker_host)
    try:
        found = _look(client, image, path)
    except ImageNotFound:
        if dry_run:  # a preview, before the image is made
            return EngineSocket(path, "0")
        raise
    except (APIError, ContainerError) as error:
        said = error.explanation if isinstance(error, APIError) else str(error).splitlines()[-1]
        raise _no_socket(path, f"none: {said}") from error
    mode = int(found["mode"])
    if not stat.S_ISSOCK(mode):
        raise _no_socket(path, "something else")
    owner = user.partition(":")[0] == str(found["uid"])
    if mode & 0o060 != 0o060 and not owner:
        raise _no_socket(path, f"one that its group may not write to (mode {mode & 0o777:o})")
    return EngineSocket(path, str(found["gid"]))


def _look(client: docker.DockerClient, image: str, path: str) -> dict[str, Any]:
    said = client.containers.run(
        image,
        ["-c", _LOOK],
        entrypoint=["python3"],
        network_mode="none",
        remove=True,
        mounts=[Mount(SOCKET, path, type="bind", read_only=True)],
    )
    found: dict[str, Any] = json.loads(said)
    return found


def _no_socket(path: str, found: str) -> StageError:
    return StageError(
        f"expected the engine's socket at {path} on its host, for the gate to restart the "
        f"application's container, found {found}",
        advice="set `gate.command` instead of `gate.container`: a command that restarts the "
        "application by other means",
    )
