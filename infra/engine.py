"""The Docker engine: found, asked whether it answers, and asked about ports.

One address serves the SDK here and Pulumi's Docker provider, so that both speak to the same
engine: ``dockerHost`` from the stage file, else ``DOCKER_HOST``, else the current Docker context.
For ``ssh://`` this process has the machine's own ssh forward the engine's socket; the keys and the
known hosts are then the ones that the operator's `ssh` uses.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import docker
from docker.errors import DockerException

from infra.errors import StageError

DEFAULT_SOCKET = "unix:///var/run/docker.sock"
REMOTE_SOCKET = "/var/run/docker.sock"
ANSWER_SECONDS = 10
FORWARD_SECONDS = 20
WORK_SECONDS = 600
"""A single request may take as long as the engine takes to stop a container or pull a layer."""


def address(docker_host: str) -> str:
    """The engine's address, as a URL that both the SDK and Pulumi's provider understand."""
    chosen = docker_host or os.environ.get("DOCKER_HOST", "")
    if chosen:
        return chosen
    if Path(DEFAULT_SOCKET.removeprefix("unix://")).exists():
        return DEFAULT_SOCKET
    return _context_address() or DEFAULT_SOCKET


def _context_address() -> str:
    """The address of the Docker context in use (Docker Desktop, colima), or ''."""
    from docker.context import ContextAPI

    try:
        context = ContextAPI.get_current_context()
    except (DockerException, OSError, ValueError):
        return ""
    return str(context.Host or "") if context is not None else ""


def is_local(docker_host: str) -> bool:
    """Whether the engine shares this machine's files and ports."""
    return address(docker_host).startswith(("unix://", "npipe://"))


def connect(docker_host: str, *, seconds: int = WORK_SECONDS) -> docker.DockerClient:
    """A client of an engine that has just answered; StageError where none does."""
    where = address(docker_host)
    try:
        client = docker.DockerClient(
            base_url=_forwarded(where) if where.startswith("ssh://") else where,
            version="auto",
            timeout=ANSWER_SECONDS,
        )
        client.ping()
    except (DockerException, OSError, ValueError) as error:
        raise StageError(
            f"expected a Docker engine at {where}, found none: {_first_line(error)}",
            advice="start it (on Debian: `apt-get install docker.io` and `service docker start`), "
            "or name another with `dockerHost` in the stage file or DOCKER_HOST",
        ) from error
    client.api.timeout = seconds
    return client


@functools.cache
def _forwarded(where: str) -> str:
    """The address of a socket on this machine that ssh forwards to the engine's; for as long as
    this process lives. OSError where ssh does not come through."""
    parts = urlsplit(where)
    directory = tempfile.mkdtemp(prefix="engine-")
    path = Path(directory) / "docker.sock"
    command = ["ssh", "-N", "-o", "BatchMode=yes", "-o", "ExitOnForwardFailure=yes"]
    command += ["-o", f"ConnectTimeout={ANSWER_SECONDS}", "-L", f"{path}:{REMOTE_SOCKET}"]
    command += ["-p", str(parts.port)] if parts.port else []
    command += ["-l", parts.username] if parts.username else []
    # S603: the address is the operator's, and was checked to be one word.
    tunnel = subprocess.Popen(  # noqa: S603
        [*command, "--", parts.hostname or ""],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    atexit.register(_end, tunnel, directory)
    deadline = time.monotonic() + FORWARD_SECONDS
    while not path.exists():
        if tunnel.poll() is not None or time.monotonic() > deadline:
            tunnel.kill()
            said = tunnel.stderr.read().decode(errors="replace").strip() if tunnel.stderr else ""
            raise OSError(f"ssh: {said.splitlines()[-1] if said else 'no answer'}")
        time.sleep(0.02)
    return f"unix://{path}"


def _end(tunnel: subprocess.Popen[bytes], directory: str) -> None:
    tunnel.kill()
    tunnel.wait()
    shutil.rmtree(directory, ignore_errors=True)


def socket_path(docker_host: str) -> str:
    """Where the engine's socket is on the engine's own host, as a container may be given it."""
    scheme, _, path = address(docker_host).partition("://")
    # Elsewhere than on Linux the engine runs in a machine of its own, where it has the usual path.
    return path if scheme == "unix" and sys.platform == "linux" else REMOTE_SOCKET


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def require_port(
    client: docker.DockerClient, host_ip: str, port: int, owner: str, *, local: bool
) -> None:
    """Refuse a published port that something other than the container ``owner`` holds; programs
    that are no containers are seen where the engine is this machine's (``local``)."""
    for container in client.containers.list(ignore_removed=True):
        if container.name == owner and (
            port in _published(container.attrs) or _on_the_hosts_network(container.attrs)
        ):
            return
        if port in _published(container.attrs):
            raise _port_taken(port, f"the container {container.name}")
    if local and not _free(host_ip, port):
        raise _port_taken(port, "another program on this machine")


def _published(attributes: dict[str, Any]) -> set[int]:
    bindings = (attributes.get("HostConfig") or {}).get("PortBindings") or {}
    return {
        int(binding["HostPort"])
        for published in bindings.values()
        for binding in published or ()
        if binding.get("HostPort")
    }


def _on_the_hosts_network(attributes: dict[str, Any]) -> bool:
    return bool((attributes.get("HostConfig") or {}).get("NetworkMode") == "host")


def _free(host_ip: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host_ip else socket.AF_INET
    with closing(socket.socket(family, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host_ip, port))
        except OSError:
            return False
    return True


def _port_taken(port: int, holder: str) -> StageError:
    return StageError(
        f"expected port {port} to be free, found it held by {holder}",
        advice="stop what holds it, or choose another port in the stage file "
        "(`postgresPort`, `poolerPort`, `gate.port`, `restorePort`, ...)",
    )
