"""The command line ``migration-job``: one program, also the image's entry point.

Each command lives in its own module under ``migration_job.commands`` and registers itself.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from migration_job import __version__, configuration, last_resort
from migration_job.errors import ExitStatus, JobError, without_secrets
from migration_job.log_format import VARIABLE, LogFormat, choose, line

if TYPE_CHECKING:
    app: typer.Typer
    """The whole program, made when first asked for."""

COMMANDS = {
    "inspect": "inspect",
    "migrate": "migrate",
    "fleet": "fleet",
    "fleet-check": "fleet",
    "fleet-sync": "fleet_live",
    "fleet-status": "fleet_live",
    "fleet-switch": "fleet_live",
    "fleet-rollback": "fleet_live",
    "fleet-hold": "fleet_live",
    "fleet-resume": "fleet_live",
    "fleet-settle": "fleet_live",
    "verify": "verify",
    "restore-backup": "backup",
    "check-target": "check_target",
    "doctor": "doctor",
    "dashboard": "dashboard",
    "demo": "demo",
    "switch": "switch",
    "rollback": "rollback",
    "sync": "sync",
    "hold": "hold",
    "resume": "hold",
    "gate": "gate",
    "status": "status",
    "settle": "settle",
    "upgrade": "upgrade",
    "release": "release",
}
"""Each command and its module."""

OVERVIEW = frozenset({"-h", "--help", "--version"})
"""Arguments that need no command."""

PANELS = {
    "Look": ("inspect", "check-target", "doctor", "status", "dashboard", "demo", "version"),
    "Move": ("migrate", "fleet", "sync", "switch", "gate", "hold", "resume", "upgrade"),
    "Live fleets": (
        "fleet-sync",
        "fleet-status",
        "fleet-switch",
        "fleet-rollback",
        "fleet-hold",
        "fleet-resume",
        "fleet-settle",
    ),
    "Prove": ("verify", "fleet-check"),
    "Go back, or stay": ("rollback", "release", "settle", "restore-backup"),
}
"""The commands as `--help` groups them."""


def _program_of_nothing() -> typer.Typer:
    return typer.Typer(
        name="migration-job",
        help="Takes a SQLite database to PostgreSQL behind PgBouncer, and back, "
        "without a lost write.",
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
        pretty_exceptions_enable=False,
    )


def build(only: str | None = None) -> typer.Typer:
    """The program; with ``only``, a program of that one command. Importing all of them takes about
    a second, which a run that needs one would spend for nothing."""
    program = _program_of_nothing()
    for module in dict.fromkeys(COMMANDS[name] for name in (COMMANDS if only is None else (only,))):
        importlib.import_module(f"migration_job.commands.{module}").register(program)
    return _completed(program)


def overview() -> typer.Typer:
    """The program as ``--help`` needs it: the commands' names and descriptions, read from their
    modules' text, since importing them all takes most of a second."""
    program = _program_of_nothing()
    for name, module in COMMANDS.items():
        program.command(name, help=_description(name, module))(_overview)
    return _completed(program)


def _completed(program: typer.Typer) -> typer.Typer:
    panel_of = {name: panel for panel, names in PANELS.items() for name in names}
    program.callback()(_program)
    program.command()(version)
    for command in program.registered_commands:
        name = str(command.name or getattr(command.callback, "__name__", ""))
        command.rich_help_panel = panel_of.get(name)
        whole = command.help or inspect.getdoc(command.callback) or ""
        # Else a line of the help ends where one of the docstring does.
        paragraphs = [" ".join(paragraph.split()) for paragraph in whole.split("\n\n")]
        command.help, command.short_help = "\n\n".join(paragraphs), paragraphs[0]
    return program


def _overview() -> None:
    """In the place of a command: the overview runs none."""


def _description(name: str, module: str) -> str:
    tree = ast.parse((Path(__file__).parent / "commands" / f"{module}.py").read_bytes())
    function = name.replace("-", "_")
    found = (
        ast.get_docstring(node)
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name == function
    )
    return next(found) or ""


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"migration-job {__version__}")
        raise typer.Exit


def _program(
    log_format: Annotated[
        LogFormat | None,
        typer.Option(
            help="`json` for one object a line (time, level, message), for log collectors; "
            f"{VARIABLE} in the environment does the same."
        ),
    ] = None,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version and end."
        ),
    ] = False,
) -> None:
    """A callback also keeps the commands named, however few there are."""
    if log_format is not None:
        choose(log_format)


def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def __getattr__(name: str) -> typer.Typer:
    if name == "app":
        return build()
    raise AttributeError(name)


def main() -> NoReturn:
    """Run the command line. A foreseen end prints its sentence and advice, nothing else; an
    unforeseen one a sentence with the file that holds the rest, and which side serves."""
    # Models are what they are whatever else is installed here, and looking for what might change
    # them takes longer than planning a small file.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    asked = sys.argv[1] if len(sys.argv) > 1 else ""
    try:
        if OVERVIEW.issuperset(sys.argv[1:]) and not _completing() and not _configured():
            overview()()
        alone = asked in COMMANDS and not _configured()
        program = build(asked if alone else None)
        if asked in COMMANDS:
            # A table of options cuts their names where the terminal is narrow.
            program.rich_markup_mode = None
        command = typer.main.get_command(program)
        command(default_map=configuration.defaults(command, Path.cwd(), sys.argv[1:]))
    except JobError as error:
        sys.stderr.write(line(without_secrets(f"error: {error}")) + "\n")
        sys.exit(int(error.status))
    except Exception as error:
        said = last_resort.sentence(error, sys.argv[1:], _serves)
        sys.stderr.write(line(without_secrets(said)) + "\n")
        sys.exit(int(ExitStatus.UNEXPECTED))
    sys.exit(int(ExitStatus.DONE))


def _completing() -> bool:
    """Whether a shell asks for completions, which are the commands' own."""
    return any(name.endswith("_COMPLETE") for name in os.environ)


def _configured() -> bool:
    """Whether a file of options stands here: checking its names takes all commands."""
    return (Path.cwd() / configuration.NAME).exists()


def _serves(source: Path) -> str:
    """Which side serves, by the SQLite file's own word."""
    from migration_job.stores.sqlite import fence
    from migration_job.stores.sqlite.database import looking

    with looking(source) as connection:
        state = fence.read_state(connection)
    if state is None:
        return ""
    return f"{'PostgreSQL' if state.closed else 'SQLite'} serves, as {source} says"
