"""Single rows by their key: what each must be by the source and the ledger, and whether it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from migration_job.plan.model import ColumnPlan, TablePlan
from migration_job.quoting import compose, postgres_name
from migration_job.stores.sqlite.model import SourceTable
from migration_job.stores.sqlite.reader import Row
from migration_job.stores.sqlite.rowkey import key_columns
from migration_job.values import SourceValue, display, fold, key_text, to_text
from migration_job.verify.connections import (
    Accepted,
    Differences,
    Ledger,
    Query,
    Sides,
    columns_of_key,
    compared_columns,
    ledger_for,
    rows_of_source,
    target_name,
)
from migration_job.verify.meaning import Inexact, as_parameter, of_source, of_target

BATCH = 1_000


@dataclass(frozen=True, slots=True)
class Back:
    """What is otherwise for rows that come back from the target."""

    forgotten: frozenset[tuple[str, str]] = frozenset()
    """``key_text`` and column of the ledger entries that are no longer true, since the target has
    changed the value."""
    added: Mapping[tuple[str, str], Accepted] = field(default_factory=dict)
    """By the same those that come with the rows, and are not on the target yet."""
    computed: frozenset[str] = frozenset()
    """Columns that the source computes from the others and the target does not: what the target
    has there says nothing, since nobody keeps it in step with the row."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One table's rows on both sides, and where their differences go."""

    sides: Sides
    plan: TablePlan
    table: SourceTable
    differences: Differences
    digest: Any = None
    """A hash that takes up the meanings of the source's rows; None: nobody asks for it."""
    back: Back = field(default_factory=Back)

    @property
    def key(self) -> tuple[str, ...]:
        """The key's columns on the source."""
        return key_columns(self.plan.key, self.table)


def compare_batch(of: Comparison, batch: Sequence[Row]) -> list[str]:
    """Compare source rows (key, then columns) with the target's; returns the places met."""
    if not batch:
        return []
    width = len(of.key)
    keys = [key_text(row[:width]) for row in batch]
    asked = ask(of, batch, ledger_for(of.sides, of.table.name, keys))
    (rows,) = of.sides.by_index([asked.query])
    return asked.take(rows)


@dataclass(frozen=True, slots=True)
class Asked:
    """A batch of the source's rows, and the question for the target's."""

    query: Query
    keys: list[str]
    """Each row's ``key_text``."""
    columns: tuple[ColumnPlan, ...]
    values: list[Row]
    """Without the keys."""
    expected: list[list[Any]]
    differences: Differences

    def take(self, rows: list[tuple[Any, ...]]) -> list[str]:
        """Note what the target's answer differs in; gives the places of its rows."""
        found = by_position(rows)
        met: list[str] = []
        together = zip(self.keys, self.expected, self.values, strict=True)
        for position, (key, meanings, values) in enumerate(together):
            there = found.get(position, [])
            met += [ctid for ctid, _ in there]
            if len(there) != 1:
                _report_count(self.differences, key, len(there))
            for _, target in there[:1]:
                _compare_row(self.differences, key, self.columns, values, meanings, target)
        return met


def ask(of: Comparison, batch: Sequence[Row], ledger: Ledger) -> Asked:
    """What to ask the target for these source rows (key, then columns), of whose ledger this is."""
    width = len(of.key)
    columns = tuple(c for c in compared_columns(of.plan) if c.source not in of.back.computed)
    keys = [key_text(row[:width]) for row in batch]
    known = {place: e for place, e in ledger.items() if place not in of.back.forgotten}
    known |= {place: [entry] for place, entry in of.back.added.items()}
    expected = [
        expected_of(key, columns, row[width:], known, of.differences)
        for key, row in zip(keys, batch, strict=True)
    ]
    if of.digest is not None:
        for meanings in expected:
            of.digest.update(repr(meanings).encode())
    return Asked(
        query=fetch_query(of.plan, columns, [_key_of(of.plan, columns, e) for e in expected]),
        keys=keys,
        columns=columns,
        values=[row[width:] for row in batch],
        expected=expected,
        differences=of.differences,
    )


def _report_count(differences: Differences, key: str, count: int) -> None:
    """Report a row that the target has not, or more than once."""
    if not count:
        differences.add(
            "missing-row", f"row {key} of {differences.table} is not on the target", key=key
        )
        return
    differences.add(
        "extra-row", f"row {key} of {differences.table} is on the target {count} times", key=key
    )


UNKNOWN = object()
"""Stands for the meaning of a value that has none in its column and no ledger entry either."""


def expected_of(
    key: str,
    columns: Sequence[ColumnPlan],
    values: Sequence[SourceValue],
    ledger: dict[tuple[str, str], list[Accepted]],
    differences: Differences,
) -> list[Any]:
    """What the target must hold for a source row, by the values themselves or by the ledger."""
    expected: list[Any] = []
    for column, value in zip(columns, values, strict=True):
        entries = ledger.get((key, str(column.source)), [])
        if not entries:
            try:
                expected.append(of_source(column, value))
            except Inexact:
                expected.append(UNKNOWN)
            continue
        entry = entries[0]
        if len(entries) > 1 or entry.before != to_text(value):
            differences.add(
                "ledger",
                f"the ledger of {differences.table}, row {key}, column {column.source} does not "
                "match the source",
                key=key,
                column=column.source,
                source=display(value),
                target=entry.before,
            )
        try:
            expected.append(of_target(column, entry.after))
        except ValueError:
            expected.append(UNKNOWN)
    return expected


def _key_of(plan: TablePlan, columns: Sequence[ColumnPlan], meanings: list[Any]) -> list[Any]:
    by_name = {fold(str(c.source)): (c, m) for c, m in zip(columns, meanings, strict=True)}
    pairs = [by_name[fold(name)] for name in plan.key]
    return [None if m is UNKNOWN else as_parameter(c, m) for c, m in pairs]


def join_on_key(plan: TablePlan) -> tuple[str, str]:
    """FROM items that join the table (``t``) with arrays of keys (``k``, with their ordinal ``n``)
    given as parameters, and the query's setting for it."""
    keys = columns_of_key(plan)
    names = ", ".join(f"k{i}" for i in range(len(keys)))
    arrays = ", ".join(f"${i + 1}::text[]" for i in range(len(keys)))
    equal = " AND ".join(
        f"t.{postgres_name(c.target)} = k.k{i}::{c.type}" for i, c in enumerate(keys)
    )
    return f"unnest({arrays}) WITH ORDINALITY AS k({names}, n)", equal


def fetch_query(plan: TablePlan, columns: Sequence[ColumnPlan], keys: list[list[Any]]) -> Query:
    """What asks for the target's rows of these keys; :func:`by_position` reads the answer."""
    source, equal = join_on_key(plan)
    return (
        compose(
            "SELECT k.n, t.ctid::text{outputs} FROM {source} "
            "JOIN ONLY {target_name} AS t ON {equal}",
            outputs="".join(f", t.{postgres_name(c.target)}::text" for c in columns),
            source=source,
            target_name=target_name(plan),
            equal=equal,
        ),
        [list(part) for part in zip(*keys, strict=True)],
    )


def by_position(
    rows: Iterable[tuple[Any, ...]],
) -> dict[int, list[tuple[str, tuple[str | None, ...]]]]:
    """The target's rows by their key's position: each row's place and values."""
    found: dict[int, list[tuple[str, tuple[str | None, ...]]]] = {}
    for row in rows:
        found.setdefault(int(row[0]) - 1, []).append((str(row[1]), tuple(row[2:])))
    return found


def _compare_row(
    differences: Differences,
    key: str,
    columns: Sequence[ColumnPlan],
    values: Sequence[SourceValue],
    meanings: list[Any],
    there: tuple[str | None, ...],
) -> None:
    for column, value, meaning, text in zip(columns, values, meanings, there, strict=True):
        if meaning is UNKNOWN:
            reason = "is not what its column can hold, and no ledger entry accounts for it"
        else:
            try:
                if of_target(column, text) == meaning:
                    continue
            except ValueError:
                pass
            reason = "differs"
        shown = display(text)
        differences.add(
            "value",
            f"{differences.table}, row {key}, column {column.source}: source {display(value)}, "
            f"target {shown}: {reason}",
            key=key,
            column=column.source,
            source=display(value),
            target=shown,
        )


def rows_of_target(sides: Sides, plan: TablePlan, outputs: str) -> Iterator[tuple[Any, ...]]:
    """Every row of the target's table, these expressions of each. Raises sides.Stopped when
    cancelled."""
    with sides.target.transaction(), sides.target.cursor(name="rows_of_target") as cursor:
        cursor.itersize = BATCH
        cursor.execute(
            compose(
                "SELECT {outputs} FROM {rows}", outputs=outputs, rows=rows_of_source(plan)
            ).encode()
        )
        for row in cursor:
            sides.go_on()
            yield row
