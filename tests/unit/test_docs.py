"""The documentation's links, commands and targets exist."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import pytest
import typer
import typer.main
from typer.core import TyperGroup

from infra import backup, live, roles
from infra.names import Names
from tests.unit import documented
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
    named = {
        match
        for piece in code((ROOT / page).read_text(encoding="utf-8"))
        for match in TARGET.findall(piece)
    }
    assert named - targets() == set()


def targets() -> set[str]:
    """What ``make`` can make."""
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def program() -> TyperGroup:
    """The job's command line."""
    from migration_job.cli import app

    found = typer.main.get_command(app)
    assert isinstance(found, TyperGroup)
    return found


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_their_options_exist(page: str) -> None:
    commands = program().commands
    for piece in code((ROOT / page).read_text(encoding="utf-8")):
        for name, rest in COMMAND.findall(piece):
            assert name in commands, (page, piece)
            known = {o for p in commands[name].params for o in [*p.opts, *p.secondary_opts]}
            used = {
                word.split("=")[0]
                for word in shlex.split(rest.replace("'", ""))
                if word.startswith("--")
            }
            assert used - known - {"--help"} == set(), (page, piece)


# What the programs print is advice too: a command in it that does not exist helps nobody.
PROGRAMS = ("migration_job", "infra", "tools", "policy", "example_app")
SOURCES = sorted(
    path.relative_to(ROOT).as_posix() for room in PROGRAMS for path in ROOT.glob(f"{room}/**/*.py")
)
SESSIONS = {f"migration-job {work}" for work in ("copy", "live", "load", "performance")}
"""Names of the job's sessions on PostgreSQL: no commands."""
ADVISED_COMMAND = re.compile(r"migration-job ([a-z][a-z-]*)")
# Prose says "make room" and "make the": a target stands in a code span, at an example's beginning
# or first on an indented line.
ADVISED_TARGET = re.compile(
    r"(?:`(?:[A-Z_]+=\S+ )?|for example: |^ {2,})make ([a-z][a-z-]*)(?=[\s`.,):;]|$)", re.MULTILINE
)


def strings(text: str) -> list[str]:
    """Every string literal of a Python program, docstrings too; an f-string's pieces each alone."""
    return [
        node.value
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


def unknown_names(text: str) -> set[str]:
    """The commands and targets in a program's strings that do not exist."""
    advised = [string for string in strings(text) if string not in SESSIONS]
    commands = {name for string in advised for name in ADVISED_COMMAND.findall(string)}
    made = {name for string in advised for name in ADVISED_TARGET.findall(string)}
    return {f"migration-job {name}" for name in commands - set(program().commands)} | {
        f"make {name}" for name in made - targets()
    }


@pytest.mark.parametrize("source", SOURCES)
def test_the_commands_and_targets_that_a_program_names_exist(source: str) -> None:
    assert unknown_names((ROOT / source).read_text(encoding="utf-8")) == set()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("say('run `migration-job restore`')", {"migration-job restore"}),
        ("say(f'migration-job restore {folder}')", {"migration-job restore"}),
        ("say('run `migration-job restore-backup`, then `make up`')", set()),
        ("say('run `make restored`')", {"make restored"}),
        ("say('run `ACCEPT=yes make gone STAGE=dev`')", {"make gone"}),
        ("say('for example: make undo STAGE=dev')", {"make undo"}),
        ("say('make room, then\\n  make way STAGE=dev')", {"make way"}),
        ("connect(purpose='migration-job copy')", set()),
    ],
)
def test_a_name_that_does_not_exist_is_found(text: str, found: set[str]) -> None:
    assert unknown_names(text) == found


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


def test_each_command_that_a_page_shows_is_run_by_a_test() -> None:
    found = {documented.form(line): line for line in documented.COMMANDS}
    assert len(found) > 30
    assert {line for name, line in found.items() if name not in documented.RUN_BY} == set()


@pytest.mark.parametrize("test", sorted(set(documented.RUN_BY.values())))
def test_that_test_of_a_command_is_there(test: str) -> None:
    file, _, name = test.partition("::")
    assert re.search(rf"^def {name}\(", (ROOT / file).read_text(), re.MULTILINE), test


@pytest.mark.parametrize(
    "line", [line for line in documented.COMMANDS if documented.words(line)[0] != "make"]
)
def test_a_commands_words_are_taken(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each value by its option, and no word too many. `...` stands for options that are said
    elsewhere on the page."""
    monkeypatch.chdir(tmp_path)
    _, name, *rest = documented.words(line)
    command = program().commands[name]
    shortened = "..." in rest and not rest[rest.index("...") - 1].startswith("--")
    given = [word for word in rest if not (shortened and word == "...")]
    if not shortened:
        command.make_context(name, given)
        return
    with pytest.raises(typer.BadParameter, match=r"^Missing parameter"):
        command.make_context(name, given)


@pytest.mark.parametrize(
    "line", [line for line in documented.COMMANDS if line.startswith("make demo ")]
)
def test_the_options_of_a_demo_are_taken(line: str) -> None:
    given = dict(word.split("=", 1) for word in documented.words(line)[2:])
    own = [given["SOURCE"]] if "SOURCE" in given else []
    program().commands["demo"].make_context("demo", [*shlex.split(given.get("OPTIONS", "")), *own])


def test_each_command_of_another_program_that_a_page_shows_is_run_by_a_test() -> None:
    """A page of decisions or of changes tells what somebody ran once."""
    told = {"CHANGELOG.md", *(page for page in PAGES if page.startswith("docs/decisions/"))}
    shown = {line for page in {*PAGES} - told for line in documented.of_others(ROOT / page)}
    known = {
        begin: {line for line in shown if line.startswith(begin)} for begin in documented.OTHERS
    }
    assert shown - set().union(*known.values()) == set()
    assert {begin for begin, lines in known.items() if not lines} == set()


@pytest.mark.parametrize("test", sorted(set(documented.OTHERS.values())))
def test_the_test_of_another_programs_command_is_there(test: str) -> None:
    file, _, name = test.partition("::")
    assert re.search(rf"^def {name}\(", (ROOT / file).read_text(), re.MULTILINE), test


def test_what_is_typed_in_a_container_is_there() -> None:
    """The containers, files and roles that those commands name are the stage's own."""
    names = Names("radcase", "production")
    lines = [line for page in PAGES for line in documented.of_others(ROOT / page)]
    lines += documented.COMMANDS
    typed = [line for line in lines if line.startswith(("docker exec", "docker logs", "radcase=#"))]
    words = {word for line in typed for word in re.split(r"[\s'()$;=]+", line) if word}
    assert {word for word in words if word.startswith("radcase-")} == {names.postgres, names.sync}
    assert {word for word in words if word.startswith("radcase_")} == {f"{names.database}_read"}
    paths = {word for word in words if word.startswith(("/etc", "/run", "/var"))}
    assert paths == {roles.SUPERUSER_FILE, live.TARGET_FILE, backup.SOCKETS}


def test_the_files_that_contributing_names_are_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = {span for span in code(text) if re.fullmatch(r"[\w./-]*\.(py|pml)", span)} - {
        "plan/rules/FAMILY.py"  # as one is to be called
    }
    assert len(named) > 15
    gone = [
        name
        for name in named
        if not any((root / name).exists() for root in (ROOT, ROOT / "migration_job"))
    ]
    assert gone == []
