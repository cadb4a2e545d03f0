"""The whole life of a stage, by the commands of the documentation and under load: up, hold, switch,
upgrade, rotate, failover, restore, settle, rotate, down.

Two stages live it, since three servers are not upgraded and one has nobody to take over: one server
is upgraded, there, back and for good; three lose their leader and its volume. Both lose all data.
``make life`` runs it, and shows what each prints of itself. No request fails in either life, since
the application tries again for as long as an accident takes; no acknowledged write is lost.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import docker
import pytest
from docker.errors import NotFound

from example_app.journal import Written
from infra.execution import execute
from infra.names import Names
from infra.parts import serving
from infra.settings import read_file
from tests.deployment.engine import output
from tests.deployment.failovers import Tried
from tests.deployment.living import Life, life_of, major, workshop_of
from tests.deployment.ports import free_port
from tests.deployment.radcase import until
from tests.deployment.workshop import Workshop, run

pytestmark = [
    pytest.mark.pulumi,
    pytest.mark.slow,
    pytest.mark.life,
    pytest.mark.timeout(3600),
    pytest.mark.xdist_group("docker"),
]

PATIENCE_SECONDS = 600
"""For which the application tries a request again: longer than an accident and what mends it."""

COMMON = {"cutover": "hold", "backup": True, "settleAfterHours": 0}


def lived(directory: Path, settings: Mapping[str, object]) -> Iterator[Life]:
    """A stage that is not up yet, and the application beside it under load."""
    with (
        workshop_of(directory, settings) as workshop,
        life_of(workshop, directory, PATIENCE_SECONDS) as made,
    ):
        yield made


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Life]:
    """A stage of one server, not up yet."""
    more = {"postgresVersion": 14, "upgradePort": free_port(), "restorePort": free_port()}
    yield from lived(tmp_path, {**COMMON, **more})


@pytest.fixture
def several(tmp_path: Path) -> Iterator[Life]:
    """A stage of three, not up yet."""
    more = {"postgresMembers": 3, "postgresMemory": "256MB", "restorePort": free_port()}
    yield from lived(tmp_path, {**COMMON, **more})


def test_one_server(alone: Life) -> None:
    life, names = alone, alone.workshop.names
    life.make("up")
    life.serves_on("sqlite")
    life.set("cutover", "switch")
    life.make("up")
    life.serves_on(14)

    life.upgrade("TO=18", 18)
    life.upgrade("BACK=1", 14)
    life.upgrade("TO=18", 18)
    life.rotate(18)
    life.upgrade("SETTLE=1", 18)
    assert {names.postgres, f"{names.postgres}-data"}.isdisjoint(life.workshop.left())
    life.make("check")

    beside(life)
    in_place(life, [f"{now(life.workshop).postgres}-data"])
    for_good(life)


def test_three_servers(several: Life) -> None:
    life = several
    life.make("up")
    life.serves_on("sqlite")
    life.set("cutover", "switch")
    life.make("up")
    newest = major(life.workshop)
    life.serves_on(newest)
    life.rotate(newest)

    members = Tried(life.workshop)
    switched_over(life, members, newest)
    members.lose_the_leader()
    life.told("the leader was killed; another leads")
    life.serves_on(newest)
    members.whole()
    without_its_volume(life, members)
    life.make("check")

    beside(life)
    in_place(life, [one.volume for one in members.members])
    members.whole()
    for_good(life)


def switched_over(life: Life, members: Tried, serves: int) -> None:
    """`make switchover`: another member leads."""
    members.whole()
    before = members.leader()
    life.make("switchover")
    assert members.leader() != before
    life.serves_on(serves)


def without_its_volume(life: Life, members: Tried) -> None:
    """A member's container and volume are removed, the leader's; `make up` makes both again, and
    the data is copied from the one that leads now."""
    lost, client = members.leader(), life.workshop.client
    lose(client, lost.volume)
    life.told(f"{lost.host}, which led, was removed with its volume")
    life.serves_on(major(life.workshop))
    assert f"{lost.container} is gone" in life.make("status")
    life.make("up")
    members.whole()
    assert client.volumes.get(lost.volume)
    life.serves_on(major(life.workshop))


def lose(client: docker.DockerClient, volume: str) -> None:
    """The volume, with each container that uses it."""
    for container in client.containers.list(all=True, filters={"volume": volume}):
        container.remove(force=True)
    client.volumes.get(volume).remove()


def now(workshop: Workshop) -> Names:
    """Those of the PostgreSQL that serves, which an upgrade has brought the stage to."""
    settings = read_file(workshop.directory / f"Pulumi.{workshop.stage}.yaml")
    return serving(settings, workshop.names)[1]


def backed_up(workshop: Workshop) -> bool:
    """Whether the PostgreSQL that serves has a whole backup."""
    try:
        container = workshop.client.containers.get(now(workshop).backup)
    except NotFound:
        return False
    said = execute(container, ["pgbackrest", "--stanza=main", "--output=json", "info"])
    return '"type":"full"' in output(said)


def beside(life: Life) -> None:
    """What was acknowledged is in the database that is restored beside the stage."""
    until(lambda: backed_up(life.workshop), "the first backup")
    life.rest()
    life.make("restore")
    settings = read_file(life.workshop.directory / f"Pulumi.{life.workshop.stage}.yaml")
    life.nothing_is_lost(life.on_postgres_beside(settings.restore_port))
    life.make("restore", "REMOVE=1")
    life.go_on()


def in_place(life: Life, volumes: Sequence[str]) -> None:
    """The data volume is lost, and one command brings the stage back, while the application asks.

    A write that neither the backups nor SQLite have yet is lost with the volume, as the page says:
    the load rests before, until SQLite has all of it."""
    version = major(life.workshop)
    life.serves_on(version)
    until(lambda: backed_up(life.workshop), "a backup")
    life.rest()
    until(lambda: not life.on_sqlite().problems, "SQLite to have every write")
    for volume in volumes:
        lose(life.workshop.client, volume)
    life.told(f"{' and '.join(volumes)} lost, with all containers that use them")
    with life.going_on():
        life.make("up", fails=f"make restore STAGE={life.workshop.stage} INPLACE=1")
        life.make("restore", "INPLACE=1")
    life.serves_on(version)
    until(life.came_home, "SQLite to have every write again")


def for_good(life: Life) -> None:
    """The way back is given up, with every write until then in the archive; the stage is operated,
    and removed by an explicit word."""
    workshop = life.workshop
    version = major(workshop)
    before = Written.read(life.journal)
    life.set("cutover", "settled")
    life.make("up")
    life.serves_on(version)
    assert "given up by settle" in life.make("status")
    archive = Path(str(workshop.settings["stateDirectory"])) / "report" / "archive"
    written = archive.parent / "archived.db"
    done = run(workshop, "-m", "migration_job", "restore-backup", str(archive), str(written))
    assert done.returncode == 0, done.stderr
    found = life.archived(before, written)
    life.told(f"in the archive: {found.line()}")
    assert found.problems == []
    shutil.rmtree(Path(str(workshop.settings["source"])).parent)
    assert "the way back was given up" in life.make("status")
    life.rotate(version)
    if "postgresMembers" in workshop.settings:
        switched_over(life, Tried(workshop), version)
    assert re.search(r"\d+ unchanged", life.make("up"))
    life.make("check")
    life.rest()
    life.nothing_is_lost(life.on_postgres())

    life.make("down", fails="its PostgreSQL is the only place")
    life.nothing_is_lost(life.on_postgres())
    life.make("down", MIGRATION_ACCEPT_LOSS="yes")
    assert workshop.left() == []
