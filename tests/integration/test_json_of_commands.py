"""`--json` prints one JSON object, as its help says, whatever the command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer.main

from migration_job import cli
from tests.conftest import MakeSqlite
from tests.integration import test_fleet_live, test_upgrade
from tests.integration.running import DONE, USAGE, run

pytestmark = pytest.mark.postgres

HERE = {
    "inspect": ("SOURCE",),
    "check-target": ("--target", "TARGET"),
    "verify": ("SOURCE", "--target", "TARGET", "--report", "REPORT"),
    "status": ("SOURCE",),
    "doctor": (),
}
ELSEWHERE = {
    "fleet-status": test_fleet_live.test_one_process_follows_all_files,
    "upgrade": test_upgrade.test_to_the_new_server_and_back_under_load,
}
"""Those that need more than a file and a server; there the object's members are read."""


def with_json() -> dict[str, str]:
    """The commands that have it, and what its help says."""
    program = typer.main.get_command(cli.build())
    return {
        name: parameter.help
        for name, command in program.commands.items()  # type: ignore[attr-defined]
        for parameter in command.params
        if "--json" in parameter.opts
    }


def test_each_command_that_has_it_is_tried() -> None:
    found = with_json()
    assert set(found) == {*HERE, *ELSEWHERE}
    assert all("one JSON object" in help_ for help_ in found.values())


@pytest.mark.parametrize("command", HERE)
def test_it_is_one_object(
    command: str, tmp_path: Path, postgres: str, make_sqlite: MakeSqlite
) -> None:
    source = make_sqlite("CREATE TABLE t (id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1)")
    if command == "verify":
        assert run("migrate", source, "--target", postgres, "--report", tmp_path / "r").status == 0
    given: dict[str, str | Path] = {
        "SOURCE": source,
        "TARGET": postgres,
        "REPORT": tmp_path / "again",
    }
    ended = run(command, *(given.get(word, word) for word in HERE[command]), "--json")
    # The tests' server is not durable, so that `check-target` refuses it.
    assert ended.status in ((DONE, USAGE) if command == "check-target" else (DONE,)), ended.said
    said = json.loads(ended.out)
    assert isinstance(said, dict)
    assert said


def test_that_of_check_target_says_whether_it_is_fit(postgres: str) -> None:
    ended = run("check-target", "--target", postgres, "--json")
    said = json.loads(ended.out)
    refused = [check["name"] for check in said["checks"] if check["verdict"] == "refused"]
    assert said["fit"] is (not refused)
    assert (ended.status == DONE) is said["fit"]
    assert "for-this-test" not in said["target"]
