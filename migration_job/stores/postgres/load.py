"""What is loaded when: tables with their keys and indexes, as tasks for a few sessions.

A table is created, filled and recorded in one transaction: so it is there whole or not at all,
its rows can be written frozen, and under ``wal_level = minimal`` they need no log. Its ledger and
quarantine arrive in the same transaction, and its sequence is set there, while the session still
holds what it knows of it.

Where there are sessions enough, one table that outweighs the others is filled by several, each of
its parts in a transaction that records it; that its rows are there is recorded after the last.
"""

from __future__ import annotations

import math
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import apsw
import psycopg

from migration_job.errors import OperationError
from migration_job.plan.model import Plan, TablePlan
from migration_job.quoting import compose, postgres_name
from migration_job.stores.postgres import records, room, schema
from migration_job.stores.postgres.copy_stream import Advance, Loaded, Session
from migration_job.stores.postgres.database import lost
from migration_job.stores.postgres.tablecopy import TableCopy
from migration_job.stores.sqlite.model import Catalogue
from migration_job.workers import Task

SMALL_ROWS = 20_000
"""Tables up to this many rows get their keys and indexes in the copy's own transaction, in which
there may be several tables with as many rows together."""

GROUP_TABLES, GROUP_BYTES = 20, 16 << 20
"""Small tables in one transaction, at most: it locks each of their relations. One that may hold
more bytes has a transaction of its own, and reports progress per block."""

STANDARD_COLUMNS, FEWEST_STATISTICS = 40, 20
"""ANALYZE walks each of its 30,000 rows from the first column to every column, so that its work
grows with the square of their number: at 150 columns it is a third of all of PostgreSQL's. Tables
with more columns than this get a statistics target in proportion (100 is PostgreSQL's own), until
autovacuum's first ANALYZE."""

BRIEFLY_ANALYZED = range(101, 1_001)
"""Tables with so many rows, a few dozen pages at most, get statistics of the columns that keys,
indexes and references are over: the others, which PostgreSQL has to read the whole table for
anyway, are three quarters of ANALYZE's work on thousands of tables. Autovacuum adds them in its
first minute; smaller tables it would leave out."""

MANY_SHORT = 10
"""Groups of small tables for each session."""

PART_VALUES = 1_000_000
"""Rows times columns of a part, where several sessions fill one table. The number of parts depends
on the snapshot alone, so that a run which goes on has the same, with however many sessions."""

FEWEST_SPLITTING = 3
"""Sessions from which on one table is filled by several: COPY keeps the server's core and half of
the job's busy, so that two sessions for it on two cores would gain little, and its rows are not
frozen, since other sessions have to see the table."""

MOST_PARTS = 64

ROWS = "rows"
"""The step of a table whose rows are all there."""

IN_PARTS = re.compile(r"made for (\d+) parts")
"""That of one which is there before its rows are."""

SAME_TYPE_NAME = 50
"""With each table comes an array type, called as the table with underscores before it (and cut). So
tables that differ in those alone are created one after another: PostgreSQL finds another name for
the type of a table that is there, not for one that another session creates at the same time."""


def tune_session(target: psycopg.Connection, *, beside: bool = False) -> None:
    """Settings for the load alone, in this session alone. A lazy commit is safe here: what a
    crash could take back is copied again, and the certificate's commit waits for all of it.

    ``beside`` says that other sessions build indexes at the same time: then helpers for each
    would only wait for one another, at a fifth more of processor time."""
    settings = [
        "SET synchronous_commit TO off",
        "SET maintenance_work_mem TO '128MB'",
        "SET work_mem TO '64MB'",
    ]
    if beside:
        settings.append("SET max_parallel_maintenance_workers TO 0")
    target.execute("; ".join(settings).encode())


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
    jobs: int = 1,
    small_rows: int | None = None,
) -> list[Task[Session]]:
    """What loads the plan: for each table its copy, then its keys, its indexes and its
    statistics, as tasks; tables up to ``small_rows`` (:data:`SMALL_ROWS`) whole, several in one
    task; in parts a table that would keep one of ``jobs`` sessions busy for longer than all the
    others. What ``done`` names is left out. Foreign keys and views come after all of them."""
    small_rows = SMALL_ROWS if small_rows is None else small_rows
    loader = _Loader(plan, catalogue, advance)
    made: list[Task[Session]] = []
    before: dict[str, str] = {}
    together: list[TablePlan] = []
    for way in _ways(plan, done, loader, jobs, small_rows):
        table = way.table
        if not way.copied:
            if way.grouped:
                together.append(table)
            elif way.alone and way.parts > 1:
                made.extend(_part_tasks(loader, table, way.parts, done))
            else:
                after = None if way.alone else before.get(_type_name(table))
                before[_type_name(table)] = _copy_title(table)
                made.append(_copy_task(loader, table, (after,) if after else (), small=way.small))
        if not way.small:
            made.extend(_build_tasks(table, done, () if way.copied else (_copy_title(table),)))
    return made + [_group_task(loader, group) for group in _groups(together)]


@dataclass(frozen=True, slots=True)
class _Way:
    """How one table is loaded."""

    table: TablePlan
    alone: bool
    """Whether no other table's array type may get the same name."""
    parts: int
    """How many sessions' transactions fill it; 1 for a table that is not split."""
    small: bool
    """Whether it is loaded whole, keys and indexes and all, in one transaction."""
    copied: bool
    """Whether its rows are there."""

    @property
    def grouped(self) -> bool:
        """Whether other tables may be loaded in the same transaction."""
        return self.small and self.alone and _most_bytes(self.table) <= GROUP_BYTES


def _ways(
    plan: Plan, done: set[tuple[str, str]], loader: _Loader, jobs: int, small_rows: int
) -> Iterator[_Way]:
    share = sum(map(_weight, plan.tables)) / jobs if jobs >= FEWEST_SPLITTING else math.inf
    alike = Counter(_type_name(table) for table in plan.tables)
    begun = {name: int(m[1]) for name, step in done if (m := IN_PARTS.fullmatch(step))}
    for table in plan.tables:
        alone = alike[_type_name(table)] == 1
        split = alone and _weight(table) > share
        parts = begun.get(table.target) or (loader.parts(table) if split else 1)
        small = parts == 1 and table.rows <= small_rows
        yield _Way(table, alone, parts, small, copied=(table.target, ROWS) in done)


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


def _copy_task(
    loader: _Loader, table: TablePlan, after: tuple[str, ...], *, small: bool
) -> Task[Session]:
    """``after`` names the copies that have to end before this table may be created."""

    def copy(session: Session) -> None:
        if small:
            loader.load_small(session, [table])
        else:
            loader.load_large(session, table)

    weight = FIRST_OF_ALL + _weight(table)
    return Task(_copy_title(table), copy, weight=weight, after=after, short=small)


def _part_tasks(
    loader: _Loader, table: TablePlan, parts: int, done: set[tuple[str, str]]
) -> Iterator[Task[Session]]:
    """What makes the table, fills each of its parts, and says at last that its rows are there."""
    name, weight = table.target, FIRST_OF_ALL + _weight(table)
    waits: list[str] = []
    step = f"made for {parts} parts"
    if (name, step) not in done:
        waits = [f"table {name}"]
        make = partial(loader.create, table=table, step=step)
        yield Task(waits[0], make, weight=weight)
    filled: list[str] = []
    for number in range(parts):
        step = f"rows, part {number + 1} of {parts}"
        if (name, step) not in done:
            filled.append(f"{step} of {name}")
            fill = partial(loader.load_part, table=table, part=(number, parts), step=step)
            yield Task(filled[-1], fill, weight=weight, after=tuple(waits))
    end = partial(loader.end_parts, table=table)
    yield Task(_copy_title(table), end, weight=weight, after=tuple(filled or waits))


def _build_tasks(
    table: TablePlan, done: set[tuple[str, str]], waits: tuple[str, ...]
) -> Iterator[Task[Session]]:
    """Keys, indexes and statistics of a large table, after the tasks that ``waits`` names."""
    name, weight = table.target, _weight(table)
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
    together: list[TablePlan] = []
    steps = {table.target: _proving(table, done) for table in plan.tables if table.ours}
    for table in plan.tables:
        if table.rows <= SMALL_ROWS:
            together.append(table)
            continue
        for step in steps.get(table.target, ()):
            run = _step(table, step)
            found.append(Task(f"{step.name} of {table.target}", run, weight=float(table.rows)))
    # All keys of a table in one transaction: two sessions with one each could wait for each other.
    for group in _groups(together):
        several = [(table, step) for table in group for step in steps.get(table.target, ())]
        if several:
            weight = float(sum(table.rows for table in group))
            found.append(Task(f"foreign keys of {group[0].target}", _all(several), weight=weight))
    return found


def _proving(table: TablePlan, done: set[tuple[str, str]]) -> list[schema.Step]:
    steps = (
        schema.Step(f"foreign key {key.name}", schema.validate_sql(table, key))
        for key in table.foreign_keys
        if key.validated
    )
    return [step for step in steps if (table.target, step.name) not in done]


def _all(steps: list[tuple[TablePlan, schema.Step]]) -> Callable[[Session], None]:
    def run(session: Session) -> None:
        schema.execute_steps(session.target, steps)

    return run


def _step(table: TablePlan, step: schema.Step) -> Callable[[Session], None]:
    def run(session: Session) -> None:
        schema.execute_step(session.target, table, step)

    return run


def _analyze(table: TablePlan) -> Callable[[Session], None]:
    def run(session: Session) -> None:
        with session.target.transaction():
            if len(table.columns) > STANDARD_COLUMNS:
                target = max(FEWEST_STATISTICS, 100 * STANDARD_COLUMNS // len(table.columns))
                session.target.execute(
                    "SELECT set_config('default_statistics_target', least("
                    "current_setting('default_statistics_target')::integer, %s)::text, true)",
                    (target,),
                )
            session.target.execute(compose("ANALYZE {table}", table=table.relation))
            records.mark(session.target, table.target, "statistics")

    return run


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
            made = room.Room() if table.ours else room.make(session.target, table)
            loaded = self._copy(session, table, self._advance, frozen=table.ours or made.frozen)
            room.give_back(session.target, made)
            self._set_sequence(session, table)
            records.mark_all(session.target, [_rows_mark(table, loaded)])

    def parts(self, table: TablePlan) -> int:
        """In how many parts several sessions can fill the table. They are ranges of rowids, and
        the target has to have these as its key: only so can verification read rows in one order
        that several sessions have written in none."""
        if table.rowid_key is None or self._plan.encoding != "UTF-8":
            return 1
        return max(1, min(MOST_PARTS, table.rows * len(table.columns) // PART_VALUES))

    def create(self, session: Session, table: TablePlan, step: str) -> None:
        """Make a table that is filled in parts; what goes to quarantine does so here."""
        with _explained(session, [table]), session.target.transaction():
            self._create(session, [table])
            aside = self._copier(session, table).quarantine()
            self._set_sequence(session, table)
            records.mark_all(session.target, [records.Mark(table.target, step, 0, aside)])

    def load_part(
        self, session: Session, table: TablePlan, part: tuple[int, int], step: str
    ) -> None:
        """Fill one part of a table, its number from 0 and of how many, in a transaction that
        records it."""
        with _explained(session, [table]), session.target.transaction():
            with _timed(session, table):
                loaded = self._copier(session, table).run_part(*part, self._advance)
            records.mark_all(session.target, [records.Mark(table.target, step, loaded.rows, 0)])

    def end_parts(self, session: Session, table: TablePlan) -> None:
        """Record that all parts of a table are there."""
        with _explained(session, [table]), session.target.transaction():
            records.sum_up(session.target, table.target, ROWS)

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
                loaded = self._copy(session, table, told, frozen=table.ours)
                marks += [_rows_mark(table, loaded), *_built(table)]
            built = build_sql(tables, self._sequences)
            _execute(session, tables[0], "its keys and indexes", built)
            records.mark_all(session.target, marks)
        self._advance(sum(arrived))

    def _create(self, session: Session, tables: list[TablePlan]) -> None:
        made = [table for table in tables if table.ours]
        if made:
            _execute(session, made[0], "its columns", create_sql(made, session.collate))

    def _set_sequence(self, session: Session, table: TablePlan) -> None:
        if statements := self._sequences.get(table.target):
            _execute(session, table, "its sequence", _one_text(statements))

    def _copy(
        self, session: Session, table: TablePlan, advance: Advance, *, frozen: bool
    ) -> Loaded:
        if table.source is None:
            return Loaded(0, 0, 0)
        with _timed(session, table):
            return self._copier(session, table).run(advance, frozen=frozen)

    def _copier(self, session: Session, table: TablePlan) -> TableCopy:
        source = self._catalogue.table(str(table.source))
        return TableCopy(session, table, source, self._plan.encoding)


@contextmanager
def _timed(session: Session, table: TablePlan) -> Iterator[None]:
    began = time.monotonic()
    yield
    session.spent.append((table.target, time.monotonic() - began))


def sizes(target: psycopg.Connection) -> dict[str, int]:
    """Bytes of each table in the schema that is filled, without its indexes."""
    rows = target.execute(
        "SELECT relname, pg_table_size(oid) FROM pg_class "
        "WHERE relnamespace = to_regnamespace(quote_ident(current_schema())) "
        "AND relkind IN ('r', 'p')"
    ).fetchall()
    return {str(name): int(size) for name, size in rows}


def _rows_mark(table: TablePlan, loaded: Loaded) -> records.Mark:
    return records.Mark(table.target, ROWS, loaded.rows, loaded.quarantined)


def _steps(table: TablePlan) -> list[schema.Step]:
    return [*schema.key_steps(table), *schema.index_steps(table)]


def create_sql(tables: Sequence[TablePlan], collate: str = "") -> str:
    """The statements that create tables which are loaded together, in one text."""
    return _one_text([schema.table_sql(table, collate) for table in tables if table.ours])


def build_sql(tables: Sequence[TablePlan], sequences: Mapping[str, list[str]]) -> str:
    """Those that give them, once they are full, their keys, indexes, sequences' places and
    statistics; ``sequences`` is what :func:`sequences_of` gives."""
    built = [
        statement
        for table in tables
        for statement in (*(s.sql for s in _steps(table)), *sequences.get(table.target, ()))
    ]
    return _one_text([*built, compose("ANALYZE {map}", map=", ".join(map(_analyzed, tables)))])


def _analyzed(table: TablePlan) -> str:
    """The table, and with it the columns if there are some that ANALYZE leaves out."""
    name = table.relation
    # With a list of columns it also leaves out an index's expressions.
    plain = {postgres_name(c.target) for c in table.columns}
    terms = [term.removesuffix(" DESC") for index in table.indexes for term in index.terms]
    if table.rows not in BRIEFLY_ANALYZED or not plain.issuperset(terms):
        return name
    keys = [table.primary_key, *(u.columns for u in table.uniques)]
    keys += [key.columns for key in table.foreign_keys]
    columns = sorted({*terms, *(postgres_name(column) for key in keys for column in key)})
    return f"{name} ({', '.join(columns)})" if columns else name


def sequences_of(plan: Plan) -> dict[str, list[str]]:
    """For each target table with identities the statements that set their sequences."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for sequence in plan.sequences:
        found[sequence.table].append(schema.sequence_sql(sequence, plan.schema_name))
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
