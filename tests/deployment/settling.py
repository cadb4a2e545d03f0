"""What holds of a stage whose way back was given up, by any strategy."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from infra.settled import ACCEPT_LOSS
from tests.deployment.radcase import application, rows, up
from tests.deployment.workshop import Workshop, run


def refused(workshop: Workshop, words: str, **settings: object) -> None:
    """`pulumi up` with these settings fails with these words, and PostgreSQL serves on."""
    workshop.set(**settings)
    done = workshop.up()
    assert done.failed
    assert words in done.output
    assert "Traceback" not in done.output
    with application(workshop) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def settle(workshop: Workshop) -> None:
    """Not before its time, and then for good: the stage works without the source's directory."""
    refused(workshop, "expected the window of 48 h", cutover="settled")
    up(workshop, cutover="settled", settleAfterHours=0)
    names, state = workshop.names, Path(str(workshop.settings["stateDirectory"]))
    assert names.sync not in workshop.left()
    assert (state / "report" / "archive").is_dir()
    refused(workshop, "expected `cutover: settled` to stay", cutover="switch")
    # Nothing of the stage needs the file any more.
    data = Path(str(workshop.settings["source"])).parent
    shutil.rmtree(data)
    assert set(up(workshop, cutover="settled").changes) == {"same"}
    for container in workshop.client.containers.list(filters={"name": names.prefix}):
        assert str(data) not in str(container.attrs["Mounts"])
    said = run(workshop, "-m", "tools.status", workshop.stage)
    assert "the way back was given up" in said.stdout, said.stderr
    assert "containers run" in said.stdout


def upgrade(workshop: Workshop, major: int) -> None:
    """PostgreSQL alone has the data, and comes to a newer version of it, for good."""
    before = rows(workshop)
    for step in ("move", "settle"):
        up(workshop, upgradeTo=major, upgradeStep=step)
        assert rows(workshop) == before
    names = workshop.names
    assert {names.postgres, f"{names.postgres}-data"}.isdisjoint(workshop.left())
    with application(workshop) as connection:
        (found,) = connection.execute("SHOW server_version_num").fetchone() or ("",)
    assert int(found) // 10000 == major
    said = run(workshop, "-m", "tools.status", workshop.stage)
    assert f"PostgreSQL {major} has the data, for good" in said.stdout, said.stderr
    assert "containers run" in said.stdout


def remove(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """`pulumi destroy` takes an explicit word: its PostgreSQL is the only place of the data."""
    kept = workshop.left()
    gone = workshop.destroy()
    assert gone.failed
    assert "its PostgreSQL is the only place" in gone.output
    assert workshop.left() == kept
    monkeypatch.setenv(ACCEPT_LOSS, "yes")
    gone = workshop.destroy()
    assert not gone.failed, gone.output
    assert workshop.left() == []
