"""What the gate's container is given, and what it is not."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from docker.errors import ImageNotFound

from infra import engine, gate
from infra.containers import Service
from infra.errors import StageError
from infra.names import Names
from infra.setting_types import Gate
from infra.stage_paths import Paths

UPSTREAM: dict[str, Any] = {"upstream": "radcase:3000", "port": 13000}


@pytest.fixture(autouse=True)
def loop() -> Iterator[None]:
    """Pulumi's outputs want an event loop, and a test before may have ended the thread's."""
    made = asyncio.new_event_loop()
    asyncio.set_event_loop(made)
    yield
    asyncio.set_event_loop(None)
    made.close()


def service(wanted: Gate, socket: gate.EngineSocket | None = None) -> Service:
    return gate.service(
        wanted,
        Names("radcase", "dev"),
        "image",
        "1000:1000",
        where=Paths(Path("/srv/radcase.db"), Path("/srv/rad case")),
        socket=socket,
    )


def test_a_container_is_restarted_by_its_own_name_and_the_sockets_group() -> None:
    socket = gate.EngineSocket("/var/run/docker.sock", "998")
    made = service(Gate(**UPSTREAM, container="radcase"), socket)
    command = shlex.split(made.command[made.command.index("--restart") + 1])
    assert command == ["python3", "/usr/local/lib/gate/restart.py", "radcase"]
    assert made.sockets == {"/run/docker.sock": "/var/run/docker.sock"}
    assert (made.user, made.groups, made.capabilities) == ("1000:1000", ("998",), ())
    assert made.files == {}


def test_a_command_is_a_file_and_needs_no_socket() -> None:
    made = service(Gate(**UPSTREAM, command="curl -u me:secret http://supervisor"))
    assert made.command[made.command.index("--restart") + 1] == "sh /run/gate/restart"
    assert isinstance(made.files, dict)
    assert list(made.files) == ["restart"]
    assert "secret" not in repr({**vars(made), "files": None})
    assert (made.sockets, made.groups) == ({}, ())


def test_it_writes_the_state_alone() -> None:
    made = service(Gate(**UPSTREAM, command="true", network="web"))
    assert made.binds == ("/srv/rad case/job",)
    assert made.read_only == ("/srv/rad case/connection",)
    assert made.volumes == {}
    assert (made.network, made.host_network, dict(made.ports)) == ("web", False, {8080: 13000})
    assert "'/srv/rad case/job/gate.json'" in made.health.command[-1]


class Engine:
    """An engine whose containers see a socket like this; None where the image is not made yet."""

    def __init__(self, said: bytes | None) -> None:
        self.containers = self
        self.said = said

    def run(self, *_: object, **__: object) -> bytes:
        if self.said is None:
            raise ImageNotFound("none")
        return self.said


def socket(said: bytes | None, *, user: str = "1000:1000", dry_run: bool = False) -> Any:
    client: Any = Engine(said)
    return gate.engine_socket(client, "ssh://host", "image", user, dry_run=dry_run)


def look(mode: int, uid: int = 0, gid: int = 998) -> bytes:
    return f'{{"mode": {mode}, "uid": {uid}, "gid": {gid}}}'.encode()


def test_the_sockets_group_is_what_a_container_sees() -> None:
    assert socket(look(0o140660)).group == "998"
    assert socket(look(0o140600, uid=1000)).group == "998"
    assert socket(None, dry_run=True).group == "0"


@pytest.mark.parametrize(
    ("said", "told"),
    [(look(0o140600), "may not write"), (look(0o100660), "something else")],
)
def test_a_socket_of_no_use_is_refused(said: bytes, told: str) -> None:
    with pytest.raises(StageError, match=told) as caught:
        socket(said)
    assert "gate.command" in caught.value.advice


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("unix:///run/user/1000/docker.sock", "/run/user/1000/docker.sock"),
        ("ssh://me@host", "/var/run/docker.sock"),
        ("tcp://host:2376", "/var/run/docker.sock"),
    ],
)
def test_where_the_socket_is_on_the_engines_host(
    address: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    assert engine.socket_path(address) == path
    monkeypatch.setattr("sys.platform", "darwin")
    assert engine.socket_path(address) == "/var/run/docker.sock"
