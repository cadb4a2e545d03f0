"""The documentation's links, commands and targets exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tools import guarantees

ROOT = Path(__file__).resolve().parents[2]
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
    from typer.core import TyperGroup

    from migration_job.cli import app

    program = typer.main.get_command(app)
    assert isinstance(program, TyperGroup)
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


FEATURES = ROOT / "docs" / "support-matrix.md"
WHERE = (
    *("real container", "embedded", "rendered only", "code alone", "stand-in", "not tried"),
    "promtool",
)


def _features() -> list[list[str]]:
    """The support matrix: what, where, tested by."""
    text = FEATURES.read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return [row for row in rows if row[0] != "feature" and not row[0].startswith("**")]


def test_every_feature_says_where_it_was_tried_and_by_which_tests() -> None:
    rows = _features()
    assert len(rows) > 40
    for row in rows:
        what, where, tried = row
        assert where.startswith(WHERE), what
        linked = LINK.findall(tried)
        assert bool(linked) == (where != "not tried"), what
        for link in linked:
            file = FEATURES.parent / link
            assert link.startswith("../tests/"), what
            assert re.search(r"^(async )?def test_", file.read_text(), re.MULTILINE), link
        if where.startswith("real container"):
            assert any("tests/deployment/" in link for link in linked), what


def test_every_deployment_test_is_in_the_support_matrix() -> None:
    linked = {link.removeprefix("../") for row in _features() for link in LINK.findall(row[2])}
    there = {
        path.relative_to(ROOT).as_posix() for path in ROOT.glob("tests/deployment/**/test_*.py")
    }
    assert there - linked == set()


def test_the_readme_can_be_read_in_three_minutes() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 150


def test_howto_pages_fit_on_a_screen_and_are_all_in_their_index() -> None:
    folder = ROOT / "docs" / "how-to"
    pages = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.md")}
    long = {name: n for name, text in pages.items() if (n := len(text.splitlines())) > 50}
    # Two ways to follow a connection, and the gate between them.
    assert long.keys() <= {"following-the-connection.md"}, long
    assert set(LINK.findall(pages.pop("README.md"))) == pages.keys()


def test_decisions_are_all_in_their_index() -> None:
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text(encoding="utf-8")
    listed = set(LINK.findall(index))
    assert {p.name for p in folder.glob("*.md")} - {"README.md"} == listed
