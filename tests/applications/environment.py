"""An environment of its own for an application that is not this project's: made once, and kept."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from migration_job.binaries import cache_directory

HERE = Path(__file__).resolve().parent
SHARED = HERE.parent.parent.parent / "shared" / "apps"

FETCH_SECONDS = 900


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

    def make(home: Path) -> None:
        _fetch([sys.executable, "-m", "venv", str(home)])
        pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        _fetch([*pip, "-r", str(wanted)])

    home = _kept(wanted.stem, [wanted], sys.version, make)
    return home / "bin" / "python"


def go_program(folder: str) -> Path:
    """The program that Go makes of a folder beside this file, with the versions of its ``go.sum``.
    Skips where there is no Go, or the modules cannot be had."""
    go = _runtime("go", "version")
    source = HERE / folder

    def make(home: Path) -> None:
        shutil.copytree(source, home)
        _fetch([go[0], "build", "-mod=readonly", "-o", "application", "."], home)

    home = _kept(folder, sorted(source.iterdir()), go[1], make)
    return home / "application"


def node_packages(folder: str) -> tuple[str, Path]:
    """Node, and a folder with the packages of the ``package-lock.json`` beside this file, and with
    the programs that use them. Skips where there is no Node, or the packages cannot be had."""
    node = _runtime("node", "--version")
    source = HERE / folder

    def make(home: Path) -> None:
        shutil.copytree(source, home)
        # A package that is compiled needs Node's headers: those that came with it, where they did.
        headers = Path(node[0]).resolve().parent.parent
        own = {"npm_config_nodedir": str(headers)} if (headers / "include/node").is_dir() else {}
        _fetch(["npm", "ci", "--no-audit", "--no-fund"], home, own)

    return node[0], _kept(folder, sorted(source.iterdir()), node[1], make)


def _runtime(name: str, version: str) -> tuple[str, str]:
    """A language's program, and what it says of its version."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name} on this machine")
    said = subprocess.run([found, version], check=True, capture_output=True, text=True)
    return found, said.stdout


def _kept(name: str, parts: Sequence[Path], version: str, make: Callable[[Path], None]) -> Path:
    """The folder that ``make`` fills, once for these files and this version of the language."""
    content = b"".join(path.read_bytes() for path in parts)
    digest = hashlib.sha256(content + version.encode()).hexdigest()[:16]
    home = cache_directory() / f"application-{name}-{digest}"
    if not (home / "complete").exists():
        shutil.rmtree(home, ignore_errors=True)
        try:
            make(home)
        except (subprocess.SubprocessError, OSError) as error:
            shutil.rmtree(home, ignore_errors=True)
            pytest.skip(f"what {name} needs cannot be had: {error}")
        (home / "complete").touch()
    return home


def _fetch(
    words: Sequence[str], folder: Path | None = None, variables: Mapping[str, str] | None = None
) -> None:
    """Run what fetches or builds. Raises SubprocessError or OSError."""
    subprocess.run(
        words,
        cwd=folder,
        env={**os.environ, **(variables or {})},
        check=True,
        capture_output=True,
        timeout=FETCH_SECONDS,
    )


def command(python: Path, folder: Path, *arguments: str, **variables: str) -> str:
    """Run the application's own interpreter in its folder; what it printed. ``variables`` are set
    in its environment."""
    return program([str(python), "-W", "ignore", *arguments], folder, variables)


def program(words: Sequence[str], folder: Path, variables: Mapping[str, str] | None = None) -> str:
    """Run a program of the application's in its folder; what it printed."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    ended = subprocess.run(
        words,
        cwd=folder,
        env={**kept, "TZ": "UTC", **(variables or {})},
        capture_output=True,
        text=True,
        timeout=FETCH_SECONDS,
        check=False,
    )
    assert ended.returncode == 0, f"{words}: {ended.stdout}\n{ended.stderr}"
    return ended.stdout
