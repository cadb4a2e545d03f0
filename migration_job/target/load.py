"""What is loaded when: tables with their keys and indexes, as tasks for a few sessions.

A table is created, filled and recorded in one transaction: so it is there whole or not at all,
its rows can be written frozen, and under ``wal_level = minimal`` they need no log. Its ledger and
quarantine arrive in the same transaction, and its sequence is set there, while the session still
holds what it knows of it.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import apsw
import psycopg

from migration_job.errors import OperationError
from migration_job.plan.model import Plan, TablePlan
from migration_job.source.model import Catalogue
from migration_job.target import records, schema
from migration_job.target.database import lost, qualified
from migration_job.target.tablecopy import Advance, Loaded, Session, TableCopy
from migration_job.workers import Task

SMALL_ROWS = 20_000
"""Tables up to this many rows get their keys and indexes in the copy's own transaction, in which
there may be several tables with as many rows together."""

GROUP_TABLES, GROUP_BYTES = 20, 16 << 20
"""Small tables in one transaction, at most: it locks each of their relations. One that may hold
more bytes has a transaction of its own, in which its rows are told of as they arrive."""

STANDARD_COLUMNS, STANDARD_STATISTICS, FEWEST_STATISTICS = 40, 100, 20
"""ANALYZE walks each of its 30,000 rows from the first column to every column, so that its work
grows with the square of their number: at 150 columns it is a third of all of PostgreSQL's. Tables
with more columns than this get a statistics target in proportion (100 is PostgreSQL's own). Small
ones get the square root of their rows, the usual number of a histogram's classes: 100 would note
every seventh value of 750 rows, at a quarter of ANALYZE's work. Both until autovacuum's first
ANALYZE, which comes within minutes."""

MANY_SHORT = 10
"""Groups of small tables for each session."""

SAME_TYPE_NAME = 50
"""With each table comes an array type, called as the table with underscores before it (and cut). So
tables that differ in those alone are created one after another: PostgreSQL finds another name for
the type of a table that is there, not for one that another session creates at the same time."""


def tune_session(target: psycopg.Connection, *, beside: bool = False) -> None:
    """Settings for the load alone, in this session alone. A lazy commit is safe here: what a
    crash could take back is copied again, and the certificate's commit waits for all of it.

    ``beside`` says that other sessions build indexes at the same time: then helpers for each
    would only wait for one another, at a fifth more of processor time."""
    target.execute("SET synchronous_commit TO off")
    target.execute("SET maintenance_work_mem TO '128MB'")
    target.execute("SET work_mem TO '64MB'")
    if beside:
        target.execute("SET max_parallel_maintenance_workers TO 0")


def works_beside(plan: Plan, jobs: int) -> bool:
    """Whether there are enough large tables for all sessions to have their own to build."""
    large = sum(table.rows > SMALL_ROWS for table in plan.tables)
    return 1 < jobs <= large


def tasks(
    plan: Plan,
    catalogue: Catalogue,
    done: set[tuple[str, str]],
    advance: Advance,
    *,
    small_rows: int = SMALL_ROWS,
) -> list[Task[Session]]:
    """What loads the plan: for each table its copy, then its keys, its indexes and its
    statistics, as tasks; tables up to ``small_rows`` whole, several in one task. What ``done``
    names is left out. Foreign keys and views come after all of them."""
    loader = _Loader(plan, catalogue, advance)
    alike = Counter(_type_name(table) for table in plan.tables)
    made: list[Task[Session]] = []
    before: dict[str, str] = {}
    together: list[TablePlan] = []
    for table in plan.tables:
        copied = (table.target, "rows") in done
        small = table.rows <= small_rows
        if copied and small:
            continue  # whole, as its transaction was
        if not copied and alike[_type_name(table)] > 1:
            after = before.get(_type_name(table))
            before[_type_name(table)] = _copy_title(table)
            made.extend(_table_tasks(loader, table, done, (after,) if after else (), small=small))
        elif not copied and small and _most_bytes(table) <= GROUP_BYTES:
            together.append(table)
        else:
            made.extend(_table_tasks(loader, table, done, (), small=small))
    return made + [_group_task(loader, group) for group in _groups(together)]


def sessions(tasks: Sequence[Task[Session]], jobs: int) -> int:
    """How many sessions load these: two more than there are to work side by side, where there is
    much that waits for the disk."""
    short = sum(task.short for task in tasks)
    return jobs + 2 if short >= MANY_SHORT * jobs else jobs


def _type_name(table: TablePlan) -> str:
    return table.target.lstrip("_")[:SAME_TYPE_NAME]


def _most_bytes(table: TablePlan) -> int:
    """A size that the texts and blobs of all rows do not exceed."""
    if table.widest is None:
        return 0 if not table.rows else GROUP_BYTES + 1
    return table.rows * table.widest


def _groups(tables: list[TablePlan]) -> Iterator[list[TablePlan]]:
    """The tables in their order, cut where a group would have too many tables or rows."""
    group: list[TablePlan] = []
    rows = 0
    for table in tables:
        if group and (len(group) >= GROUP_TABLES or rows + table.rows > SMALL_ROWS):
            yield group
            group, rows = [], 0
        group.append(table)
        rows += table.rows
    if group:
        yield group


def _copy_title(table: TablePlan) -> str:
    return f"rows {table.target}"


def _weight(table: TablePlan) -> float:
    return float(table.rows * (1 + len(table.columns)))


FIRST_OF_ALL, FIRST = 1e12, 1e9
"""Added to a weight: copies come first, the largest of them first of all; what builds on them
follows, keys before indexes."""


def _group_task(loader: _Loader, tables: list[TablePlan]) -> Task[Session]:
    def load(session: Session) -> None:
        loader.load_small(session, tables)

    title = " and ".join(_copy_title(table) for table in tables)
    weight = FIRST_OF_ALL + sum(map(_weight, tables))
    return Task(title, load, weight=weight, short=True)


def _table_tasks(
    loader: _Loader,
    table: TablePlan,
    done: set[tuple[str, str]],
    after: tuple[str, ...],
    *,
    small: bool,
) -> Iterator[Task[Session]]:
    """``after`` names the copies that have to end before this table may be created."""
    name = table.target
    weight = _weight(table)
    waits: tuple[str, ...] = ()
    if (name, "rows") not in done:
        waits = (_copy_title(table),)

        def copy(session: Session) -> None:
            if small:
                loader.load_small(session, [table])
            else:
                loader.load_large(session, table)

        yield Task(waits[0], copy, weight=FIRST_OF_ALL + weight, after=after, short=small)
    if small:
        return
    for step in schema.key_steps(table):
        if (name, step.name) not in done:
            title = f"{step.name} of {name}"
            yield Task(title, _step(table, step), weight=FIRST + weight, after=waits)
            waits = (title,)
    for step in schema.index_steps(table):
        if (name, step.name) not in done:
            yield Task(f"{step.name} of {name}", _step(table, step), weight=weight, after=waits)
    if (name, "statistics") not in done:
        yield Task(f"statistics of {name}", _analyze(table), weight=weight, after=waits)


def foreign_key_tasks(plan: Plan, done: set[tuple[str, str]]) -> list[Task[Session]]:
    """What proves the foreign keys that :func:`schema.add_foreign_keys` has declared."""
    found: list[Task[Session]] = []
    for table in plan.tables:
        weight = float(table.rows)
        for key in table.foreign_keys:
            step = schema.Step(f"foreign key {key.name}", schema.validate_sql(table, key))
            if key.validated and (table.target, step.name) not in done:
                title = f"{step.name} of {table.target}"
                found.append(Task(title, _step(table, step), weight=weight))
    return found


def _step(table: TablePlan, step: schema.Step) -> Callable[[Session], None]:
    def run(session: Session) -> None:
        schema.execute_step(session.target, table, step)

    return run


def _analyze(table: TablePlan) -> Callable[[Session], None]:
    def run(session: Session) -> None:
        with session.target.transaction():
            if len(table.columns) > STANDARD_COLUMNS:
                in_proportion = STANDARD_STATISTICS * STANDARD_COLUMNS // len(table.columns)
                session.target.execute(_statistics_sql(in_proportion).encode())
            session.target.execute(f"ANALYZE {qualified(table.target)}")
            records.mark(session.target, table.target, "statistics")

    return run


def _statistics_sql(target: int) -> str:
    """What gives the transaction's ANALYZE no higher statistics target than this."""
    return (
        "SELECT set_config('default_statistics_target', least("
        f"current_setting('default_statistics_target')::integer, {max(target, FEWEST_STATISTICS)}"
        ")::text, true)"
    )


class _Loader:
    """Loads tables, each in a transaction with everything that belongs to its rows."""

    def __init__(self, plan: Plan, catalogue: Catalogue, advance: Advance) -> None:
        self._plan = plan
        self._catalogue = catalogue
        self._advance = advance
        self._sequences = sequences_of(plan)

    def load_large(self, session: Session, table: TablePlan) -> None:
        """A table's rows; its keys, indexes and statistics are tasks of their own."""
        with _explained(session, [table]), session.target.transaction():
            self._create(session, [table])
            loaded = self._copy(session, table, self._advance)
            if statements := self._sequences.get(table.target):
                _execute(session, table, "its sequence", _one_text(statements))
            records.mark_all(session.target, [_rows_mark(table, loaded)])

    def load_small(self, session: Session, tables: list[TablePlan]) -> None:
        """Whole tables in one transaction, and in few round trips: with thousands of them, round
        trips and commits would be most of the time. Where PostgreSQL refuses one, each is tried
        by itself, so that the error names it."""
        try:
            self._load_whole(session, tables)
        except (psycopg.Error, OperationError):
            if len(tables) == 1 or session.stopped.is_set() or session.target.closed:
                raise
            for table in tables:
                self.load_small(session, [table])

    def _load_whole(self, session: Session, tables: list[TablePlan]) -> None:
        # Of several, rows are told of when they are there: each may have to be loaded again.
        arrived: list[int] = []
        told = self._advance if len(tables) == 1 else arrived.append
        marks: list[records.Mark] = []
        with _explained(session, tables), session.target.transaction():
            self._create(session, tables)
            for table in tables:
                marks += [_rows_mark(table, self._copy(session, table, told)), *_built(table)]
            built = build_sql(tables, self._sequences)
            _execute(session, tables[0], "its keys and indexes", built)
            records.mark_all(session.target, marks)
        self._advance(sum(arrived))

    def _create(self, session: Session, tables: list[TablePlan]) -> None:
        _execute(session, tables[0], "its columns", create_sql(tables))

    def _copy(self, session: Session, table: TablePlan, advance: Advance) -> Loaded:
        if table.source is None:
            return Loaded(0, 0, 0)
        source = self._catalogue.table(table.source)
        return TableCopy(session, table, source, self._plan.encoding).run(advance)


def _rows_mark(table: TablePlan, loaded: Loaded) -> records.Mark:
    return records.Mark(table.target, "rows", loaded.rows, loaded.quarantined)


def _steps(table: TablePlan) -> list[schema.Step]:
    return [*schema.key_steps(table), *schema.index_steps(table)]


def create_sql(tables: Sequence[TablePlan]) -> str:
    """The statements that create tables which are loaded together, in one text."""
    return _one_text([schema.table_sql(table) for table in tables])


def build_sql(tables: Sequence[TablePlan], sequences: Mapping[str, list[str]]) -> str:
    """Those that give them, once they are full, their keys, indexes, sequences' places and
    statistics; ``sequences`` is what :func:`sequences_of` gives."""
    built = [
        statement
        for table in tables
        for statement in (*(s.sql for s in _steps(table)), *sequences.get(table.target, ()))
    ]
    names = ", ".join(qualified(table.target) for table in tables)
    classes = _statistics_sql(math.isqrt(max(table.rows for table in tables)))
    return _one_text([*built, classes, f"ANALYZE {names}"])


def sequences_of(plan: Plan) -> dict[str, list[str]]:
    """For each target table with identities the statements that set their sequences."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for sequence in plan.sequences:
        found[sequence.table].append(schema.sequence_sql(sequence))
    return found


def _one_text(statements: list[str]) -> str:
    # A line of its own for what ends one: its last line may be a comment.
    return "\n;\n".join(statements)


def _built(table: TablePlan) -> list[records.Mark]:
    names = [*(step.name for step in _steps(table)), "statistics"]
    return [records.Mark(table.target, name) for name in names]


def _execute(session: Session, table: TablePlan, what: str, statements: str) -> None:
    try:
        session.target.execute(statements.encode())
    except psycopg.Error as error:
        if session.target.closed or session.stopped.is_set():
            raise
        raise schema.refused(table, what, error) from error


@contextmanager
def _explained(session: Session, tables: list[TablePlan]) -> Iterator[None]:
    """What goes wrong while tables are loaded, as an OperationError that names the first."""
    table = tables[0]
    others = f" and {len(tables) - 1} small ones" if len(tables) > 1 else ""
    try:
        yield
    except psycopg.Error as error:
        if session.stopped.is_set():
            raise OperationError("the copy was stopped because another part failed") from error
        if isinstance(error, psycopg.errors.DataError | psycopg.errors.IntegrityError):
            raise schema.refused(table, "its rows", error) from error
        raise lost(error, f"copying table {table.target}{others}") from error
    except apsw.CorruptError as error:
        raise OperationError(
            f"the snapshot of table {table.source} is damaged: {error}",
            advice="run integrity_check on the source and restore it from a backup",
        ) from error
