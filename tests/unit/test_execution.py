"""A command in a container: all that it printed and how it ended, whatever comes with what."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import docker
import pytest
from docker.errors import APIError, NotFound
from docker.models.containers import Container

from infra.execution import HEAD, STDERR, STDOUT, Answer, execute

MADE = {"Id": "made"}
STREAM = "application/vnd.docker.raw-stream"


def piece(stream: int, content: bytes) -> bytes:
    return HEAD.pack(stream, len(content)) + content


PRINTED = piece(STDOUT, b"one ") + piece(STDERR, b"two ") + piece(STDOUT, b"three")


def plain(status: int, body: bytes, kind: str = "application/json") -> bytes:
    head = f"HTTP/1.1 {status} ?\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Engine:
    """One that sends the head of an answer and all that a command printed in one piece, as a busy
    one does, and knows only at the third look how it ended."""

    def __init__(self, end: int, started: int = 200) -> None:
        self.asked: list[str] = []
        self._end, self._started, self._looks = end, started, 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(peer,), daemon=True).start()

    def _answer(self, peer: socket.socket) -> None:
        with closing(peer), peer.makefile("rb") as reader:
            while line := reader.readline().decode().strip():
                length = 0
                while header := reader.readline().decode().strip().lower():
                    if header.startswith("content-length:"):
                        length = int(header.partition(":")[2])
                reader.read(length)
                path = line.split()[1]
                self.asked.append(path)
                peer.sendall(self._said(path))
                if path.endswith("/start"):
                    return

    def _said(self, path: str) -> bytes:
        if path.endswith("/start"):
            if self._started != 200:
                return plain(self._started, b'{"message": "no such container"}')
            return f"HTTP/1.1 200 OK\r\nContent-Type: {STREAM}\r\n\r\n".encode() + PRINTED
        if path.endswith("/json"):
            self._looks += 1
            over = self._looks > 2
            found = {"Running": not over, "ExitCode": self._end if over else None}
            return plain(200, json.dumps(found).encode())
        return plain(201, json.dumps(MADE).encode())


@contextmanager
def container(engine: Engine) -> Iterator[Container]:
    with closing(engine):
        client = docker.DockerClient(base_url=f"tcp://127.0.0.1:{engine.port}", version="1.41")
        try:
            yield Container({"Id": "there", "Name": "/there"}, client=client)
        finally:
            client.close()


@pytest.mark.parametrize("end", [0, 3])
def test_all_that_it_printed_is_there(end: int) -> None:
    with container(Engine(end)) as there:
        answer = execute(there, ["a", "command"])
    assert (answer.exit_code, answer.output) == (end, b"one two three")
    assert (answer.on(STDOUT), answer.on(STDERR)) == (b"one three", b"two ")


def test_what_the_engine_refuses_is_its_error() -> None:
    with container(Engine(0, started=404)) as there, pytest.raises(NotFound, match="no such"):
        execute(there, ["a"])
    with container(Engine(0, started=500)) as there, pytest.raises(APIError, match="no such"):
        execute(there, ["a"])


def test_a_command_that_prints_nothing() -> None:
    assert Answer(0, ()).output == b""
