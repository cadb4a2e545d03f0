"""Live fleets under operators and machines that do what no page says."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.integration.fleetkit import make_file
from tests.integration.livefleet import LiveKit, until
from tests.integration.running import DONE, FAILED, USAGE, run

pytestmark = pytest.mark.postgres

NAMES = ("t0", "t1", "t2")

INSERT = "INSERT INTO note (person, body, score, size) VALUES (1, '{}', 0.5, {})"


@pytest.fixture
def kit(tmp_path: Path, postgres: str) -> LiveKit:
    """A fleet without PgBouncer."""
    return LiveKit.moved(tmp_path, postgres, NAMES)


def test_a_state_directory_that_cannot_be_made_is_one_tenants_problem(kit: LiveKit) -> None:
    kit.connection("t1").mkdir(parents=True, exist_ok=True)
    shutil.rmtree(kit.connection("t1"))
    kit.connection("t1").write_text("no directory")
    kit.write("t1", INSERT.format("waits", 1))
    with kit.followed():
        kit.write("t0", INSERT.format("goes on", 1))
        until(lambda: kit.on_postgres("t0") == kit.on_sqlite("t0"))
        until(lambda: "t1" in kit.beat()["named"])
        assert "expected a directory for locks and records" in kit.beat()["named"]["t1"]
        switched = kit.live("fleet-switch", "--tenant", "t[12]")
        assert switched.status == FAILED, switched.said
        assert "t1: switch failed: expected a directory" in switched.said
        assert "unforeseen" not in switched.said
        kit.connection("t1").unlink()
        until(lambda: kit.on_postgres("t1") == kit.on_sqlite("t1"), what="t1, tried again")
        until(lambda: not kit.beat()["named"])
    states = {name: one["state"] for name, one in kit.status()["tenants"].items()}
    assert states == {"t0": "caught up", "t1": "caught up", "t2": "switched"}


@pytest.mark.parametrize("command", ["fleet", "fleet-sync", "fleet-switch", "fleet-status"])
def test_other_directories_of_the_connections_are_refused(kit: LiveKit, command: str) -> None:
    """Where nobody's application reads, and no lock is shared with who is at work."""
    elsewhere = kit.folder / "elsewhere"
    elsewhere.mkdir()
    copied = elsewhere / "manifest.yaml"
    text = kit.text.replace("live: true", "live: {connection: 'other/{tenant}'}")
    copied.write_text(kit.text.replace("in/", f"{kit.folder}/in/"), encoding="utf-8")
    before = sorted(kit.folder.rglob("*"))
    for manifest, said in ((copied, kit.text), (kit.manifest_path, text)):
        if manifest == kit.manifest_path:
            kit.manifest(said)
        words = {
            "fleet": kit.words(manifest),
            "fleet-status": kit.words(manifest),
            "fleet-sync": kit.arguments("fleet-sync", "--once"),
            "fleet-switch": kit.arguments("fleet-switch", "--all"),
        }[command]
        ended = run(command, str(manifest), *words[2:])
        assert ended.status == USAGE, ended.said
        assert "expected the connections' directories at" in ended.said
    made = set(kit.folder.rglob("*")) - set(before)
    assert not [path for path in made if path.name == ".state"]


def test_status_asks_the_target_where_the_file_says_nothing(kit: LiveKit) -> None:
    assert kit.live("fleet-sync", "--once").status == DONE
    assert kit.live("fleet-switch", "--tenant", "t[01]").status == DONE
    for name in ("t0", "t1", "t2"):
        for suffix in ("", "-wal", "-shm"):
            Path(f"{kit.path(name)}{suffix}").unlink(missing_ok=True)
    make_file(kit.path("t1"), 1)
    make_file(kit.path("t2"), 2)
    told = kit.status()["tenants"]
    assert {name: one["serves"] for name, one in told.items()} == {
        "t0": "PostgreSQL",
        "t1": "PostgreSQL",
        "t2": "SQLite",
    }
    assert [told[name]["state"] for name in ("t0", "t1")] == ["switched"] * 2
    assert "not the one that was switched" in told["t1"]["problem"]
    assert "no change capture" in told["t2"]["problem"]
    again = kit.run(kit.manifest_path)
    assert again.status != DONE
    assert kit.status()["tenants"]["t1"]["serves"] == "PostgreSQL"


def test_status_counts_nothing_while_nobody_follows(kit: LiveKit) -> None:
    assert kit.live("fleet-switch", "--tenant", "t0").status == DONE
    with kit.followed():
        until(lambda: kit.status()["tenants"]["t0"]["behind"] == 0)
    kit.do(f"SET search_path TO c_t0; {INSERT.format('nobody carries it', 1)}")
    assert kit.status()["tenants"]["t0"]["behind"] is None
    words = kit.words(kit.manifest_path)[1:]
    assert "fleet-sync  does not run: it ended" in run("fleet-status", *words).said


def test_a_write_whose_time_is_set_back_is_seen(kit: LiveKit) -> None:
    """As copying programs do that keep times."""
    with kit.followed():
        until(lambda: (kit.report / "fleet-sync.json").exists())
        kit.write("t0", "PRAGMA journal_mode = DELETE")
        until(lambda: kit.beat()["due"] == 0 and kit.on_postgres("t0") == kit.on_sqlite("t0"))
        before = kit.path("t0").stat()
        kit.write("t0", "UPDATE note SET body = 'other' WHERE id = 1")
        os.utime(kit.path("t0"), ns=(before.st_atime_ns, before.st_mtime_ns))
        until(lambda: kit.on_postgres("t0") == kit.on_sqlite("t0"))


@pytest.mark.parametrize("name", ["it's", "two\nlines"])
def test_a_path_that_no_application_can_be_told_is_not_captured(kit: LiveKit, name: str) -> None:
    kit.make(name, "t9")
    before = kit.path(name).read_bytes()
    ended = kit.run(kit.manifest_path)
    assert ended.status == USAGE, ended.said
    told = kit.told()["files"]
    assert told["t9"]["state"] == "verified"
    assert told[name]["state"] == "failed"
    assert "found a quote or a line break" in told[name]["message"]
    assert kit.path(name).read_bytes() == before


def test_status_says_why_a_rollback_would_refuse(kit: LiveKit) -> None:
    assert kit.live("fleet-switch", "--tenant", "t0").status == DONE
    with kit.followed():
        kit.do("CREATE TABLE c_t0.fresh (id integer PRIMARY KEY)")
        until(lambda: kit.status()["tenants"]["t0"]["problem"])
        problem = kit.status()["tenants"]["t0"]["problem"]
        assert "a rollback would refuse: changes to table fresh do not come back" in problem
    refused = kit.live("fleet-rollback", "--tenant", "t0")
    assert refused.status != DONE, refused.said


def test_a_replaced_file_takes_no_place_before_it_is_released(kit: LiveKit) -> None:
    """PostgreSQL has the last copy of what the file before it held."""
    with kit.followed():
        kit.write("t1", INSERT.format("only PostgreSQL has it soon", 1))
        until(lambda: kit.on_postgres("t1") == kit.on_sqlite("t1"))
    held = kit.on_postgres("t1")
    for suffix in ("", "-wal", "-shm"):
        Path(f"{kit.path('t1')}{suffix}").unlink(missing_ok=True)
    make_file(kit.path("t1"), 1)
    for _ in range(2):  # the second time the book says that it failed
        ended = kit.run(kit.manifest_path)
        assert ended.status != DONE, ended.said
        told = kit.told()["files"]
        assert "expected the file that PostgreSQL has followed" in told["t1"]["message"]
        assert "fleet-rollback --release --tenant t1" in told["t1"]["message"]
        assert told["t0"]["state"] == "verified"
        assert kit.on_postgres("t1") == held
    released = kit.live("fleet-rollback", "--release", "--tenant", "t1")
    assert released.status == DONE, released.said
    moved = kit.run(kit.manifest_path)
    assert moved.status == DONE, moved.said
    assert kit.on_postgres("t1") == kit.on_sqlite("t1") != held
