"""``report.json``: written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from migration_job.report.model import Report

NAME = "report.json"


def write(report: Report, folder: Path) -> Path:
    """Replace ``folder/report.json`` atomically and durably; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / NAME
    partial = folder / (NAME + ".partial")
    with partial.open("w", encoding="utf-8") as stream:
        stream.write(report.model_dump_json(indent=2))
        stream.write("\n")
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(final)
    return final


def read(folder: Path) -> Report:
    """The report in ``folder``. Raises FileNotFoundError or pydantic's ValidationError."""
    return Report.model_validate_json((folder / NAME).read_bytes())
