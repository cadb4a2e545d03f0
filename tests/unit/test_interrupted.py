"""What a killed run of Pulumi's leaves is told apart from what is somebody's."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from infra import interrupted
from infra.settings import PROJECT


def operation(kind: str, what: str, name: str) -> dict[str, object]:
    resource = {"urn": f"urn:pulumi:s::p::{kind}::{name}", "type": kind, "inputs": {"name": name}}
    return {"type": what, "resource": resource}


EXPORT = {
    "version": 3,
    "deployment": {
        "resources": [{"urn": "urn:a::b", "id": "kept"}],
        "pending_operations": [
            operation("docker:index/container:Container", "creating", "made-c"),
            operation("docker:index/network:Network", "creating", "made-n"),
            operation("docker:index/container:Container", "updating", "updated-c"),
            operation("docker:index/volume:Volume", "creating", "made-v"),
        ],
    },
}


def test_only_what_was_being_made_is_to_be_removed() -> None:
    found = interrupted.cut_off(EXPORT)
    assert found.containers == ["made-c"]
    assert found.networks == ["made-n"]
    assert found.resources == ["made-c", "made-n", "updated-c", "made-v"]
    assert interrupted.known(EXPORT) == {"kept"}
    cleared = interrupted.without_marks(EXPORT)
    assert cleared["deployment"] == {"resources": [{"urn": "urn:a::b", "id": "kept"}]}
    assert cleared["version"] == 3
    assert interrupted.cut_off(cleared) == interrupted.CutOff([], [], [])


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    folder = tmp_path / ".pulumi" / "locks" / "organization" / PROJECT / "dev"
    folder.mkdir(parents=True)
    return folder / "1.json"


def ended() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_lock_is_dead_with_its_process_on_this_machine(tmp_path: Path, lock: Path) -> None:
    assert not interrupted.is_dead(tmp_path, "dev")
    here = socket.gethostname()
    for pid, host, dead in (
        (ended(), here, True),
        (ended(), "another-machine", False),
        (os.getpid(), here, False),
    ):
        lock.write_text(json.dumps({"pid": pid, "username": "a", "hostname": host}))
        assert interrupted.is_dead(tmp_path, "dev") is dead
    lock.write_text("{}")
    assert not interrupted.is_dead(tmp_path, "dev")
