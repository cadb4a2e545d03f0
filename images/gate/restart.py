"""Starts one container again through the engine's socket: ``restart.py NAME``.

The one request of the engine's interface that the gate makes, in a program of its own: the
migration job knows no Docker. The name is an argument that the stage fixes; nothing that comes in
with a request reaches it. Ends with 1 and one sentence where the engine refuses.
"""

from __future__ import annotations

import argparse
import http.client
import json
import socket
import sys
from urllib.parse import quote

SOCKET = "/run/docker.sock"
PATIENCE_SECONDS = 300.0
"""The engine answers when the container has started; its own time to stop comes before that."""


class Engine(http.client.HTTPConnection):
    """HTTP to a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=PATIENCE_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def restart(path: str, name: str) -> str:
    """Have the engine start the container again; '', or what it said instead."""
    engine = Engine(path)
    try:
        engine.request("POST", f"/containers/{quote(name, safe='')}/restart")
        answer = engine.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        return f"no answer at {path}: {type(error).__name__}: {error}"
    finally:
        engine.close()
    return "" if answer.status == 204 else f"{answer.status} {_message(body)}"


def _message(body: bytes) -> str:
    """The engine's own words, on one line."""
    try:
        said = str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        said = body.decode(errors="replace")
    return "".join(c if c.isprintable() else " " for c in said).strip()[:500]


def main() -> int:
    words = argparse.ArgumentParser(description="start one container again")
    words.add_argument("name")
    words.add_argument("--socket", default=SOCKET)
    chosen = words.parse_args()
    problem = restart(chosen.socket, chosen.name)
    if problem:
        sys.stderr.write(
            f"error: expected the engine to restart the container {chosen.name}, found: {problem}\n"
        )
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main())
