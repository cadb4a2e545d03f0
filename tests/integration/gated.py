"""``migration-job gate`` as a process, and what speaks to it byte by byte."""

from __future__ import annotations

import http.client
import json
import resource
import socket
import subprocess
import sys
from pathlib import Path

from tests.integration.livestage import until

ROOT = Path(__file__).resolve().parents[2]

_WITH_LIMITS = """
import json, sys
from migration_job.gate import gate, limits
given = limits.Limits(**json.loads(sys.argv.pop(1)))
gate.Limits = lambda: given
from migration_job.cli import main
sys.exit(main())
"""


class Gated:
    """The process. ``limits``: some of :class:`migration_job.gate.limits.Limits`; ``files``: how
    many it may open at most."""

    def __init__(
        self,
        directory: Path,
        *options: str,
        limits: dict[str, float] | None = None,
        files: int | None = None,
    ) -> None:
        self.connection, self.state = directory / "connection", directory / "state"
        self.log = (directory / "gate.log").open("w+")
        command = [sys.executable, "-m", "migration_job"]
        if limits:
            command = [sys.executable, "-c", _WITH_LIMITS, json.dumps(limits)]
        command += ["gate", "--listen", "127.0.0.1:0", "--connection", str(self.connection)]
        command += ["--state", str(self.state), *options]

        def fewer() -> None:
            if files is not None:
                resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=fewer,
        )
        try:
            until(lambda: "the gate listens on" in self.said or not self.runs, "the gate")
            assert self.runs, self.said
        except BaseException:
            self.close()
            raise
        line = self.said.partition("the gate listens on 127.0.0.1:")[2]
        self.port = int(line.split()[0])

    @property
    def said(self) -> str:
        return Path(self.log.name).read_text()

    @property
    def runs(self) -> bool:
        return self.process.poll() is None

    @property
    def peak(self) -> int:
        """The most memory that it has had, in bytes."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmHWM")

    def client(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)

    def get(self, path: str) -> tuple[int, bytes]:
        client = self.client()
        try:
            client.request("GET", path)
            answer = client.getresponse()
            return answer.status, answer.read()
        finally:
            client.close()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def raw(self, sent: bytes) -> bytes:
        """What comes back until the connection closes."""
        with self.connect() as client:
            client.sendall(sent)
            return rest_of(client)

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(40)
        self.log.close()


def rest_of(client: socket.socket) -> bytes:
    received = b""
    while block := client.recv(65536):
        received += block
    return received
