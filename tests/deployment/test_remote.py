"""`dockerHost: ssh://...`: the same program on an engine that is reached by ssh."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from docker.models.containers import Container

from infra.images import Builder
from migration_job.demo.radcase import make_radcase
from tests.deployment.engine import client_or_skip, running
from tests.deployment.ports import free_port
from tests.deployment.workshop import Workshop, check, require_pulumi, run

pytestmark = [
    pytest.mark.pulumi,
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.xdist_group("docker"),
]


OWNER = 1000
"""Whose the source is there: neither root nor the engine's."""


def sshd() -> str:
    """The ssh server's program, or a skip."""
    found = shutil.which("sshd") or shutil.which("/usr/sbin/sshd")
    if found is None or shutil.which("ssh") is None:
        pytest.skip("no ssh and sshd to reach this machine's engine by")
    return found


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """ssh://USER@127.0.0.1:PORT, an ssh server of the test's own with keys of its own; an `ssh` on
    PATH that knows them."""
    program = sshd()
    client_or_skip()
    home = tmp_path_factory.mktemp("ssh")
    for name in ("host", "user"):
        key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(home / name)]
        subprocess.run(key, check=True)
    port = free_port()
    (home / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {home / 'host'}\n"
        f"AuthorizedKeysFile {home / 'user.pub'}\nStrictModes no\nUsePAM no\n"
        "PasswordAuthentication no\nPermitRootLogin prohibit-password\nPidFile none\n"
    )
    (home / "known_hosts").write_text(f"[127.0.0.1]:{port} {(home / 'host.pub').read_text()}")
    (home / "ssh_config").write_text(
        f"Host *\n  IdentityFile {home / 'user'}\n  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {home / 'known_hosts'}\n  StrictHostKeyChecking yes\n"
    )
    tools = home / "bin"
    tools.mkdir()
    (tools / "ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {home}/ssh_config "$@"\n')
    (tools / "ssh").chmod(0o755)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    server = subprocess.Popen([program, "-D", "-e", "-f", str(home / "sshd_config")])
    path = os.environ["PATH"]
    os.environ["PATH"] = f"{tools}:{path}"
    try:
        _wait_for(port, server)
        yield f"ssh://{getpass.getuser()}@127.0.0.1:{port}"
    finally:
        os.environ["PATH"] = path
        server.terminate()
        server.wait(10)


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        assert server.poll() is None, "the ssh server ended"
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("the ssh server does not answer")


@dataclass
class Page:
    """Something that speaks HTTP beside the stage and knows no database, on the host's network."""

    container: Container
    port: int

    @property
    def starts(self) -> int:
        return self.container.logs().decode().count("Serving HTTP")


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    client, port = client_or_skip(), free_port()
    with running(
        client,
        Builder(client, "auto", print).job(),
        entrypoint=["python3", "-m", "http.server", "--directory", "/usr/share", str(port)],
        network_mode="host",
    ) as container:
        yield Page(container, port)


@pytest.fixture(scope="module")
def workshop(
    address: str, page: Page, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Workshop]:
    require_pulumi()
    directory = tmp_path_factory.mktemp("remote")
    source = directory / "data" / "radcase.db"
    source.parent.mkdir()
    make_radcase(source, rows=2000, seed=31)
    if os.geteuid() == 0:
        os.chown(source.parent, OWNER, OWNER)
        os.chown(source, OWNER, OWNER)
    made = Workshop(
        directory,
        client_or_skip(),
        source=str(source),
        profile="radcase",
        dockerHost=address,
        gate={
            "upstream": f"host.docker.internal:{page.port}",
            "port": free_port(),
            "container": page.container.name,
        },
    )
    made.environment["PATH"] = os.environ["PATH"]
    yield made
    made.clear()


def test_a_source_that_is_not_there_is_named(workshop: Workshop) -> None:
    kept = workshop.settings["source"]
    workshop.set(source="/nowhere/there/radcase.db")
    done = workshop.up()
    workshop.set(source=kept)
    assert done.failed
    assert "expected the SQLite file /nowhere/there/radcase.db" in done.output, done.output
    assert "Traceback" not in done.output
    assert workshop.left() == []


def test_the_whole_way_by_ssh(workshop: Workshop, page: Page) -> None:
    done = workshop.up()
    assert not done.failed, done.output
    assert done.outputs["phase"] == "switched"
    assert done.outputs["rows"] == 2000
    assert page.starts == 2  # by the gate, with the socket that is there and its group
    check(workshop)
    said = run(workshop, "-m", "tools.status", workshop.stage)
    assert said.returncode == 0, said.stderr
    assert "serves      PostgreSQL, since" in said.stdout
    assert "takes writes" in said.stdout  # PostgreSQL itself was asked
    assert "`cutover: hold`" in said.stdout
    ended = run(workshop, "-m", "infra.rotate", workshop.stage)
    assert "can no longer log in" in ended.stdout, ended.stderr
    again = workshop.up()
    assert set(again.changes) == {"same"}, again.output
    gone = workshop.destroy()
    assert not gone.failed, gone.output
    assert page.starts == 3
    assert '"engine": "sqlite"' in (workshop.connection / "database.json").read_text()
    assert workshop.left() == []
