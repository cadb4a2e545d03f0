"""`pulumi destroy` removes nothing before SQLite serves again; an accident leaves a whole stage."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from migration_job.demo.radcase import make_radcase
from tests.deployment.engine import client_or_skip
from tests.deployment.workshop import Workshop, require_pulumi

pytestmark = [
    pytest.mark.pulumi,
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.xdist_group("docker"),
]


@contextmanager
def staged(directory: Path, **settings: object) -> Iterator[Workshop]:
    require_pulumi()
    client = client_or_skip()
    source = directory / "data" / "radcase.db"
    source.parent.mkdir()
    make_radcase(source, rows=1000, seed=9)
    made = Workshop(directory, client, "", source=str(source), profile="radcase", **settings)
    try:
        done = made.up()
        assert not done.failed, done.output
        yield made
    finally:
        made.clear()


def serves(workshop: Workshop) -> str:
    said = json.loads((workshop.connection / "database.json").read_text())
    return str(said["write"]["engine"])


@pytest.mark.parametrize(
    "settings",
    [{"strategy": "blue-green", "backup": True}, {"strategy": "offline"}],
    ids=["followed", "offline"],
)
def test_a_way_back_that_fails_leaves_everything(
    tmp_path: Path, settings: dict[str, object]
) -> None:
    with staged(tmp_path, **settings) as workshop:
        postgres = workshop.names.postgres
        before = workshop.left()
        workshop.client.containers.get(postgres).remove(force=True)
        done = workshop.destroy()
        assert done.failed
        assert "the rollback ended with status" in done.output
        assert serves(workshop) == "postgresql"
        assert sorted([*workshop.left(), postgres]) == before
        whole = workshop.up()
        assert not whole.failed, whole.output
        assert workshop.left() == before
        if workshop.settings.get("backup"):
            backups_are_kept(workshop)
        gone = workshop.destroy()
        assert not gone.failed, gone.output
        assert serves(workshop) == "sqlite"
        assert workshop.left() == []


def backups_are_kept(workshop: Workshop) -> None:
    """`backup: false` stops them; a second step removes them."""
    volume = f"{workshop.names.backup}s"
    for _ in range(2):
        workshop.set(backup=False)
        done = workshop.up()
        assert not done.failed, done.output
        assert f"the backups in the volume {volume} are kept" in done.output
        assert volume in workshop.left()
        assert workshop.names.backup not in workshop.left()
    workshop.set(deleteBackups=True)
    assert not workshop.up().failed
    assert volume not in workshop.left()
