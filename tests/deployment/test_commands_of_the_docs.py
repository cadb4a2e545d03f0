"""The commands on a stage's settings that the documentation prints are run, by make and Pulumi."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.deployment.workshop import ROOT, require_pulumi

pytestmark = [pytest.mark.pulumi, pytest.mark.timeout(300)]

PAGES = sorted((*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")))


def blocks(page: Path) -> list[str]:
    """The lines of the page's shell blocks."""
    found = re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    return [line.strip() for block in found for line in block.splitlines()]


COMMANDS = sorted(
    {
        line
        for page in PAGES
        for line in blocks(page)
        if line.startswith("make config") and "ARGS=" in line
    }
)


def test_no_page_has_a_command_that_finds_no_state() -> None:
    """`pulumi` by itself has neither the backend nor the passphrase of `make up`."""
    bare = [(p.name, line) for p in PAGES for line in blocks(p) if re.match(r"pulumi\b", line)]
    assert bare == []
    assert len(COMMANDS) > 8


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require_pulumi()
    path = tmp_path_factory.mktemp("checkout")
    for name in ("Makefile", "Pulumi.yaml", "Pulumi.production.yaml", "__main__.py"):
        shutil.copy(ROOT / name, path)
    for name in ("tools", "infra"):
        shutil.copytree(ROOT / name, path / name)
    (path / ".venv").symlink_to(ROOT / ".venv")
    (path / "tools" / "setup").write_text("#!/bin/sh\n")
    return path


def make(checkout: Path, command: str) -> subprocess.CompletedProcess[str]:
    words = shlex.split(command, comments=True)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PULUMI_", "MAKE"))}
    return subprocess.run(
        [words[0], "--no-print-directory", *words[1:]],
        cwd=checkout,
        env=kept,
        # What the operator types where a secret is asked for.
        input="a-secret-of-the-operators\n",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_it_changes_the_stage_file(checkout: Path, command: str) -> None:
    words = shlex.split(command, comments=True)
    stage = next((w.partition("=")[2] for w in words if w.startswith("STAGE=")), "dev")
    for name in (stage, f"Pulumi.{stage}.yaml"):
        if name.startswith("Pulumi.") and not (checkout / name).exists():
            shutil.copy(ROOT / name, checkout)
    file = checkout / f"Pulumi.{stage}.yaml"
    before = yaml.safe_load(file.read_text())["config"]
    done = make(checkout, command)
    assert done.returncode == 0, done.stderr
    after = yaml.safe_load(file.read_text())["config"]
    arguments = shlex.split(next(w.partition("=")[2] for w in words if w.startswith("ARGS=")))
    assert arguments[0] == "set"
    named = [word for word in arguments[1:] if not word.startswith("-")]
    key = named[0].removeprefix("sqlite-to-postgresql:").partition(".")[0]
    assert f"sqlite-to-postgresql:{key}" in after
    if len(named) == 1:
        assert "a-secret-of-the-operators" not in file.read_text()
        assert after != before


def test_any_other_command_of_pulumis_finds_the_stage(checkout: Path) -> None:
    done = make(checkout, 'make pulumi STAGE=production ARGS="stack --show-name"')
    if "Docker" in done.stderr:
        pytest.skip("no Docker engine, which the target sees to first")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("production")
