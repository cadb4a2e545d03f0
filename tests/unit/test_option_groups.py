"""Commands share their options: each is defined once, and Typer reads it from a group."""

from __future__ import annotations

import ast
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from migration_job.cli import build
from migration_job.commands import __file__ as package
from migration_job.commands.live_options import Spoken
from migration_job.commands.option_groups import with_options


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    deep: Annotated[bool, typer.Option("--deep", help="All of it.")] = False
    jobs: Annotated[int, typer.Option(min=1)] = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    source: Annotated[Path, typer.Argument()]
    inner: Inner
    word: str = "none"
    report: Annotated[Path, typer.Option()]


def ran(*arguments: str) -> tuple[int, list[Outer]]:
    found: list[Outer] = []

    def command(options: Outer) -> None:
        """What it does."""
        found.append(options)

    app = typer.Typer()
    app.command("command")(with_options(command))
    return CliRunner().invoke(app, list(arguments)).exit_code, found


def test_options_reach_the_command_as_one_object() -> None:
    given = ["a.db", "--report", "r", "--deep", "--jobs", "3", "--word", "w"]
    assert ran(*given) == (
        0,
        [Outer(source=Path("a.db"), inner=Inner(deep=True, jobs=3), word="w", report=Path("r"))],
    )


def test_defaults_are_those_of_the_fields() -> None:
    assert ran("a.db", "--report", "r") == (
        0,
        [Outer(source=Path("a.db"), inner=Inner(), report=Path("r"))],
    )


def test_a_field_without_default_is_required() -> None:
    assert ran("a.db") == (2, [])


def test_typer_checks_what_a_group_in_a_group_says() -> None:
    assert ran("a.db", "--report", "r", "--jobs", "0") == (2, [])


def test_no_help_of_an_option_stands_twice() -> None:
    helps: Counter[str] = Counter()
    for path in Path(package).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and isinstance(node.value, ast.Constant):
                helps[str(node.value.value)] += node.arg == "help"
    assert len(helps) > 50, "the options' help was not found"
    assert [text for text, count in helps.items() if count > 1] == []


TELL_PROGRESS = (
    *("migrate", "verify", "switch", "rollback", "settle", "hold", "resume", "sync", "upgrade"),
    *("fleet-switch", "fleet-rollback", "fleet-settle", "fleet-hold", "fleet-resume", "fleet-sync"),
)


@pytest.mark.parametrize("name", TELL_PROGRESS)
def test_every_command_that_tells_its_progress_can_be_quiet(name: str) -> None:
    command = typer.main.get_command(build()).commands[name]  # type: ignore[attr-defined]
    quiet = next(p for p in command.params if p.name == "quiet")
    assert (quiet.opts, quiet.help) == (["--quiet", "-q"], "Print errors only.")


@pytest.mark.parametrize("quiet", [True, False])
def test_quiet_keeps_progress_to_itself(quiet: bool, capsys: pytest.CaptureFixture[str]) -> None:
    Spoken(quiet=quiet).say("PostgreSQL serves")
    assert capsys.readouterr().out == ("" if quiet else "PostgreSQL serves\n")
