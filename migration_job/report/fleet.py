"""What a fleet's run did, as data and as a page: ``fleet.json`` and ``fleet.html``.

The names are a contract with the programs that read the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from migration_job import __version__
from migration_job.durable import write_durably
from migration_job.plural import named
from migration_job.report.html import render
from migration_job.report.model import Part

NAME = "fleet.json"
PAGE = "fleet.html"

WORST_FIRST = ("failed", "stopped", "moving", "planned", "verified")


class FleetFile(Part):
    """One file."""

    path: str
    place: str
    """The schema or database that it goes to; with tenant-column the schema it is verified in."""
    bytes: int
    state: Literal["planned", "moving", "verified", "failed", "stopped"]
    earlier: bool = False
    """Verified by an earlier run, whose certificate is still on the target."""
    listed: bool = True
    """Whether the manifest still names it."""
    plan: int | None = None
    rows: int = 0
    ledger_count: int = 0
    quarantine_count: int = 0
    certificate: str = ""
    exceptions: list[str] = Field(default_factory=list)
    """In what a verified file is not as the source has it, as clauses."""
    exit_status: int = 0
    message: str = ""
    report: str = ""
    """The directory of its own report, inside this one's; '' where it has none."""


class FleetPlan(Part):
    """A plan, and how many files have it."""

    common: bool
    """Whether it is the fleet's; else one of outliers."""
    reason: str
    """In what it is not the common one."""
    files: int
    policy: str
    """Its policy's file, inside the report's directory."""


class FleetCertificate(Part):
    """The sum of the files' certificates; :func:`~migration_job.report.model.sealed`."""

    fleet_id: str
    job_version: str
    layout: str
    files: dict[str, str]
    """Tenant to the digest of its certificate."""
    rows: int
    quarantine_count: int
    ledger_count: int
    exceptions: dict[str, list[str]] = Field(default_factory=dict)
    """Tenant to what its rows are not as in its file, of those where there is something."""
    partial: dict[str, str] = Field(default_factory=dict)
    """Tenant to the tables and rows that its policy leaves on the source."""
    durable: bool
    """Whether every file's was issued by a server that keeps what it commits."""
    issued_at: str
    digest: str = ""


class FleetReport(Part):
    """The content of ``fleet.json``."""

    outcome: Literal["verified", "failed"] = "failed"
    message: str = ""
    exit_status: int = 0
    fleet_id: str = ""
    manifest: str = ""
    layout: str = ""
    target: str = ""
    job_version: str = ""
    began_at: str = ""
    ended_at: str = ""
    seconds: dict[str, float] = Field(default_factory=dict)
    stopped_in: str = ""
    """As in :class:`~migration_job.report.model.Report`."""
    plans: dict[int, FleetPlan] = Field(default_factory=dict)
    files: dict[str, FleetFile] = Field(default_factory=dict)
    """By tenant."""
    certificate: FleetCertificate | None = None

    def count(self, state: str) -> int:
        """How many files that the manifest names are in that state."""
        return sum(f.state == state for f in self.files.values() if f.listed)


def write(report: FleetReport, folder: Path) -> None:
    """Replace ``folder/fleet.json`` atomically and durably, and the page that shows it."""
    # They quote values of the sources, so nobody but this user reads them.
    text = report.model_dump_json(indent=2) + "\n"
    write_durably(folder / NAME, text.encode(), mode=0o600)
    write_durably(folder / PAGE, _page(report).encode(), mode=0o600)


def _page(report: FleetReport) -> str:
    order = {state: place for place, state in enumerate(WORST_FIRST)}
    files = sorted(report.files.items(), key=lambda item: (order[item[1].state], item[0]))
    listed = sum(f.listed for f in report.files.values())
    excepted = report.outcome == "verified" and any(
        f.exceptions for f in report.files.values() if f.listed
    )
    rows = sum(f.rows for f in report.files.values())
    figures = [
        (f"{listed:,}", named(listed, "file"), ""),
        (f"{report.count('verified'):,}", "verified", "good"),
        (f"{report.count('failed'):,}", "failed", "bad" if report.count("failed") else ""),
        (f"{report.count('stopped'):,}", "stopped", "warn" if report.count("stopped") else ""),
        (f"{rows:,}", named(rows, "row"), ""),
        (f"{len(report.plans):,}", named(len(report.plans), "plan"), ""),
    ]
    return render(
        "fleet.html.j2",
        {
            "report": report,
            "files": files,
            # A run that stopped before it read the manifest knows of no file.
            "figures": figures if files or report.outcome == "verified" else [],
            "version": __version__,
            "outcome": report.outcome + (", with exceptions" if excepted else ""),
            "tone": ("warn" if excepted else "good") if report.outcome == "verified" else "bad",
            "tones": {"failed": "is-bad", "stopped": "is-warn"},
        },
    )
