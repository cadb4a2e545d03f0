"""``migration-job doctor``: what this machine has, what is missing, and what to install."""

from __future__ import annotations

import platform
import shutil
import sqlite3
import subprocess
from dataclasses import dataclass
from pathlib import Path

import apsw
import psycopg
import typer

from migration_job import __version__
from migration_job.binaries import (
    DEFAULT_MAJOR,
    RELEASES,
    advice_on_libraries,
    installed_programs,
    missing_libraries,
)
from migration_job.commands.option_groups import AsJson, print_json

PROGRAMS = {
    "pgbouncer": (
        "the demo goes through a pooler",
        "Debian and Ubuntu: apt-get install pgbouncer; macOS: brew install pgbouncer",
    ),
    "docker": ("`make up` provisions a stage", "Docker Engine 20.10 or newer"),
    "pulumi": ("`make up` provisions a stage", "`make up` installs it, by its checksum"),
}
"""Each program that something needs: what for, and how one gets it."""

PLACES = "/usr/sbin:/sbin:/usr/local/sbin:/opt/homebrew/bin"
"""Where programs are that an ordinary user's PATH leaves out."""

LIMIT_SECONDS = 10.0
"""For a program's answer."""


@dataclass(frozen=True, slots=True)
class Found:
    """One thing that was looked for."""

    name: str
    there: bool
    says: str
    """Its version, or what needs it and how one gets it."""


def register(app: typer.Typer) -> None:
    """Add ``doctor`` to the program."""
    app.command("doctor")(doctor)


def doctor(as_json: AsJson = False) -> None:
    """List what this machine has for the commands and the demo, and how to get what is missing.

    Changes nothing and downloads nothing. `inspect`, `migrate` and `verify` need nothing more than
    this program and a PostgreSQL to reach.
    """
    found = look()
    if as_json:
        print_json({f.name: {"there": f.there, "says": f.says} for f in found})
        return
    width = max(len(f.name) for f in found)
    for one in found:
        typer.echo(f"{'ok     ' if one.there else 'missing'}  {one.name:{width}}  {one.says}")


def look() -> list[Found]:
    """What there is; each program is asked for its version."""
    return [
        Found("migration-job", True, f"{__version__}, Python {platform.python_version()}"),
        Found("SQLite", True, f"{apsw.sqlite_lib_version()} (Python's own {sqlite_version()})"),
        Found("psycopg", True, f"{psycopg.__version__}, libpq {psycopg.pq.version()}"),
        _postgres(),
        *(_program(name, *words) for name, words in PROGRAMS.items()),
        _engine(),
    ]


def sqlite_version() -> str:
    """Of the SQLite that Python itself was built with."""
    return sqlite3.sqlite_version


def _postgres() -> Found:
    name = f"PostgreSQL {DEFAULT_MAJOR} for the demo"
    here = installed_programs()
    if here is not None and _ask([str(here / "postgres"), "--version"]):
        return Found(name, True, str(here))
    if missing := missing_libraries():
        says = f"it loads {', '.join(missing)}; {advice_on_libraries(missing)}"
        return Found(name, False, says)
    if here is not None:
        return Found(name, False, f"{here}/postgres does not run")
    release = RELEASES[DEFAULT_MAJOR][0]
    return Found(name, False, f"the demo fetches {release} from the package index once")


def _program(name: str, needed_for: str, install: str) -> Found:
    path = shutil.which(name) or shutil.which(name, path=PLACES)
    if path is None:
        return Found(name, False, f"{needed_for}; {install}")
    return Found(name, True, _version(Path(path)))


def _version(program: Path) -> str:
    argument = "version" if program.name == "pulumi" else "--version"
    said = _ask([str(program), argument])
    return said.splitlines()[0] if said else str(program)


def _engine() -> Found:
    docker = shutil.which("docker")
    said = _ask([docker, "version", "--format", "{{.Server.Version}}"]) if docker else ""
    if said:
        return Found("Docker engine", True, said.strip())
    return Found("Docker engine", False, "`make up` provisions a stage; start it, or install one")


def _ask(command: list[str]) -> str:
    """What a program prints; '' where it fails or takes too long."""
    try:
        done = subprocess.run(  # noqa: S603 - a program found by its name, with fixed arguments
            command, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
