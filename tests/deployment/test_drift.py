"""What somebody else removed, stopped or changed of a stage is found and made again; what cannot be
made again is never replaced by something empty."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from infra import present
from infra.execution import execute
from infra.files import archive
from infra.rendering import POSTGRES_CONFIG
from tests.deployment.database import query
from tests.deployment.engine import name_of, output, running
from tests.deployment.radcase import lose_data, remove, rows, serves, staged, until, up
from tests.deployment.workshop import Workshop, environment, run

pytestmark = [
    pytest.mark.pulumi,
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.timeout(1200),
    pytest.mark.xdist_group("docker"),
]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    with staged(tmp_path_factory.mktemp("drift"), seed=5, strategy="blue-green") as made:
        up(made)
        yield made


def status(workshop: Workshop) -> str:
    done = run(workshop, "-m", "tools.status", workshop.stage)
    assert done.returncode == 0, done.stderr
    return done.stdout


def healed(workshop: Workshop) -> None:
    up(workshop)
    assert rows(workshop) > 0
    assert "containers run" in status(workshop)


def test_a_pooler_that_was_removed_is_seen_and_made_again(workshop: Workshop) -> None:
    """With its files, its alias and the sync."""
    names = workshop.names
    assert "containers run" in status(workshop)
    remove(workshop, names.pooler, names.sync)
    for volume in (f"{names.pooler}-config", f"{names.pooler}-alias", f"{names.sync}-config"):
        workshop.client.volumes.get(volume).remove()
    said = status(workshop)
    assert f"{names.pooler} is gone" in said
    assert f"{names.sync} is gone" in said
    # It may say of the sync that is gone what comes first: on a busy machine it is missed by now.
    assert f"next        `make up STAGE={workshop.stage}`" in said
    healed(workshop)


def test_a_postgresql_that_was_stopped_serves_again(workshop: Workshop) -> None:
    workshop.client.containers.get(workshop.names.postgres).stop()
    assert f"{workshop.names.postgres} is exited" in status(workshop)
    healed(workshop)


def test_a_postgresql_at_another_address_is_found_at_once(workshop: Workshop) -> None:
    """PgBouncer's resolver would keep the former one for ten minutes."""
    client, names = workshop.client, workshop.names
    rows(workshop)
    known = "/tmp/address-of-postgres"  # noqa: S108 - the container's own
    pooler = client.containers.get(names.pooler)
    until(lambda: execute(pooler, ["test", "-e", known]).exit_code == 0, "the address to be seen")
    network = client.networks.get(names.network)
    former = address(workshop, names.postgres)
    remove(workshop, names.postgres)
    image = str(pooler.attrs["Image"])
    with running(client, image, entrypoint=["sleep", "600"], network=network.name) as taker:
        taker.reload()
        assert address(workshop, name_of(taker)) == former
        up(workshop)
        assert address(workshop, names.postgres) != former
        began = time.monotonic()
        until(lambda: answers(workshop), "the application to be served")
        assert time.monotonic() - began < 60
    healed(workshop)


def address(workshop: Workshop, container: str) -> str:
    found = workshop.client.containers.get(container).attrs["NetworkSettings"]["Networks"]
    return str(found[workshop.names.network]["IPAddress"])


def answers(workshop: Workshop) -> bool:
    try:
        return rows(workshop) > 0
    except psycopg.OperationalError:
        return False


def test_a_source_that_was_moved_away_is_told(workshop: Workshop) -> None:
    """It is needed for the way back, and PostgreSQL serves without it."""
    source = Path(str(workshop.settings["source"]))
    elsewhere = source.rename(source.with_suffix(".elsewhere"))
    try:
        said = status(workshop)
        assert rows(workshop) > 0
    finally:
        elsewhere.rename(source)
    assert "not needed" not in said
    assert "way back    unknown: the source cannot be read" in said
    assert "--target" not in said
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


def test_the_level_of_a_log_is_what_the_server_was_made_with(workshop: Workshop) -> None:
    """A stage of an older version of this project has `replica`, and is not restarted for it."""
    client, names = workshop.client, workshop.names
    postgres = client.containers.get(names.postgres)
    text = output(execute(postgres, ["cat", f"{POSTGRES_CONFIG}/postgresql.conf"]))
    assert "wal_level = 'logical'" in text
    older = text.replace("wal_level = 'logical'", "wal_level = 'replica'")
    try:
        for content, logical in ((text, True), (older, False)):
            postgres.put_archive(POSTGRES_CONFIG, archive({"postgresql.conf": content}, "999:999"))
            assert present.data(client, names) == present.Data(
                f"{names.postgres}-data", 18, logical
            )
    finally:
        postgres.put_archive(POSTGRES_CONFIG, archive({"postgresql.conf": text}, "999:999"))


def test_pulumis_own_advice_leaves_what_reads_the_data(workshop: Workshop) -> None:
    up(workshop, protectData=True)
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
    lose_data(workshop)
    for _ in range(2):
        done = workshop.up()
        assert done.failed
        assert f"expected the volume {names.postgres}-data" in done.output
        assert "nothing was made in its place" in done.output
        assert "Traceback" not in done.output
        assert f"{names.postgres}-data" not in workshop.left()
        assert names.postgres not in workshop.left()
    assert serves(workshop) == "postgresql"
