"""``report.json`` and ``report.html``: each written whole or not at all, the JSON first.

The page also shows what ``moves.json`` beside it says of this run's switches. A ``verify`` has
files of its own, ``verify.json`` and ``verify.html``: what `migrate` found stays beside them.
"""

from __future__ import annotations

from pathlib import Path

from migration_job.durable import write_durably
from migration_job.report import moves
from migration_job.report.html import write_html
from migration_job.report.model import STEMS, Command, Move, Report


def name(command: Command) -> str:
    """The file of that command's report."""
    return f"{STEMS[command]}.json"


def page(command: Command) -> str:
    """The page that shows it."""
    return f"{STEMS[command]}.html"


NAME, PAGE = name("migrate"), page("migrate")


def write(report: Report, folder: Path) -> Path:
    """Replace the report's file in ``folder`` atomically and durably, and the page that shows it;
    returns the JSON's path."""
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / name(report.command)
    # It quotes values of the source, so nobody but this user reads it.
    write_durably(final, (report.model_dump_json(indent=2) + "\n").encode(), mode=0o600)
    moved = _moves(folder) if report.command == "migrate" else []
    write_html(report, folder / page(report.command), moves=moved)
    return final


def show(folder: Path) -> None:
    """Write the page again, as after another move; nothing where ``folder`` has no report. Raises
    OSError, or pydantic's ValidationError where the report cannot be read."""
    try:
        report = read(folder)
    except FileNotFoundError:
        return
    write_html(report, folder / PAGE, moves=moves.read(folder))


def _moves(folder: Path) -> list[Move]:
    """Those noted there; a report does not fail for what cannot be read."""
    try:
        return moves.read(folder)
    except (OSError, ValueError):
        return []


def read(folder: Path, command: Command = "migrate") -> Report:
    """The command's report in ``folder``. Raises FileNotFoundError or pydantic's
    ValidationError."""
    return Report.model_validate_json((folder / name(command)).read_bytes())
