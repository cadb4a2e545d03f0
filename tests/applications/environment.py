"""An environment of its own for an application that is not this project's: made once, and kept."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from migration_job.binaries import cache_directory

HERE = Path(__file__).resolve().parent
SHARED = HERE.parent.parent.parent / "shared" / "apps"

FETCH_SECONDS = 300


def application(name: str, folder: Path) -> Path:
    """A copy of an application beside this checkout, in ``folder``. Skips where there is none."""
    place = SHARED / name
    if not place.is_dir():
        pytest.skip(f"no application {name} beside this checkout ({place})")
    copy = folder / name
    shutil.copytree(place, copy, copy_function=shutil.copyfile)
    for path in (copy, *copy.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return copy


def python_with(requirements: str) -> Path:
    """The interpreter of an environment that has what the file beside this one names. Skips where
    the packages cannot be had."""
    wanted = HERE / requirements
    digest = hashlib.sha256(wanted.read_bytes() + sys.version.encode()).hexdigest()[:16]
    home = cache_directory() / f"application-{wanted.stem}-{digest}"
    python = home / "bin" / "python"
    if not (home / "complete").exists():
        shutil.rmtree(home, ignore_errors=True)
        _make(home, python, wanted)
        (home / "complete").touch()
    return python


def _make(home: Path, python: Path, wanted: Path) -> None:
    for command in (
        [sys.executable, "-m", "venv", str(home)],
        [str(python), "-m", "pip", "install", "--quiet", "-r", str(wanted)],
    ):
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=FETCH_SECONDS)
        except (subprocess.SubprocessError, OSError) as error:
            shutil.rmtree(home, ignore_errors=True)
            pytest.skip(f"the packages of {wanted.name} cannot be had: {error}")


def command(python: Path, folder: Path, *arguments: str, **variables: str) -> str:
    """Run the application's own interpreter in its folder; what it printed. ``variables`` are set
    in its environment."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    ended = subprocess.run(
        [python, "-W", "ignore", *arguments],
        cwd=folder,
        env={**kept, **variables},
        capture_output=True,
        text=True,
        timeout=FETCH_SECONDS,
        check=False,
    )
    assert ended.returncode == 0, f"{arguments}: {ended.stdout}\n{ended.stderr}"
    return ended.stdout
