"""A Docker engine for tests, and containers that are gone when the test is."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import docker
import pytest
import testinfra
from docker.models.containers import Container

from infra import engine
from infra.errors import StageError
from infra.execution import Answer
from infra.health import wait

LABEL = "sqlite-to-postgresql.test"


def client_or_skip() -> docker.DockerClient:
    """A client, or a skip that says why there is none."""
    try:
        return engine.connect("")
    except StageError as error:
        pytest.skip(f"no Docker engine: {error.message}")


def output(done: Answer) -> str:
    """What a command in a container has printed."""
    return done.output.decode()


def name_of(container: Container) -> str:
    """A running container's name; the engine gives one to each."""
    assert container.name is not None
    return container.name


def unique(prefix: str) -> str:
    """A name that no other test run has."""
    return f"{prefix}-{secrets.token_hex(4)}"


@contextmanager
def running(
    client: docker.DockerClient,
    image: str,
    *,
    files: dict[str, bytes] | None = None,
    **options: Any,
) -> Iterator[Container]:
    """A container, started with its files in place, removed at the end."""
    container = client.containers.create(
        image, name=unique("test"), labels={LABEL: "1"}, detach=True, **options
    )
    try:
        for path, archive in (files or {}).items():
            container.put_archive(path, archive)
        container.start()
        yield container
    finally:
        container.remove(force=True, v=True)


def host_of(container: Container) -> testinfra.host.Host:
    """The container as testinfra sees it."""
    return testinfra.get_host(f"docker://{container.name}")


def healthy(container: Container, limit: float = 90) -> Container:
    """The container once its health check passes; its log is in the failure where it does not."""
    wait(container, limit)
    return container
