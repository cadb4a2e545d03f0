"""What somebody else removed, stopped or changed of a stage is found and made again; what cannot be
made again is never replaced by something empty."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from migration_job.demo.radcase import make_radcase
from tests.deployment.database import query
from tests.deployment.engine import client_or_skip
from tests.deployment.workshop import Workshop, environment, require_pulumi, run

pytestmark = [
    pytest.mark.pulumi,
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.xdist_group("docker"),
]

ROWS = 1000


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    require_pulumi()
    client = client_or_skip()
    directory = tmp_path_factory.mktemp("stage")
    source = directory / "data" / "radcase.db"
    source.parent.mkdir()
    make_radcase(source, rows=ROWS, seed=5)
    made = Workshop(directory, client, source=str(source), profile="radcase", strategy="blue-green")
    done = made.up()
    assert not done.failed, done.output
    yield made
    made.clear()


def rows(workshop: Workshop) -> int:
    """What the application reads by the connection that it is given."""
    side = json.loads((workshop.connection / "database.json").read_text())["write"]
    assert side["engine"] == "postgresql"
    with psycopg.connect(
        host=side["host"],
        port=side["port"],
        dbname=side["database"],
        user=side["user"],
        password=side["password"],
    ) as connection:
        (found,) = connection.execute("SELECT count(*) FROM cases").fetchone() or (0,)
    return int(found)


def status(workshop: Workshop) -> str:
    done = run(workshop, "-m", "tools.status", workshop.stage)
    assert done.returncode == 0, done.stderr
    return done.stdout


def remove(workshop: Workshop, *containers: str) -> None:
    for name in containers:
        workshop.client.containers.get(name).remove(force=True)


def healed(workshop: Workshop) -> None:
    done = workshop.up()
    assert not done.failed, done.output
    assert rows(workshop) > 0
    assert "containers run" in status(workshop)


def test_a_pooler_that_was_removed_is_seen_and_made_again(workshop: Workshop) -> None:
    assert "containers run" in status(workshop)
    remove(workshop, workshop.names.pooler)
    said = status(workshop)
    assert f"{workshop.names.pooler} is gone" in said
    assert f"next        `make up STAGE={workshop.stage}` makes what is missing" in said
    healed(workshop)


def test_so_are_its_files_and_its_alias_with_the_sync(workshop: Workshop) -> None:
    names = workshop.names
    remove(workshop, names.pooler, names.sync)
    for volume in (f"{names.pooler}-config", f"{names.pooler}-alias", f"{names.sync}-config"):
        workshop.client.volumes.get(volume).remove()
    healed(workshop)


def test_a_postgresql_that_was_stopped_serves_again(workshop: Workshop) -> None:
    workshop.client.containers.get(workshop.names.postgres).stop()
    assert f"{workshop.names.postgres} is exited" in status(workshop)
    healed(workshop)


def test_roles_that_were_changed_are_what_they_are_to_be(workshop: Workshop) -> None:
    postgres = workshop.client.containers.get(workshop.names.postgres)
    query(postgres, f"ALTER ROLE {workshop.names.reader_role} PASSWORD NULL")
    healed(workshop)
    found = "SELECT rolpassword IS NOT NULL FROM pg_authid WHERE rolname = "
    assert query(postgres, f"{found}'{workshop.names.reader_role}'") == "t"


@pytest.mark.parametrize("major", [14, 17])
def test_another_major_version_is_refused_before_anything(workshop: Workshop, major: int) -> None:
    before = workshop.client.containers.get(workshop.names.postgres).id
    workshop.set(postgresVersion=major)
    try:
        done = workshop.up()
        assert done.failed
        assert "expected postgresVersion: 18, as the data in the volume" in done.output
        assert "docs/how-to/upgrade.md" in done.output
        assert "Traceback" not in done.output
    finally:
        workshop.set(postgresVersion=18)
    assert workshop.client.containers.get(workshop.names.postgres).id == before
    assert rows(workshop) > 0


def test_pulumis_own_advice_leaves_what_reads_the_data(workshop: Workshop) -> None:
    workshop.set(protectData=True)
    assert not workshop.up().failed
    refused = subprocess.run(
        [sys.executable, "-m", "infra.kept", workshop.stage],
        cwd=workshop.directory,
        env=environment(workshop),
        input=workshop.export(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 2
    for name in ("data", "credentials", "protection"):
        assert f"\n  {name}: " in refused.stderr
    urns = [
        str(resource["urn"])
        for resource in json.loads(workshop.export())["deployment"]["resources"]
    ]
    # As Pulumi advises, again and again, until only what was not named by it yet is left.
    for name in ("protection", "credentials"):
        (urn,) = (urn for urn in urns if urn.endswith(f"::{name}"))
        assert _unprotect(workshop, urn)
        done = workshop.destroy()
        assert done.failed
    left = json.loads(workshop.export())["deployment"]["resources"]
    assert {"data", "credentials"} <= {str(r["urn"]).rpartition("::")[2] for r in left}
    assert workshop.left() == [f"{workshop.names.postgres}-data"]
    workshop.set(protectData=False)
    healed(workshop)


def _unprotect(workshop: Workshop, urn: str) -> bool:
    done = subprocess.run(
        ["pulumi", "state", "unprotect", "--yes", "--stack", workshop.stage, urn],
        cwd=workshop.directory,
        env=environment(workshop),
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


def test_a_lost_volume_is_never_replaced_by_an_empty_server(workshop: Workshop) -> None:
    names = workshop.names
    remove(workshop, names.postgres)
    workshop.client.volumes.get(f"{names.postgres}-data").remove()
    for _ in range(2):
        done = workshop.up()
        assert done.failed
        assert f"expected the volume {names.postgres}-data" in done.output
        assert "nothing was made in its place" in done.output
        assert "Traceback" not in done.output
        assert f"{names.postgres}-data" not in workshop.left()
        assert names.postgres not in workshop.left()
    connection = Path(workshop.connection / "database.json")
    assert json.loads(connection.read_text())["write"]["engine"] == "postgresql"


def test_while_sqlite_serves_a_lost_volume_is_filled_anew(tmp_path: Path) -> None:
    require_pulumi()
    source = tmp_path / "data" / "radcase.db"
    source.parent.mkdir()
    make_radcase(source, rows=ROWS, seed=6)
    held = Workshop(
        tmp_path,
        client_or_skip(),
        source=str(source),
        profile="radcase",
        strategy="blue-green",
        cutover="hold",
    )
    try:
        assert not held.up().failed
        names = held.names
        remove(held, names.postgres)
        held.client.volumes.get(f"{names.postgres}-data").remove()
        again = held.up()
        assert not again.failed, again.output
        assert "the migration begins anew" in again.output
        held.set(cutover="switch")
        switched = held.up()
        assert not switched.failed, switched.output
        assert rows(held) > 0
        assert not held.destroy().failed
    finally:
        held.clear()
