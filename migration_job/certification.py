"""What a certificate rests on: the steps that ``migrate`` and ``verify`` have in common.

Compare the target with a snapshot, put what was found into the report, refuse differences, run the
application's own queries, issue the certificate.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from migration_job import __version__
from migration_job.errors import VerificationError
from migration_job.plan.model import Plan
from migration_job.plural import counted
from migration_job.progress import Reporter
from migration_job.report.context import now
from migration_job.report.exceptions import exceptions
from migration_job.report.model import (
    SHOWN_ENTRIES,
    Certificate,
    LedgerItem,
    QuarantineItem,
    Report,
    TableCertificate,
    TableReport,
    sealed,
)
from migration_job.stores.postgres import database, records, untouched
from migration_job.stores.sqlite import snapshot
from migration_job.stores.sqlite.model import Catalogue
from migration_job.stores.sqlite.snapshot import Snapshot
from migration_job.verify.application import Demands, Proving, prove
from migration_job.verify.changed import changed_values
from migration_job.verify.connections import Sides
from migration_job.verify.content import Verification, Verified
from migration_job.verify.quarantine_view import hide_quarantined

SHOWN = 3
"""Findings or differences named in the last words; all are in the report."""

TUNING = (
    "server_version",
    "shared_buffers",
    "effective_cache_size",
    "work_mem",
    "maintenance_work_mem",
    "max_connections",
    "wal_level",
    "max_wal_size",
    "checkpoint_timeout",
    "random_page_cost",
    "fsync",
    "full_page_writes",
    "synchronous_commit",
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A snapshot, and the target that has to be equal to it by the plan."""

    plan: Plan
    catalogue: Catalogue
    taken: Snapshot
    dsn: str
    deep: bool = False
    """Compare every value one by one, besides the digests."""
    jobs: int = 1
    """Connections to each side that work side by side."""
    follows: bool = False
    """Whether the target follows the source's log, and the switch is still to come."""

    def run(self, reporter: Reporter) -> Verified:
        """Compare both sides in full."""
        with reporter.phase("verify", total=sum(t.rows for t in self.plan.tables)):
            verification = Verification(
                self.plan, self._sides, deep=self.deep, jobs=self.jobs, follows=self.follows
            )
            return verification.run(reporter.advance)

    def _sides(self) -> Sides:
        connection = database.connect(self.dsn, purpose="migration-job verify")
        return Sides(self.taken.connect(), connection, self.plan, self.catalogue)


@dataclass(frozen=True, slots=True)
class Subject:
    """What a certificate names: the plan, the snapshot's content, and its position in the log."""

    plan_digest: str
    sha256: str
    began_at: str
    position: int | None = None
    """None: without change capture."""


def take_snapshot(source: Path, folder: Path, reporter: Reporter) -> Snapshot:
    """:func:`snapshot.take` as a phase of the run, with how far it is."""
    done = 0

    def told(count: int) -> None:
        nonlocal done
        before, done = done >> 20, done + count
        reporter.advance((done >> 20) - before)

    total = source.stat().st_size >> 20 if source.is_file() else 0
    with reporter.phase("snapshot", total=total, unit="MiB"):
        return snapshot.take(source, folder, told)


class Certification:
    """One way to a certificate; its steps in their order. ``report`` is filled as it goes, and has
    the run's id and its source already."""

    def __init__(
        self,
        comparison: Comparison,
        target: psycopg.Connection,
        report: Report,
        reporter: Reporter,
    ) -> None:
        self._comparison = comparison
        self._target = target
        self._report = report
        self._reporter = reporter

    def verify(self) -> Verified:
        """Compare, and put what was found, and the run's records, into the report. Differences are
        refused by :func:`refuse_differences` alone."""
        found = self._comparison.run(self._reporter)
        _tell_verified(self._report, self._target, self._comparison.plan, found)
        return found

    def prove_application(self, wanted: Demands) -> dict[str, str]:
        """The application's own queries on the target and on the snapshot, there without the rows
        in quarantine; see :func:`migration_job.verify.application.prove`."""
        if not wanted.checks:
            return {}
        mapped = changed_values(self._target, self._comparison.plan)
        source = self._comparison.taken.connect()
        try:
            if hidden := hide_quarantined(source, self._comparison.plan):
                self._reporter.say(
                    f"the application's queries are compared without the rows in quarantine, which "
                    f"{hidden} table{'' if hidden == 1 else 's'} of the source still "
                    f"ha{'s' if hidden == 1 else 've'}"
                )
            sides = Proving(source, self._target, self._comparison.dsn, mapped)
            with self._reporter.within("application checks"):
                return prove(wanted, sides, self._report, self._reporter)
        finally:
            source.close()

    def issue(self, subject: Subject, found: Verified, checks: dict[str, str]) -> Certificate:
        """The certificate of a verification without differences, with its digest; ``checks`` is
        what :meth:`prove_application` gave."""
        quarantined = records.quarantined(self._target)
        fsync, version = _shown(self._target, ["fsync", "server_version"])
        certificate = Certificate(
            run_id=self._report.run_id,
            job_version=__version__,
            plan_digest=subject.plan_digest,
            source=self._report.source,
            snapshot_sha256=subject.sha256,
            position=subject.position,
            tables={
                name: TableCertificate(
                    rows=result.target_rows,
                    quarantined=quarantined.get(name, 0),
                    compared=result.compared,
                    digest=result.digest,
                )
                for name, result in sorted(found.tables.items())
            },
            ledger_count=found.ledger[0],
            ledger_digest=found.ledger[1],
            quarantine_count=found.quarantine[0],
            quarantine_digest=found.quarantine[1],
            relations=dict(sorted(found.checked.items())),
            checks=checks,
            deep=self._comparison.deep,
            target_version=version,
            durable=fsync == "on",
            began_at=subject.began_at,
            issued_at=now(),
        )
        return sealed(certificate)


def with_check(certificate: Certificate, name: str, said: str) -> Certificate:
    """The certificate with one more check that went well, and what it said."""
    return sealed(certificate.model_copy(update={"checks": {**certificate.checks, name: said}}))


def is_whole(certificate: Certificate) -> bool:
    """Whether its digest is that of what it says."""
    return sealed(certificate).digest == certificate.digest


def refuse_differences(found: Verified, reporter: Reporter) -> None:
    """Raises VerificationError where verification found any: that is where the run stopped."""
    if not found.difference_count:
        return
    first = "; ".join(f"{place(d.table, d.column)}{d.message}" for d in found.differences[:SHOWN])
    with reporter.within("verify"):
        raise VerificationError(
            f"{counted(found.difference_count, 'difference')} between source and target: {first}",
            advice="nothing was switched and the source is untouched; the report lists them. "
            "Correct the cause on the target and run `migrate` again, which then starts clean",
        )


def _tell_verified(report: Report, target: psycopg.Connection, plan: Plan, found: Verified) -> None:
    """Put what verification found, and the run's records, into the report."""
    quarantined = records.quarantined(target)
    for table in plan.tables:
        if table.source is None:
            continue
        entry = report.tables.setdefault(table.source, TableReport(target=table.target))
        entry.quarantined_rows = quarantined.get(table.source, 0)
        result = found.tables.get(table.source)
        if result is not None:
            entry.target_rows = result.target_rows
            entry.compared = result.compared
            entry.digest = result.digest
        entry.differences = found.by_table.get(table.source, 0)
    report.differences = found.differences[:SHOWN_ENTRIES]
    report.difference_count = found.difference_count
    _tell_ledger(report, target)
    _tell_quarantine(report, target)
    report.exceptions = exceptions(plan, report.quarantine_count)
    report.tuning = dict(zip(TUNING, _shown(target, TUNING), strict=True))


def _shown(target: psycopg.Connection, names: Sequence[str]) -> list[str]:
    """The values of settings, as SHOW gives them."""
    query = (
        "SELECT current_setting(n) FROM unnest(%s::text[]) WITH ORDINALITY AS x(n, i) ORDER BY i"
    )
    return [str(row[0]) for row in target.execute(query, (list(names),))]


def _tell_ledger(report: Report, target: psycopg.Connection) -> None:
    report.ledger = [
        LedgerItem(
            table=e.table,
            key=json.loads(e.key),
            column=e.column,
            rule=e.rule,
            before=json.loads(e.before),
            after=e.after,
        )
        for e in records.ledger(target, SHOWN_ENTRIES)
    ]
    report.ledger_count = records.count(target, "ledger")
    for name, count in target.execute("SELECT tab, count(*) FROM migration.ledger GROUP BY tab"):
        if name in report.tables:
            report.tables[name].ledger_entries = count


def _tell_quarantine(report: Report, target: psycopg.Connection) -> None:
    report.quarantine = [
        QuarantineItem(
            table=e.table,
            key=json.loads(e.key),
            column=e.column,
            reason=e.reason,
            row=json.loads(e.row),
        )
        for e in records.quarantine(target, SHOWN_ENTRIES)
    ]
    report.quarantine_count = records.count(target, "quarantine")


def left_on(target: psycopg.Connection, comparison: Comparison) -> untouched.Left:
    """What the certificate is given for, read by as many sessions as compare. To be called before
    they do: what is written from then on is not certified."""
    with ExitStack() as stack:
        others = [
            stack.enter_context(connected(comparison.dsn)) for _ in range(comparison.jobs - 1)
        ]
        return untouched.read(target, comparison.plan, others)


@contextmanager
def connected(dsn: str, *, only_read: bool = False) -> Iterator[psycopg.Connection]:
    """A session whose failures are told as an operator understands them: of a run that goes on
    where it stopped, or with ``only_read`` of a look that changes nothing."""
    connection = database.connect(dsn)
    try:
        yield connection
    except psycopg.Error as error:
        if only_read:
            raise database.unread(error) from error
        raise database.lost(error, "the migration ran") from error
    finally:
        connection.close()


def place(table: str | None, column: str | None) -> str:
    """Where a finding or a difference is, to stand before its message."""
    if table is None:
        return ""
    return f"{table}.{column}: " if column else f"{table}: "
