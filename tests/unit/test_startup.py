"""What a command imports before it works: start-up is paid for by every call."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.models import CommandInfo

from migration_job.cli import COMMANDS, build, overview

LOOK = """
import json, sys
sys.argv = ["migration-job", *json.loads(sys.argv[1])]
from migration_job import cli
try:
    cli.main()
finally:
    sys.stderr.write(json.dumps(sorted(sys.modules)))
"""


def imported(*arguments: str) -> set[str]:
    """The modules that a command has imported when it ends well."""
    command = [sys.executable, "-c", LOOK, json.dumps(arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(json.loads(ended.stderr.splitlines()[-1]))


@pytest.mark.parametrize("option", ["--help", "-h", "--version"])
def test_help_imports_no_command(option: str) -> None:
    found = imported(option)
    assert not found & {"psycopg", "pydantic", "apsw", "sqlglot", "yaml", "jinja2"}
    assert not [name for name in found if name.startswith("migration_job.commands.")]


def test_a_look_at_a_file_imports_nothing_for_a_target(tmp_path: Path) -> None:
    source = tmp_path / "small.db"
    connection = sqlite3.connect(source)
    connection.executescript(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, at DATETIME DEFAULT '2024-01-01 00:00:00'); "
        "CREATE INDEX i ON t (at); INSERT INTO t DEFAULT VALUES"
    )
    connection.close()
    found = imported("inspect", str(source))
    assert not found & {"psycopg", "jinja2", "migration_job.verify.content"}


def test_the_overview_says_of_each_command_what_the_command_says() -> None:
    whole = {c.name: c.help or (c.callback and c.callback.__doc__) for c in commands(build())}
    shown = {c.name: c.help for c in commands(overview())}
    assert list(shown) == [*COMMANDS, None]
    for name in COMMANDS:
        first = str(whole[name]).strip().split("\n\n")[0]
        assert " ".join(str(shown[name]).split("\n\n")[0].split()) == " ".join(first.split())


def commands(program: typer.Typer) -> list[CommandInfo]:
    return program.registered_commands
