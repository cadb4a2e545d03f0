"""One ``migrate``: from a SQLite file and an empty database to ``verified``.

The order: snapshot, plan, schema and copy, keys and references, verification, certificate. The
source is only read. Everything that the run makes on the target is made after its row in
``migration.run``, so a run that was cut off is recognised by the next, which keeps the tables that
are done where the snapshot and the plan are the same, and otherwise removes what the run made and
starts clean.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import apsw
import psycopg

from migration_job import __version__
from migration_job.errors import (
    BlockedError,
    ExitStatus,
    InputError,
    JobError,
    OperationError,
    VerificationError,
)
from migration_job.phases import Phase, require
from migration_job.plan.model import Finding, Plan
from migration_job.plan.planner import make_plan
from migration_job.plan.policy import Policy, load_policy
from migration_job.plan.profile import load_profile
from migration_job.progress import Reporter
from migration_job.report import writer
from migration_job.report.model import (
    SHOWN_ENTRIES,
    Certificate,
    LedgerItem,
    QuarantineItem,
    Report,
    TableCertificate,
    TableReport,
)
from migration_job.signals import stopped_by_signals, undisturbed
from migration_job.stores.postgres import database, load, records, schema, settings
from migration_job.stores.postgres.tablecopy import Session
from migration_job.stores.sqlite import backup, integrity, snapshot
from migration_job.stores.sqlite.catalogue import read_catalogue
from migration_job.stores.sqlite.memory import staying
from migration_job.stores.sqlite.model import Catalogue
from migration_job.stores.sqlite.snapshot import Snapshot
from migration_job.verify.application import Demands, prove
from migration_job.verify.changed import changed_values
from migration_job.verify.connections import Sides
from migration_job.verify.content import Verification, Verified
from migration_job.verify.quarantine_view import hide_quarantined
from migration_job.workers import default_jobs, run_all

BACKUP = "backup"
"""The folder of the snapshot, inside the report's."""

RUN_FILE = "run.json"

Integrity = concurrent.futures.Future[None]
"""The integrity check of the snapshot; its error is the result's."""

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


class Live(Protocol):
    """What a run with change capture adds to a plain one."""

    def before_snapshot(self, run_id: str) -> None:
        """Install capture on the source; the snapshot must hold its log's position."""

    def adapt(self, plan: Plan, catalogue: Catalogue) -> Plan:
        """The plan as capture needs it (a key for every table)."""

    def position(self, connection: apsw.Connection) -> int:
        """The log's position in the snapshot."""

    def after_copy(self, target: psycopg.Connection, plan: Plan) -> None:
        """Make the target ready to follow; runs before verification."""

    def verified(self, target: psycopg.Connection, position: int) -> None:
        """Have the target follow the source's log from ``position`` on."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a run is asked to do."""

    source: Path
    dsn: str
    report: Path
    profile: str = "none"
    policy: Path | None = None
    deep: bool = False
    jobs: int | None = None
    """Sessions that work side by side; None: :func:`default_jobs`, and two more where it helps."""
    demands: Demands = field(default_factory=Demands)
    """What the application's own queries have to stand before the certificate."""


class Migration:
    """One run. ``report`` is filled as it goes, so that whatever the end there is something true
    to write."""

    def __init__(self, options: Options, reporter: Reporter, live: Live | None = None) -> None:
        self.options = options
        self._jobs = options.jobs or default_jobs()
        self.reporter = reporter
        self.live = live
        self.run_id = ""
        self.report = Report(
            outcome="failed",
            phase="",
            source=str(options.source.absolute()),
            profile=options.profile,
            job_version=__version__,
            began_at=now(),
        )

    def run(self) -> Report:
        """Run to ``verified``. Writes the report whatever the end, then raises the JobError that
        ended the run, if one did."""
        try:
            with stopped_by_signals(), ExitStack() as stack:
                self._run(stack)
        except JobError as error:
            self.report.outcome = "blocked" if isinstance(error, BlockedError) else "failed"
            self.report.message = str(error)
            self.report.exit_status = int(error.status)
            raise
        except BaseException as error:
            self.report.message = f"unexpected: {type(error).__name__}"
            self.report.exit_status = int(ExitStatus.UNEXPECTED)
            raise
        finally:
            self.report.ended_at = now()
            self.report.seconds = dict(self.reporter.seconds)
            self._write()
        return self.report

    def _write(self) -> None:
        try:
            writer.write(self.report, self.options.report)
        except OSError as error:
            raise InputError(
                f"cannot write the report to {self.options.report}: {error.strerror}",
                advice="give a directory that can be written with --report",
            ) from error

    # ------------------------------------------------------------------------------ course

    def _run(self, stack: ExitStack) -> None:
        options, reporter = self.options, self.reporter
        self.report.target = database.describe(options.dsn)
        make_folder(options.report)
        policy = load_policy(options.policy) if options.policy is not None else None
        profile = load_profile(options.profile)
        target = stack.enter_context(connected(options.dsn))
        records.lock(target)
        settings.require_fit(target)
        before = self._claim(target)
        if self.live is not None:
            self.live.before_snapshot(self.run_id)
        with reporter.phase("snapshot"):
            taken = snapshot.take(options.source, options.report / BACKUP)
        pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(max_workers=2))
        everything = self.live is not None or options.deep or taken.bytes <= integrity.FULL_BYTES
        with undisturbed():
            sealed = pool.submit(backup.seal, taken, self.run_id)

        @cache
        def intact() -> Integrity:
            with undisturbed():
                return pool.submit(_check_integrity, taken, everything)

        with reporter.phase("plan"), staying():
            catalogue, plan = self._plan(taken, profile, policy, intact)
        manifest = sealed.result()
        self.report.backup = manifest.model_dump()
        plan_digest = plan.digest()
        done = self._begin(target, before, manifest.content_sha256, plan, plan_digest)
        self._load(target, taken, catalogue, plan, done)
        records.set_phase(target, Phase.COPIED)
        self.report.phase = Phase.COPIED
        if self.live is not None:
            self.live.after_copy(target, plan)
        position = None if self.live is None else self._position(taken)
        certificate = self._verify(
            target, taken, catalogue, plan, plan_digest, manifest.content_sha256, position, intact
        )
        records.store_certificate(
            target, certificate.digest, certificate.model_dump_json(), Phase.VERIFIED
        )
        if self.live is not None and position is not None:
            self.live.verified(target, position)
        self.report.certificate = certificate
        self.report.phase = Phase.VERIFIED
        self.report.outcome = "verified"
        rows = sum(t.target_rows or 0 for t in self.report.tables.values())
        self.report.message = (
            f"{rows:,} rows in {len(self.report.tables)} tables are on the target and verified"
        )

    def _claim(self, target: psycopg.Connection) -> records.RunRow | None:
        """Find out whose target this is, and take up the run's id. Raises InputError for a target
        that is not this run's own."""
        where = database.describe(self.options.dsn)
        remembered = read_run_id(self.options.report)
        run = records.read_run(target)
        if run is None:
            records.refuse_foreign(target, where)
            self._take_id(str(uuid.uuid4()))
            return None
        if run.run_id != remembered and run.source_path != str(self.options.source.absolute()):
            raise InputError(
                f"expected an empty database at {where}, found the migration of {run.source_path}",
                advice="give a new, empty database as the target; nothing was changed in this one",
            )
        if run.phase in records.SERVING:
            raise InputError(
                f"expected a target that is not in use, found phase {run.phase!r}: the application "
                "writes there",
                advice="`migration-job rollback` takes it back to SQLite first",
            )
        require(Phase(run.phase), Phase.PREPARED)
        self._take_id(run.run_id)
        self.report.phase = run.phase
        return run

    def _take_id(self, run_id: str) -> None:
        self.run_id = run_id
        self.report.run_id = run_id
        path = self.options.report / RUN_FILE
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps({"run_id": run_id}) + "\n", encoding="utf-8")
        partial.replace(path)

    def _plan(
        self,
        taken: Snapshot,
        profile: Any,
        policy: Policy | None,
        intact: Callable[[], Integrity],
    ) -> tuple[Catalogue, Plan]:
        """The plan, every value tried; ``intact`` begins the integrity check and gives it. Raises
        BlockedError where the policy does not allow the plan, and InputError first where the source
        is damaged."""
        connections = [taken.connect() for _ in range(self._jobs)]
        try:
            catalogue = read_catalogue(connections[0])
            plan = make_plan(
                connections[0],
                catalogue,
                profile=profile,
                policy=policy,
                others=connections[1:],
                # What is left of the planning keeps one core busy at most.
                observed=intact,
            )
        except Exception:
            intact().result()  # a damaged source explains most surprises
            raise
        finally:
            for connection in connections:
                connection.close()
        if self.live is not None:
            plan = self.live.adapt(plan, catalogue)
        self._tell_plan(plan)
        if plan.blocked:
            intact().result()
            first = "; ".join(
                f"{_place(f.table, f.column)}{f.message}" for f in plan.blocked[:SHOWN]
            )
            raise BlockedError(
                f"{len(plan.blocked)} findings stop this migration: {first}",
                advice="`migration-job inspect` shows each with the policy line that settles it; "
                "nothing was written to the target",
            )
        return catalogue, plan

    def _tell_plan(self, plan: Plan) -> None:
        self.report.findings = list(plan.findings)
        for table in plan.tables:
            if table.source is not None:
                self.report.tables[table.source] = TableReport(
                    target=table.target, source_rows=table.rows
                )

    def _begin(
        self,
        target: psycopg.Connection,
        before: records.RunRow | None,
        sha256: str,
        plan: Plan,
        plan_digest: str,
    ) -> set[tuple[str, str]]:
        """Make the target ready; returns the steps that an earlier attempt has done."""
        if before is not None:
            same = (before.snapshot_sha256, before.plan_digest) == (sha256, plan_digest)
            if same:
                done = records.done(target)
                self.reporter.say(f"going on with run {self.run_id}: {len(done)} steps are done")
                records.set_phase(target, Phase.PREPARED)
                return done
            changed = "the source or the plan has changed"
            self.reporter.say(
                f"{changed if before.plan_digest else 'it did not verify'}: starting clean"
            )
            records.drop_everything(target, before)
        records.refuse_foreign(target, database.describe(self.options.dsn))
        records.begin(
            target,
            run_id=self.run_id,
            source_path=str(self.options.source.absolute()),
            snapshot_sha256=sha256,
            plan=plan,
            plan_digest=plan_digest,
            job_version=__version__,
        )
        self.report.phase = Phase.PREPARED
        return set()

    def _load(
        self,
        target: psycopg.Connection,
        taken: Snapshot,
        catalogue: Catalogue,
        plan: Plan,
        done: set[tuple[str, str]],
    ) -> None:
        options = self.options
        refused = schema.create_extensions(target, plan)
        for name, reason in refused.items():
            self.report.findings.append(_without_extension(name, reason))

        beside = load.works_beside(plan, self._jobs)

        def session() -> Session:
            connection = database.connect(options.dsn, purpose="migration-job copy")
            load.tune_session(connection, beside=beside)
            return Session(taken.connect(), connection)

        rows = sum(t.rows for t in plan.tables if (t.target, "rows") not in done)
        try:
            self._build(target, catalogue, plan, done, session, rows)
        except OperationError as error:
            if refused:
                names = " and ".join(f"{name} ({reason})" for name, reason in refused.items())
                error.advice = f"the server lacks the extension {names}. {error.advice}"
            raise

    def _build(
        self,
        target: psycopg.Connection,
        catalogue: Catalogue,
        plan: Plan,
        done: set[tuple[str, str]],
        session: Callable[[], Session],
        rows: int,
    ) -> None:
        options, reporter = self.options, self.reporter
        with reporter.phase("copy", total=rows):
            tasks = load.tasks(plan, catalogue, done, reporter.advance, jobs=self._jobs)
            run_all(tasks, session, options.jobs or load.sessions(tasks, self._jobs))
        with reporter.phase("references"):
            load.tune_session(target)
            schema.add_foreign_keys(target, plan, done)
            run_all(load.foreign_key_tasks(plan, done), session, self._jobs)
            for step, run in (
                ("views", schema.create_views),
                ("after load", schema.run_after_load),
            ):
                if ("", step) not in done:
                    run(target, plan)

    def _position(self, taken: Snapshot) -> int:
        if self.live is None:
            raise AssertionError("only a live run has a position")
        connection = taken.connect()
        try:
            return self.live.position(connection)
        finally:
            connection.close()

    def _verify(
        self,
        target: psycopg.Connection,
        taken: Snapshot,
        catalogue: Catalogue,
        plan: Plan,
        plan_digest: str,
        sha256: str,
        position: int | None,
        intact: Callable[[], Integrity],
    ) -> Certificate:
        """Verify and certify. Raises VerificationError where anything differs, and InputError where
        the source turns out to be damaged."""
        options = self.options
        began = now()
        found = verified(
            plan, catalogue, taken, options.dsn, self.reporter, deep=options.deep, jobs=self._jobs
        )
        tell_verified(self.report, target, plan, found)
        with self.reporter.phase("integrity check"):
            intact().result()
        if found.difference_count:
            records.distrust(target)
        refuse_differences(found)
        checked = prove_application(
            options.demands, taken, plan, target, options.dsn, self.report, self.reporter
        )
        return certify(
            found,
            target,
            run_id=self.run_id,
            plan_digest=plan_digest,
            source=str(options.source.absolute()),
            sha256=sha256,
            position=position,
            deep=options.deep,
            began=began,
            checks=checked,
        )


# ------------------------------------------------------------- parts that `verify` shares


def make_folder(folder: Path) -> None:
    """The report's directory. Raises InputError where it cannot be had."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot make the report's directory {folder}: {error.strerror}",
            advice="give a directory that can be written with --report",
        ) from error


def read_run_id(folder: Path) -> str | None:
    """The run that a report's directory belongs to; None where none has begun."""
    try:
        return str(json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))["run_id"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def verified(
    plan: Plan,
    catalogue: Catalogue,
    taken: Snapshot,
    dsn: str,
    reporter: Reporter,
    *,
    deep: bool,
    jobs: int,
) -> Verified:
    """Compare the target with the snapshot."""

    def sides() -> Sides:
        connection = database.connect(dsn, purpose="migration-job verify")
        return Sides(taken.connect(), connection, plan, catalogue)

    with reporter.phase("verify", total=sum(t.rows for t in plan.tables)):
        return Verification(plan, sides, deep=deep, jobs=jobs).run(reporter.advance)


def tell_verified(report: Report, target: psycopg.Connection, plan: Plan, found: Verified) -> None:
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
    report.tuning = {
        name: str(row[0])
        for name in TUNING
        if (row := target.execute(f"SHOW {name}").fetchone()) is not None
    }


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


def refuse_differences(found: Verified) -> None:
    """Raises VerificationError where verification found any."""
    if not found.difference_count:
        return
    first = "; ".join(f"{_place(d.table, d.column)}{d.message}" for d in found.differences[:SHOWN])
    raise VerificationError(
        f"{found.difference_count} differences between source and target: {first}",
        advice="nothing was switched and the source is untouched; report.json lists them. "
        "Correct the cause on the target and run `migrate` again, which then starts clean",
    )


def prove_application(
    wanted: Demands,
    taken: Snapshot,
    plan: Plan,
    target: psycopg.Connection,
    dsn: str,
    report: Report,
    reporter: Reporter,
) -> dict[str, str]:
    """The application's own queries on the target and on the snapshot, there without the rows in
    quarantine; see :func:`migration_job.verify.application.prove`."""
    if not wanted.checks:
        return {}
    mapped = changed_values(target, plan)
    source = taken.connect()
    try:
        if hidden := hide_quarantined(source, plan):
            reporter.say(
                f"the application's queries are compared without the rows in quarantine, which "
                f"{hidden} table{'' if hidden == 1 else 's'} of the source still "
                f"ha{'s' if hidden == 1 else 've'}"
            )
        return prove(wanted, source, target, dsn, mapped, report, reporter)
    finally:
        source.close()


def certify(
    found: Verified,
    target: psycopg.Connection,
    *,
    run_id: str,
    plan_digest: str,
    source: str,
    sha256: str,
    position: int | None,
    deep: bool,
    began: str,
    checks: dict[str, str] | None = None,
) -> Certificate:
    """The certificate of a verification without differences, with its digest."""
    quarantined = records.quarantined(target)
    fsync = target.execute("SHOW fsync").fetchone()
    version = target.execute("SHOW server_version").fetchone()
    certificate = Certificate(
        run_id=run_id,
        job_version=__version__,
        plan_digest=plan_digest,
        source=source,
        snapshot_sha256=sha256,
        position=position,
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
        checks=checks or {},
        deep=deep,
        target_version=str(version[0]) if version else "",
        durable=fsync is not None and fsync[0] == "on",
        began_at=began,
        issued_at=now(),
    )
    digest = hashlib.sha256(certificate.model_dump_json(exclude={"digest"}).encode()).hexdigest()
    return certificate.model_copy(update={"digest": digest})


@contextmanager
def connected(dsn: str) -> Iterator[psycopg.Connection]:
    """A session whose failures are told as an operator understands them."""
    connection = database.connect(dsn)
    try:
        yield connection
    except psycopg.Error as error:
        raise database.lost(error, "the migration ran") from error
    finally:
        connection.close()


def _check_integrity(taken: Snapshot, everything: bool) -> None:
    connection = taken.connect()
    try:
        integrity.check(connection, full=everything)
    finally:
        connection.close()


def _without_extension(name: str, reason: str) -> Finding:
    return Finding(
        code="extension-not-there",
        severity="warning",
        message=f"the target cannot create the extension {name} ({reason}); nothing in the plan "
        "has needed it",
    )


def _place(table: str | None, column: str | None) -> str:
    if table is None:
        return ""
    return f"{table}.{column}: " if column else f"{table}: "


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
