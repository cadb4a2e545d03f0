"""The resource ``Healthy``: waits for a container's health check, and shows its log where that
waits in vain. It also sets the limit on processes, which Pulumi's provider does not know."""

from __future__ import annotations

import time
from typing import Any

import docker
import pulumi
from docker.errors import DockerException
from docker.models.containers import Container
from pulumi.dynamic import CreateResult, Resource, UpdateResult

from infra import engine
from infra.dynamic import StageProvider
from infra.errors import StageError

LIMIT_SECONDS = 180
"""Enough for a first start on a slow disk; PostgreSQL's recovery may need a second `pulumi up`."""
POLL_SECONDS = 0.2
LOG_LINES = 12


def wait(container: Container, limit: float = LIMIT_SECONDS) -> None:
    """Return when the container is healthy; StageError with its log's last lines when it has ended,
    keeps restarting or is not healthy within ``limit`` seconds."""
    deadline = time.monotonic() + limit
    while True:
        container.reload()
        state = container.attrs["State"]
        health = (state.get("Health") or {}).get("Status", "none")
        if state["Status"] == "running" and health == "healthy":
            return
        ended = state["Status"] in ("exited", "dead") or container.attrs["RestartCount"] > 3
        if ended or time.monotonic() > deadline:
            log = container.logs(tail=LOG_LINES).decode(errors="replace").strip()
            raise StageError(
                f"expected the container {container.name} to become healthy, found it "
                f"{state['Status']} ({health}); its log ends:\n{log}",
                advice="correct the cause and run `pulumi up` again",
            )
        time.sleep(POLL_SECONDS)


class HealthyProvider(StageProvider):
    """Waits at creation, and again for every new container."""

    def create(self, props: Any) -> CreateResult:
        _wait(props)
        return CreateResult(str(props["container"]), props)

    def update(self, _id: str, _olds: Any, news: Any) -> UpdateResult:
        _wait(news)
        return UpdateResult(news)


def _wait(props: Any) -> None:
    client = engine.connect(props["docker_host"])
    try:
        limit_processes(client, props["container"], int(props["pids"]))
        wait(client.containers.get(props["container"]))
    except DockerException as error:
        raise StageError(f"the engine could not report the container's health: {error}") from error


def limit_processes(client: docker.DockerClient, container: str, pids: int) -> None:
    """Bound the container's processes. Neither Pulumi's provider nor the SDK has a word for it:
    https://docs.docker.com/reference/api/engine/version/v1.41/ (ContainerUpdate).
    """
    address = f"{client.api.base_url}/v{client.api.api_version}/containers/{container}/update"
    answer = client.api.post(address, json={"PidsLimit": pids}, timeout=client.api.timeout)
    if not answer.ok:
        raise DockerException(answer.text.strip())


class Healthy(Resource):
    """A container that its own health check calls healthy."""

    def __init__(
        self,
        name: str,
        *,
        container: pulumi.Input[str],
        pids: int,
        docker_host: str,
        opts: pulumi.ResourceOptions,
    ) -> None:
        props = {"container": container, "pids": pids, "docker_host": docker_host}
        super().__init__(HealthyProvider(), name, props, opts)
