"""What a command imports before it works: start-up is paid for by every call."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.models import CommandInfo

from migration_job.cli import COMMANDS, build, overview
from migration_job.demo.radcase import make_radcase

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


SMALL = (
    "CREATE TABLE t (id INTEGER PRIMARY KEY, at DATETIME DEFAULT '2024-01-01 00:00:00', "
    "up INTEGER REFERENCES t(id)); "
    "CREATE INDEX i ON t (at); INSERT INTO t DEFAULT VALUES"
)
FOR_EXPRESSIONS = "sqlglot"


def looked_at(source: Path, sql: str) -> set[str]:
    connection = sqlite3.connect(source)
    connection.executescript(sql)
    connection.close()
    return imported("inspect", str(source))


def test_a_look_at_a_file_imports_nothing_for_a_target(tmp_path: Path) -> None:
    found = looked_at(tmp_path / "small.db", SMALL)
    assert not found & {"psycopg", "jinja2", "migration_job.verify.content"}
    assert not found & {"yaml", "migration_job.plan.onto", "migration_job.plan.suggest"}


@pytest.mark.parametrize(
    "expression",
    [
        "CREATE TABLE c (n INTEGER CHECK (n > 0))",
        "CREATE INDEX half ON t (at) WHERE id > 5",
        "CREATE INDEX computed ON t (lower(at))",
        "CREATE TABLE g (n INTEGER, twice INTEGER AS (n * 2))",
        "CREATE VIEW v AS SELECT id FROM t",
    ],
)
def test_the_parser_of_sql_is_imported_where_there_is_an_expression(
    tmp_path: Path, expression: str
) -> None:
    assert FOR_EXPRESSIONS not in looked_at(tmp_path / "none.db", SMALL)
    assert FOR_EXPRESSIONS in looked_at(tmp_path / "one.db", f"{SMALL}; {expression}")


def test_a_migration_needs_no_parser_of_sql_to_start() -> None:
    """Beside thousands of tables, its sixteen MiB of memory are wanted for other things."""
    assert not imported("migrate", "--help") & {FOR_EXPRESSIONS}


def test_a_parser_says_nothing_of_its_own(tmp_path: Path) -> None:
    """Whichever part of the plan loads it first: here the profile's SQL, which it cannot parse."""
    source = tmp_path / "radcase.db"
    make_radcase(source, rows=1_000)
    command = [sys.executable, "-m", "migration_job", "inspect", str(source)]
    ended = subprocess.run(
        [*command, "--profile", "radcase"], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert "Falling back" not in ended.stdout + ended.stderr
    assert ended.stderr == ""


COUNTED = """
import pkgutil, apsw, migration_job
from importlib import import_module
for module in pkgutil.walk_packages(migration_job.__path__, "migration_job."):
    if not module.name.endswith("__main__"):
        import_module(module.name)
print(apsw.connections())
"""
USED = """
import sys, apsw
from migration_job import cli
from migration_job.commands import {command}
def look(*given, **named):
    connection = apsw.Connection(":memory:")
    connection.execute("CREATE TABLE t (x)")
    print(apsw.memory_used())
    raise SystemExit(0)
{command}.{works} = look
sys.argv = ["migration-job", "{command}", sys.argv[1], "--target", "host=none", "--report", "r"]
cli.main()
"""


def test_no_module_opens_a_connection_when_it_is_imported() -> None:
    """One that is open would keep ``stop_memory_accounting`` from what it is for."""
    command = [sys.executable, "-c", COUNTED]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"


@pytest.mark.parametrize(("command", "works"), [("migrate", "Migration"), ("verify", "Recheck")])
def test_threads_of_a_command_wait_for_no_count_of_memory(
    tmp_path: Path, command: str, works: str
) -> None:
    source = tmp_path / "small.db"
    sqlite3.connect(source).close()
    code = USED.format(command=command, works=works)
    ended = subprocess.run(
        [sys.executable, "-c", code, str(source)],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert ended.stdout.strip() == "0", ended.stderr


def test_a_plugin_of_the_models_library_changes_nothing(tmp_path: Path) -> None:
    """Whatever else is installed beside the job, its models validate as its tests saw."""
    package = tmp_path / "plugged"
    package.mkdir()
    (package / "plugged.py").write_text("raise SystemExit('the plugin was loaded')\n")
    about = package / "plugged-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[pydantic]\nplugged = plugged:plugin\n")
    source = tmp_path / "small.db"
    sqlite3.connect(source).executescript(SMALL)
    ended = subprocess.run(
        [sys.executable, "-c", LOOK, json.dumps(["inspect", str(source)])],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(package)},
    )
    assert ended.returncode == 0, ended.stderr[-500:]


def test_the_overview_says_of_each_command_what_the_command_says() -> None:
    whole = {c.name: c.help or (c.callback and c.callback.__doc__) for c in commands(build())}
    shown = {c.name: c.help for c in commands(overview())}
    assert list(shown) == [*COMMANDS, None]
    for name in COMMANDS:
        first = str(whole[name]).strip().split("\n\n")[0]
        assert " ".join(str(shown[name]).split("\n\n")[0].split()) == " ".join(first.split())


def commands(program: typer.Typer) -> list[CommandInfo]:
    return program.registered_commands
