"""One ``verify``: the source as it is now against a target that a run has filled."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
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
    take_snapshot,
    with_check,
)
from migration_job.errors import InputError, OperationError, VerificationError
from migration_job.phases import Phase
from migration_job.plan.chosen import left_out, narrowed
from migration_job.plan.model import Plan
from migration_job.plural import counted, either
from migration_job.progress import Reporter
from migration_job.report.context import make_folder, now, reported
from migration_job.report.exceptions import with_exceptions
from migration_job.report.model import Certificate, Report, TableReport
from migration_job.signals import stopped_by_signals
from migration_job.stores.postgres import database, pair_identity, records, untouched
from migration_job.stores.sqlite import capture, fence
from migration_job.stores.sqlite.catalogue import read_catalogue
from migration_job.stores.sqlite.model import ROWID_NAMES, Catalogue
from migration_job.stores.sqlite.snapshot import Snapshot
from migration_job.values import fold
from migration_job.verify.application import Demands

ATTEMPTS = 3
"""Snapshots that are taken at most of a source that is written to."""

FOLLOWED_SECONDS = 5.0
"""That a change of the source takes at most to be on the target, while `sync` runs."""

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
            command="verify",
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
        with _told_of_what_serves(run.phase):
            certificate, left = self._at_rest(target, report, run.plan)
        phase = Phase.VERIFIED if run.phase == Phase.COPIED else Phase(run.phase)
        with database.durably(target):
            untouched.keep(target, left)
            records.store_certificate(
                target, certificate.digest, certificate.model_dump_json(), phase
            )
        report.certificate, report.phase, report.outcome = certificate, phase, "verified"
        rows = sum(t.target_rows or 0 for t in report.tables.values())
        report.message = (
            f"{counted(rows, 'row')} in {counted(len(report.tables), 'table')} "
            f"{either(rows, 'is', 'are')} equal on both sides{with_exceptions(report.exceptions)}"
        )

    def _at_rest(
        self, target: psycopg.Connection, report: Report, plan: Plan
    ) -> tuple[Certificate, untouched.Left | None]:
        """Compare the target with a snapshot of the source, and where it has moved on meanwhile
        with another one; the certificate, and what it is given for (None: `sync` writes there, or
        the application). Raises OperationError where
        the target never stood still for long enough."""
        for attempt in range(1, ATTEMPTS + 1):
            began = now()
            taken = take_snapshot(self.source, self.report_folder / FOLDER, self.reporter)
            try:
                position = _position(taken, target)
                if position is not None:
                    _wait_for(target, position)
                left = None if _captured(taken) else untouched.read(target, plan)
                follows = position is not None
                return self._certify(target, report, plan, taken, began, follows=follows), left
            except VerificationError as error:
                if position is None or (records.applied(target) or 0) <= position:
                    raise
                if attempt == ATTEMPTS:
                    raise OperationError(
                        f"the source was written to, and `sync` followed, each time both sides "
                        f"were compared ({ATTEMPTS} times): what differs may be no more than that",
                        advice="run the command when there is less load, or stop `sync` meanwhile; "
                        "the switch compares both sides in full by itself",
                    ) from error
                self.reporter.say("the target has moved on meanwhile; comparing again")
                report.differences, report.difference_count = [], 0
            finally:
                taken.path.unlink(missing_ok=True)
        raise AssertionError("the last attempt returns or raises")

    def _certify(
        self,
        target: psycopg.Connection,
        report: Report,
        plan: Plan,
        taken: Snapshot,
        began: str,
        *,
        follows: bool,
    ) -> Certificate:
        connection = taken.connect()
        try:
            catalogue = read_catalogue(connection)
        finally:
            connection.close()
        _require_same_schema(plan, catalogue)
        catalogue = narrowed(catalogue, plan)
        for table in plan.tables:
            if table.source is not None:
                report.tables[table.source] = TableReport(
                    target=table.target, source_rows=table.rows
                )
        comparison = Comparison(
            plan.without_counts(),
            catalogue,
            taken,
            self.dsn,
            deep=self.deep,
            jobs=self.jobs,
            follows=follows,
        )
        certification = Certification(comparison, target, report, self.reporter)
        found = certification.verify()
        for name, result in found.tables.items():
            report.tables[name].source_rows = result.source_rows
        refuse_differences(found, self.reporter)
        checks = certification.prove_application(self.demands)
        subject = Subject(plan.digest(), taken.digests().content, began)
        certificate = certification.issue(subject, found, checks)
        partial = left_out(plan)
        return with_check(certificate, "partial", partial) if partial else certificate


@contextlib.contextmanager
def _told_of_what_serves(phase: str) -> Iterator[None]:
    """Once PostgreSQL serves, what differs is no reason to run `migrate` again."""
    try:
        yield
    except VerificationError as error:
        if phase in (Phase.SWITCHED, Phase.SETTLED):
            error.advice = (
                "both sides are as they were, and PostgreSQL serves: verify.html lists what "
                "differs; `migration-job status` tells what SQLite has yet to take back"
            )
        raise


def _captured(taken: Snapshot) -> bool:
    with contextlib.closing(taken.connect()) as connection:
        return capture.installed(connection)


def _position(taken: Snapshot, target: psycopg.Connection) -> int | None:
    """The snapshot's position in the source's log; None where the target does not follow it: there
    is no capture, or PostgreSQL serves."""
    with contextlib.closing(taken.connect()) as connection:
        state = fence.read_state(connection) if capture.installed(connection) else None
        if state is None or state.closed or pair_identity.pair(target) != state.capture:
            return None
        return fence.last_position(connection)


def _wait_for(target: psycopg.Connection, position: int) -> None:
    """Until a ``sync`` that runs has brought the target there. Where none does, the comparison says
    what is missing."""
    deadline = time.monotonic() + FOLLOWED_SECONDS
    while time.monotonic() < deadline:
        applied = records.applied(target)
        if applied is None or applied >= position:
            return
        time.sleep(0.05)


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
