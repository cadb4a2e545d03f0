"""``migrate --live``: capture first, then the snapshot, so that what this lacks is in the log.

The keys that capture logs are the plan's, and the plan depends on the values. So a first plan is
made from the source in place where a write-ahead log keeps readers and writers apart, and from a
copy that is thrown away where there is none or the first look finds the plan blocked; where it is
blocked, the source has not been touched. The snapshot's plan must agree with it on the keys.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import apsw
import psycopg

from migration_job.errors import BlockedError, InputError, OperationError
from migration_job.place import schema_of
from migration_job.plan import naming
from migration_job.plan.chosen import LEFT_OUT
from migration_job.plan.model import ColumnPlan, Plan, SequencePlan, TablePlan, UniquePlan
from migration_job.plan.onto import Source, plan_onto
from migration_job.plan.planner import make_plan
from migration_job.plan.policy import Said, chosen_policy
from migration_job.plan.profile import load_profile
from migration_job.plan.rules import IntegerRule
from migration_job.plan.virtual import LEFT_BEHIND
from migration_job.plural import counted_doing
from migration_job.protocol import replaced
from migration_job.protocol.lock import Lock
from migration_job.quoting import compose, sqlite_name, sqlite_table
from migration_job.signals import StoppedError
from migration_job.stores.postgres import capture as target_capture
from migration_job.stores.postgres import pair_identity
from migration_job.stores.postgres.database import connect
from migration_job.stores.postgres.schema import sequence_sql
from migration_job.stores.postgres.target import read_schema
from migration_job.stores.postgres.trial import trial_on
from migration_job.stores.sqlite import capture, fence, snapshot
from migration_job.stores.sqlite.catalogue import read_catalogue, rowid_name
from migration_job.stores.sqlite.model import ROWID_NAMES, Catalogue, SourceTable
from migration_job.stores.sqlite.waiting import allowed
from migration_job.values import fold

ROWID_COLUMN = "_migration_rowid"
"""The target's column for the rowid of a table that has no other key; `settle` drops it. Where the
table has a column of that name, this one is called a little longer (:func:`rowid_column`)."""


TABLES_AT_ONCE = 25
"""Tables that get their triggers in one transaction while nobody works with them."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """By what rules the plan is made."""

    profile: str = "none"
    policy: Path | None = None
    said: Said = field(default_factory=Said)
    existing: bool = False
    """For the tables that the application has made on the target."""


class LiveStart:
    """What ``migrate --live`` adds to an offline run (``migration_job.migration.Live``)."""

    def __init__(self, source: Path, dsn: str, state: Path, report: Path, wanted: Wanted) -> None:
        self._source = source
        self._dsn = dsn
        self._state = state
        self._lock = Lock(state)
        self._report = report
        self._wanted = wanted
        self._capture = ""
        self._tokens: tuple[str, str | None] = ("", None)

    def before_snapshot(self, run_id: str, tell: Callable[[Plan], None]) -> None:
        """Install capture on the source, or take up the one that this run has installed. Raises
        BlockedError before anything was changed, InputError for what cannot be captured and for a
        file in the place of the one that the target follows. ``tell`` is given the first plan,
        whatever comes of it."""
        catalogue, plan = self._first_plan()
        tell(plan)
        if plan.blocked:
            first = "; ".join(f.message for f in plan.blocked[:3])
            raise BlockedError(
                f"{counted_doing(len(plan.blocked), 'finding', 'stop')} this migration: {first}",
                advice="`migration-job inspect` shows each with the policy line that resolves it; "
                "nothing was written to the source or the target",
            )
        left = (LEFT_BEHIND, *LEFT_OUT)
        left_behind = {f.table for f in plan.findings if f.code in left and f.table}
        capture.refuse_virtual(catalogue, left_behind)
        with self._lock.command("migrate --live"):
            self._stop_following()
            connection = fence.open_source(self._source)
            try:
                tables = capture.captured_tables(catalogue, self.adapt(plan, catalogue).keys)
                capture.refuse_unreadable(connection, tables)
                self._install(connection, tables, run_id)
                replaced.forget_released(self._state)
            finally:
                connection.close()

    def adapt(self, plan: Plan, catalogue: Catalogue) -> Plan:
        """The plan with a key for every table: the rowid, in a column of its own on the target,
        where there is no other."""
        tables = []
        sequences = list(plan.sequences)
        taken = plan.relation_names()
        for table in plan.tables:
            if table.source is None or table.key:
                tables.append(table)
                continue
            if not table.ours:
                raise _without_key(table)
            keyed = _with_rowid(table, catalogue.table(table.source), taken)
            tables.append(keyed)
            sequences.append(
                SequencePlan(table=table.target, column=keyed.columns[-1].target, last_value=0)
            )
        adapted = plan.model_copy(update={"tables": tuple(tables), "sequences": tuple(sequences)})
        self._require_same_keys(adapted)
        return adapted

    def position(self, connection: apsw.Connection) -> int:
        """The log's position in the snapshot."""
        position = fence.last_position(connection)
        state = fence.read_state(connection)
        if state is not None:
            self._tokens = (state.token, fence.token_at(connection, position))
        return position

    def after_copy(self, source: apsw.Connection, target: psycopg.Connection, plan: Plan) -> None:
        """Close the target's fence, install the way back, and have the rowid columns go on after
        the largest that the snapshot has, be it of a row in quarantine."""
        target_capture.install(target, plan, at_once=TABLES_AT_ONCE)
        for table in plan.tables:
            own = rowid_column(table)
            if own is None or table.source is None:
                continue
            (rowid,) = table.key
            mark = source.execute(
                compose(
                    "SELECT max({rowid}) FROM {table}",
                    rowid=sqlite_name(rowid),
                    table=sqlite_table(table.source),
                )
            ).get
            last = mark if isinstance(mark, int) else 0
            sequence = SequencePlan(table=table.target, column=own, last_value=last)
            target.execute(sequence_sql(sequence, plan.schema_name).encode())

    def verified(self, target: psycopg.Connection, position: int) -> None:
        """Bind the target to the capture: from now on ``sync`` follows."""
        token, log_token = self._tokens
        pair_identity.set_pair(target, self._capture, position, token=token, log_token=log_token)

    # ------------------------------------------------------------------------------ within

    def _first_plan(self) -> tuple[Catalogue, Plan]:
        seen = self._seen_in_place()
        if seen is not None and not seen[1].blocked:
            return seen
        folder = self._report / "first-look"
        try:
            taken = snapshot.take(self._source, folder)
            with contextlib.closing(taken.connect()) as connection:
                return self._look(connection)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _seen_in_place(self) -> tuple[Catalogue, Plan] | None:
        """What the source itself shows while it is written to, without a copy; None where it is not
        to be had so, or the states of several moments do not go together. Nothing rests on it but
        the keys to capture, and those the snapshot's plan has to want as well."""
        try:
            with snapshot.glance(self._source) as connection:
                found = None if connection is None else self._look(connection)
        except StoppedError:
            raise
        except Exception:
            return None  # whatever is behind it is met again on the copy, and explained there
        return found

    def _look(self, connection: apsw.Connection) -> tuple[Catalogue, Plan]:
        catalogue = read_catalogue(connection)
        return catalogue, self._plan_of(connection, catalogue)

    def _plan_of(self, connection: apsw.Connection, catalogue: Catalogue) -> Plan:
        wanted = self._wanted
        policy = chosen_policy(wanted.policy, wanted.said)
        profile = load_profile(wanted.profile)
        if not wanted.existing:
            schema_name = schema_of(self._dsn)
            return make_plan(
                connection, catalogue, profile=profile, policy=policy, schema_name=schema_name
            )
        target = connect(self._dsn)
        try:
            there = read_schema(target, profile, policy)
            source = Source(connection, catalogue)
            return plan_onto(source, there, policy=policy, trial=trial_on(target))
        finally:
            target.close()

    def _stop_following(self) -> None:
        """A target that is about to be filled again follows nothing meanwhile."""
        target = connect(self._dsn)
        try:
            replaced.require_followed(
                target,
                self._source,
                self._state,
                to_give_up="run `migration-job release`, then this command again (of a stage: "
                "`make down`, then `make up`)",
            )
            pair_identity.follow_nothing(target)
        finally:
            target.close()

    def _install(
        self, connection: apsw.Connection, tables: list[capture.CapturedTable], run_id: str
    ) -> None:
        state = fence.read_state(connection)
        if state is not None and state.closed:
            raise InputError(
                "expected a source that SQLite serves, found it closed: PostgreSQL serves",
                advice="`migration-job rollback` takes it back to SQLite first",
            )
        with fence.writing(connection, limit=allowed()):
            same = state is not None and (state.run, state.schema_digest) == (
                run_id,
                capture.schema_digest(connection),
            )
            if state is not None and same and capture.keys(connection) == _keys(tables):
                self._capture = state.capture
                return
            capture.remove(connection)
            self._capture = secrets.token_hex(8)
            capture.install(connection, tables, run=run_id, capture=self._capture)

    def _require_same_keys(self, plan: Plan) -> None:
        """Once capture is installed, the plan must want the keys that it logs."""
        if not self._capture:
            return
        connection = fence.open_source(self._source)
        try:
            logged = capture.keys(connection)
        finally:
            connection.close()
        for table in plan.tables:
            if table.source is None or table.source not in logged:
                continue
            if [fold(w) for w in table.key] != [fold(k) for k in logged[table.source]]:
                raise OperationError(
                    f"the key of table {table.source!r} would be another now than a moment ago: "
                    "rows have arrived that the first plan did not know",
                    advice="run the command again; it makes a new plan",
                )


def _keys(tables: list[capture.CapturedTable]) -> dict[str, list[str]]:
    return {t.table.name: [capture.key_name(t, c) for c in t.key] for t in tables}


def _without_key(table: TablePlan) -> InputError:
    return InputError(
        f"table {table.source!r} has no key that identifies its rows on both sides, and none is "
        f"added to {table.target}, which is the application's own",
        advice="give the table a primary key by the application's own migrations, on both sides; "
        f"or leave it out (tables: {{{table.source}: {{skip: true}}}} in the policy); or migrate "
        "without --live",
    )


def rowid_column(table: TablePlan) -> str | None:
    """The target's name of the column that holds the rowid of a table without a key of its own;
    None where the table has none. An application's column is never taken for it, whatever its name:
    it is not called as the rowid is on the source."""
    for column in table.columns:
        if fold(column.source or "") in ROWID_NAMES and column.target.startswith(ROWID_COLUMN):
            return column.target
    return None


def _with_rowid(table: TablePlan, source: SourceTable, taken: set[str]) -> TablePlan:
    """The table with the rowid for a key; ``taken`` are the names of all relations, to which that
    of its index is added."""
    name = rowid_name(source)
    if name is None or source.rowid_alias is not None:
        raise InputError(
            f"table {source.name!r} has no key that identifies its rows on both sides: "
            f"its key ({', '.join(source.primary_key) or 'none'}) holds NULL, values that are "
            "distinct on the source alone (key-collides names the rows), or values that change on "
            "their way (the ledger has them), and its rowid has no name",
            advice="correct those rows, or give the table another primary key, or keep the key as "
            f"text by the policy (tables: {{{source.name}: "
            "{columns: {COLUMN: {type: text}}}}), or migrate without --live",
        )
    own = naming.column_name(ROWID_COLUMN, [c.target for c in table.columns])
    column = ColumnPlan(
        source=name,
        target=own,
        type="bigint",
        rule=IntegerRule(),
        not_null=True,
        identity=True,
        reason="the rowid: the table has no other key",
    )
    stem = table.target.encode()[: naming.MAX_BYTES - len(ROWID_COLUMN)].decode(errors="ignore")
    unique = UniquePlan(
        name=naming.distinct(stem + ROWID_COLUMN, table.target, taken), columns=(own,)
    )
    taken.add(unique.name)
    return table.model_copy(
        update={
            "columns": (*table.columns, column),
            "uniques": (*table.uniques, unique),
            "key": (name,),
        }
    )
