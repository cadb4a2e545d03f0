"""What the program says of itself and of the machine, and what it prints for other programs."""

from __future__ import annotations

import ast
import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest
import typer.main
from typer.core import TyperGroup

from migration_job import __version__
from migration_job.binaries import CACHE_VARIABLE
from migration_job.cli import COMMANDS, build
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


def test_the_overview_breaks_no_sentence_and_has_every_command_in_a_group() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "migration_job", "--help"],
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    lines = [line.strip("│ ") for line in done.stdout.splitlines() if line.startswith("│")]
    names = [line.split()[0] for line in lines if line]
    assert {*COMMANDS, "version"} <= set(names)
    assert "─ Commands ─" not in done.stdout
    # Each command in one line of a screen that is wide enough, to its full stop.
    for name in COMMANDS:
        (line,) = (line for line in lines if line.split()[:1] == [name])
        assert line.endswith("."), line


@pytest.mark.parametrize("name", ["demo", "fleet-switch", "migrate", "switch"])
def test_a_narrow_screen_has_the_whole_name_of_each_option(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "migration_job", name, "--help"],
        env={**os.environ, "COLUMNS": "80"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    command = typer.main.get_command(build())
    assert isinstance(command, TyperGroup)
    options = [o for p in command.commands[name].params for o in p.opts if o.startswith("--")]
    assert "--directory" in options or "--report" in options
    assert set(re.findall(r"--[a-z-]+[a-z]", done.stdout)) >= set(options)
    assert "…" not in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines())


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


def test_doctor_tells_a_postgresql_that_does_not_run_from_one_that_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "postgres"
    program.write_text("#!/bin/sh\necho 'libnone-such.so.7: cannot open' >&2\nexit 127\n")
    program.chmod(0o755)
    monkeypatch.setattr(doctor, "installed_programs", lambda: tmp_path)
    monkeypatch.setattr(doctor, "missing_libraries", lambda: ["libxml2.so.2"])
    (found,) = (one for one in doctor.look() if one.name.startswith("PostgreSQL"))
    assert not found.there
    assert "libxml2.so.2" in found.says
    assert "apt-get install libxml2" in found.says
    program.write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 14.23'\n")
    (found,) = (one for one in doctor.look() if one.name.startswith("PostgreSQL"))
    assert found.there


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
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection, connection:
        connection.execute("CREATE TABLE a (id INTEGER PRIMARY KEY)")
    asked = job("status", str(tmp_path / "a.db"), "--json")
    assert asked.returncode == 0
    assert set(json.loads(asked.stdout)) >= {"serves", "sync", "next"}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("none.db", "no such file: "),
        ("notes.txt", "not a SQLite database"),
        (".", "found a directory"),
        ("empty.db", "the source is empty (0 bytes)"),
    ],
)
def test_status_of_what_is_no_source_is_a_sentence(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "notes.txt").write_text("dear diary\n" * 100)
    (tmp_path / "empty.db").touch()
    alone = job("status", str(tmp_path / name), "--json")
    assert (alone.returncode, alone.stdout) == (2, "")
    assert words in alone.stderr
    (tmp_path / "state").mkdir()
    asked = job("status", str(tmp_path / name), "--state", str(tmp_path / "state"))
    assert asked.returncode == 2
    assert "at work     no command" in asked.stdout
    assert words in asked.stderr


def test_a_further_line_belongs_to_the_one_before() -> None:
    lines = ["way back    first", "            second", "next        nothing"]
    assert structured(lines) == {"way_back": ["first", "second"], "next": ["nothing"]}


ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(
    path.relative_to(ROOT).as_posix()
    for room in ("migration_job", "infra", "tools", "example_app")
    for path in ROOT.glob(f"{room}/**/*.py")
)
COUNTED = re.compile(
    r" (?:more |other )?(?:rows?|values?|changes|entries|requests|writes|keys|bytes|things|"
    r"differences|findings|queries|ms)\b"
)


def bare_counts(text: str) -> Iterator[str]:
    """What stands in a program's f-strings before a counted word without a thousands separator."""
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.JoinedStr):
            continue
        for value, after in pairwise(node.values):
            if not isinstance(value, ast.FormattedValue) or not isinstance(after, ast.Constant):
                continue
            found = COUNTED.match(str(after.value))
            spec = "" if value.format_spec is None else ast.unparse(value.format_spec)
            if found and "," not in spec and not isinstance(value.value, ast.Constant):
                yield f"{{{ast.unparse(value.value)}}}{found[0]}"


EXEMPT = {
    "migration_job/plan/views.py": {"{type(node).__name__} queries"},
}


def test_a_count_is_written_one_way_everywhere() -> None:
    """As in ``12,345 rows``."""
    found = {
        source: bare
        for source in SOURCES
        if (
            bare := set(bare_counts((ROOT / source).read_text("utf-8"))) - EXEMPT.get(source, set())
        )
    }
    assert found == {}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("say(f'{n} rows')", ["{n} rows"]),
        ("say(f'{n:,} rows')", []),
        ("say(f'{took:.0f} ms')", ["{took} ms"]),
        ("say(f'{n} rowboats')", []),
    ],
)
def test_a_bare_count_is_found(text: str, found: list[str]) -> None:
    assert list(bare_counts(text)) == found
