"""`target: external`: a PostgreSQL of somebody else's, without superuser rights, by PgBouncer or
directly."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
import psycopg
import pytest
from docker.models.containers import Container

from infra.execution import execute
from infra.files import archive
from infra.images import Builder
from migration_job.demo.radcase import make_radcase
from tests.deployment.engine import client_or_skip, healthy, output, running
from tests.deployment.ports import free_port
from tests.deployment.workshop import Workshop, check, dsn, named, require_pulumi

pytestmark = [
    pytest.mark.pulumi,
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.xdist_group("docker"),
]

SUPERUSER = "superuserPassword0123456789"
JOB = "p@ss/w:rd of the job's"
APPLICATION = 'the application "p@ss" $HOME'
DATABASE = "rad case"

SETUP = f"""
CREATE ROLE mover LOGIN PASSWORD '{JOB.replace("'", "''")}';
CREATE ROLE "rad app" LOGIN PASSWORD '{APPLICATION.replace("'", "''")}';
GRANT pg_signal_backend TO mover;
"""
RIGHTS = """
GRANT CREATE ON DATABASE "rad case" TO mover;
GRANT CREATE ON SCHEMA public TO mover;
CREATE SCHEMA privileges;
CREATE FUNCTION privileges.act_as_replica() RETURNS void
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$ SELECT set_config('session_replication_role', 'replica', false) $$;
REVOKE ALL ON FUNCTION privileges.act_as_replica() FROM PUBLIC;
GRANT USAGE ON SCHEMA privileges TO mover;
GRANT EXECUTE ON FUNCTION privileges.act_as_replica() TO mover;
"""


class Server:
    """Somebody else's PostgreSQL, as the stage's containers and this machine reach it."""

    def __init__(self, container: Container, host: str, port: int) -> None:
        self.container, self.host, self.port = container, host, port

    def query(self, script: str, database: str = "postgres") -> str:
        done = execute(
            self.container,
            [
                *("psql", "-qAt", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1"),
                *("-p", str(self.port), "-U", "postgres", "-d", database, "-c", script),
            ],
            environment={"PGPASSWORD": SUPERUSER},
        )
        assert done.exit_code == 0, output(done)
        return output(done).strip()


@pytest.fixture(scope="module")
def client() -> docker.DockerClient:
    require_pulumi()
    return client_or_skip()


@pytest.fixture(scope="module")
def server(client: docker.DockerClient) -> Iterator[Server]:
    with somebodys(client, 14) as made:
        yield made


@contextmanager
def somebodys(client: docker.DockerClient, version: int) -> Iterator[Server]:
    """A server of that major version, with the job's and the application's roles."""
    said: list[str] = []
    image = Builder(client, "auto", said.append).images(version).postgres
    port = free_port()
    # The host's address on the engine's default network is one that every container reaches.
    bridge = client.networks.get("bridge").attrs["IPAM"]["Config"][0]
    host = bridge.get("Gateway") or bridge["Subnet"].rsplit(".", 1)[0] + ".1"
    with running(
        client,
        image,
        command=["postgres", "-p", str(port)],
        network_mode="host",
        files={"/var/lib/postgresql": archive({"password": SUPERUSER}, "999:999")},
        environment={"POSTGRES_PASSWORD_FILE": "/var/lib/postgresql/password"},
        healthcheck={
            "test": ["CMD", "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)],
            "interval": 10**9,
            "timeout": 3 * 10**9,
            "retries": 60,
        },
    ) as container:
        made = Server(healthy(container), str(host), port)
        made.query(SETUP)
        yield made


@pytest.fixture(scope="module", params=[True, False], ids=["by PgBouncer", "directly"])
def workshop(
    request: pytest.FixtureRequest,
    client: docker.DockerClient,
    server: Server,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Workshop]:
    directory = tmp_path_factory.mktemp("external")
    source = directory / "data" / "radcase.db"
    source.parent.mkdir()
    make_radcase(source, rows=2000, seed=41)
    server.query(f'DROP DATABASE IF EXISTS "{DATABASE}"')
    server.query(f'CREATE DATABASE "{DATABASE}"')
    made = Workshop(
        directory,
        client,
        source=str(source),
        profile="radcase",
        target="external",
        pooler=request.param,
        external={
            "host": server.host,
            "port": server.port,
            "database": DATABASE,
            "user": "mover",
            "applicationUser": "rad app",
            "sslmode": "prefer",
        },
    )
    made.set_secret("external.password", JOB)
    made.set_secret("external.applicationPassword", APPLICATION)
    yield made
    made.clear()


def test_what_is_missing_is_said_before_anything_is_moved(
    workshop: Workshop, server: Server
) -> None:
    server.query("REVOKE ALL ON SCHEMA public FROM PUBLIC", DATABASE)
    server.query("GRANT USAGE ON SCHEMA public TO PUBLIC", DATABASE)
    done = workshop.up()
    assert done.failed
    assert "the target is not usable" in done.output
    assert "GRANT CREATE ON" in done.output, done.output
    assert JOB not in done.output
    assert server.query("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'", DATABASE) == (
        "0"
    )
    server.query(RIGHTS, DATABASE)


def test_the_same_gate_switch_and_way_back(workshop: Workshop, server: Server) -> None:
    done = workshop.up()
    assert not done.failed, done.output
    assert done.outputs["phase"] == "switched"
    assert done.outputs["rows"] == 2000
    said = named(workshop)
    assert said["engine"] == "postgresql"
    by_pooler = bool(workshop.settings["pooler"])
    assert (said["port"] == workshop.settings["poolerPort"]) == by_pooler

    with psycopg.connect(dsn(said), autocommit=True) as connection:
        assert connection.execute("SELECT current_user").fetchone() == ("rad app",)
        changed = connection.execute("UPDATE cases SET diagnosis = 'elsewhere'").rowcount

    looked = check(workshop)
    assert "SKIPPED" in looked
    assert "PostgreSQL is somebody else's" in looked

    again = workshop.up()
    assert set(again.changes) == {"same"}, again.output
    state = workshop.export()
    assert JOB not in state
    assert APPLICATION not in state

    gone = workshop.destroy()
    assert not gone.failed, gone.output
    with sqlite3.connect(Path(str(workshop.settings["source"]))) as source:
        (back,) = source.execute(
            "SELECT count(*) FROM cases WHERE diagnosis = 'elsewhere'"
        ).fetchone()
    assert back == changed > 0
    assert workshop.left() == []
