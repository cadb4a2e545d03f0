"""The command line ``migration-job``: one program, also the image's entry point.

Each command lives in its own module under ``migration_job.commands`` and registers itself here.
"""

from __future__ import annotations

import sys
from typing import NoReturn

import typer

from migration_job import __version__
from migration_job.commands import (
    backup,
    check_target,
    dashboard,
    demo,
    inspect,
    migrate,
    release,
    rollback,
    settle,
    status,
    switch,
    sync,
    verify,
)
from migration_job.errors import ExitStatus, JobError

app = typer.Typer(
    name="migration-job",
    help="Takes a SQLite database to PostgreSQL behind PgBouncer, and back, without a lost write.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

COMMANDS = (
    inspect,
    migrate,
    verify,
    backup,
    check_target,
    dashboard,
    demo,
    switch,
    rollback,
    sync,
    status,
    settle,
    release,
)
for _module in COMMANDS:
    _module.register(app)


@app.callback()
def _program() -> None:
    """Keep the commands named, however few there are."""


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def main() -> NoReturn:
    """Run the command line; a foreseen end prints its sentence and advice, nothing else."""
    try:
        app()
    except JobError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(int(error.status))
    sys.exit(int(ExitStatus.DONE))
