"""One upgrade of a stage after another, for good and back, by `make upgrade` and under load.

The very first server is gone when the second upgrade begins: nothing may need it any more, least
of all PgBouncer, whose file names it as the place of the passwords.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.deployment.living import Life, life_of, major, workshop_of
from tests.deployment.ports import free_port
from tests.deployment.radcase import until
from tests.deployment.workshop import Workshop

pytestmark = [
    pytest.mark.pulumi,
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.timeout(2400),
    pytest.mark.xdist_group("docker"),
]


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    wanted = {"postgresVersion": 14, "upgradePort": free_port(), "cutover": "switch"}
    with workshop_of(tmp_path, wanted) as workshop, life_of(workshop, tmp_path) as made:
        yield made


def test_two_upgrades_one_after_the_other(life: Life) -> None:
    names, left = life.workshop.names, life.workshop.left
    life.make("up")
    life.serves_on(14)
    life.make("upgrade", "BACK=1", fails="expected an upgrade that was begun")
    life.upgrade("TO=16", 16)
    life.upgrade("SETTLE=1", 16)
    assert {names.postgres, f"{names.postgres}-data"}.isdisjoint(left())
    assert "PostgreSQL 16 has the data, for good" in life.make("status")
    life.make("upgrade", "TO=16", fails="expected a version above 16")

    # There and back, given up, and there again.
    life.upgrade("TO=18", 18)
    assert "BACK=1` goes back to 16" in life.make("status")
    life.make("upgrade", "REMOVE=1", fails="found that the newer one has it")
    life.upgrade("BACK=1", 16)
    restarted(life, 16)
    life.upgrade("REMOVE=1", 16)
    assert f"{names.postgres}-18-data" not in left()
    assert "PostgreSQL 16 has the data, for good" in life.make("status")
    life.upgrade("TO=18", 18)
    life.rotate(18)

    life.upgrade("SETTLE=1", 18)
    assert f"{names.postgres}-16-data" not in left()
    assert "PostgreSQL 18 has the data, for good" in life.make("status")
    restarted(life, 18)
    assert "unchanged" in life.make("up")
    life.make("check")
    life.rest()
    life.nothing_is_lost(life.on_postgres())

    life.go_on()
    life.make("down")
    assert left() == []
    life.serves_on("sqlite")
    life.rest()
    life.nothing_is_lost(life.on_sqlite())


def restarted(life: Life, serves: int) -> None:
    """PgBouncer has forgotten the passwords that it knew, and looks them up again."""
    life.workshop.client.containers.get(life.workshop.names.pooler).restart()
    until(lambda: answers(life.workshop), "a new client to be admitted")
    life.serves_on(serves)


def answers(workshop: Workshop) -> bool:
    """Whether PgBouncer has come up and admits a new client."""
    try:
        return major(workshop) > 0
    except psycopg.OperationalError as error:
        if "query_wait_timeout" in str(error):
            raise  # it is there, and finds no place to look the password up in
        return False
