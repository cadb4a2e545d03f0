"""The manual page of the command line, ``docs/migration-job.1``, in troff's ``man`` macros."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

import typer.main
from typer.core import TyperGroup

from migration_job.cli import PANELS, app
from migration_job.configuration import NAME
from migration_job.errors import ExitStatus
from migration_job.log_format import VARIABLE

PROGRAM = "migration-job"

ENVIRONMENT = {
    VARIABLE: "json for one object a line, for what collects logs; as --log-format does.",
    "PGHOST, PGHOSTADDR, PGSERVICE, PGDATABASE": "Where PostgreSQL is, without --target and "
    "--target-file; PGPASSFILE, PGSSLROOTCERT and the like are read as libpq reads them.",
    "NO_COLOR": "Where it is set and not empty, nothing is coloured.",
}


def page(statuses: Mapping[ExitStatus, str]) -> Iterator[str]:
    """The page's lines; ``statuses`` are the words for each exit status."""
    program = typer.main.get_command(app)
    assert isinstance(program, TyperGroup)  # noqa: S101  # as it has several commands
    context = typer.Context(program, info_name=PROGRAM)
    yield from (
        '.\\" Written by tools/manual.py from the code; `make docs` writes it again.',
        f'.TH {PROGRAM.upper()} 1 "" "sqlite-to-postgresql" "User Commands"',
        ".SH NAME",
        f"{_text(PROGRAM)} \\- take a SQLite database to PostgreSQL behind PgBouncer, and back",
        ".SH SYNOPSIS",
        f".B {_text(PROGRAM)}",
        "[options]",
        ".I command",
        "[arguments]",
        ".SH DESCRIPTION",
        *_paragraphs(program.help or ""),
        ".SH OPTIONS",
        *_options(program, context),
        ".SH COMMANDS",
    )
    for panel, names in PANELS.items():
        yield f".SS {_text(panel)}"
        for name in names:
            yield from _command(
                program.commands[name], typer.Context(program.commands[name], context, name)
            )
    yield ".SH EXIT STATUS"
    for status in ExitStatus:
        yield from (".TP", f".B {int(status)}", _text(statuses[status]))
    yield ".SH ENVIRONMENT"
    for variable, words in ENVIRONMENT.items():
        yield from (".TP", f".B {_text(variable)}", _text(words))
    yield from (
        ".SH FILES",
        ".TP",
        f".I {_text(NAME)}",
        "Options of the commands, said once, in the directory where they run.",
        ".SH SEE ALSO",
        ".BR sqlite3 (1),",
        ".BR psql (1),",
        ".BR pgbouncer (1)",
    )


def _command(command: Any, context: typer.Context) -> Iterator[str]:
    usage = " ".join(command.collect_usage_pieces(context))
    yield from (".PP", f".B {_text(f'{PROGRAM} {command.name}')}", _text(usage), ".RS")
    yield from _paragraphs(command.help or "")
    yield from _options(command, context)
    yield ".RE"


def _options(command: Any, context: typer.Context) -> Iterator[str]:
    for parameter in command.params:
        record = parameter.get_help_record(context)
        if record is None or "--help" in parameter.opts:
            continue
        yield from (".TP", f".B {_text(record[0])}", _text(record[1].strip() or record[0]))


def _paragraphs(text: str) -> Iterator[str]:
    parts = re.split(r"\n\s*\n", inspect.cleandoc(text).replace("\f", "").strip())
    for number, part in enumerate(parts):
        if number:
            yield ".PP"
        yield _text(" ".join(part.split()))


def _text(text: str) -> str:
    """Text as troff reads it: a dash that stays one, and no line that begins as a request."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("`", "")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped
