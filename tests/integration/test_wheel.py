"""The wheel, as somebody gets it who has no clone: installed into an environment of its own."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 300.0


def uv() -> str:
    found = [shutil.which("uv"), *map(str, ROOT.glob(".tools/uv-*/bin/uv"))]
    program = next((path for path in found if path), None)
    if program is None:
        pytest.skip("no uv here: neither on PATH nor in .tools")
    return program


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of an environment's programs, with the wheel installed."""
    home = tmp_path_factory.mktemp("wheel")
    built = run(uv(), "build", "--wheel", "--out-dir", home / "dist", ROOT, cwd=home)
    if built.returncode and "hatchling" in built.stderr:
        pytest.skip(f"the build needs hatchling, which is not to be had: {built.stderr[-200:]}")
    assert built.returncode == 0, built.stderr
    (wheel,) = (home / "dist").glob("*.whl")
    made = run(uv(), "venv", "--quiet", home / "venv", cwd=home)
    assert made.returncode == 0, made.stderr
    python = home / "venv" / "bin" / "python"
    done = run(uv(), "pip", "install", "--quiet", "--python", python, wheel, cwd=home)
    assert done.returncode == 0, done.stderr
    return python.parent


def test_it_inspects_a_file_under_either_name(programs: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "my.db")) as connection:
        connection.executescript("CREATE TABLE a (b INTEGER); INSERT INTO a VALUES (1)")
    for name in ("migration-job", "sqlite-to-postgresql"):
        done = run(programs / name, "inspect", "my.db", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "my.db: 1 table, 1 row" in done.stdout


def test_it_brings_its_manual_page(programs: Path) -> None:
    page = programs.parent / "share" / "man" / "man1" / "migration-job.1"
    assert page.read_bytes() == (ROOT / "docs" / "migration-job.1").read_bytes()


def test_the_shell_can_complete_its_commands(programs: Path, tmp_path: Path) -> None:
    asked = {"_MIGRATION_JOB_COMPLETE": "complete_bash", "COMP_WORDS": "migration-job ins"}
    environment = " ".join(f"{name}='{value}'" for name, value in asked.items())
    command = f"{environment} COMP_CWORD=1 {programs / 'migration-job'}"
    assert run("sh", "-c", command, cwd=tmp_path).stdout.split() == ["inspect"]


def test_the_demo_has_its_application(programs: Path, tmp_path: Path) -> None:
    done = run(programs / "migration-job", "demo", "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = run(programs / "python", "-m", "example_app", "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    needed = "from migration_job.demo import live; from example_app import store; " + (
        "from migration_job.plan.profile import load_profile; load_profile('radcase'); "
        "from importlib.resources import files; "
        "assert (files('example_app') / 'schema.sql').is_file()"
    )
    done = run(programs / "python", "-c", needed, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("installer", ["uvx", "pip install"])
def test_the_lines_of_the_readme_inspect_a_file(installer: str, tmp_path: Path) -> None:
    """From the repository's address, as somebody types them who has no clone."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no checkout of a repository")
    found = re.search(rf"^{installer} .*REPOSITORY.*$|`({installer} .*?REPOSITORY)`", README, re.M)
    assert found is not None
    typed = shlex.split((found[1] or found[0]).replace("REPOSITORY", f"file://{ROOT}"))
    with closing(sqlite3.connect(tmp_path / "my.db")) as connection:
        connection.executescript("CREATE TABLE a (b INTEGER); INSERT INTO a VALUES (1)")
    if installer == "uvx":
        done = run(uv(), "tool", "run", *typed[1:], cwd=tmp_path)
    else:
        made = run(sys.executable, "-m", "venv", tmp_path / "v", cwd=tmp_path)
        assert made.returncode == 0, made.stderr
        programs = tmp_path / "v" / "bin"
        installed = run(programs / "pip", *typed[1:], cwd=tmp_path)
        assert installed.returncode == 0, installed.stderr
        done = run(programs / "migration-job", "inspect", "my.db", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "my.db: 1 table, 1 row" in done.stdout
