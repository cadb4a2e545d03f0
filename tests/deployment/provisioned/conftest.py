"""What the checks of a running stage are given: its settings, its outputs, its containers.

``make check STAGE=dev`` runs them; without ``--stage`` they are skipped.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest
import testinfra
from docker.models.containers import Container

from infra import engine
from infra.names import Names
from infra.settings import Settings, read_file

PROJECT = Path(os.environ.get("STAGE_PROJECT", Path(__file__).resolve().parents[3]))
"""The directory with the stage files; the deployment tests provision from a copy."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--stage", default=None, help="the provisioned stage to check")


@dataclass(frozen=True)
class Provisioned:
    """A running stage."""

    settings: Settings
    names: Names
    outputs: dict[str, Any]
    client: docker.DockerClient

    def container(self, name: str) -> Container:
        return self.client.containers.get(name)

    def host(self, name: str) -> testinfra.host.Host:
        return testinfra.get_host(f"docker://{name}")

    def query(self, sql: str, database: str = "postgres") -> str:
        """The superuser's answer, through the container's own socket."""
        done = self.container(self.names.postgres).exec_run(
            [
                "bash",
                "-c",
                'PGPASSWORD="$(cat /etc/postgresql/superuser-password)" psql --no-psqlrc -qAt '
                '-v ON_ERROR_STOP=1 -h /var/run/postgresql -U postgres -d "$DATABASE" -c "$SQL"',
            ],
            environment={"SQL": sql, "DATABASE": database},
        )
        assert done.exit_code == 0, done.output.decode()
        return str(done.output.decode().strip())

    @property
    def switched(self) -> bool:
        return bool(self.outputs["phase"] == "switched")

    @property
    def dsn(self) -> str:
        """The application's way in: PgBouncer's published port."""
        return (
            f"host={self.outputs['host']} port={int(self.outputs['port'])} "
            f"dbname={self.outputs['database']} user={self.outputs['user']} "
            f"password={self.outputs['password']} connect_timeout=10"
        )


@pytest.fixture(scope="session")
def stage(request: pytest.FixtureRequest) -> Provisioned:
    """The stage that ``--stage`` names, with its outputs from Pulumi."""
    name = request.config.getoption("--stage", default=None)
    if name is None:
        pytest.skip("checks a running stage: make check STAGE=dev")
    settings = read_file(PROJECT / f"Pulumi.{name}.yaml")
    done = subprocess.run(
        ["pulumi", "stack", "output", "--json", "--show-secrets", "--stack", name],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Provisioned(
        settings=settings,
        names=Names(settings.application, name),
        outputs=json.loads(done.stdout),
        client=engine.connect(settings.docker_host),
    )
