"""What ``make status`` says of a stage that moves a fleet: from the manifest, the last run's report
and the connection, all on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from infra import fleet_files
from infra.errors import StageError
from infra.fleet import REPORT
from infra.stage_paths import Paths
from migration_job.connection import PostgresSide, read_connection
from migration_job.fleet.matching import matching
from migration_job.plan.findings import some
from migration_job.plural import counted
from migration_job.report.fleet import PAGE, FleetReport

SHOWN = 10
"""Files that are not verified, with a line each; the report has all."""

CUT_OFF = (
    "unfinished  the last `make up` did not move all files: nobody is admitted to the schema of "
    "one whose move has begun and not ended"
)


def lines(where: Paths) -> list[str]:
    """The lines; StageError or InputError where manifest or report cannot be read."""
    names = matching(fleet_files.require(where.source).files, where.source.parent)
    report = _report(where.report / REPORT)
    if report is None or not (where.job / fleet_files.MARK).exists():
        return [
            "serves      SQLite: nothing of this stage is there",
            f"fleet       {counted(len(names), 'file')} of {where.source}",
            "next        `make up`",
        ]
    unfinished = (where.job / fleet_files.UNFINISHED).exists()
    connection = read_connection(where.connection)
    is_open = connection is not None and isinstance(connection.write, PostgresSide)
    return [
        "serves      " + ("PostgreSQL: PgBouncer admits the applications" if is_open else "SQLite"),
        *_files(names, report, where),
        *([CUT_OFF] if unfinished else []),
        f"report      {where.report / PAGE}",
        *([f"connection  {where.connection}"] if is_open else []),
        f"next        {_next(names, report, where, is_open=is_open, unfinished=unfinished)}",
    ]


def _report(path: Path) -> FleetReport | None:
    try:
        return FleetReport.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StageError(
            f"expected the fleet's last report in {path}, found none to read: "
            f"{str(error).splitlines()[0]}",
            advice="run as the manifest's owner or as root; `make up` writes it again",
        ) from error


def _files(names: list[str], report: FleetReport, where: Paths) -> Iterator[str]:
    listed = {tenant: file for tenant, file in report.files.items() if file.listed}
    states = sorted({file.state for file in listed.values()})
    told = ", ".join(f"{report.count(state):,} {state}" for state in states) or "none looked at"
    yield f"fleet       {counted(len(listed), 'file')} of {where.source}: {told}"
    left = [(tenant, file) for tenant, file in listed.items() if file.state != "verified"]
    for tenant, file in left[:SHOWN]:
        yield f"            {tenant}: {(file.message or file.state).splitlines()[0]}"
    if len(left) > SHOWN:
        yield f"            and {len(left) - SHOWN:,} more"
    if since := _since(names, report, where):
        yield f"since       {some(since)}: new, or written to since the last run"


def _since(names: list[str], report: FleetReport, where: Paths) -> list[str]:
    """Files that the last run has not seen as they are."""
    began = datetime.fromisoformat(report.began_at).timestamp()
    known = {file.path for file in report.files.values()}
    folder = where.source.parent
    return [
        name
        for name in names
        if str(folder / name) not in known or fleet_files.written_at(folder / name) > began
    ]


def _next(
    names: list[str], report: FleetReport, where: Paths, *, is_open: bool, unfinished: bool
) -> str:
    if unfinished or report.outcome != "verified" or _since(names, report, where):
        return "`make up` moves what is left"
    if is_open:
        return "nothing: all files are moved; `make down` stops where PostgreSQL was written to"
    return "`migration-job switch` lets the applications in"
