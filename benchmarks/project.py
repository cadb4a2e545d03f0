"""This project's own job, run as its operator runs it: as a command, its report read afterwards."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.lab import Timing, run_timed
from migration_job.protocol.settings import Endpoints, endpoints

ROOT = Path(__file__).resolve().parent.parent

ENVIRONMENT = {"PYTHONPATH": os.fspath(ROOT), "PYTHONDONTWRITEBYTECODE": ""}
"""Python keeps what it has compiled, as it does unless told not to."""


@dataclass(frozen=True, slots=True)
class Migrated:
    """One whole run: its timing, and the seconds of its phases by the report."""

    timing: Timing
    phases: dict[str, float]
    rows: int


def migrate(
    source: Path,
    dsn: str,
    *,
    profile: str = "none",
    policy: Path | None = None,
    schema: str = "planned",
) -> Migrated:
    """``migration-job migrate``, start of the interpreter and report included.

    Raises CommandFailed where it does not end with 0, so with a certificate.
    """
    folder = Path(tempfile.mkdtemp(prefix="bench-report-"))
    try:
        timing = run_timed(
            [
                *(sys.executable, "-m", "migration_job", "migrate", os.fspath(source)),
                *("--report", os.fspath(folder), "--profile", profile),
                *("--target", dsn, "--schema", schema),
                *(() if policy is None else ("--policy", os.fspath(policy))),
            ],
            env=ENVIRONMENT,
        )
        report = json.loads((folder / "report.json").read_bytes())
    finally:
        shutil.rmtree(folder)
    rows = sum(table["target_rows"] for table in report["tables"].values())
    return Migrated(timing, {k: float(v) for k, v in report["seconds"].items()}, rows)


def without_pooler(source: Path, dsn: str, folder: Path) -> Endpoints:
    """The two sides for ``switch`` where no application looks at the connection in ``folder``."""
    told = folder / "application.json"
    told.write_text(json.dumps({"host": "h", "database": "d", "user": "u", "password": "p"}))
    return endpoints(
        source,
        dsn,
        connection=folder / "connection",
        connect_to=told,
        console=None,
        alias_file=None,
    )
