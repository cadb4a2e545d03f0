"""Both sides of a verification, and how each is read: raw values here, text output there.

This has sessions and statements of its own; it shares none with the copier.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import apsw
import psycopg
from psycopg.rows import tuple_row

from migration_job.place import RawCursor
from migration_job.plan.model import ColumnPlan, Plan, TablePlan
from migration_job.quoting import compose, postgres_name, postgres_text, sqlite_expression
from migration_job.report.model import Difference
from migration_job.stores.sqlite.chosen_rows import rows_of
from migration_job.stores.sqlite.database import chain
from migration_job.stores.sqlite.model import Catalogue, SourceTable
from migration_job.values import fold, key_values, to_json

SETTINGS = (
    "SET DateStyle TO 'ISO, YMD'",
    "SET TimeZone TO 'UTC'",
    "SET IntervalStyle TO 'postgres'",
    "SET bytea_output TO 'hex'",
    "SET extra_float_digits TO 1",
    "SET statement_timeout TO 0",
    "SET jit TO off",
    "SET work_mem TO '64MB'",
    "SET max_parallel_workers_per_gather TO 0",
    "SET synchronize_seqscans TO off",
    "SET default_transaction_read_only TO on",
)
"""Text output has one meaning, scans go from the first page to the last, and nothing is written."""

SHOWN_DIFFERENCES = 1_000
"""Differences of one table that are kept in full; all are counted."""


BY_INDEX = (
    "SELECT set_config('enable_' || way, 'off', true) "
    "FROM unnest('{seqscan,hashjoin,mergejoin}'::text[]) AS way"
)

Query = tuple[str, Sequence[Any]]
"""A query with its parameters, ``$1`` and on."""

CANCEL_TIMEOUT = 5.0
"""Seconds for the server to take a cancellation."""


class Stopped(Exception):
    """Another part of the verification failed; this one ends without a result."""


class RowsRead:
    """How many of one table's source rows have been read; ``advance`` is told, block by block. A
    second look at the same rows, where a first way of comparing them did not do, tells nothing."""

    def __init__(self, rows: int, advance: Callable[[int], None]) -> None:
        self._rows = rows
        self._advance = advance
        self._at = self._told = 0

    def begin(self) -> None:
        """A way of comparing begins with the first row."""
        self._at = 0

    def more(self, count: int) -> None:
        """So many more of the rows were read."""
        self._at += count
        new = min(self._at, self._rows) - self._told
        if new > 0:
            self._told += new
            self._advance(new)

    def end(self) -> None:
        """The table is done."""
        self._at = self._rows
        self.more(0)


@dataclass(slots=True)
class Sides:
    """One worker's connections to both sides, and what they are compared under."""

    source: apsw.Connection
    target: psycopg.Connection
    plan: Plan
    catalogue: Catalogue
    stopped: threading.Event = field(default_factory=threading.Event)
    read: RowsRead = field(default_factory=lambda: RowsRead(0, lambda _: None))
    """Of the table that is being compared."""

    def __post_init__(self) -> None:
        self.target.execute("; ".join(SETTINGS))

    def close(self) -> None:
        """Close both connections."""
        self.source.close()
        self.target.close()

    def cancel(self) -> None:
        """End what runs, from another thread."""
        self.stopped.set()
        self.source.interrupt()
        # A refused cancellation leaves a statement that ends by itself.
        with contextlib.suppress(psycopg.Error):
            self.target.cancel_safe(timeout=CANCEL_TIMEOUT)

    def go_on(self) -> None:
        """Raises Stopped once :meth:`cancel` was called."""
        if self.stopped.is_set():
            raise Stopped

    def table(self, plan: TablePlan) -> SourceTable:
        """The source table of a planned one."""
        if plan.source is None:
            raise KeyError(plan.target)
        return self.catalogue.table(plan.source)

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query on the target."""
        with self.target.cursor(row_factory=tuple_row) as cursor:
            return cursor.execute(sql.encode(), list(values) or None).fetchall()

    def rows_of(self, sql: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """The same with parameters as ``$1``, for statements with names in them: a name may hold
        a per cent sign."""
        with RawCursor(self.target, row_factory=tuple_row) as cursor:
            cursor.execute(sql.encode(), list(values))
            return cursor.fetchall()

    def together(self, queries: Sequence[Query]) -> list[list[tuple[Any, ...]]]:
        """The rows of several queries as :meth:`rows_of` takes them, none of which waits for
        another's: one wait for a server that is far."""
        if not queries:
            return []
        with self.target.pipeline():
            cursors = [
                RawCursor(self.target, row_factory=tuple_row).execute(sql.encode(), list(values))
                for sql, values in queries
            ]
        return [[] if c.description is None else c.fetchall() for c in cursors]

    def by_index(self, queries: Sequence[Query]) -> list[list[tuple[Any, ...]]]:
        """The same for queries by key. The planner does not know how few keys there are, and a
        sequential scan for each batch would cost the square of the table."""
        if self.target.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
            with self.target.transaction():
                return self.together([(BY_INDEX, ()), *queries])[1:]
        try:
            return self.together([("BEGIN", ()), (BY_INDEX, ()), *queries, ("COMMIT", ())])[2:-1]
        except psycopg.Error:
            if not self.target.closed:
                self.target.rollback()
            raise

    def one(self, sql: str, values: Sequence[Any] = ()) -> tuple[Any, ...]:
        """The only row of a query on the target."""
        return self.rows(sql, values)[0]


@dataclass(slots=True)
class Differences:
    """Differences of one table: the first in full, all counted."""

    table: str
    shown: list[Difference] = field(default_factory=list)
    count: int = 0

    def add(
        self,
        kind: str,
        message: str,
        *,
        key: str | None = None,
        column: str | None = None,
        source: str | None = None,
        target: str | None = None,
    ) -> None:
        """Note one; ``key`` is the row's :func:`migration_job.values.key_text`."""
        self.count += 1
        if len(self.shown) >= SHOWN_DIFFERENCES:
            return
        self.shown.append(
            Difference(
                kind=kind,
                table=self.table,
                key=None if key is None else key_json(key),
                column=column,
                source=source,
                target=target,
                message=message,
            )
        )


def key_json(text: str) -> list[Any]:
    """A key for the report: its values in their JSON form."""
    return [to_json(value) for value in key_values(text)]


def compared_columns(plan: TablePlan) -> tuple[ColumnPlan, ...]:
    """Every column that has a counterpart in the source, generated ones included."""
    return tuple(c for c in plan.columns if c.source is not None)


def target_name(plan: TablePlan) -> str:
    """The table on the target, quoted and qualified."""
    return plan.relation


def columns_of_key(plan: TablePlan) -> list[ColumnPlan]:
    """The columns that identify a row on both sides, in the key's order."""
    by_name = {fold(str(c.source)): c for c in plan.columns if c.source is not None}
    return [by_name[fold(name)] for name in plan.key]


def rows_of_source(plan: TablePlan) -> str:
    """What the source's rows are compared with, as an item of FROM: the table without its heirs
    and, where rows of the target's own stay beside the source's, without those."""
    if not plan.merge:
        return compose("ONLY {table}", table=plan.relation)
    name = postgres_text(plan.target)
    same = " AND ".join(
        # The CASE: another table's key is not of this type.
        f"CASE WHEN m.tab = {name} THEN m.key[{i + 1}]::{column.type} END = "
        f"t.{postgres_name(column.target)}"
        for i, column in enumerate(columns_of_key(plan))
    )
    return compose(
        "(SELECT t.ctid, t.* FROM ONLY {table} AS t WHERE NOT EXISTS "
        "(SELECT FROM migration.merged AS m WHERE {same})) AS of_source",
        table=plan.relation,
        same=same,
    )


def carried(plan: TablePlan) -> str:
    """A SQLite predicate over the source table, aliased ``t``, for the rows of the policy's choice
    that the target must hold; '' where it must hold all."""
    kept = not_quarantined(plan)
    chosen = "" if plan.where is None else f"({sqlite_expression(plan.where)})"
    return " AND ".join(part for part in (chosen, kept) if part)


def not_quarantined(plan: TablePlan) -> str:
    """A SQLite predicate over the source table, aliased ``t``, for the rows that the target must
    hold; '' where it must hold all."""
    if not plan.quarantine:
        return ""
    return f"({chain('OR', [f'({q})' for q in plan.quarantine])}) IS NOT TRUE"


def rows_expected(sides: Sides, plan: TablePlan) -> int:
    """How many rows of the source the target must hold."""
    keep = not_quarantined(plan)
    where = f" WHERE {keep}" if keep else ""
    name = rows_of(sides.table(plan))
    row = sides.source.execute(
        compose("SELECT count(*) FROM {name} AS t{where}", name=name, where=where)
    ).fetchone()
    return int(row[0]) if row is not None else 0


@dataclass(frozen=True, slots=True)
class Accepted:
    """A ledger entry, as the verifier reads it from the target's records."""

    before: str
    after: str | None
    rule: str


Ledger = dict[tuple[str, str], list[Accepted]]
"""The ledger's entries of some rows, by key and column."""


def ledger_query(table: str, keys: list[str]) -> Query:
    """What asks for the ledger's entries for these rows; :func:`ledger_of` reads the answer."""
    return (
        "SELECT l.key, l.col, l.before, l.after, l.rule FROM migration.ledger AS l "
        "WHERE l.tab = $1 AND hashtextextended(l.key, 0) IN "
        "(SELECT hashtextextended(k, 0) FROM unnest($2::text[]) AS k)",
        (table, keys),
    )


def ledger_of(rows: Iterable[tuple[Any, ...]], keys: list[str]) -> Ledger:
    """The entries that the query has given."""
    found: Ledger = {}
    wanted = set(keys)
    for key, column, before, after, rule in rows:
        if key in wanted:
            found.setdefault((key, column), []).append(Accepted(before, after, rule))
    return found


def ledger_for(sides: Sides, table: str, keys: list[str]) -> Ledger:
    """The ledger's entries for these rows."""
    return ledger_of(sides.rows_of(*ledger_query(table, keys)), keys)


def ledger_keys(sides: Sides, table: str, batch: int) -> Iterator[list[str]]:
    """The distinct keys of a table's ledger entries, in batches, in order."""
    last: str | None = None
    while True:
        rows = sides.rows(
            'SELECT DISTINCT key COLLATE "C" FROM migration.ledger WHERE tab = %s '
            'AND (%s::text IS NULL OR key COLLATE "C" > %s::text) '
            'ORDER BY key COLLATE "C" LIMIT %s',
            (table, last, last, batch),
        )
        keys = [str(row[0]) for row in rows]
        if keys:
            yield keys
            last = keys[-1]
        if len(keys) < batch:
            return
