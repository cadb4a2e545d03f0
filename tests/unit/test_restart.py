"""images/gate/restart.py against an engine's interface on a real unix socket."""

from __future__ import annotations

import http.server
import json
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "images" / "gate" / "restart.py"


class Interface(http.server.BaseHTTPRequestHandler):
    """The one request, and every other refused."""

    asked: list[str]

    def address_string(self) -> str:
        return "a unix socket has none"

    def do_POST(self) -> None:
        type(self).asked.append(self.path)
        match self.path:
            case "/containers/radcase/restart":
                self.send_response(204)
                self.end_headers()
            case "/containers/no-message/restart":
                self._refuse(502, b"<html>\x1b[2J")
            case "/containers/hangs-up/restart":
                self.close_connection = True
            case _:
                message = "No such container: it\n\x1b[31m"
                self._refuse(404, json.dumps({"message": message}).encode())

    def _refuse(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def socket_path(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "docker.sock"
    Interface.asked = []
    with socketserver.ThreadingUnixStreamServer(str(path), Interface) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield path
        server.shutdown()
        thread.join()


def run(socket_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    # -I: nothing of this project or its packages can be imported, as in the image.
    command = [sys.executable, "-I", str(PROGRAM), "--socket", str(socket_path), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_it_restarts_the_container_that_it_is_given(socket_path: Path) -> None:
    done = run(socket_path, "radcase")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert Interface.asked == ["/containers/radcase/restart"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("another", "404 No such container: it"),
        ("no-message", "502 <html>"),
        ("hangs-up", "no answer"),
        ("radcase/kill?x=", "404"),
    ],
)
def test_what_the_engine_refuses_is_one_sentence(socket_path: Path, name: str, told: str) -> None:
    done = run(socket_path, name)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: expected the engine to restart the container {name}")
    assert told in done.stderr
    assert done.stderr.count("\n") == 1
    assert "\x1b" not in done.stderr


def test_a_name_is_one_name(socket_path: Path) -> None:
    run(socket_path, "../images/prune?x=")
    assert Interface.asked == ["/containers/..%2Fimages%2Fprune%3Fx%3D/restart"]
    assert run(socket_path).returncode == 2
    assert run(socket_path, "radcase", "another").returncode == 2
    assert len(Interface.asked) == 1


def test_without_an_engine_it_says_where_it_looked(tmp_path: Path) -> None:
    done = run(tmp_path / "none.sock", "radcase")
    assert done.returncode == 1
    assert f"no answer at {tmp_path / 'none.sock'}" in done.stderr
    assert "Traceback" not in done.stderr
