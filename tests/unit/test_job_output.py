"""Every line that the job's container prints is passed on, whatever the engine's stream loses."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import docker
import pytest
from docker.errors import NotFound

from infra import job

OUT, ERROR = b"one\ntwo\n", b"error: three\n  four\n"
PRINTED = OUT + ERROR

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
    """One that printed ``printed``, of which the stream shows the first ``shown`` bytes."""

    def __init__(self, shown: int, status: int, printed: bytes) -> None:
        self._shown = shown
        self._status = status
        self._printed = printed

    def put_archive(self, _path: str, _files: bytes) -> None: ...

    def start(self) -> None: ...

    def remove(self, **_options: bool) -> None: ...

    def logs(self, *, stream: bool = False, follow: bool = False, stdout: bool = True) -> Any:
        if not stdout:
            return ERROR
        return iter([self._printed[: self._shown]]) if stream and follow else self._printed

    def wait(self) -> dict[str, int]:
        return {"StatusCode": self._status}


def run(shown: int, status: int, printed: bytes = PRINTED) -> tuple[job.Ended, list[str]]:
    def missing(name: str) -> None:
        raise NotFound(name)

    def create(*_words: Any, **_options: Any) -> Container:
        return Container(shown, status, printed)

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


def test_what_comes_late_on_the_other_stream_is_no_part_of_the_error() -> None:
    """The engine copies two streams, each in its own time; the error keeps few lines."""
    rows = b"".join(b"row %d\n" % number for number in range(2 * job.LAST_WORDS))
    ended, said = run(0, 1, b"one\n" + ERROR[:13] + rows + ERROR[13:])
    assert ended.lines == ("error: three", "  four")
    assert said == ["one", *rows.decode().splitlines()]
