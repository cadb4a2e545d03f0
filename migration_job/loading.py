"""A planned run's way into the target: making it ready, copying, and what stands on the rows."""

from __future__ import annotations

from collections.abc import Callable

import psycopg

from migration_job import __version__
from migration_job.errors import OperationError
from migration_job.phases import Phase
from migration_job.place import records_of
from migration_job.plan.model import Finding
from migration_job.plural import counted, either
from migration_job.progress import Reporter
from migration_job.report.model import Report
from migration_job.run_request import Options, Planned
from migration_job.stores.postgres import (
    collation,
    database,
    existing,
    load,
    merged,
    records,
    schema,
    untouched,
)
from migration_job.stores.postgres.copy_stream import Session
from migration_job.verify.definitions import read_definitions
from migration_job.workers import run_all


class Loading:
    """Loads what was planned; what it has to say goes into the report."""

    def __init__(
        self,
        options: Options,
        planned: Planned,
        reporter: Reporter,
        report: Report,
        jobs: int,
        sessions: int,
    ) -> None:
        """``jobs`` is how many cores there are to use, ``sessions`` how many may wait at once."""
        self._options = options
        self._planned = planned
        self._reporter = reporter
        self._report = report
        self._jobs = jobs
        self._sessions = sessions

    def begin(
        self, target: psycopg.Connection, run_id: str, before: records.RunRow | None
    ) -> set[tuple[str, str]]:
        """Make the target ready; returns the steps that an earlier attempt has done."""
        if before is not None:
            same = (before.snapshot_sha256, before.plan_digest) == (
                self._planned.sha256,
                self._planned.digest,
            )
            if same:
                done = records.done(target)
                self._reporter.say(f"continuing run {run_id}: {len(done)} steps are done")
                if before.phase not in untouched.PHASES:
                    untouched.keep(target, None)
                records.set_phase(target, Phase.PREPARED)
                return done
            changed = "the source or the plan has changed"
            self._reporter.say(
                f"{changed if before.plan_digest else 'it did not verify'}: starting clean"
            )
            # Once more: somebody may have begun to work there while the plan was made.
            records.refuse_touched(target, before, database.describe(self._options.dsn))
            if before.plan.existing:
                existing.undo(target, before.plan)
            else:
                records.drop_everything(target, before)
        where = database.describe(self._options.dsn)
        if self._planned.plan.existing:
            records.refuse_records(target, where)
            existing.require_privileges(target, self._planned.plan)
        else:
            records.refuse_foreign(target, where)
        with target.transaction():
            records.begin(
                target,
                run_id=run_id,
                source_path=str(self._options.source.absolute()),
                snapshot_sha256=self._planned.sha256,
                plan=self._planned.plan,
                job_version=__version__,
            )
            if self._planned.plan.existing:
                existing.prepare(
                    target,
                    self._planned.plan,
                    read_definitions(target, self._planned.plan.schema_name),
                )
        self._report.phase = Phase.PREPARED
        return set()

    def run(self, target: psycopg.Connection, done: set[tuple[str, str]]) -> None:
        """Copy the rows, then make what stands on them; without the steps that are ``done``."""
        plan = self._planned.plan
        refused = schema.create_extensions(target, plan)
        for name, reason in refused.items():
            if name in plan.needed_extensions:
                raise OperationError(
                    f"expected the extension {name}, which a column's type is of, found that the "
                    f"target cannot create it: {reason}",
                    advice="have a superuser create that extension in the database, or give "
                    "the column another type by the policy",
                )
            self._report.findings.append(_without_extension(name, reason))
        schema.create_enums(target, plan)

        beside = load.works_beside(plan, self._jobs)
        # Columns that are the application's own keep the collation that it gave them.
        own = self._options.own_collation or plan.existing
        collate = collation.clause(target, accepted=own)
        if collate:
            self._reporter.say(
                f"the target sorts by {collation.look(target)}: columns of text get COLLATE "
                f"{collate}, which compares as SQLite does ({collation.OPTION} leaves that out)"
            )

        def session() -> Session:
            connection = database.connect(self._options.dsn, purpose="migration-job copy")
            load.tune_session(connection, beside=beside)
            if plan.existing:
                existing.silence(connection)
            return Session(self._planned.taken.connect(), connection, collate=collate, spent=spent)

        spent: list[tuple[str, float]] = []
        try:
            self._build(target, done, session)
            self._tell_copied(target, spent)
        except OperationError as error:
            if refused:
                names = " and ".join(f"{name} ({reason})" for name, reason in refused.items())
                error.advice = f"the server lacks the extension {names}. {error.advice}"
            raise

    def _build(
        self,
        target: psycopg.Connection,
        done: set[tuple[str, str]],
        session: Callable[[], Session],
    ) -> None:
        options, reporter, plan = self._options, self._reporter, self._planned.plan
        rows = sum(t.rows for t in plan.tables if (t.target, load.ROWS) not in done)
        with reporter.phase("copy", total=rows):
            tasks = load.tasks(
                plan, self._planned.catalogue, done, reporter.advance, jobs=self._jobs
            )
            run_all(tasks, session, options.jobs or load.sessions(tasks, self._sessions))
        with reporter.phase("references"):
            load.tune_session(target)
            if plan.existing:
                replaced = existing.mark_same(target, plan)
                merged.put_back(target, plan, done)
                self._tell_replaced(target, replaced, merged.counts(target, plan))
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
        for entry in self._report.tables.values():
            entry.target_bytes = found.get(entry.target)
            whole = seconds.get(entry.target)
            entry.copy_seconds = None if whole is None else round(whole, 3)

    def _tell_replaced(
        self,
        target: psycopg.Connection,
        replaced: dict[str, tuple[int, int]],
        stay: dict[str, int],
    ) -> None:
        """Say which rows of the target's own gave way to others, and which stay."""
        for entry in self._report.tables.values():
            entry.own_rows = stay.get(entry.target, 0)
        if stay:
            verb = either(sum(stay.values()), "stays", "stay")
            self._reporter.say(f"{merged.told(stay)}, which the target alone has, {verb} there")
        for name, (rows, all_other) in sorted(replaced.items()):
            other = all_other - stay.get(name, 0)
            if other:
                self._reporter.say(
                    f"{name}: of the {counted(rows, 'row')} that the target had "
                    f"{either(other, '1 is', f'{other:,} are')} not the source's; "
                    f"{either(other, 'it is', 'they are')} kept in {records_of(target)}.replaced"
                )


def _without_extension(name: str, reason: str) -> Finding:
    return Finding(
        code="extension-not-there",
        severity="warning",
        message=f"the target cannot create the extension {name} ({reason}); nothing in the plan "
        "has needed it",
    )
