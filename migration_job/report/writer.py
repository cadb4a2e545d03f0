"""``report.json`` and ``report.html``: each written whole or not at all, the JSON first."""

from __future__ import annotations

from pathlib import Path

from migration_job.durable import write_durably
from migration_job.report.html import write_html
from migration_job.report.model import Report

NAME = "report.json"

PAGE = "report.html"


def write(report: Report, folder: Path) -> Path:
    """Replace ``folder/report.json`` atomically and durably, and the page that shows it; returns
    the JSON's path."""
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / NAME
    # It quotes values of the source, so nobody but this user reads it.
    write_durably(final, (report.model_dump_json(indent=2) + "\n").encode(), mode=0o600)
    write_html(report, folder / PAGE)
    return final


def read(folder: Path) -> Report:
    """The report in ``folder``. Raises FileNotFoundError or pydantic's ValidationError."""
    return Report.model_validate_json((folder / NAME).read_bytes())
