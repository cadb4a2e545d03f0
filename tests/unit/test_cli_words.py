"""What the program says of itself and of the machine, and what it prints for other programs."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from migration_job import __version__
from migration_job.binaries import CACHE_VARIABLE
from migration_job.commands import doctor
from migration_job.commands.status import structured


def job(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "migration_job", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_version_is_an_option_too() -> None:
    assert job("--version").stdout == f"migration-job {__version__}\n"


@pytest.mark.parametrize("arguments", [("-h",), ("inspect", "-h")])
def test_the_short_form_asks_for_help(arguments: tuple[str, ...]) -> None:
    asked = job(*arguments)
    assert asked.returncode == 0
    assert "Usage" in asked.stdout


def test_doctor_names_what_is_missing_and_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setattr(doctor, "PLACES", str(tmp_path))
    found = {one.name: one for one in doctor.look()}
    assert found["migration-job"].there
    assert not found["pgbouncer"].there
    assert "apt-get install pgbouncer" in found["pgbouncer"].says
    assert not found["Docker engine"].there


def test_inspect_for_programs(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE a (id INTEGER PRIMARY KEY, b INTEGER)")
        connection.execute("INSERT INTO a VALUES (1, 'many\x1b[2J')")
    (tmp_path / "policy.yaml").write_text("default: block\n")
    asked = job("inspect", str(path), "--policy", str(tmp_path / "policy.yaml"), "--json")
    assert asked.returncode == 3
    assert "\x1b" not in asked.stdout
    said = json.loads(asked.stdout)
    assert said["goes_through"] is False
    assert [f["code"] for f in said["findings"] if f["severity"] == "error"] == ["text-in-integer"]
    assert said["tables"][0]["columns"][1]["source"] == "b"


def test_status_for_programs(tmp_path: Path) -> None:
    asked = job("status", str(tmp_path / "none.db"), "--json")
    assert asked.returncode == 0
    assert set(json.loads(asked.stdout)) >= {"serves", "sync", "next"}


def test_a_further_line_belongs_to_the_one_before() -> None:
    lines = ["way back    first", "            second", "next        nothing"]
    assert structured(lines) == {"way_back": ["first", "second"], "next": ["nothing"]}
