"""`proof` in the stage file: the application proves itself on a copy, before the switch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import docker
import psycopg
import pytest

from infra.execution import execute
from tests.deployment.engine import client_or_skip, output
from tests.deployment.test_application_schema import (
    SECRET,
    TABLES,
    image_with_psql,
    psql,
    stage_of_people,
)
from tests.deployment.workshop import Workshop, dsn, named, require_pulumi

pytestmark = [
    pytest.mark.pulumi,
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.xdist_group("docker"),
]

WRITES = psql(
    "INSERT INTO people (name) VALUES ('of the proof')",
    "INSERT INTO notes (owner, body) SELECT max(id), 'of the proof' FROM people",
    "SELECT count(*) || ' people as ' || current_user || ' in ' || current_database() FROM people",
)


@pytest.fixture(scope="module")
def client() -> docker.DockerClient:
    require_pulumi()
    return client_or_skip()


@pytest.fixture(scope="module")
def image(client: docker.DockerClient) -> str:
    return image_with_psql(client)


@pytest.fixture(scope="module")
def workshop(
    client: docker.DockerClient, image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Workshop]:
    step = {"image": image, "command": psql(TABLES)}
    with stage_of_people(client, tmp_path_factory.mktemp("proof"), schemaFrom=step) as made:
        yield made


def certified(workshop: Workshop) -> str:
    """What the certificate says of the proof."""
    report = Path(str(workshop.settings["stateDirectory"])) / "report" / "report.json"
    return str(json.loads(report.read_text())["certificate"]["checks"]["proof"])


def superuser(workshop: Workshop, query: str, database: str = "people") -> str:
    """Asked of the stage's own PostgreSQL, through its container."""
    server = workshop.client.containers.get(workshop.names.postgres)
    words = 'PGPASSWORD="$(</etc/postgresql/superuser-password)" exec psql -qAt -U postgres "$@"'
    command = ["bash", "-c", words, "psql", "-h", "/var/run/postgresql", "-d", database, "-c"]
    done = execute(server, [*command, query])
    assert done.exit_code == 0, output(done)
    return output(done).strip()


COPIES = "SELECT count(*) FROM pg_database WHERE datname LIKE '%proof%'"


def test_a_proof_that_fails_stops_like_any_check(workshop: Workshop, image: str) -> None:
    workshop.set(proof={"image": "no/such/image:0", "command": ["check"]})
    done = workshop.up()
    assert done.failed
    assert "the application's proof could not be run" in done.output
    assert "expected the image no/such/image:0 on the engine or in its registry" in done.output
    assert superuser(workshop, COPIES) == "0"

    shown = 'echo "by $DATABASE_URL"; "$@"; echo "nothing works"; exit 7'
    workshop.set(proof={"image": image, "command": ["bash", "-c", shown, "proof", *WRITES]})
    done = workshop.up()
    assert done.failed
    assert "the application's proof ended with status 7" in done.output
    assert "301 people as people_owner in people_proof_" in done.output
    assert "nothing works" in done.output
    assert "by postgresql://people_migration:***@" in done.output
    assert named(workshop)["engine"] == "sqlite"
    # The tables are as the application's own step has left them.
    assert superuser(workshop, "SELECT name FROM people") == "made by the step"
    assert superuser(workshop, COPIES) == "0"


def test_what_the_application_writes_there_is_thrown_away(workshop: Workshop, image: str) -> None:
    keyed = f'[ "${{#KEY}}" = {len(SECRET)} ] && exec "$0" "$@"'
    workshop.set(proof={"image": image, "command": ["bash", "-c", keyed, *WRITES]})
    workshop.set_secret("proof.environment.KEY", SECRET)
    done = workshop.up()
    assert not done.failed, done.output
    assert done.outputs["phase"] == "switched"
    assert SECRET not in done.output
    assert SECRET not in workshop.export()
    said = certified(workshop)
    assert said.startswith(f"{image} bash -c")
    assert "301 people as people_owner in people_proof_" in said
    with psycopg.connect(dsn(named(workshop))) as connection:
        assert connection.execute("SELECT count(*) FROM people").fetchone() == (300,)
    assert superuser(workshop, COPIES) == "0"
    gone = workshop.destroy()
    assert not gone.failed, gone.output
    assert workshop.left() == []
