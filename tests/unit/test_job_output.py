"""Every line that the job's container prints is passed on, whatever the engine's stream loses."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import docker
import pytest
from docker.errors import NotFound

from infra import job

PRINTED = b"one\ntwo\nerror: three\n  four\n"

PLACE = job.Place(
    docker_host="",
    image="image",
    network="network",
    user="1000:1000",
    memory=1,
    log_size=1,
    log_files=1,
    binds=(),
)


class Container:
    """One that printed :data:`PRINTED`, of which the stream shows the first ``shown`` bytes."""

    def __init__(self, shown: int, status: int) -> None:
        self._shown = shown
        self._status = status

    def put_archive(self, _path: str, _files: bytes) -> None: ...

    def start(self) -> None: ...

    def remove(self, **_options: bool) -> None: ...

    def logs(self, *, stream: bool = False, follow: bool = False) -> Any:
        return iter([PRINTED[: self._shown]]) if stream and follow else PRINTED

    def wait(self) -> dict[str, int]:
        return {"StatusCode": self._status}


def run(shown: int, status: int) -> tuple[job.Ended, list[str]]:
    def missing(name: str) -> None:
        raise NotFound(name)

    def create(*_words: Any, **_options: Any) -> Container:
        return Container(shown, status)

    client = SimpleNamespace(containers=SimpleNamespace(get=missing, create=create))
    said: list[str] = []
    call = job.Call("name")
    return job.run(cast(docker.DockerClient, client), PLACE, call, [], said.append), said


@pytest.mark.parametrize("shown", [0, 4, 8, len(PRINTED)])
def test_a_stream_that_ends_early_loses_no_line(shown: int) -> None:
    ended, said = run(shown, 1)
    assert (said, ended.lines) == (["one", "two"], ("error: three", "  four"))
    ended, said = run(shown, 0)
    assert said == ["one", "two", "error: three", "  four"]
