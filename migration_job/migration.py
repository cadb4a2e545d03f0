"""One ``migrate``: from a SQLite file and an empty database to ``verified``.

The order: snapshot, plan, schema and copy, keys and references, verification, certificate. The
source is only read. Everything that the run makes on the target is made after its row in
``migration.run``, so a run that was cut off is recognised by the next, which keeps the tables that
are done where the snapshot and the plan are the same, and otherwise removes what the run made and
starts clean.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import apsw
import psycopg

from migration_job import __version__
from migration_job.application_proof import Proof
from migration_job.certification import (
    SHOWN,
    Certification,
    Comparison,
    Subject,
    connected,
    left_on,
    place,
    refuse_differences,
    take_snapshot,
    with_check,
)
from migration_job.durable import write_durably
from migration_job.errors import BlockedError, InputError, JobError, OperationError
from migration_job.loading import Loading
from migration_job.phases import Phase, require
from migration_job.place import schema_of
from migration_job.plan.chosen import left_out, narrowed
from migration_job.plan.findings import some
from migration_job.plan.generous import types_taken
from migration_job.plan.model import Plan
from migration_job.plan.onto import Source, plan_onto
from migration_job.plan.planner import make_plan
from migration_job.plan.policy import Policy
from migration_job.plan.profile import load_profile
from migration_job.plan.shape import differences, shape_of
from migration_job.plan.virtual import of_misfits
from migration_job.plural import counted, counted_doing, either
from migration_job.progress import Reporter
from migration_job.report.context import make_folder, now, reported
from migration_job.report.exceptions import with_exceptions
from migration_job.report.model import Certificate, Report, TableReport
from migration_job.run_request import Options, Planned
from migration_job.signals import stopped_by_signals, undisturbed
from migration_job.stores.postgres import (
    citus,
    database,
    existing,
    proof,
    records,
    runlock,
    settings,
    untouched,
)
from migration_job.stores.postgres.target import read_schema
from migration_job.stores.postgres.trial import trial_on
from migration_job.stores.sqlite import backup, integrity
from migration_job.stores.sqlite.catalogue import read_catalogue
from migration_job.stores.sqlite.memory import staying
from migration_job.stores.sqlite.model import Catalogue
from migration_job.stores.sqlite.search_indexes import Misfit
from migration_job.stores.sqlite.snapshot import Snapshot
from migration_job.workers import default_jobs, sessions_for

BACKUP = "backup"
"""The folder of the snapshot, inside the report's."""

RUN_FILE = "run.json"

Integrity = concurrent.futures.Future[tuple[float, tuple[Misfit, ...]]]
"""The integrity check of the snapshot: the seconds that it took, and the search indexes that do not
fit their rows; its error is the result's."""


class Live(Protocol):
    """What a run with change capture adds to an offline one."""

    def before_snapshot(self, run_id: str, tell: Callable[[Plan], None]) -> None:
        """Install capture on the source; the snapshot must hold its log's position. ``tell`` is
        given the first plan, whatever comes of it."""

    def adapt(self, plan: Plan, catalogue: Catalogue) -> Plan:
        """The plan as capture needs it (a key for every table)."""

    def position(self, connection: apsw.Connection) -> int:
        """The log's position in the snapshot."""

    def after_copy(self, source: apsw.Connection, target: psycopg.Connection, plan: Plan) -> None:
        """Make the target ready to follow; runs before verification. ``source`` is the snapshot."""

    def verified(self, target: psycopg.Connection, position: int) -> None:
        """Have the target follow the source's log from ``position`` on."""


@contextmanager
def _cut_off_undone(target: psycopg.Connection, before: records.RunRow | None) -> Iterator[None]:
    """Where there is no plan to go on with, take back what a run that was cut off has left in the
    application's own tables."""
    try:
        yield
    except JobError as error:
        loading = before is not None and before.phase in (Phase.PREPARED, Phase.COPIED)
        if before is not None and loading and before.plan.existing and not target.closed:
            told = (
                "What an earlier run had loaded before it was interrupted is removed: the target "
                "is as it was before that run"
            )
            existing.undo_after(error, target, before.plan, told)
        raise


class Migration:
    """One run. ``report`` is filled as it goes, so that whatever the end there is something true
    to write."""

    def __init__(self, options: Options, reporter: Reporter, live: Live | None = None) -> None:
        self.options = options
        self._jobs = self._sessions = options.jobs or default_jobs()
        self.reporter = reporter
        self.live = live
        self.run_id = ""
        self._target: psycopg.Connection
        self._full_check = True
        self._left: untouched.Left | None = None
        """What the certificate is given for; None where `sync` writes to the target later."""
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
        with (
            reported(self.report, self.options.report, self.reporter),
            stopped_by_signals(),
            ExitStack() as stack,
        ):
            self._run(stack)
        return self.report

    # ------------------------------------------------------------------------------ course

    def _run(self, stack: ExitStack) -> None:
        options, reporter = self.options, self.reporter
        self.report.target = database.describe(options.dsn)
        make_folder(options.report)
        policy = options.chosen()
        profile = load_profile(options.profile)
        target = stack.enter_context(connected(options.dsn))
        if options.jobs is None:
            self._sessions = sessions_for(self._jobs, database.round_trip(target))
        for told in runlock.lock_within(target, options.busy_seconds):
            reporter.say(told)
        settings.require_fit(target)
        citus.refuse(target, enabled=policy is not None and citus.FEATURE in policy.enable)
        if options.existing:
            existing.silence(target)
        if options.proof is not None:
            proof.require(target, options.dsn)
        before = self._claim(target)
        if self.live is not None:
            with reporter.within("start of change capture"):
                self.live.before_snapshot(self.run_id, self._tell_plan)
        taken = take_snapshot(options.source, options.report / BACKUP, reporter)
        pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(max_workers=2))
        self._full_check = (
            self.live is not None or options.deep or taken.bytes <= integrity.FULL_BYTES
        )
        with undisturbed():
            kept = backup.Backup(pool, taken, self.run_id)
        stack.callback(kept.stop)

        @cache
        def intact() -> Integrity:
            with undisturbed():
                return pool.submit(_check_integrity, taken, self._full_check)

        with reporter.phase("plan"), staying(), _cut_off_undone(target, before):
            catalogue, plan = self._plan(target, taken, profile, policy, intact)
        manifest = kept.sealed()
        self.report.backup = manifest.model_dump()
        planned = Planned(taken, manifest.content_sha256, catalogue, plan, plan.digest())
        self._target = target
        with self._undone_by_failure(plan):
            certificate, position = self._fill(target, planned, before, intact)
            certificate = _with_choices(certificate, plan)
            if options.proof is not None:
                certificate = self._prove(stack, options.proof, certificate)
            self._finish_backup(kept)
            target, text = self._target, certificate.model_dump_json()
            with database.durably(target):
                untouched.keep(target, self._left)
                records.store_certificate(target, certificate.digest, text, Phase.VERIFIED)
        if self.live is not None and position is not None:
            self.live.verified(target, position)
        self.report.certificate = certificate
        self.report.phase = Phase.VERIFIED
        self.report.outcome = "verified"
        self.report.message = _last_words(self.report)

    def _fill(
        self,
        target: psycopg.Connection,
        planned: Planned,
        before: records.RunRow | None,
        intact: Callable[[], Integrity],
    ) -> tuple[Certificate, int | None]:
        """Load and certify; the certificate, and with capture the log's position."""
        loading = Loading(
            self.options, planned, self.reporter, self.report, self._jobs, self._sessions
        )
        try:
            done = loading.begin(target, self.run_id, before)
            loading.run(target, done)
        except OperationError:
            intact().result()  # pages in each other's places give keys that no index allows
            raise
        records.set_phase(target, Phase.COPIED)
        self.report.phase = Phase.COPIED
        if self.live is not None:
            with contextlib.closing(planned.taken.connect()) as source:
                self.live.after_copy(source, target, planned.plan)
        position = None if self.live is None else self._position(planned.taken)
        return self._certify(target, planned, position, intact), position

    def _finish_backup(self, kept: backup.Backup) -> None:
        """Have the compressed backup take the snapshot's place: nothing reads that any more."""
        with self.reporter.phase("end of the backup's compression"):
            manifest, told = kept.finish()
        self.report.backup = manifest.model_dump()
        if told:
            self.reporter.say(told)
        else:
            self.reporter.ran_beside("compression of the backup", kept.seconds)

    def _prove(self, stack: ExitStack, wanted: Proof, certificate: Certificate) -> Certificate:
        """Have the application prove itself on a copy of the target, and the certificate say so. A
        copy is to be had only while nobody is connected, this run included."""
        self._target.close()
        try:
            with self.reporter.phase("the application's proof"):
                said = proof.prove(self.options.dsn, wanted, self.run_id, self.reporter.say)
        finally:
            self._target = stack.enter_context(connected(self.options.dsn))
            runlock.lock(self._target)
            if self.options.existing:
                existing.silence(self._target)
        return with_check(certificate, "proof", said)

    @contextmanager
    def _undone_by_failure(self, plan: Plan) -> Iterator[None]:
        """Give the application's own tables back as they were where the load fails; what this
        cannot do, the next run does first."""
        try:
            with database.lost_while("the migration ran"):
                yield
        except BaseException as error:
            target = self._target
            run = None if target.closed or not plan.existing else records.read_run(target)
            if run is not None:
                told = "The target is as it was before the run"
                existing.undo_after(error, target, run.plan, told)
            raise

    def _claim(self, target: psycopg.Connection) -> records.RunRow | None:
        """Find out whose target this is, and take up the run's id. Raises InputError for a target
        that is not this run's own."""
        where = database.describe(self.options.dsn)
        remembered = read_run_id(self.options.report)
        run = records.read_run(target)
        if run is None:
            if self.options.existing:
                records.refuse_records(target, where)
            else:
                records.refuse_foreign(target, where)
            self._take_id(str(uuid.uuid4()))
            return None
        if run.run_id != remembered and run.source_path != str(self.options.source.absolute()):
            raise InputError(
                f"expected an empty database at {where}, found the migration of {run.source_path}",
                advice="give a new, empty database as the target; nothing was changed in this one",
            )
        if run.plan.existing != self.options.existing:
            kind = {True: "existing", False: "planned"}
            raise InputError(
                f"expected a run with --schema {kind[self.options.existing]} at {where}, found one "
                f"with --schema {kind[run.plan.existing]}",
                advice=f"go on with --schema {kind[run.plan.existing]}, or give another database "
                "as the target; nothing was changed in this one",
            )
        records.refuse_touched(target, run, where)
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
        text = json.dumps({"run_id": run_id}) + "\n"
        write_durably(self.options.report / RUN_FILE, text.encode(), mode=0o600)

    def _plan(
        self,
        target: psycopg.Connection,
        taken: Snapshot,
        profile: Any,
        policy: Policy | None,
        intact: Callable[[], Integrity],
    ) -> tuple[Catalogue, Plan]:
        """The plan, every value tried; ``intact`` begins the integrity check. Raises BlockedError
        where the policy does not allow the plan, and InputError first for a damaged source."""
        connections = [taken.connect() for _ in range(self._jobs)]
        told = self.reporter.at
        try:
            catalogue = read_catalogue(connections[0])
            if self.options.existing:
                there = read_schema(target, profile, policy)
                source = Source(connections[0], catalogue, connections[1:])
                trial = trial_on(target)
                plan = plan_onto(
                    source, there, policy=policy, trial=trial, observed=intact, told=told
                )
            else:
                plan = make_plan(
                    connections[0],
                    catalogue,
                    profile=profile,
                    policy=policy,
                    others=connections[1:],
                    # What is left of the planning keeps one core busy at most.
                    observed=intact,
                    told=told,
                    schema_name=schema_of(self.options.dsn),
                )
        except Exception:
            intact().result()  # a damaged source explains most surprises
            raise
        finally:
            for connection in connections:
                connection.close()
        agreed, plan = plan, plan if self.live is None else self.live.adapt(plan, catalogue)
        self._tell_plan(plan)
        if plan.blocked:
            intact().result()
            raise blocked_by(plan)
        if self.options.shape is not None:  # of the tables without what capture adds
            _require_shape(agreed, self.options.shape)
        return narrowed(catalogue, plan), plan

    def _tell_plan(self, plan: Plan) -> None:
        self.report.findings = list(plan.findings)
        self.report.tables.clear()  # those of a plan before
        for table in plan.tables:
            if table.source is not None:
                self.report.tables[table.source] = TableReport(
                    target=table.target, source_rows=table.rows
                )

    def _position(self, taken: Snapshot) -> int:
        if self.live is None:
            raise AssertionError("only a live run has a position")
        connection = taken.connect()
        try:
            return self.live.position(connection)
        finally:
            connection.close()

    def _certify(
        self,
        target: psycopg.Connection,
        planned: Planned,
        position: int | None,
        intact: Callable[[], Integrity],
    ) -> Certificate:
        """Verify and certify. Raises VerificationError where anything differs, and InputError where
        the source turns out to be damaged."""
        options, began = self.options, now()
        comparison = Comparison(
            planned.plan,
            planned.catalogue,
            planned.taken,
            options.dsn,
            deep=options.deep,
            jobs=self._sessions,
        )
        # Before the comparison: what is written from now on is not certified.
        self._left = None if self.live is not None else left_on(target, comparison)
        certification = Certification(comparison, target, self.report, self.reporter)
        found = certification.verify()
        with self.reporter.phase("end of the integrity check"):
            took, misfits = intact().result()
        self.report.findings += of_misfits(misfits, planned.catalogue, options.chosen())
        self.reporter.ran_beside(integrity.name(full=self._full_check), took)
        if found.difference_count:
            records.distrust(target)
        refuse_differences(found, self.reporter)
        checks = certification.prove_application(options.demands)
        subject = Subject(planned.digest, planned.sha256, began, position)
        return certification.issue(subject, found, checks)


def _with_choices(certificate: Certificate, plan: Plan) -> Certificate:
    """The certificate with what was chosen of types, tables and rows."""
    said = {"types: generous": types_taken(plan), "partial": left_out(plan)}
    for name, words in said.items():
        certificate = with_check(certificate, name, words) if words else certificate
    return certificate


def _last_words(report: Report) -> str:
    rows = sum(t.target_rows or 0 for t in report.tables.values())
    return (
        f"{counted(rows, 'row')} in {counted(len(report.tables), 'table')} "
        f"{either(rows, 'is', 'are')} on the target and "
        f"verified{with_exceptions(report.exceptions)}"
    )


def _require_shape(plan: Plan, expected: str) -> None:
    """Raises BlockedError where the plan makes other tables than those that were agreed on."""
    found = differences(shape_of(plan), json.loads(expected))
    if found:
        raise BlockedError(
            f"expected the fleet's plan for this file, found {some(found)}: it was written to "
            "since its fleet was planned",
            advice="run the fleet again, which plans the file anew; nothing was written to the "
            "target",
        )


def blocked_by(plan: Plan) -> BlockedError:
    """The findings that stop a plan, as the error that they end a run with."""
    first = "; ".join(f"{place(f.table, f.column)}{f.message}" for f in plan.blocked[:SHOWN])
    return BlockedError(
        f"{counted_doing(len(plan.blocked), 'finding', 'stop')} this migration: {first}",
        advice="`migration-job inspect` shows each with the policy line that resolves it; "
        "nothing was written to the target",
    )


def read_run_id(folder: Path) -> str | None:
    """The run that a report's directory belongs to; None where none has begun."""
    try:
        return str(json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))["run_id"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _check_integrity(taken: Snapshot, full: bool) -> tuple[float, tuple[Misfit, ...]]:
    """Check, and give the seconds that it took, with the search indexes that do not fit. Raises
    InputError for a damaged file."""
    began = time.monotonic()
    connection = taken.connect()
    try:
        found = integrity.check(connection, full=full, again=taken.connect)
        return time.monotonic() - began, found
    finally:
        connection.close()
