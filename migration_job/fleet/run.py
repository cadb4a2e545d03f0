"""One ``fleet``: every file of a manifest to ``verified``, or to a line that says why not.

The order: the book is opened, every file that is to do is looked at, the files agree on their
plans, plans and files are put into the book in one transaction, and then the files are moved, some
at a time. A file's failure is that file's alone. A second run takes what the first has left.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg

from migration_job import __version__
from migration_job.certification import connected
from migration_job.durable import write_durably
from migration_job.errors import ExitStatus, InputError, OperationError
from migration_job.fleet.crew import Crew
from migration_job.fleet.manifest import (
    NO_LIVE_COLUMN,
    Fleet,
    Live,
    Manifest,
    Member,
    in_words,
    shown,
)
from migration_job.fleet.places import (
    FILES,
    connections_of,
    dsn_of,
    folder_name,
    state_of,
    untold,
)
from migration_job.fleet.planning import Agreed, agree, wishes_of, with_wishes
from migration_job.fleet.tasks import Answer, Failed, Look, Looked, Move, Moved, Shared, plain
from migration_job.fleet.telling import (
    PLANS,
    certify,
    judge,
    policy_name,
    tell,
)
from migration_job.place import DEFAULT_SCHEMA, in_schema, schema_of
from migration_job.plan.findings import some
from migration_job.plan.model import Plan
from migration_job.plan.shape import shape_of, shape_text
from migration_job.plan.tenants import TenantColumn, with_tenant
from migration_job.plural import counted
from migration_job.progress import Reporter
from migration_job.protocol.replaced import state_on_source
from migration_job.quoting import postgres_name
from migration_job.report import fleet as page
from migration_job.report.context import ended_in, make_folder, now
from migration_job.report.fleet import FleetReport
from migration_job.signals import stopped_by_signals
from migration_job.stores.postgres import database, runlock, shared_tables
from migration_job.stores.postgres.fleet_ledger import (
    SCHEMA,
    Certified,
    FileRow,
    FleetLedger,
    PlanRow,
    State,
)
from migration_job.workers import default_jobs

BUSY_SECONDS = 5.0
"""How long to wait for the session of a run that was killed."""


@dataclass(frozen=True, slots=True)
class FleetOptions:
    """What a fleet's run is asked to do."""

    manifest: Path
    dsn: str
    report: Path
    live: bool = False
    """Whether the applications go on, also where the manifest does not say so."""
    jobs: int | None = None
    """Files at a time; None: the manifest's, else one for each core."""


class FleetRun:
    """One run. ``report`` is filled as it goes, so that whatever the end there is something true
    to write."""

    def __init__(self, fleet: Fleet, options: FleetOptions, reporter: Reporter) -> None:
        self._fleet = fleet
        self._options = options
        self._reporter = reporter
        self._crew = Crew(options.jobs or fleet.manifest.jobs or default_jobs())
        self._ledger: FleetLedger
        self._earlier: set[str] = set()
        """Tenants whose certificate is an earlier run's."""
        self._live = fleet.manifest.live or (Live() if options.live else None)
        if self._live is not None:
            self._fleet = replace(fleet, members=tuple(map(_tellable, fleet.members)))
        self._policy = fleet.policy_text
        self._said = fleet.said_digest
        self.report = FleetReport(
            manifest=str(options.manifest.absolute()),
            layout=fleet.manifest.layout,
            job_version=__version__,
            began_at=now(),
        )

    def run(self) -> FleetReport:
        """Run to the end. Writes the report whatever that is, then raises the JobError that ended
        the run, or one that names the files that are not verified."""
        options = self._options
        if schema_of(options.dsn) != DEFAULT_SCHEMA:
            raise InputError(
                "expected no --schema-name and no search_path for a fleet, found one",
                advice="the manifest's `name` says which schema a file goes to",
            )
        if self._live is not None and self._fleet.manifest.layout == "tenant-column":
            raise InputError(NO_LIVE_COLUMN)
        self.report.target = database.describe(options.dsn)
        make_folder(options.report)
        with (
            ended_in(
                self.report,
                options.report,
                self._reporter,
                lambda: page.write(self.report, options.report),
            ),
            stopped_by_signals(),
            connected(options.dsn) as target,
            self._crew,
        ):
            self._run(target)
        return self.report

    def _run(self, target: psycopg.Connection) -> None:
        for told in runlock.lock_within(target, BUSY_SECONDS, SCHEMA):
            self._reporter.say(told)
        self._ledger = FleetLedger(target)
        self.report.fleet_id = self._ledger.open(self._fleet.manifest.layout, __version__)
        if self._live is not None:
            folder = self._options.manifest.absolute().parent
            self._ledger.keep_connections(connections_of(self._live, folder))
        known = self._ledger.files()
        for member in self._fleet.members:
            _require_same(member, known.get(member.tenant))
        try:
            kept = self._kept(known)
            self._require_same_plans([m for m in self._fleet.members if m.tenant in kept], known)
            plans = self._plan([m for m in self._fleet.members if m.tenant not in kept])
            if self._fleet.manifest.layout == "tenant-column":
                self._share(plans)
            self._move(plans)
        finally:
            listed = {m.tenant for m in self._fleet.members}
            report = self._options.report
            certificates = tell(self.report, self._ledger, report, listed, self._earlier)
        certify(self.report, self._ledger, certificates)
        judge(self.report, self._options.report)

    def _kept(self, known: Mapping[str, FileRow]) -> set[str]:
        """Tenants of which there is nothing to do. Raises InputError where files are followed that
        this run would treat as standing still."""
        members = self._fleet.members
        if self._live is not None:
            return {m.tenant for m in members if _followed(m, known.get(m.tenant))}
        kept = {m.tenant for m in members if _holds(m, known.get(m.tenant))}
        there = [m for m in members if m.tenant not in kept and m.tenant in known]
        followed = [m.tenant for m in there if _followed(m, known[m.tenant])]
        if followed:
            raise InputError(
                f"expected `live: true` or --live, found neither, and files that `fleet-sync` "
                f"follows: {some(followed)}",
                advice="run it with --live, which leaves them as they are",
            )
        return kept

    # ---------------------------------------------------------------------------------- the plan

    def _plan(self, todo: Sequence[Member]) -> dict[int, PlanRow]:
        """Put plans and files into the book; the plans by number."""
        said = in_words(len(todo), sum(m.bytes for m in todo))
        self._reporter.say(f"{said} to do, of {counted(len(self._fleet.members), 'file')}")
        members = {m.tenant: m for m in todo}
        policy = self._policy
        looks = self._look(todo, policy, "look at the files")

        def again(tenants: Sequence[str], tried: str) -> dict[str, Looked | Failed]:
            some = [members[tenant] for tenant in tenants]
            return self._look(some, tried, "agree on types") if some else {}

        agreed = agree(looks, policy, again, self._ledger.plans())
        rows = [_row(member, agreed, self._fleet.manifest, self._said) for member in todo]
        self._ledger.plan(agreed.plans, rows)
        self._write_policies(agreed.plans)
        for plan in agreed.plans:
            files = sum(number == plan.number for number in agreed.plan_of.values())
            whose = "the fleet's" if plan.common else f"of outliers: {plan.reason}"
            if files:
                self._reporter.say(f"plan {plan.number}: {counted(files, 'file')}, {whose}")
        return {plan.number: plan for plan in agreed.plans}

    def _require_same_plans(self, kept: Sequence[Member], known: Mapping[str, FileRow]) -> None:
        """Raises InputError where the policy, the profile or the types are others than those that
        files were verified under, and plan these otherwise."""
        changed = [m for m in kept if known[m.tenant].said != self._said]
        plans = {plan.number: plan for plan in self._ledger.all_plans()}
        bodies = self._ledger.bodies() if changed else {}
        unlike: list[str] = []
        for number in sorted({known[m.tenant].plan or 0 for m in changed}):
            members = [m for m in changed if known[m.tenant].plan == number]
            policy = with_wishes(self._policy, wishes_of(plans[number]))
            found = self._look(members, policy, "look at what another policy makes of files")
            for tenant, look in found.items():
                before = json.loads(bodies[tenant])["plan_digest"]
                if not isinstance(look, Looked) or look.digest != before:
                    unlike.append(tenant)
        if unlike:
            raise InputError(
                "expected the policy, profile and types that files were verified under, found "
                f"others, which plan {some(sorted(unlike))} differently",
                advice="give the manifest those that it had. Or `touch` these files and run the "
                "fleet again: that moves them under the new ones, unless somebody has written to "
                "their rows on the target",
            )
        self._ledger.said(self._said, [m.tenant for m in changed])

    def _look(
        self, members: Sequence[Member], policy: str, name: str
    ) -> dict[str, Looked | Failed]:
        manifest = self._fleet.manifest
        looks = [
            Look(m.tenant, m.path, self._schema(m), policy, manifest.profile, manifest.types)
            for m in members
            if not m.trouble
        ]
        size = {m.tenant: m.bytes for m in members}
        found: dict[str, Looked | Failed] = {
            m.tenant: Failed(ExitStatus.USAGE, m.trouble) for m in members if m.trouble
        }
        same: dict[object, object] = {}

        def ended(task: Look, answer: Answer) -> None:
            if isinstance(answer, Moved):
                raise TypeError("a look moves nothing")
            if isinstance(answer, Looked):
                # Thousands of files have few plans, each of which is long: one copy of each.
                answer = Looked(
                    answer.schema,
                    str(same.setdefault(answer.shape, answer.shape)),
                    same.setdefault(answer.seen, answer.seen),  # type: ignore[arg-type]
                    answer.blocked,
                    answer.rows,
                    digest=answer.digest,
                )
            found[task.tenant] = answer
            progress.add(size[task.tenant])

        with self._progress(name, members) as progress:
            self._crew.each(looks, ended, weight=lambda look: size[look.tenant])
        return found

    def _schema(self, member: Member) -> str:
        alone = self._fleet.manifest.layout == "database-per-file"
        return DEFAULT_SCHEMA if alone else member.place

    def _write_policies(self, plans: Sequence[PlanRow]) -> None:
        folder = self._options.report / PLANS
        make_folder(folder)
        for plan in plans:
            write_durably(folder / policy_name(plan.number), plan.policy.encode(), mode=0o600)

    def _share(self, plans: Mapping[int, PlanRow]) -> None:
        """Have the tables that all files share, of the common plan and with the tenant's column."""
        column = self._fleet.manifest.column
        common = next((plan for plan in plans.values() if plan.common), None)
        if common is None:
            return  # no file could be looked at
        dsn = in_schema(self._options.dsn, column.in_schema)
        with connected(dsn) as target:
            ledger = FleetLedger(target)
            version = target.info.server_version
            there = ledger.shared()
            if there is not None:
                before = Plan.model_validate_json(there[1])
                _require_same_column(column, there[0])
                if shape_text(shape_of(before)) == common.shape:
                    _require_there(target, with_tenant(before, column, version), column)
                    return
            text = self._whole(common)
            made = with_tenant(Plan.model_validate_json(text), column, version)
            with database.durably(target):
                if there is not None:  # no tenant's rows are there: its plan is nobody's
                    shared_tables.drop(target, with_tenant(before, column, version))
                shared_tables.make(target, made, column)
                ledger.share(column.model_dump_json(), text)

    def _whole(self, plan: PlanRow) -> str:
        """A plan as a whole, as one of its files has it, for the tables that all share; JSON."""
        book = self._ledger.files()
        member = next(m for m in self._fleet.members if book[m.tenant].plan == plan.number)
        manifest = self._fleet.manifest
        look = Look(
            member.tenant,
            member.path,
            manifest.column.in_schema,
            plan.policy,
            manifest.profile,
            manifest.types,
            whole=True,
        )
        found: list[Answer] = []
        self._crew.each([look], lambda _, answer: found.append(answer))
        if not isinstance(found[0], Looked):
            raise OperationError(
                f"expected to read {member.path} once more, found that it cannot be read any more",
                advice="run the fleet again",
            )
        return found[0].plan

    # ---------------------------------------------------------------------------------- the files

    def _move(self, plans: Mapping[int, PlanRow]) -> None:
        """Move what the book has as planned, and ask after what it has as verified."""
        book = self._ledger.files()
        members = {m.tenant: m for m in self._fleet.members}
        moves = []
        for tenant, member in members.items():
            row = book[tenant]
            again = self._live is not None and _followed(member, row)
            if row.plan is not None and (row.state in ("planned", "verified") or again):
                task = _task(self._fleet.manifest, self._options, (member, row), plans)
                if self._live is not None:
                    folder = self._options.manifest.absolute().parent
                    task = replace(task, state=state_of(self._live, folder, tenant))
                moves.append(task)
        size = {m.tenant: m.bytes for m in members.values()}

        def begun(task: Move) -> None:
            if task.certificate is None:
                self._ledger.moving(task.tenant, members[task.tenant].mark_now())

        def ended(task: Move, answer: Answer) -> None:
            if isinstance(answer, Moved):
                if answer.again or task.certificate is None or not _stands(book[task.tenant]):
                    said = [plain(clause) for clause in answer.exceptions]
                    self._ledger.verified(
                        task.tenant,
                        Certified(answer.certificate, answer.body, plain(answer.message), said),
                    )
                else:
                    self._earlier.add(task.tenant)
                progress.add(size[task.tenant])
                return
            if not isinstance(answer, Failed):
                raise TypeError("a move does not only look")
            blocked = answer.status == ExitStatus.BLOCKED
            state: State = "stopped" if blocked else "failed"
            self._ledger.ended(task.tenant, state, plain(answer.message), answer.status)
            progress.add(size[task.tenant], failed=True)

        some = [members[move.tenant] for move in moves]
        with self._progress("move the files", some) as progress:
            self._crew.each(moves, ended, begun=begun, weight=lambda move: size[move.tenant])

    # ---------------------------------------------------------------------------- what is told

    @contextmanager
    def _progress(self, name: str, members: Sequence[Member]) -> Iterator[_Progress]:
        progress = _Progress(self._reporter, len(members))
        total = sum(m.bytes for m in members) >> 10
        with self._reporter.phase(name, total=total, unit="KiB", aside=progress.told):
            yield progress


def _row(member: Member, agreed: Agreed, manifest: Manifest, said: str) -> FileRow:
    """What the book is to say of a file that was planned."""
    state: State = "planned"
    message, status = "", 0
    number = agreed.plan_of.get(member.tenant)
    plan = next((p for p in agreed.plans if p.number == number), None)
    failed = agreed.failed.get(member.tenant)
    if failed is not None:
        state, message, status = "failed", failed.message, failed.status
    elif member.tenant in agreed.blocked:
        state, message = "stopped", agreed.blocked[member.tenant]
    elif plan is not None and not plan.common and manifest.outliers == "stop":
        state = "stopped"
        alike = manifest.layout == "tenant-column"
        message = (
            f"expected the fleet's common plan for this file, found that its own has "
            f"{plan.reason}\nresolve the difference in the file or in the policy, or "
            + (
                "move the file by itself into another schema"
                if alike
                else "say `outliers: own` in the manifest"
            )
        )
    if state == "stopped":
        status = int(ExitStatus.BLOCKED)
    return FileRow(
        member.tenant,
        shown(member.path),
        member.place,
        member.bytes,
        member.mark,
        state,
        number,
        None,
        plain(message),
        status,
        said=said,
    )


def _task(
    manifest: Manifest,
    options: FleetOptions,
    at: tuple[Member, FileRow],
    plans: Mapping[int, PlanRow],
) -> Move:
    """What moves the file, as the ledger has it."""
    member, row = at
    alone = manifest.layout == "database-per-file"
    if row.plan is None:
        raise AssertionError("a file without a plan is not moved")
    return Move(
        tenant=member.tenant,
        path=member.path,
        server=options.dsn,
        dsn=dsn_of(options.dsn, manifest.layout, member.place),
        database=member.place if alone else None,
        report=options.report / FILES / folder_name(member.tenant),
        policy=options.report / PLANS / policy_name(row.plan),
        profile=manifest.profile,
        types=manifest.types,
        shape=plans[row.plan].shape,
        certificate=row.certificate if row.state != "planned" else None,
        shared=Shared(manifest.column, member.place)
        if manifest.layout == "tenant-column"
        else None,
    )


class _Progress:
    """How many files are done, counted by several threads."""

    def __init__(self, reporter: Reporter, files: int) -> None:
        self._reporter = reporter
        self._lock = threading.Lock()
        self._files = files
        self._done = self._failed = self._bytes = 0

    def add(self, size: int, *, failed: bool = False) -> None:
        """One file more."""
        with self._lock:
            before = self._bytes >> 10
            self._bytes += size
            self._done += 1
            self._failed += failed
            step = (self._bytes >> 10) - before
        self._reporter.advance(step)

    def told(self) -> str:
        """The files, for a line of progress."""
        bad = f", {self._failed:,} failed" if self._failed else ""
        return f"{self._done:,} of {counted(self._files, 'file')}{bad}"


def _require_same_column(column: TenantColumn, there: str) -> None:
    """Raises InputError where the manifest says another column than the tables have."""
    if column != TenantColumn.model_validate_json(there):
        raise InputError(
            f"expected the column that the fleet was begun with, {there}, found "
            f"{column.model_dump_json()}",
            advice="give the manifest the `column` that it had, or give another database",
        )


def _require_there(target: psycopg.Connection, plan: Plan, column: TenantColumn) -> None:
    """Raises InputError where a table that all files share is gone, or open to every tenant."""
    if missing := shared_tables.gone(target, plan):
        raise InputError(
            f"expected the tables that all files share, found no {', '.join(missing)}",
            advice="somebody has dropped them: restore them from a backup; or drop the others and "
            "schema _migration_fleet as well, and the fleet begins anew",
        )
    if column.row_level_security and (unguarded := shared_tables.open_to_all(target, plan)):
        raise InputError(
            "expected row-level security, forced, with policy own_tenant on the tables that all "
            f"files share, found that {some(unguarded)}",
            advice="until it is back, whoever may read such a table sees every tenant's rows: "
            "enable and force it there, and give the table the policy own_tenant again, by which "
            f"{postgres_name(column.name)} = {column.present}",
        )


def _require_same(member: Member, row: FileRow | None) -> None:
    """Raises InputError where the book knows the tenant by another file or at another place."""
    if row is None:
        return
    for what, found, expected in (
        ("path", shown(member.path), row.path),
        ("place", member.place, row.place),
    ):
        if found != expected:
            raise InputError(
                f"expected {expected} as the {what} of tenant {member.tenant!r}, as this fleet was "
                f"begun, found {found}",
                advice="keep `files`, `tenant` and `name` of the manifest as they were for files "
                "that are in the book; a file that has moved goes back to its path",
            )


def _tellable(member: Member) -> Member:
    """The member, which is not even captured where its application could not be told of it."""
    return member if member.trouble else replace(member, trouble=untold(member.path))


def _stands(row: FileRow) -> bool:
    """Whether the book has the file as verified."""
    return row.state == "verified"


def _followed(member: Member, row: FileRow | None) -> bool:
    """Whether an earlier run has verified the file, and its capture goes on. The rest is in the
    databases' own records, whatever became of a later run."""
    if row is None or row.certificate is None:
        return False
    state = state_on_source(member.path)
    return state is not None and (_stands(row) or state.closed)


def _holds(member: Member, row: FileRow | None) -> bool:
    """Whether an earlier run has verified the file, which has not been written to since."""
    return row is not None and row.state == "verified" and row.mark == member.mark != ""
