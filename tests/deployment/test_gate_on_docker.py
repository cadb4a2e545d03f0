"""An application that reads its connection only at start, in a container behind the stage's gate.

It runs beside the stage on a network of its own, as an operator's does, and has no second try: what
meets a closed side fails. Writers and readers, every other one with new connections at each
request, go through the gate while `up` switches it and takes it back.
"""

from __future__ import annotations

import http.server
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import docker
import pytest
from docker.models.containers import Container

from example_app.journal import compare_postgres, compare_sqlite
from example_app.load import Load
from infra.execution import execute
from infra.images import Builder
from tests.deployment.engine import client_or_skip, name_of, unique
from tests.deployment.ports import free_port
from tests.deployment.workshop import ROOT, Result, Workshop, dsn, environment, require_pulumi

pytestmark = [
    pytest.mark.pulumi,
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.xdist_group("docker"),
]

OWNER = 1000
"""Whose the source is: neither root nor the engine's."""
INSIDE = 3000
MORE = 300
"""Requests that each state has to serve before the next command comes."""
LIMIT_SECONDS = 180


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {LIMIT_SECONDS} s: {what}"
        time.sleep(0.05)


@dataclass
class Behind:
    """The application's container and what it is reached by."""

    client: docker.DockerClient
    host: str
    """The host's address on the engine's default network, which every container reaches."""
    directory: Path
    network: str = ""
    name: str = ""
    port: int = 0

    @property
    def source(self) -> Path:
        return self.directory / "data" / "app.db"

    @property
    def connection(self) -> Path:
        return self.directory / "state" / "connection"

    @property
    def container(self) -> Container:
        return self.client.containers.get(self.name)

    @property
    def starts(self) -> int:
        return self.container.logs().decode().count("listening on")

    def side(self) -> str:
        """Which side it writes to, asked past the gate."""
        with urlopen(f"http://{self.host}:{self.port}/health", timeout=10) as answer:
            return str(json.loads(answer.read())["write"])

    def named(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.connection / "database.json").read_text())
        side: dict[str, Any] = found["write"]
        return side


@pytest.fixture
def behind(tmp_path: Path) -> Iterator[Behind]:
    require_pulumi()
    if os.geteuid() != 0:
        pytest.skip("gives the source to another user, which root alone may")
    client = client_or_skip()
    bridge = client.networks.get("bridge").attrs["IPAM"]["Config"][0]
    host = str(bridge.get("Gateway") or bridge["Subnet"].rsplit(".", 1)[0] + ".1")
    made = Behind(client, host, tmp_path, unique("test"), unique("test"), free_port())
    for directory in (made.source.parent, made.connection):
        directory.mkdir(parents=True)
        os.chown(directory, OWNER, OWNER)
    image = Builder(client, "auto", print).images(14, example=True).example
    network = client.networks.create(made.network)
    try:
        client.containers.run(
            image,
            [
                *("--sqlite", str(made.source), "--connection", str(made.connection)),
                *("--host", "0.0.0.0", "--port", str(INSIDE)),  # noqa: S104
                *("--read-connection-once", "--deadline", "0.5"),
            ],
            name=made.name,
            detach=True,
            user=f"{OWNER}:{OWNER}",
            network=made.network,
            ports={f"{INSIDE}/tcp": (host, made.port)},
            volumes={
                str(made.source.parent): {"bind": str(made.source.parent), "mode": "rw"},
                str(made.connection): {"bind": str(made.connection), "mode": "ro"},
            },
        )
        until(lambda: made.starts == 1 and made.source.exists(), "the application")
        yield made
    finally:
        for container in client.containers.list(all=True, filters={"name": made.name}):
            container.remove(force=True, v=True)
        network.remove()


@contextmanager
def staged(behind: Behind, **gate: object) -> Iterator[Workshop]:
    # The workshop's directory is the state's: the connection is there before the stage is.
    made = Workshop(
        behind.directory,
        behind.client,
        source=str(behind.source),
        profile="none",
        strategy="blue-green",
        cutover="switch",
        bindAddress=behind.host,
        gate={"port": free_port(), **gate},
    )
    try:
        yield made
    finally:
        made.clear()


@dataclass
class Traffic:
    load: Load
    journal: Path

    def serves(self) -> None:
        before = self.load.so_far()[0]
        until(lambda: self.load.so_far()[0] >= before + MORE, "more requests")


@contextmanager
def traffic(behind: Behind, workshop: Workshop, running: Future[Result]) -> Iterator[Traffic]:
    """From when the gate of the stage that is being made answers, before the data is moved."""
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    gate: Any = workshop.settings["gate"]
    address = f"{behind.host}:{gate['port']}"
    until(lambda: _answers(address) or running.done(), "the gate")
    assert not running.done(), running.result().output
    load = Load(f"http://{address}", behind.directory / "journal", rate=60, seed=seed)
    load.start()
    try:
        yield Traffic(load, behind.directory / "journal")
    finally:
        load.stop()


def _answers(address: str) -> bool:
    try:
        with urlopen(f"http://{address}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def sockets(workshop: Workshop) -> set[str]:
    """The stage's containers that have the engine's socket."""
    prefix = f"{workshop.names.prefix}-"
    running = workshop.client.containers.list(ignore_removed=True)
    found = [c for c in running if name_of(c).startswith(prefix)]
    assert len(found) >= 4
    return {
        name_of(c) for c in found if any("docker.sock" in m["Source"] for m in c.attrs["Mounts"])
    }


def test_it_is_switched_and_taken_back_without_a_failed_request(behind: Behind) -> None:
    with staged(
        behind, upstream=f"{behind.name}:{INSIDE}", network=behind.network, container=behind.name
    ) as workshop:
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(workshop.up)
            with traffic(behind, workshop, running) as requests:
                done = running.result()
                assert not done.failed, done.output
                assert done.outputs["phase"] == "switched"
                assert "the application answers" in done.output
                assert (behind.side(), behind.starts) == ("postgresql", 2)
                requests.serves()
                for starts, cutover, side in ((3, "hold", "sqlite"), (4, "switch", "postgresql")):
                    workshop.set(cutover=cutover)
                    done = workshop.up()
                    assert not done.failed, done.output
                    assert (behind.side(), behind.starts) == (side, starts)
                    requests.serves()
                result = requests.load.stop()
        print(result.line())
        assert result.failures == []
        assert set(result.sides()) == {"sqlite", "postgresql"}
        found = compare_postgres(requests.journal, dsn(behind.named()))
        assert found.acknowledged == result.writes > 0
        assert found.problems == []
        again = workshop.up()
        assert set(again.changes) == {"same"}, again.output
        assert behind.starts == 4
        is_closed(workshop, behind)
        checks_itself(workshop)
        gone = workshop.destroy()
        assert not gone.failed, gone.output
        assert "the application answers" in gone.output
        assert (behind.side(), behind.starts) == ("sqlite", 5)
        assert compare_sqlite(requests.journal, behind.source).problems == []
        assert workshop.left() == []


def is_closed(workshop: Workshop, behind: Behind) -> None:
    """It has the socket, by the socket's group, and nothing else more than the others."""
    gate = workshop.client.containers.get(workshop.names.gate)
    assert sockets(workshop) == {gate.name}
    host = gate.attrs["HostConfig"]
    assert gate.attrs["Config"]["User"] == f"{OWNER}:{OWNER}"
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert host["Memory"] > 0
    assert host["PidsLimit"] > 0
    assert host["LogConfig"]["Config"]["max-size"]
    assert len(host["GroupAdd"]) == 1
    assert set(gate.attrs["NetworkSettings"]["Networks"]) == {behind.network}
    assert gate.attrs["State"]["Health"]["Status"] == "healthy"
    refused = execute(gate, ["python3", "/usr/local/lib/gate/restart.py", "nobody-of-that-name"])
    assert refused.exit_code == 1
    assert b"No such container" in refused.output


def checks_itself(workshop: Workshop) -> None:
    """As `make check` would."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["tests/deployment/provisioned", "--stage", workshop.stage, "-k", "gate"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(workshop), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert "1 passed" in done.stdout


class Supervisor(http.server.BaseHTTPRequestHandler):
    """Somebody's own way to restart the application, with a password."""

    password = "supervisor-password-0123456789"
    restart: Callable[[], None]

    def do_POST(self) -> None:
        known = self.headers.get("Authorization") == f"Bearer {self.password}"
        if known:
            type(self).restart()
        self.send_response(200 if known else 401)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def supervisor(behind: Behind) -> Iterator[int]:
    class Own(Supervisor):
        @staticmethod
        def restart() -> None:
            behind.container.restart()

    server = http.server.ThreadingHTTPServer((behind.host, 0), Own)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield int(server.server_address[1])
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_command_starts_it_anew_without_the_engines_socket(
    behind: Behind, supervisor: int
) -> None:
    """By way of the host, where the engine accepts connections before the application does."""
    command = (
        f"curl -fsS -X POST -H 'Authorization: Bearer {Supervisor.password}' "
        f"http://host.docker.internal:{supervisor}/"
    )
    with staged(behind, upstream=f"host.docker.internal:{behind.port}") as workshop:
        workshop.set_secret("gate.command", command)
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(workshop.up)
            with traffic(behind, workshop, running) as requests:
                done = running.result()
                assert not done.failed, done.output
                assert (behind.side(), behind.starts) == ("postgresql", 2)
                requests.serves()
                result = requests.load.stop()
        print(result.line())
        assert result.failures == []
        assert compare_postgres(requests.journal, dsn(behind.named())).problems == []
        assert sockets(workshop) == set()
        gate = workshop.client.containers.get(workshop.names.gate)
        assert Supervisor.password not in json.dumps(gate.attrs)
        assert Supervisor.password not in workshop.export()
        again = workshop.up()
        assert set(again.changes) == {"same"}, again.output
        gone = workshop.destroy()
        assert not gone.failed, gone.output
        assert (behind.side(), behind.starts) == ("sqlite", 3)
        assert compare_sqlite(requests.journal, behind.source).problems == []


def test_what_is_not_there_is_said_before_anything_is_created(behind: Behind) -> None:
    upstream = f"{behind.name}:{INSIDE}"
    with staged(
        behind, upstream=upstream, network=behind.network, container="nobody-of-that-name"
    ) as workshop:
        for settings, told in (
            ({}, "nobody-of-that-name"),
            (
                {
                    "gate": {
                        "upstream": upstream,
                        "port": 1,
                        "network": "no-such-network",
                        "container": behind.name,
                    }
                },
                "no-such-network",
            ),
            (
                {
                    "gate": {
                        "upstream": upstream,
                        "port": free_port(),
                        "network": behind.network,
                        "container": behind.name,
                    },
                    "bindAddress": "127.0.0.1",
                },
                "which inside a container is the container itself",
            ),
        ):
            workshop.set(**settings)
            done = workshop.up()
            assert done.failed
            assert told in done.output
            assert "Traceback" not in done.output
            assert workshop.left() == []
    assert behind.starts == 1
