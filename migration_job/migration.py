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
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import apsw
import psycopg

from migration_job import __version__
from migration_job.certification import (
    SHOWN,
    Certification,
    Comparison,
    Subject,
    connected,
    place,
    refuse_differences,
    with_check,
)
from migration_job.durable import write_durably
from migration_job.errors import BlockedError, InputError, JobError, OperationError
from migration_job.phases import Phase, require
from migration_job.place import records_of, schema_of
from migration_job.plan.generous import decisions
from migration_job.plan.model import Finding, Plan
from migration_job.plan.onto import Source, plan_onto
from migration_job.plan.planner import make_plan
from migration_job.plan.policy import Policy, Types, chosen_policy
from migration_job.plan.profile import load_profile
from migration_job.plural import counted
from migration_job.progress import Reporter
from migration_job.report.context import make_folder, now, reported
from migration_job.report.exceptions import with_exceptions
from migration_job.report.model import Certificate, Report, TableReport
from migration_job.signals import stopped_by_signals, undisturbed
from migration_job.stores.postgres import (
    citus,
    collation,
    database,
    existing,
    load,
    proof,
    records,
    runlock,
    schema,
    settings,
    untouched,
)
from migration_job.stores.postgres.copy_stream import Session
from migration_job.stores.postgres.target import read_schema
from migration_job.stores.postgres.trial import trial_on
from migration_job.stores.sqlite import backup, integrity, snapshot
from migration_job.stores.sqlite.catalogue import read_catalogue
from migration_job.stores.sqlite.memory import staying
from migration_job.stores.sqlite.model import Catalogue
from migration_job.stores.sqlite.snapshot import Snapshot
from migration_job.verify.application import Demands
from migration_job.verify.definitions import read_definitions
from migration_job.workers import default_jobs, run_all, sessions_for

BACKUP = "backup"
"""The folder of the snapshot, inside the report's."""

RUN_FILE = "run.json"

Integrity = concurrent.futures.Future[float]
"""The integrity check of the snapshot: the seconds that it took; its error is the result's."""


class Live(Protocol):
    """What a run with change capture adds to a plain one."""

    def before_snapshot(self, run_id: str) -> None:
        """Install capture on the source; the snapshot must hold its log's position."""

    def adapt(self, plan: Plan, catalogue: Catalogue) -> Plan:
        """The plan as capture needs it (a key for every table)."""

    def position(self, connection: apsw.Connection) -> int:
        """The log's position in the snapshot."""

    def after_copy(self, source: apsw.Connection, target: psycopg.Connection, plan: Plan) -> None:
        """Make the target ready to follow; runs before verification. ``source`` is the snapshot."""

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
    types: Types | None = None
    """Which types are taken; None: those of the policy."""
    deep: bool = False
    jobs: int | None = None
    """Sessions that work side by side; None: :func:`default_jobs`, and two more where it helps."""
    demands: Demands = field(default_factory=Demands)
    """Checks of the application's own queries that must pass before certification."""
    own_collation: bool = False
    """Whether text may compare by the target's own collation, whatever that is."""
    proof: str | None = None
    """A command of the application's own that has to end well on a copy of the target."""
    existing: bool = False
    """Load into the tables that the application has made on the target, and make none."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A snapshot, and what is to be made of it."""

    taken: Snapshot
    sha256: str
    """Of the snapshot's content."""
    catalogue: Catalogue
    plan: Plan
    digest: str
    """Of the plan."""


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
                "What an earlier run had loaded before it was cut off is taken back: the target "
                "is as it was before that run"
            )
            existing.undo_after(error, target, before.plan, told)
        raise


class Migration:
    """One run. ``report`` is filled as it goes, so that whatever the end there is something true
    to write."""

    def __init__(self, options: Options, reporter: Reporter, live: Live | None = None) -> None:
        self.options = options
        self._jobs = options.jobs or default_jobs()
        self._sessions = self._jobs
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
        policy = chosen_policy(options.policy, options.types)
        profile = load_profile(options.profile)
        target = stack.enter_context(connected(options.dsn))
        if options.jobs is None:
            self._sessions = sessions_for(self._jobs, database.round_trip(target))
        for told in runlock.lock(target):
            reporter.say(told)
        settings.require_fit(target)
        citus.refuse(target, enabled=policy is not None and citus.FEATURE in policy.enable)
        if options.existing:
            existing.silence(target)
        before = self._claim(target)
        if self.live is not None:
            self.live.before_snapshot(self.run_id)
        with reporter.phase("snapshot"):
            taken = snapshot.take(options.source, options.report / BACKUP)
        pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(max_workers=2))
        self._full_check = (
            self.live is not None or options.deep or taken.bytes <= integrity.FULL_BYTES
        )
        with undisturbed():
            sealed = pool.submit(backup.seal, taken, self.run_id)

        @cache
        def intact() -> Integrity:
            with undisturbed():
                return pool.submit(_check_integrity, taken, self._full_check)

        with reporter.phase("plan"), staying(), _cut_off_undone(target, before):
            catalogue, plan = self._plan(target, taken, profile, policy, intact)
        manifest = sealed.result()
        self.report.backup = manifest.model_dump()
        planned = Planned(taken, manifest.content_sha256, catalogue, plan, plan.digest())
        self._target = target
        with self._undone_by_failure(plan):
            certificate, position = self._fill(target, planned, before, intact)
            if decided := decisions(plan):
                certificate = with_check(certificate, "types: generous", decided)
            if options.proof is not None:
                certificate = self._prove(stack, options.proof, certificate)
        target = self._target
        with database.durably(target):
            untouched.keep(target, self._left)
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
            f"{counted(rows, 'row')} in {counted(len(self.report.tables), 'table')} are on the "
            f"target and verified{with_exceptions(self.report.exceptions)}"
        )

    def _fill(
        self,
        target: psycopg.Connection,
        planned: Planned,
        before: records.RunRow | None,
        intact: Callable[[], Integrity],
    ) -> tuple[Certificate, int | None]:
        """Load and certify; the certificate, and with capture the log's position."""
        try:
            self._load(target, planned, self._begin(target, before, planned))
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

    def _prove(self, stack: ExitStack, command: str, certificate: Certificate) -> Certificate:
        """Have the application prove itself on a copy of the target, and the certificate say so. A
        copy is to be had only while nobody is connected, this run included."""
        self._target.close()
        try:
            with self.reporter.phase("the application's proof"):
                said = proof.prove(self.options.dsn, command)
        finally:
            self._target = stack.enter_context(connected(self.options.dsn))
            runlock.lock(self._target)
            if self.options.existing:
                existing.silence(self._target)
        return with_check(certificate, "proof", f"{command}: {said}" if said else command)

    @contextmanager
    def _undone_by_failure(self, plan: Plan) -> Iterator[None]:
        """Give the application's own tables back as they were where the load fails; what this
        cannot do, the next run does first."""
        try:
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
        write_durably(self.options.report / RUN_FILE, text.encode(), mode=0o644)

    def _plan(
        self,
        target: psycopg.Connection,
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
            if self.options.existing:
                there = read_schema(target, profile, policy)
                source = Source(connections[0], catalogue, connections[1:])
                trial = trial_on(target)
                plan = plan_onto(source, there, policy=policy, trial=trial, observed=intact)
            else:
                plan = make_plan(
                    connections[0],
                    catalogue,
                    profile=profile,
                    policy=policy,
                    others=connections[1:],
                    # What is left of the planning keeps one core busy at most.
                    observed=intact,
                    schema_name=schema_of(self.options.dsn),
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
                f"{place(f.table, f.column)}{f.message}" for f in plan.blocked[:SHOWN]
            )
            raise BlockedError(
                f"{counted(len(plan.blocked), 'finding')} stop this migration: {first}",
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
        planned: Planned,
    ) -> set[tuple[str, str]]:
        """Make the target ready; returns the steps that an earlier attempt has done."""
        if before is not None:
            same = (before.snapshot_sha256, before.plan_digest) == (planned.sha256, planned.digest)
            if same:
                done = records.done(target)
                self.reporter.say(f"going on with run {self.run_id}: {len(done)} steps are done")
                if before.phase not in untouched.PHASES:
                    untouched.keep(target, None)
                records.set_phase(target, Phase.PREPARED)
                return done
            changed = "the source or the plan has changed"
            self.reporter.say(
                f"{changed if before.plan_digest else 'it did not verify'}: starting clean"
            )
            # Once more: somebody may have begun to work there while the plan was made.
            records.refuse_touched(target, before, database.describe(self.options.dsn))
            if before.plan.existing:
                existing.undo(target, before.plan)
            else:
                records.drop_everything(target, before)
        where = database.describe(self.options.dsn)
        if planned.plan.existing:
            records.refuse_records(target, where)
            existing.require_privileges(target, planned.plan)
        else:
            records.refuse_foreign(target, where)
        with target.transaction():
            records.begin(
                target,
                run_id=self.run_id,
                source_path=str(self.options.source.absolute()),
                snapshot_sha256=planned.sha256,
                plan=planned.plan,
                job_version=__version__,
            )
            if planned.plan.existing:
                existing.prepare(
                    target, planned.plan, read_definitions(target, planned.plan.schema_name)
                )
        self.report.phase = Phase.PREPARED
        return set()

    def _load(
        self,
        target: psycopg.Connection,
        planned: Planned,
        done: set[tuple[str, str]],
    ) -> None:
        plan = planned.plan
        refused = schema.create_extensions(target, plan)
        for name, reason in refused.items():
            self.report.findings.append(_without_extension(name, reason))

        beside = load.works_beside(plan, self._jobs)
        # Columns that are the application's own keep the collation that it gave them.
        own = self.options.own_collation or plan.existing
        collate = collation.clause(target, accepted=own)
        if collate:
            self.reporter.say(
                f"the target sorts by {collation.look(target)}: columns of text get COLLATE "
                f"{collate}, which compares as SQLite does ({collation.OPTION} leaves that out)"
            )

        def session() -> Session:
            connection = database.connect(self.options.dsn, purpose="migration-job copy")
            load.tune_session(connection, beside=beside)
            if plan.existing:
                existing.silence(connection)
            return Session(planned.taken.connect(), connection, collate=collate, spent=spent)

        spent: list[tuple[str, float]] = []
        try:
            self._build(target, planned, done, session)
            self._tell_copied(target, spent)
        except OperationError as error:
            if refused:
                names = " and ".join(f"{name} ({reason})" for name, reason in refused.items())
                error.advice = f"the server lacks the extension {names}. {error.advice}"
            raise

    def _build(
        self,
        target: psycopg.Connection,
        planned: Planned,
        done: set[tuple[str, str]],
        session: Callable[[], Session],
    ) -> None:
        options, reporter, plan = self.options, self.reporter, planned.plan
        rows = sum(t.rows for t in plan.tables if (t.target, load.ROWS) not in done)
        with reporter.phase("copy", total=rows):
            tasks = load.tasks(plan, planned.catalogue, done, reporter.advance, jobs=self._jobs)
            run_all(tasks, session, options.jobs or load.sessions(tasks, self._sessions))
        with reporter.phase("references"):
            load.tune_session(target)
            if plan.existing:
                self._tell_replaced(existing.mark_same(target, plan))
            schema.add_foreign_keys(target, plan, done)
            run_all(load.foreign_key_tasks(plan, done), session, self._sessions)
            for step, run in (
                ("views", schema.create_views),
                ("after load", schema.run_after_load),
            ):
                if ("", step) not in done:
                    run(target, plan)

    def _tell_copied(self, target: psycopg.Connection, spent: list[tuple[str, float]]) -> None:
        """Put what each table's copy took, and its size, into the report."""
        seconds: dict[str, float] = {}
        for name, took in spent:
            seconds[name] = seconds.get(name, 0.0) + took
        found = load.sizes(target)
        for entry in self.report.tables.values():
            entry.target_bytes = found.get(entry.target)
            entry.copy_seconds = round(seconds.get(entry.target, 0.0), 3)

    def _tell_replaced(self, replaced: dict[str, tuple[int, int]]) -> None:
        """Say which rows of the target's own gave way to others."""
        for name, (rows, other) in sorted(replaced.items()):
            if other:
                self.reporter.say(
                    f"{name}: {other:,} of the {rows:,} rows that the target had are not the "
                    f"source's; they are kept in {records_of(self._target)}.replaced"
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
        self._left = None if self.live is not None else untouched.read(target, planned.plan)
        certification = Certification(comparison, target, self.report, self.reporter)
        found = certification.verify()
        with self.reporter.phase("end of the integrity check"):
            took = intact().result()
        self.reporter.ran_beside(integrity.name(full=self._full_check), took)
        if found.difference_count:
            records.distrust(target)
        refuse_differences(found)
        checks = certification.prove_application(options.demands)
        subject = Subject(planned.digest, planned.sha256, began, position)
        return certification.issue(subject, found, checks)


def read_run_id(folder: Path) -> str | None:
    """The run that a report's directory belongs to; None where none has begun."""
    try:
        return str(json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))["run_id"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _check_integrity(taken: Snapshot, full: bool) -> float:
    """Check, and give the seconds that it took. Raises InputError for a damaged file."""
    began = time.monotonic()
    connection = taken.connect()
    try:
        integrity.check(connection, full=full)
        return time.monotonic() - began
    finally:
        connection.close()


def _without_extension(name: str, reason: str) -> Finding:
    return Finding(
        code="extension-not-there",
        severity="warning",
        message=f"the target cannot create the extension {name} ({reason}); nothing in the plan "
        "has needed it",
    )
