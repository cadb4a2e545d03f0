"""PostgreSQL's image is the one whose digest the stage file gives, or none."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import docker
import pytest
from docker.errors import ImageNotFound

from infra.errors import StageError
from infra.images import Builder

IMAGE = "postgres@sha256:" + "0" * 64


class Engine:
    """An engine that pulls what it is asked for."""

    def __init__(self, environment: list[str]) -> None:
        self.pulled: list[str] = []
        self.images = self
        self._environment = environment

    def version(self) -> dict[str, str]:
        return {"Arch": "amd64"}

    def pull(self, name: str) -> None:
        self.pulled.append(name)

    def get(self, name: str) -> Any:
        if name not in self.pulled:
            raise ImageNotFound(name)
        # Another name of the same image, which is not what was pinned.
        attributes = {"RepoDigests": ["mirror/x@sha256:1"], "Config": {"Env": self._environment}}
        return SimpleNamespace(id="sha256:2", attrs=attributes)


def builder(engine: Engine, *, dry_run: bool = False) -> Builder:
    client = cast(docker.DockerClient, engine)
    return Builder(client, "auto", print, postgres=IMAGE, dry_run=dry_run)


def test_what_is_pinned_is_what_is_run() -> None:
    engine = Engine(["PATH=/bin", "PG_MAJOR=17"])
    assert builder(engine)._postgres(17) == IMAGE
    assert engine.pulled == [IMAGE]


def test_a_preview_pulls_nothing() -> None:
    engine = Engine([])
    assert builder(engine, dry_run=True)._postgres(17) == IMAGE
    assert engine.pulled == []


def test_the_image_of_another_version_is_refused() -> None:
    with pytest.raises(StageError, match=r"image of PostgreSQL 18 .* found PG_MAJOR=17"):
        builder(Engine(["PG_MAJOR=17"]))._postgres(18)
