"""Looks into the engine's volumes by a container that is never started."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import docker
from docker.errors import DockerException, NotFound
from docker.models.containers import Container
from docker.types import Mount

LOOK, LOOK_FILES = "/look", "/look-files"
"""Where such a container has what is looked into."""


def has_volume(client: docker.DockerClient, name: str) -> bool:
    """Whether the engine has a volume of that name."""
    try:
        client.volumes.get(name)
    except NotFound:
        return False
    return True


@contextmanager
def looking(client: docker.DockerClient, *mounts: Mount) -> Iterator[Container]:
    """A container that has something mounted and is never started, of any image that is there."""
    images = client.images.list()
    if not images:
        raise DockerException("it has no image to make a container of")
    container = client.containers.create(images[0], ["true"], mounts=list(mounts))
    try:
        yield container
    finally:
        container.remove(force=True)
