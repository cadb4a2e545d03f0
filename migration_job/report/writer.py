"""``report.json`` and ``report.html``: each written whole or not at all, the JSON first.

The page also shows what ``moves.json`` beside it says of this run's switches.
"""

from __future__ import annotations

from pathlib import Path

from migration_job.durable import write_durably
from migration_job.report import moves
from migration_job.report.html import write_html
from migration_job.report.model import Move, Report

NAME = "report.json"

PAGE = "report.html"


def write(report: Report, folder: Path) -> Path:
    """Replace ``folder/report.json`` atomically and durably, and the page that shows it; returns
    the JSON's path."""
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / NAME
    # It quotes values of the source, so nobody but this user reads it.
    write_durably(final, (report.model_dump_json(indent=2) + "\n").encode(), mode=0o600)
    write_html(report, folder / PAGE, moves=_moves(folder))
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


def read(folder: Path) -> Report:
    """The report in ``folder``. Raises FileNotFoundError or pydantic's ValidationError."""
    return Report.model_validate_json((folder / NAME).read_bytes())
