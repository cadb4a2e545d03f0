"""The documentation's links, commands and targets exist."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import guarantees  # noqa: E402

PAGES = sorted(
    path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"))
)

LINK = re.compile(r"\]\(([^)\s#]+)(?:#[^)]*)?\)")
TARGET = re.compile(r"(?:^|[`\s(])make ([a-z][a-z-]+)(?=[\s`.,):;]|$)", re.MULTILINE)
COMMAND = re.compile(r"migration-job ([a-z][a-z-]+)((?: +--?[a-z][a-z-]+| +[^\s`|]+)*)")


def code(text: str) -> list[str]:
    """What stands in code spans and code blocks."""
    blocks = re.findall(r"^```[a-z]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    indented = re.findall(r"^    \S.*$", text, re.MULTILINE)
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    return (
        [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
        + indented
        + spans
    )


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page
    dead = [
        link
        for link in LINK.findall(path.read_text(encoding="utf-8"))
        if "://" not in link and not (path.parent / link).exists()
    ]
    assert dead == []


@pytest.mark.parametrize("page", PAGES)
def test_targets_exist(page: str) -> None:
    known = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        match
        for piece in code((ROOT / page).read_text(encoding="utf-8"))
        for match in TARGET.findall(piece)
    }
    assert named - known == set()


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_their_options_exist(page: str) -> None:
    import typer.main

    from migration_job.cli import app

    program = typer.main.get_command(app)
    for piece in code((ROOT / page).read_text(encoding="utf-8")):
        for name, rest in COMMAND.findall(piece):
            assert name in program.commands, (page, piece)
            known = {o for p in program.commands[name].params for o in [*p.opts, *p.secondary_opts]}
            used = {
                word.split("=")[0]
                for word in shlex.split(rest.replace("'", ""))
                if word.startswith("--")
            }
            assert used - known - {"--help"} == set(), (page, piece)


def test_every_guarantee_has_its_test() -> None:
    found = guarantees.tests(ROOT)
    numbers = [n for lines in guarantees.GUARANTEES.values() for n in lines]
    assert numbers == list(range(1, 52))
    assert [n for n in numbers if not found[n]] == []


def test_decisions_are_all_in_their_index() -> None:
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text(encoding="utf-8")
    listed = set(LINK.findall(index))
    assert {p.name for p in folder.glob("*.md")} - {"README.md"} == listed
