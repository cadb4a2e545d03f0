"""migration-job.toml: the options of the commands, said once."""

from __future__ import annotations

import functools
import json
import re
import sqlite3
import subprocess
import sys
import textwrap
import tomllib
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


ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")))
DOCUMENTED = [
    *(
        pytest.param(block, id=f"{page.relative_to(ROOT)}-{number}")
        for page in PAGES
        for number, block in enumerate(
            re.findall(r"^```toml\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
        )
    ),
    pytest.param(
        textwrap.dedent((configuration.__doc__ or "").partition("::\n")[2]), id="its docstring"
    ),
]


@pytest.mark.parametrize("text", DOCUMENTED)
def test_what_is_documented_is_taken(tmp_path: Path, text: str) -> None:
    (tmp_path / "migration-job.toml").write_text(text)
    said = tomllib.loads(text)
    found = configuration.defaults(program(), tmp_path)
    for command, options in found.items():
        own = configuration._options(program().commands[command])
        there = {name.replace("-", "_"): value for name, value in said.items()}
        wanted = {own[name].name: value for name, value in there.items() if name in own}
        assert options == {**wanted, **said.get(command, {})}, command


def test_a_page_and_a_docstring_show_it() -> None:
    assert any("by-hand" in str(case.id) for case in DOCUMENTED)
    assert len(DOCUMENTED) > 1


def kinds() -> dict[str, dict[str, set[str]]]:
    """By an option's name and kind, in words, the commands that have such a one."""
    found: dict[str, dict[str, set[str]]] = {}
    for command, parameters in program().commands.items():
        for name, parameter in configuration._options(parameters).items():
            wanted = configuration._wanted(parameter)
            found.setdefault(name, {}).setdefault(wanted, set()).add(command)
    return found


VALUES = {
    "text in quotation marks": '"x"',
    "a list of text in quotation marks": '["x"]',
    "a whole number": "3",
    "a number": "2.5",
    "true or false": "true",
}


@pytest.mark.parametrize("name", [name for name, by in kinds().items() if len(by) > 1])
def test_a_shared_value_is_for_the_commands_whose_option_it_fits(here: Path, name: str) -> None:
    """A name with two kinds: the value of either is no mistake for the commands of the other."""
    for kind, commands in kinds()[name].items():
        (here / "migration-job.toml").write_text(f"{name} = {VALUES[kind]}\n")
        found = configuration.defaults(program(), here)
        have = {command for command, options in found.items() if options}
        others = set().union(*kinds()[name].values()) - commands
        assert commands <= have <= commands | others
        # A whole number is a number too.
        assert have == commands or kind == "a whole number"


def test_no_name_is_one_value_here_and_a_list_there() -> None:
    """Else a list that stands for one value by mistake would be left out in silence."""
    listed = {n: by for n, by in kinds().items() if any(k.startswith("a list") for k in by)}
    assert all(len(by) == 1 for by in listed.values()), listed


def test_one_that_fits_no_command_names_each_kind(here: Path) -> None:
    (here / "migration-job.toml").write_text("minutes = 'ten'\n")
    with pytest.raises(InputError, match=r"expected a (whole )?number or a (whole )?number for"):
        configuration.defaults(program(), here)


def test_a_commands_own_table_must_fit_that_command(here: Path) -> None:
    (here / "migration-job.toml").write_text("minutes = 2.5\n[dashboard]\nminutes = 2.5\n")
    with pytest.raises(InputError, match=r"expected a whole number for minutes, found 2\.5"):
        configuration.defaults(program(), here)


def test_after_suggest_one_word_is_the_file_where_the_source_is_named(here: Path) -> None:
    (here / "migration-job.toml").write_text('source = "a.db"\n')
    done = job(here, "inspect", "--suggest", "policy.yaml")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("a.db: ")
    assert "It is in policy.yaml." in done.stdout
    written = (here / "policy.yaml").read_bytes()
    again = job(here, "inspect", "--suggest", "policy.yaml")
    assert again.returncode == 2
    assert "the file is there already: policy.yaml" in again.stderr
    assert (here / "policy.yaml").read_bytes() == written
    printed = job(here, "inspect", "--suggest")
    assert printed.stdout.encode() == written
    other = job(here, "inspect", "b.db", "--suggest")
    assert other.stderr.startswith("b.db: "), other.stderr
    both = job(here, "inspect", "b.db", "own.yaml", "--suggest")
    assert both.stdout.startswith("b.db: ")
    assert (here / "own.yaml").exists()
    mistaken = job(here, "inspect", "c.db", "--suggest")
    assert mistaken.returncode == 2
    assert "no such file: c.db" in mistaken.stderr
    assert not (here / "c.db").exists()
    alone = job(here, "inspect", "policy.yaml")
    assert alone.returncode == 2
    assert "policy.yaml" in alone.stderr
