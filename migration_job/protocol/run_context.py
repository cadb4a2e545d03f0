"""The two databases of one run, opened together and checked to belong together."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import apsw
import psycopg

from migration_job.errors import OperationError
from migration_job.place import schema_of
from migration_job.plan.chosen import narrowed
from migration_job.plan.model import Plan, TablePlan
from migration_job.protocol.ahead import Ahead
from migration_job.protocol.log_readers import BackLog, SourceLog
from migration_job.protocol.moved import require_not_left
from migration_job.quoting import compose
from migration_job.stores.postgres import capture as target_capture
from migration_job.stores.postgres import database, pair_identity, records, target_fence
from migration_job.stores.sqlite import capture as source_capture
from migration_job.stores.sqlite.catalogue import read_catalogue
from migration_job.stores.sqlite.fence import SourceState, open_source, read_state
from migration_job.stores.sqlite.model import Catalogue, SourceTable
from migration_job.stores.sqlite.whole import NotWhole, OpenFile, gone
from migration_job.verify.connections import Sides


class Emptied(OperationError):
    """The target holds no run of this job."""


@dataclass(slots=True)
class Pair:
    """Source and target of one run. ``state`` is the source's own when the pair was opened."""

    path: Path
    source: apsw.Connection
    target: psycopg.Connection
    plan: Plan
    catalogue: Catalogue
    run_id: str
    captured: dict[int, tuple[SourceTable, TablePlan]]
    """By the number in the source's log; empty where no capture is installed."""
    sides: Sides
    """What the verifier reads through: this source connection, a session of its own."""
    third: psycopg.Connection
    """For a commit while ``target`` is in a transaction that only reads."""
    file: OpenFile
    """What ``path`` named when the source was opened."""
    told: list[str] = field(default_factory=list)
    """What an operator is to know of what was mended on the way; whoever says it empties it."""
    log: SourceLog = field(default_factory=SourceLog)
    back: BackLog = field(default_factory=BackLog)
    identities: list[tuple[str, str, str]] | None = None
    """Source table, source column and the target's sequence; None before they were asked for."""
    whole_at: int | None = None
    """SQLite's ``data_version`` when the capture was last seen whole by this pair."""
    refused: Ahead | None = None
    """What a switch refuses for by the plan, and what settles it; None before it was looked for."""

    def state(self) -> SourceState:
        """The source's state as it is now. Raises OperationError where there is no capture."""
        state = read_state(self.source)
        if state is None:
            raise OperationError(
                f"expected change capture on {self.path}, found none",
                advice="run `migration-job migrate --live` first",
            )
        return state

    def reload(self) -> None:
        """Read the source's schema again, after capture was installed or removed."""
        self.catalogue = narrowed(read_catalogue(self.source), self.plan)
        self.sides.catalogue = self.catalogue
        self.captured = _captured(self.source, self.catalogue, self.plan)
        self.log.statements.clear()
        self.back.feeding = None

    def replan(self, plan: Plan) -> None:
        """Go on under another plan, which the target has on record."""
        self.plan = self.sides.plan = plan
        self.identities = None
        self.reload()

    def reopen_source(self) -> None:
        """A new connection to the source in the place of one that cannot be relied on any more.
        Raises InputError or OperationError."""
        with contextlib.suppress(apsw.Error):
            self.source.close()
        self.source = self.sides.source = open_existing(self.path)
        self.file = OpenFile.of(self.path, self.source)
        self.log.touched_width, self.whole_at, self.back.feeding = 0, None, None

    def close(self) -> None:
        """Close both."""
        self.sides.target.close()
        self.third.close()
        self.source.close()
        self.target.close()


@contextlib.contextmanager
def opened(path: Path, dsn: str) -> Iterator[Pair]:
    """The pair, closed at the end. Raises InputError or OperationError where one of the two is not
    to be had or they do not belong together."""
    pair = open_pair(path, dsn)
    try:
        yield pair
    finally:
        pair.close()


def open_pair(path: Path, dsn: str) -> Pair:
    """Open both databases, ending the sessions of whoever acted on them before: only for the
    holder of the lock. Raises InputError or OperationError as :func:`opened` does."""
    target = open_target(dsn)
    try:
        target_fence.take_over(target)
        run = records.read_run(target)
        if run is None:
            raise Emptied(
                f"expected a target that a run of this job has filled, found none at "
                f"{database.describe(dsn)}",
                advice="run `migration-job migrate` first",
            )
        source = open_existing(path)
        try:
            file = OpenFile.of(path, source)
            catalogue = narrowed(read_catalogue(source), run.plan)
            pair = Pair(
                path=path,
                source=source,
                target=target,
                plan=run.plan,
                catalogue=catalogue,
                run_id=run.run_id,
                captured=_captured(source, catalogue, run.plan),
                sides=Sides(source, open_target(dsn), run.plan, catalogue),
                third=open_target(dsn),
                file=file,
            )
            require_pair(pair)
        except BaseException:
            source.close()
            raise
    except BaseException:
        target.close()
        raise
    return pair


def open_existing(path: Path) -> apsw.Connection:
    """The job's own writing connection. Raises NotWhole where nothing lies at the path,
    InputError where it is no database."""
    if not path.exists():
        raise gone(path)
    return open_source(path)


def flush(pair: Pair) -> None:
    """Have everything that is committed on the target now on its disk: any commit that is waited
    for brings all before it there."""
    pair.third.execute("UPDATE migration.pair SET verified = verified")


def open_target(dsn: str) -> psycopg.Connection:
    """A session that acts in the protocol: as a replica, its commits durable, and known by its name
    so that whoever takes over can end it. Raises InputError, also where an upgrade
    has left that server."""
    settings = {"synchronous_commit": "on", "lock_timeout": str(database.LOCK_MS)}
    purpose = target_fence.session_name(schema_of(dsn))
    target = database.connect(dsn, purpose=purpose, more=settings)
    try:
        with require_not_left():
            target_fence.enter(target)
    except BaseException:
        target.close()
        raise
    return target


def given_up(name: str) -> str:
    """What a capture is called once its target was given up."""
    return f"given up {name}"


def require_pair(pair: Pair) -> None:
    """Raises OperationError where the source's capture and the target are of different runs."""
    state = read_state(pair.source)
    follows = pair_identity.pair(pair.target)
    if follows is None:
        return
    if state is None:
        if target_capture.installed(pair.target) and not target_fence.is_closed(pair.target):
            raise NotWhole(
                f"PostgreSQL serves, and {pair.path} is not the file that was switched: no change "
                "capture is on it",
                advice="PostgreSQL serves as before, and nothing is brought to this file; "
                "put the right file back. The application must not use this one",
            )
        return
    if state.run != pair.run_id or state.capture != follows:
        if state.capture == given_up(follows) and not state.closed:
            # It was given up as gone, and is back: it must take no writes beside the source.
            target_fence.close_fence(pair.target, limit=5.0)
        raise OperationError(
            f"expected the target to follow this source's capture, found run {pair.run_id} "
            f"following another than that of run {state.run}",
            advice="give the target of the same run, or start over: `migration-job release` and "
            "`migration-job migrate --live`",
        )


def _captured(
    source: apsw.Connection, catalogue: Catalogue, plan: Plan
) -> dict[int, tuple[SourceTable, TablePlan]]:
    if not source_capture.installed(source):
        return {}
    found: dict[int, tuple[SourceTable, TablePlan]] = {}
    for number, name in source.execute(
        compose("SELECT number, name FROM {tables}", tables=source_capture.TABLES)
    ):
        try:
            found[int(number)] = (catalogue.table(str(name)), plan.table(str(name)))
        except KeyError:
            continue
    return found
