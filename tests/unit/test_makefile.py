"""What is given to make on its command line is text: nothing in it is expanded or run."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tools import words

ROOT = Path(__file__).resolve().parents[2]

HOSTILE = (
    "b`touch TICK`b.db",
    "$(touch TICK).db",
    "$(shell touch TICK).db",
    "$${x}$x$$.db",
    '"; touch TICK; ".db',
    "'; touch TICK; '.db",
    "it's.db",
    'a "quoted" one.db',
    "with  two spaces.db",
    "line one\ntouch TICK\n.db",
    "#comment.db",
    "back\\slash\\.db",
    "*?[a].db",
    "~/home.db",
    "-rf",
    "--help",
    "a;b&c|d>TICK",
    "%STAGE% @OPTIONS",
    "naïve – ü.db",
)

RECORDER = """#!{python} -IS
import json, os, sys
if sys.argv[1:3] == ["-m", "tools.words"]:
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
with open("calls", "a") as file:
    file.write(json.dumps(sys.argv[1:]) + chr(10))
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The Makefile, with a recorder for every program that it calls."""
    if shutil.which("make") is None:
        pytest.skip("no make on PATH")
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "words.py", tmp_path / "tools")
    recorder = RECORDER.format(python=sys.executable)
    for name in (".venv/bin/python", "tools/stage"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(recorder)
        path.chmod(0o755)
    for name in ("setup", "system-packages", "docker-engine"):
        (tmp_path / "tools" / name).write_text("#!/bin/sh\n")
        (tmp_path / "tools" / name).chmod(0o755)
    return tmp_path


def called(checkout: Path, *arguments: str, **environment: str) -> list[list[str]]:
    """The programs that ``make ARGUMENTS`` called, and what each was given."""
    done = subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=checkout,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not list(checkout.glob("*TICK*")), (arguments, "a command in it was run")
    return [json.loads(line) for line in (checkout / "calls").read_text().splitlines()]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("by_environment", [False, True])
def test_a_hostile_name_arrives_as_it_is(checkout: Path, name: str, by_environment: bool) -> None:
    def make(target: str, **variables: str) -> list[str]:
        (checkout / "calls").unlink(missing_ok=True)
        if by_environment:
            (call,) = called(checkout, target, **variables)
        else:
            # A `$` on make's command line is written twice by nobody: it has to stay one.
            (call,) = called(checkout, target, *(f"{k}={v}" for k, v in variables.items()))
        return call

    assert make("demo", SOURCE=name)[-2:] == ["--", name]
    assert make("up", STAGE=name) == ["up", name]
    assert make("status", STAGE=name)[-1] == name
    assert make("images", STAGE=name)[-2:] == ["--", name]
    assert make("config", STAGE=name, ARGS="set a 'b c'") == ["config", name, "set", "a", "b c"]
    assert make("restore", STAGE=name, AT=name)[-3:] == [f"--at={name}", "--", name]
    assert make("restore-sqlite", STAGE=name, TO=name)[-3:] == ["--", name, name]


def test_options_are_words_and_nothing_else(checkout: Path) -> None:
    given = """--rows 5 --policy "my rules.yaml" '$(touch TICK)' `touch TICK` ;touch TICK"""
    (call,) = called(checkout, "demo", f"OPTIONS={given}", "SOURCE=it's.db")
    assert call == [
        *("-m", "migration_job", "demo", "--rows", "5", "--policy", "my rules.yaml"),
        *("$(touch TICK)", "`touch", "TICK`", ";touch", "TICK", "--", "it's.db"),
    ]


STOPPED = """#!/bin/sh
trap 'echo "stopped: all is ended"; exit 130' INT
echo begun
while :; do sleep 0.05; done
"""


@pytest.mark.parametrize("status", [0, 1, 2, 3, 130])
def test_the_demos_status_is_makes_but_for_a_stop(checkout: Path, status: int) -> None:
    (checkout / ".venv" / "bin" / "python").write_text(f"#!/bin/sh\nexit {status}\n")
    done = subprocess.run(["make", "demo"], cwd=checkout, capture_output=True, check=False)
    assert done.returncode == (0 if status in (0, 130) else 2)


def test_ctrl_c_ends_the_demo_with_its_own_sentence(checkout: Path) -> None:
    """A terminal sends it to make, to its shell and to the demo at once."""
    (checkout / ".venv" / "bin" / "python").write_text(STOPPED)
    with subprocess.Popen(
        ["make", "--no-print-directory", "demo"],
        cwd=checkout,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as make:
        assert make.stdout is not None
        assert make.stdout.readline() == "begun\n"
        os.killpg(make.pid, signal.SIGINT)
        rest = make.stdout.read()
    assert rest == "stopped: all is ended\n"
    assert make.returncode == -signal.SIGINT


def test_nothing_given_is_nothing_passed(checkout: Path) -> None:
    assert called(checkout, "demo") == [["-m", "migration_job", "demo"]]
    (checkout / "calls").unlink()
    assert called(checkout, "restore") == [["-m", "infra.restore", "--", "dev"]]


@pytest.mark.parametrize(
    ("command", "calls"),
    [
        (["up"], [["up", "dev"]]),
        (["check"], [["check", "dev"]]),
        (["down"], [["down", "dev"]]),
        (["rotate"], [["rotate", "dev"]]),
        (["upgrade", "TO=18"], [["upgrade", "dev"]]),
        (["pulumi", "ARGS=stack output"], [["pulumi", "dev", "stack", "output"]]),
        (["status"], [["-m", "tools.status", "dev"]]),
        (["drill"], [["-m", "infra.drill", "--", "dev"]]),
        (["restore", "REMOVE=1"], [["-m", "infra.restore", "--remove", "--", "dev"]]),
        (
            ["restore", "INPLACE=1"],
            [["-m", "infra.restore", "--in-place", "--", "dev"], ["up", "dev"]],
        ),
    ],
)
def test_a_stages_target_runs_that_and_no_more(
    checkout: Path, command: list[str], calls: list[list[str]]
) -> None:
    assert called(checkout, *command) == calls


def test_a_quote_that_is_not_closed_is_one_sentence() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.words", "OPTIONS", "true"],
        cwd=ROOT,
        env={**os.environ, "OPTIONS": "it's"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: expected words in OPTIONS")
    assert "Traceback" not in done.stderr


def test_last_words_go_behind_a_dash_of_their_own() -> None:
    assert words.command(["O", "run", "--", "-x", "--"], {"O": "a b"}) == [
        *("run", "a", "b", "--", "-x", "--")
    ]


def test_every_recipe_reads_its_variables_from_the_environment() -> None:
    """A variable that a later target brings is kept from the shell as the others are."""
    text = (ROOT / "Makefile").read_text()
    recipes = "".join(line for line in text.splitlines(True) if line.startswith("\t"))
    ours = {"PYTHON", "WORDS_OF", "MAKEFILE_LIST"}
    assert set(re.findall(r"(?<!\$)\$[({]([A-Za-z_]+)", recipes)) <= ours
    literal = set(re.findall(r"^override ([A-Z]+) := \$\(value \1\)$", text, re.MULTILINE))
    used = set(re.findall(r"\$\$\{?([A-Z]+)", recipes)) | set(
        re.findall(r"\$\(WORDS_OF\) ([A-Z]+)", recipes)
    )
    assert used <= literal
    (exported,) = re.findall(r"^export (.*)$", text, re.MULTILINE)
    assert literal == set(exported.split())
