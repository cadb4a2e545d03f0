"""The whole verification: content of every table, then relations, by a few workers."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import psycopg

from migration_job.errors import OperationError
from migration_job.plan.model import Plan, SequencePlan, TablePlan
from migration_job.plural import counted
from migration_job.quoting import compose, postgres_name
from migration_job.report.model import Difference
from migration_job.verify import (
    definitions,
    digest,
    digest_lines,
    own_rows,
    relations,
    sequences_and_views,
    typed,
)
from migration_job.verify.changed import changed_values
from migration_job.verify.connections import (
    Differences,
    RowsRead,
    Sides,
    Stopped,
    ledger_keys,
    rows_expected,
)
from migration_job.verify.facts import Facts, read_relations, read_tables
from migration_job.workers import Task, run_all

LEDGER_BATCH = 1_000

DIGEST_PIECE = 10_000

SEQUENCES_AT_ONCE = 500
"""In one query: thousands of identity columns would be as many round trips."""


@dataclass(frozen=True, slots=True)
class TableResult:
    """What was proven of one table's rows."""

    source_rows: int
    target_rows: int
    compared: Literal["digest", "typed"]
    digest: str


@dataclass(slots=True)
class Verified:
    """What a verification found; the content is proven equal where ``differences`` is empty."""

    tables: dict[str, TableResult] = field(default_factory=dict)
    """By source name."""
    checked: Counter[str] = field(default_factory=Counter)
    differences: list[Difference] = field(default_factory=list)
    difference_count: int = 0
    by_table: Counter[str] = field(default_factory=Counter)
    ledger: tuple[int, str] = (0, "")
    """How many entries, and their digest."""
    quarantine: tuple[int, str] = (0, "")


class Verification:
    """Compares a target with the snapshot it was made from. ``open_sides`` gives each worker its
    connections; nobody may write to the target meanwhile. ``follows``: rounds of ``sync`` have
    brought the target there, and the switch is still to come."""

    def __init__(
        self,
        plan: Plan,
        open_sides: Callable[[], Sides],
        *,
        deep: bool,
        jobs: int,
        follows: bool = False,
    ):
        self._plan = plan
        self._open_sides = open_sides
        self._deep = deep
        self._jobs = jobs
        self._follows = follows
        self._lock = threading.Lock()
        self._result = Verified()
        self._tables_lock, self._relations_lock = threading.Lock(), threading.Lock()
        self._facts: Facts | None = None
        self._complete = False
        self._waiting = sum(table.source is not None for table in plan.tables)
        self._working = 0

    def run(self, advance: Callable[[int], None]) -> Verified:
        """Verify everything. Differences are the result, not an error; OperationError where a side
        cannot be read."""
        # First, by one worker, while the others compare.
        tasks: list[Task[Sides]] = [Task("catalogues", self._read, weight=1e12)]
        for table in self._plan.tables:
            weight = float(table.rows * (1 + len(table.columns)))
            if table.source is not None:
                tasks.append(
                    Task(f"rows {table.target}", self._content(table, advance), weight=1e9 + weight)
                )
            tasks.append(Task(f"relations {table.target}", self._relations(table), weight=weight))
        for table in self._plan.outside:
            place = f"{table.schema_name}.{table.target}"
            tasks.append(Task(f"relations {place}", self._outside(table)))
        sources = {t.target: t.target if t.source is None else t.source for t in self._plan.tables}
        every = [(sequence, sources[sequence.table]) for sequence in self._plan.sequences]
        for start in range(0, len(every), SEQUENCES_AT_ONCE):
            some = every[start : start + SEQUENCES_AT_ONCE]
            tasks.append(Task(f"sequences from {start}", self._sequences(some)))
        tasks.append(Task("views", self._views))
        if self._plan.existing:
            tasks.append(Task("definitions", self._definitions))
        for table in self._plan.tables:
            if table.merge:
                tasks.append(Task(f"own rows of {table.target}", self._own_rows(table)))
        tasks.append(Task("records", self._records))
        try:
            run_all(tasks, self._open, self._jobs)
        except psycopg.Error as error:
            raise OperationError(
                "the target failed while it was verified: "
                f"{error.diag.message_primary or type(error).__name__}",
                advice="nothing was switched; correct the cause and run the same command again",
            ) from error
        return self._result

    def _open(self) -> Sides:
        sides = self._open_sides()
        digest_lines.equip(sides.source)
        return sides

    # ------------------------------------------------------------------------------ content

    def _content(self, table: TablePlan, advance: Callable[[int], None]) -> Callable[[Sides], None]:
        def run(sides: Sides) -> None:
            with self._lock:
                self._waiting -= 1
            facts = self._tables(sides)
            there = facts.columns[table.target].keys()
            if not {c.target for c in table.columns if c.source is not None} <= there:
                return  # the relations say so
            with self._lock:
                self._working += 1
            sides.read = RowsRead(table.rows, advance)
            try:
                self._compare(sides, table, facts)
            finally:
                with self._lock:
                    self._working -= 1
            sides.read.end()

        return run

    def _spare(self) -> bool:
        """Whether one of the workers has nothing left to compare."""
        return not self._waiting and self._working < self._jobs

    def _compare(self, sides: Sides, table: TablePlan, facts: Facts) -> None:
        source = sides.table(table)

        def places(keys: list[str]) -> list[str]:
            return typed.places_of_keys(sides, table, keys)

        verdict = digest.compare(sides, table, facts, places, self._spare)
        if isinstance(verdict, digest.Agreed):
            self._record(
                source.name,
                TableResult(verdict.rows, verdict.rows, "digest", verdict.digest),
            )
            if not self._deep:
                if table.key and facts.ledger.get(source.name):
                    for keys in ledger_keys(sides, source.name, LEDGER_BATCH):
                        self._add(typed.compare_ledger_rows(sides, table, keys))
                return
        compared = typed.compare_table(sides, table)
        found = compared.differences
        expected = rows_expected(sides, table)
        if compared.source_rows != expected:
            wanted = f"expected {counted(expected, 'row')} in the source"
            found.add("count", f"{wanted}, read {compared.source_rows}")
        if compared.target_rows != expected:
            found.add("count", f"expected {counted(expected, 'row')}, found {compared.target_rows}")
        self._add(found)
        if not isinstance(verdict, digest.Agreed):
            self._record(
                source.name,
                TableResult(compared.source_rows, compared.target_rows, "typed", compared.digest),
            )

    # ---------------------------------------------------------------------------- relations

    def _relations(self, table: TablePlan) -> Callable[[Sides], None]:
        def run(sides: Sides) -> None:
            self._note(relations.check_table(sides, table, self._everything(sides)))

        return run

    def _outside(self, table: TablePlan) -> Callable[[Sides], None]:
        def run(sides: Sides) -> None:
            self._note(relations.check_outside(sides, table))

        return run

    def _tables(self, sides: Sides) -> Facts:
        """What is known of tables, read by whoever needs it first."""
        with self._tables_lock:
            if self._facts is None:
                self._facts = read_tables(sides)
            return self._facts

    def _read(self, sides: Sides) -> None:
        self._everything(sides)

    def _everything(self, sides: Sides) -> Facts:
        """The same, once all the rest is known as well: until then others compare rows."""
        facts = self._tables(sides)
        with self._relations_lock:
            if not self._complete:
                types = (c.type for t in self._plan.tables for c in t.columns)
                read_relations(sides, facts, types)
                self._complete = True
        return facts

    def _sequences(self, sequences: list[tuple[SequencePlan, str]]) -> Callable[[Sides], None]:
        def run(sides: Sides) -> None:
            self._note(
                sequences_and_views.check_sequences(
                    sides, sequences, self._everything(sides), follows=self._follows
                )
            )

        return run

    def _views(self, sides: Sides) -> None:
        if not self._plan.views:
            return
        mapped = changed_values(sides.target, sides.plan)
        whole = not any(table.quarantine or table.where for table in self._plan.tables)
        for view in self._plan.views:
            self._note(sequences_and_views.check_view(sides, view, mapped, whole=whole))

    def _definitions(self, sides: Sides) -> None:
        """The application's own schema is what it was before the load."""
        before = tuple(str(r[0]) for r in sides.rows("SELECT line FROM migration.definitions"))
        gone, new = definitions.changed(
            before, definitions.read_definitions(sides.target, self._plan.schema_name)
        )
        found = Differences("")
        for what, lines in (("is gone", gone), ("is new", new)):
            for line in lines:
                found.add("definition", f"a definition of before the load {what}: {line[:300]}")
        self._add(found)
        with self._lock:
            self._result.checked["definitions"] += len(before)

    def _own_rows(self, table: TablePlan) -> Callable[[Sides], None]:
        def run(sides: Sides) -> None:
            count, found = own_rows.compare(sides, table)
            self._add(found)
            with self._lock:
                self._result.checked["rows of the target's own"] += count

        return run

    def _records(self, sides: Sides) -> None:
        ledger = _digest_of(sides, "ledger", "tab, key, col, before, after, rule")
        quarantine = _digest_of(sides, "quarantine", "tab, key, reason, source_row")
        names = {t.source for t in self._plan.tables if t.source is not None}
        foreign = Differences("")
        for record in ("ledger", "quarantine"):
            for (name,) in sides.rows(
                compose("SELECT DISTINCT tab FROM migration.{record}", record=record)
            ):
                if name not in {sides.catalogue.table(n).name for n in names}:
                    foreign.add("ledger", f"migration.{record} names a table {name} of no plan")
        self._add(foreign)
        with self._lock:
            self._result.ledger, self._result.quarantine = ledger, quarantine

    # ------------------------------------------------------------------------------- result

    def _note(self, found: relations.Relations) -> None:
        with self._lock:
            self._result.checked.update(found.checked)
        for differences in found.differences:
            self._add(differences)

    def _add(self, found: Differences) -> None:
        if not found.count:
            return
        with self._lock:
            self._result.differences.extend(found.shown)
            self._result.difference_count += found.count
            self._result.by_table[found.table] += found.count

    def _record(self, name: str, result: TableResult) -> None:
        with self._lock:
            self._result.tables[name] = result


def _digest_of(sides: Sides, table: str, columns: str) -> tuple[int, str]:
    """How many rows one of the run's records has, and a digest that their order does not change."""
    total = count = 0
    with sides.target.transaction(), sides.target.cursor(name=f"digest_{table}") as cursor:
        cursor.itersize = DIGEST_PIECE
        cursor.execute(
            compose(
                "SELECT {columns} FROM migration.{table}",
                columns=columns,
                table=postgres_name(table),
            ).encode()
        )
        for row in cursor:
            sides.go_on()
            piece = hashlib.sha256(repr(tuple(row)).encode()).digest()
            total += int.from_bytes(piece, "big")
            count += 1
    return count, f"{total % (1 << 256):064x}"


__all__ = ["Stopped", "TableResult", "Verification", "Verified"]
