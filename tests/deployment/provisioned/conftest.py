"""What the checks of a running stage are given: its settings, its outputs, its containers.

``make check STAGE=dev`` runs them; without ``--stage`` they are skipped. Files of the stage are
read where the engine is; what a stage does not have is skipped with its reason.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import psycopg
import pytest
import testinfra
from docker.models.containers import Container

from infra import engine, members, parts, present
from infra.execution import execute
from infra.names import Names
from infra.settings import Settings, read_file
from tests.deployment.engine import name_of, output

PROJECT = Path(os.environ.get("STAGE_PROJECT", Path(__file__).resolve().parents[3]))
"""The directory with the stage files; the deployment tests provision from a copy."""

LABEL = "sqlite-to-postgresql.stage"
FLEETS = """
SELECT place FROM _migration_fleet.file UNION
SELECT tenant_column::json ->> 'in_schema' FROM _migration_fleet.shared
"""

LIMIT_SECONDS = 240
"""How long a stage that has just come up may take to its first scrape and its first backup."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--stage", default=None, help="the provisioned stage to check")


@dataclass(frozen=True)
class Provisioned:
    """A running stage."""

    given: tuple[Settings, Names]
    settings: Settings
    """As given, but for what an upgrade has made of it: the PostgreSQL that serves is meant."""
    names: Names
    outputs: dict[str, Any]
    client: docker.DockerClient
    scratch: Path
    """A directory of the checks' own on this machine."""

    # ------------------------------------------------------------------------- containers

    def container(self, name: str) -> Container:
        return self.client.containers.get(name)

    def host(self, name: str) -> testinfra.host.Host:
        """A container as testinfra sees it, on whichever engine."""
        return testinfra.get_host(f"docker://{name}")

    def services(self) -> list[Container]:
        """The stage's long-running containers; not a database restored beside it."""
        found = self.client.containers.list(filters={"label": f"{LABEL}={self.names.stack}"})
        passing = (f"{self.names.prefix}-restored", self.names.job)
        return [c for c in found if not name_of(c).startswith(passing)]

    def expected(self) -> set[str]:
        """The names of the containers that the settings ask for; the panels' is either of two."""
        return present.expected(*self.given)

    # -------------------------------------------------------------------- files and pages

    def file(self, path: str | Path) -> Any:
        """A file of the stage's, where the engine is, as testinfra sees it."""
        if engine.is_local(self.settings.docker_host):
            return testinfra.get_host("local://").file(str(path))
        self.needs(self.names.sync)
        return self.host(self.names.sync).file(str(path))

    def needs(self, name: str) -> Container:
        """The container of that name, or a skip for a stage that has none."""
        if name not in self.expected():
            pytest.skip(f"the settings ask for no {name.removeprefix(self.names.prefix + '-')}")
        return self.container(name)

    def page(self, port: int, path: str) -> bytes:
        """What a published port of the stage answers over HTTP."""
        self.reachable(port)
        address = f"http://{self.settings.bind_address}:{port}{path}"
        with urllib.request.urlopen(address, timeout=10) as answer:
            return bytes(answer.read())

    def api(self, port: int, path: str) -> Any:
        """The ``data`` of an answer of Prometheus' HTTP API."""
        return json.loads(self.page(port, path))["data"]

    def reachable(self, port: int) -> None:
        """Skip where the port is on the loopback of a remote engine's host and not forwarded."""
        host = self.settings.bind_address
        if engine.is_local(self.settings.docker_host) or not host.startswith(("127.", "::1")):
            return
        try:
            socket.create_connection((host, port), 5).close()
        except OSError:
            pytest.skip(f"port {port} is on the engine's host's loopback: forward it with ssh -L")

    # ------------------------------------------------------------------------- PostgreSQL

    def postgres(self) -> Container:
        """The container in which PostgreSQL takes writes, of several the one that leads; a skip
        where it is somebody else's."""
        if self.settings.external:
            pytest.skip("the settings ask for no PostgreSQL: it is somebody else's")
        return members.serving(self.client, self.settings, self.names)

    def query(self, sql: str, database: str = "postgres") -> str:
        """The superuser's answer, through the container's own socket."""
        status, said = self.psql(["-v", "ON_ERROR_STOP=1", "-c", sql], database)
        assert status == 0, said
        return said

    def psql(self, words: list[str], database: str = "postgres") -> tuple[int, str]:
        """psql's status and output as the superuser, through the container's own socket."""
        if self.settings.external:
            pytest.skip("PostgreSQL is somebody else's, and nobody here is its superuser")
        done = execute(
            self.postgres(),
            [
                "bash",
                "-c",
                'export PGPASSWORD="$(cat /etc/postgresql/superuser-password)"; exec psql -qAt '
                '--no-psqlrc -h /var/run/postgresql -U postgres -d "$0" "$@"',
                database,
                *words,
            ],
        )
        return done.exit_code, output(done).strip()

    @property
    def switched(self) -> bool:
        return self.outputs["phase"] in ("switched", "settled")

    @property
    def schemas(self) -> str:
        """SQL that gives the schemas of the applications' tables."""
        return FLEETS if self.settings.fleet else "VALUES ('public')"

    # -------------------------------------------------------------------- the application

    def dsn(self, **more: object) -> str:
        """The application's way in, as its connection says it."""
        words: dict[str, Any] = {
            "host": self.outputs["host"],
            "port": int(self.outputs["port"]),
            "dbname": self.outputs["database"],
            "user": self.outputs["user"],
            "password": self.outputs["password"],
            "connect_timeout": 10,
        }
        return psycopg.conninfo.make_conninfo(**{**words, **self._tls(), **more})

    def _tls(self) -> dict[str, object]:
        if self.settings.fleet and not self.switched:
            return {}  # there is no connection yet
        said = json.loads(self.file(self._connection("database.json")).content_string)
        tls = said["write"].get("tls")
        if tls is None:
            return {}
        if not tls["authority"]:
            return {"sslmode": tls["mode"]}
        authority = self.scratch / "ca.crt"
        authority.write_text(tls["authority"])
        return {"sslmode": tls["mode"], "sslrootcert": str(authority)}

    def _connection(self, name: str) -> Path:
        return Path(self.outputs["connection"]) / name

    def application(self, **more: object) -> psycopg.Connection:
        """The application's own session; a skip where nobody is admitted."""
        if not self.switched:
            pytest.skip(f"nobody is admitted in the phase {self.outputs['phase']}")
        self.reachable(int(self.outputs["port"]))
        return psycopg.connect(self.dsn(**more), autocommit=True, prepare_threshold=None)


def until(ready: Callable[[], bool], what: str) -> None:
    """Return once ``ready`` says so; fail naming ``what`` after a limit."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while not ready():
        assert time.monotonic() < deadline, f"expected {what} within {LIMIT_SECONDS} s"
        time.sleep(0.5)


@pytest.fixture(scope="session")
def stage(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Provisioned]:
    """The stage that ``--stage`` names, with its outputs from Pulumi."""
    name = request.config.getoption("--stage", default=None)
    if name is None:
        pytest.skip("checks a running stage: make check STAGE=dev")
    settings = read_file(PROJECT / f"Pulumi.{name}.yaml")
    given = settings, Names(settings.application, name)
    serving, names = parts.serving(*given)
    done = subprocess.run(
        ["pulumi", "stack", "output", "--json", "--show-secrets", "--stack", name],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with pytest.MonkeyPatch.context() as patch:
        if settings.docker_host:
            # Docker's own client, by which testinfra looks in, takes the address from here.
            patch.setenv("DOCKER_HOST", settings.docker_host)
        yield Provisioned(
            given=given,
            settings=serving,
            names=names,
            outputs=json.loads(done.stdout),
            client=engine.connect(settings.docker_host),
            scratch=tmp_path_factory.mktemp("stage"),
        )
