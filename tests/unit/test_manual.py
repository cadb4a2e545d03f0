"""The manual page: made from the code, clean troff, and complete."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from migration_job.cli import COMMANDS, PANELS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "migration-job.1"


def test_every_command_has_its_place_in_the_overview_and_in_the_page() -> None:
    grouped = [name for names in PANELS.values() for name in names]
    assert sorted(grouped) == sorted([*COMMANDS, "version"])
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    for name in grouped:
        assert f".B migration\\-job {name.replace('-', chr(92) + '-')}" in lines


def test_troff_has_nothing_to_say() -> None:
    groff = shutil.which("groff")
    if groff is None:
        pytest.skip("groff is not installed")
    done = subprocess.run(
        [groff, "-man", "-Tutf8", "-ww", str(PAGE)], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert "NO_COLOR" in re.sub(".\b", "", done.stdout)
