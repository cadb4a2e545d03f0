"""One ``verify``: the source as it is now against a target that a run has filled."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from migration_job import __version__
from migration_job.certification import (
    Certification,
    Comparison,
    Subject,
    connected,
    refuse_differences,
)
from migration_job.errors import InputError
from migration_job.phases import Phase
from migration_job.plan.model import Plan
from migration_job.progress import Reporter
from migration_job.report.context import make_folder, now, reported
from migration_job.report.model import Certificate, Report, TableReport
from migration_job.signals import stopped_by_signals
from migration_job.stores.postgres import database, records
from migration_job.stores.sqlite import snapshot
from migration_job.stores.sqlite.catalogue import read_catalogue
from migration_job.stores.sqlite.model import ROWID_NAMES, Catalogue
from migration_job.stores.sqlite.snapshot import Snapshot
from migration_job.values import fold
from migration_job.verify.application import Demands

FOLDER = "verify"
"""Where the snapshot to compare with lies meanwhile, inside the report's directory."""


@dataclass(frozen=True, slots=True)
class Recheck:
    """What is to be compared."""

    source: Path
    dsn: str
    report_folder: Path
    reporter: Reporter
    deep: bool
    jobs: int
    demands: Demands = field(default_factory=Demands)

    def run(self) -> Report:
        """Compare, and write the report whatever the end. A target without differences gets a
        certificate of this state; the phase changes only from ``copied`` to ``verified``.

        Raises InputError where the target is of no run, VerificationError where it differs.
        """
        report = Report(
            outcome="failed",
            phase="",
            source=str(self.source.absolute()),
            target=database.describe(self.dsn),
            job_version=__version__,
            began_at=now(),
        )
        make_folder(self.report_folder)
        with (
            reported(report, self.report_folder, self.reporter),
            stopped_by_signals(),
            connected(self.dsn) as target,
        ):
            self._run(target, report)
        return report

    def _run(self, target: psycopg.Connection, report: Report) -> None:
        run = records.read_run(target)
        if run is None:
            raise InputError(
                f"expected a target that `migrate` has filled at {report.target}, found none",
                advice="run `migration-job migrate` first",
            )
        report.run_id, report.phase, report.profile = run.run_id, run.phase, run.plan.profile
        began = now()
        with self.reporter.phase("snapshot"):
            taken = snapshot.take(self.source, self.report_folder / FOLDER)
        try:
            certificate = self._certify(target, report, run.plan, taken, began)
        finally:
            taken.path.unlink(missing_ok=True)
        phase = Phase.VERIFIED if run.phase == Phase.COPIED else Phase(run.phase)
        records.store_certificate(target, certificate.digest, certificate.model_dump_json(), phase)
        report.certificate, report.phase, report.outcome = certificate, phase, "verified"
        rows = sum(t.target_rows or 0 for t in report.tables.values())
        report.message = f"{rows:,} rows in {len(report.tables)} tables are equal on both sides"

    def _certify(
        self, target: psycopg.Connection, report: Report, plan: Plan, taken: Snapshot, began: str
    ) -> Certificate:
        connection = taken.connect()
        try:
            catalogue = read_catalogue(connection)
        finally:
            connection.close()
        _require_same_schema(plan, catalogue)
        for table in plan.tables:
            if table.source is not None:
                report.tables[table.source] = TableReport(
                    target=table.target, source_rows=table.rows
                )
        comparison = Comparison(
            plan.uncounted(), catalogue, taken, self.dsn, deep=self.deep, jobs=self.jobs
        )
        certification = Certification(comparison, target, report, self.reporter)
        found = certification.verify()
        for name, result in found.tables.items():
            report.tables[name].source_rows = result.source_rows
        refuse_differences(found)
        checks = certification.prove_application(self.demands)
        subject = Subject(plan.digest(), taken.digests().content, began)
        return certification.issue(subject, found, checks)


def _require_same_schema(plan: Plan, catalogue: Catalogue) -> None:
    """Raises InputError where a planned table or column is gone from the source."""
    for table in plan.tables:
        if table.source is None:
            continue
        try:
            there = {fold(c.name) for c in catalogue.table(table.source).columns}
        except KeyError:
            there = set()
        planned = {fold(c.source) for c in table.columns if c.source is not None}
        gone = planned - there - set(ROWID_NAMES)
        if gone:
            raise InputError(
                f"expected the schema that was migrated, found {table.source} without "
                f"{', '.join(sorted(gone))}",
                advice="the source's schema has changed since: run `migration-job migrate` again",
            )
