"""migration-job.toml: the options of the commands, said once."""

from __future__ import annotations

import functools
import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import typer.main

from migration_job import cli, configuration
from migration_job.errors import InputError


@functools.cache
def program() -> Any:
    return typer.main.get_command(cli.build())


def job(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "migration_job", *arguments],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def here(tmp_path: Path) -> Path:
    for name, rows in (("a", 1), ("b", 2)):
        with closing(sqlite3.connect(tmp_path / f"{name}.db")) as connection, connection:
            connection.execute("CREATE TABLE t (n INTEGER)")
            connection.executemany("INSERT INTO t VALUES (?)", [("x",)] * rows)
    return tmp_path


def test_what_it_says_stands_where_the_command_line_is_silent(here: Path) -> None:
    (here / "block.yaml").write_text("default: block\n")
    (here / "migration-job.toml").write_text(
        'source = "a.db"\nconnect-to = "connect.json"\n[inspect]\npolicy = "block.yaml"\n'
        "json = true\n"
    )
    done = job(here, "inspect")
    assert done.returncode == 3, done.stderr
    assert json.loads(done.stdout)["source"] == "a.db"
    assert json.loads(job(here, "inspect", "b.db").stdout)["source"] == "b.db"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[inspect]\npolcy = 'x'\n", "option of inspect, found 'polcy'; did you mean policy"),
        ("source = \n", "cannot be read"),
        ("version = true\n", "expected a table [version] with options of that command"),
        ("migrate = 3\n", "expected a table [migrate] with options of that command"),
        ("[sorce]\n", "expected a command's table, found 'sorce'"),
        ("[migrat]\n", "found 'migrat'; did you mean migrate"),
        ("sorce = 'x'\n", "found 'sorce'; did you mean source"),
        ("[migrate]\npolcy = 'x'\n", "option of migrate, found 'polcy'; did you mean policy"),
        ("source = ['a']\n", "expected text in quotation marks for source, found a list"),
        ("target = {a = 1}\n", "expected text in quotation marks for target, found a table"),
        ("[migrate]\njobs = true\n", "for jobs, found true"),
        ("[migrate]\ndeep = ''\n", "expected true or false for deep, found an empty text"),
    ],
)
def test_a_mistake_in_it_is_a_sentence(here: Path, text: str, words: str) -> None:
    (here / "migration-job.toml").write_text(text)
    with pytest.raises(InputError) as error:
        configuration.defaults(program(), here)
    assert words in str(error.value)


@pytest.mark.parametrize("arguments", [("--help",), ("inspect", "a.db")])
def test_a_name_that_no_command_has_is_found(here: Path, arguments: tuple[str, ...]) -> None:
    (here / "migration-job.toml").write_text("conection = 'x'\n")
    done = job(here, *arguments)
    assert done.returncode == 2
    assert "'conection'; did you mean connection" in done.stderr


def test_the_help_is_in_groups_and_has_no_colour_in_a_pipe(here: Path) -> None:
    said = job(here, "--help").stdout
    assert all(group in said for group in ("Look", "Move", "Prove", "Go back, or stay"))
    assert "\x1b" not in said
