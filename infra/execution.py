"""Runs a command in a container that runs, and has all that it printed.

docker-py's own ``exec_run`` (7.2) reads the socket beneath the buffer by which the answer's head
was read, so that what the engine sends together with the head is lost. It also takes the exit
status as soon as the streams are closed, when the engine may have none yet.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import requests
from docker.errors import create_api_error_from_http_exception
from docker.models.containers import Container

from infra.engine import WORK_SECONDS
from infra.errors import StageError

STDOUT, STDERR = 1, 2
HEAD = struct.Struct(">BxxxL")
"""Before each piece of a stream: which one, and the piece's length
(https://docs.docker.com/reference/api/engine/#tag/Container/operation/ContainerAttach)."""
END_SECONDS = 30
POLL_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Answer:
    """How a command ended, and what it printed."""

    exit_code: int
    pieces: tuple[tuple[int, bytes], ...]
    """Of either stream, in the order in which they came."""

    @property
    def output(self) -> bytes:
        """What it printed on both streams."""
        return b"".join(piece for _, piece in self.pieces)

    def on(self, stream: int) -> bytes:
        """What it printed on :data:`STDOUT` or :data:`STDERR`."""
        return b"".join(piece for one, piece in self.pieces if one == stream)


def execute(
    container: Container,
    command: list[str],
    environment: dict[str, str] | None = None,
    *,
    user: str = "",
) -> Answer:
    """Run a command to its end. Raises APIError where the engine refuses, and StageError where it
    does not say how the command ended."""
    api = cast(Any, container.client).api
    made = api.exec_create(container.id, command, environment=environment, user=user)["Id"]
    response = api.post(
        f"{api.base_url}/v{api.api_version}/exec/{made}/start",
        json={"Detach": False, "Tty": False},
        timeout=WORK_SECONDS,
    )
    try:
        response.raise_for_status()
    except requests.HTTPError as error:
        create_api_error_from_http_exception(error)
    pieces = tuple(_pieces(response.content))
    deadline = time.monotonic() + END_SECONDS
    while (found := api.exec_inspect(made))["Running"] or found["ExitCode"] is None:
        if time.monotonic() > deadline:
            raise StageError(
                f"expected the engine to say how {command[0]} ended in {container.name}, found "
                f"that it still runs after {END_SECONDS} s",
                advice="check the engine (`docker ps`) and run the same command again",
            )
        time.sleep(POLL_SECONDS)
    return Answer(int(found["ExitCode"]), pieces)


def _pieces(content: bytes) -> Iterator[tuple[int, bytes]]:
    place = 0
    while place + HEAD.size <= len(content):
        stream, length = HEAD.unpack_from(content, place)
        place += HEAD.size
        yield stream, content[place : place + length]
        place += length
