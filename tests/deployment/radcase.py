"""A stage that moves a database like RadCase's own, and what its tests ask of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from migration_job.demo.radcase import make_radcase
from tests.deployment.engine import client_or_skip
from tests.deployment.workshop import Result, Workshop, dsn, named, require_pulumi

LIMIT_SECONDS = 240


@contextmanager
def staged(
    directory: Path, *, seed: int, rows: int = 1000, **settings: object
) -> Iterator[Workshop]:
    """A stage that is not up yet, of a source of its own; cleared away at the end."""
    require_pulumi()
    client = client_or_skip()
    source = directory / "data" / "radcase.db"
    source.parent.mkdir()
    make_radcase(source, rows=rows, seed=seed)
    made = Workshop(directory, client, "", source=str(source), profile="radcase", **settings)
    try:
        yield made
    finally:
        made.clear()


def up(workshop: Workshop, **settings: object) -> Result:
    """``pulumi up`` with these settings, which has to succeed."""
    workshop.set(**settings)
    done = workshop.up()
    assert not done.failed, done.output
    return done


def down(workshop: Workshop) -> None:
    """``pulumi destroy``, which has to succeed and to leave SQLite serving and nothing else."""
    gone = workshop.destroy()
    assert not gone.failed, gone.output
    assert serves(workshop) == "sqlite"
    assert workshop.left() == []


def serves(workshop: Workshop) -> str:
    """The engine that the application's connection has its writes go to."""
    said = json.loads((workshop.connection / "database.json").read_text())
    return str(said["write"]["engine"])


def application(workshop: Workshop) -> psycopg.Connection:
    """The application's own connection, as its directory says; PostgreSQL has to serve."""
    side = named(workshop)
    assert side["engine"] == "postgresql"
    return psycopg.connect(dsn(side), autocommit=True, prepare_threshold=None)


def rows(workshop: Workshop) -> int:
    """What the application reads of its largest table."""
    with application(workshop) as connection:
        (found,) = connection.execute("SELECT count(*) FROM cases").fetchone() or (0,)
    return int(found)


def remove(workshop: Workshop, *containers: str) -> None:
    """As somebody at the engine does it."""
    for name in containers:
        workshop.client.containers.get(name).remove(force=True)


def lose_data(workshop: Workshop, *others: str) -> None:
    """PostgreSQL's volume, with its container and ``others`` that use it."""
    remove(workshop, workshop.names.postgres, *others)
    workshop.client.volumes.get(f"{workshop.names.postgres}-data").remove()


def a_lost_server_is_no_way_back(workshop: Workshop) -> None:
    """`pulumi destroy` removes nothing where the way back fails; `pulumi up` makes it whole."""
    postgres, before = workshop.names.postgres, workshop.left()
    remove(workshop, postgres)
    done = workshop.destroy()
    assert done.failed
    assert "the rollback ended with status" in done.output
    assert serves(workshop) == "postgresql"
    assert sorted([*workshop.left(), postgres]) == before
    up(workshop)
    assert workshop.left() == before


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for it; an AssertionError that says what did not come."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {LIMIT_SECONDS} s: {what}"
        time.sleep(0.2)
