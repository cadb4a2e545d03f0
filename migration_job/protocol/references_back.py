"""References that come back are spelled as the keys are to which they refer.

A rule brings a value back in its column's commonest spelling. A key of the source's that is spelled
otherwise has a ledger entry and stays as it is, and what refers to it has to be spelled so, too:
SQLite compares the bytes. What referred to it before has an entry of its own; a reference that
PostgreSQL got has none.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from migration_job.plan.model import ColumnPlan, TablePlan
from migration_job.plan.relations import Relations
from migration_job.plan.rules import CannotCarry
from migration_job.protocol.run_context import Pair
from migration_job.quoting import compose, sqlite_name, sqlite_table
from migration_job.stores.postgres import records
from migration_job.stores.sqlite.apply import Row, RowsBack
from migration_job.stores.sqlite.model import SourceTable
from migration_job.stores.sqlite.reader import bindable, keys_condition
from migration_job.values import SourceValue, fold, from_json, key_text, to_text


@dataclass(slots=True)
class Spelled:
    """What was written as the keys are."""

    entries: list[records.LedgerEntry]
    """The ledger's, of each such value."""
    behind: list[tuple[SourceTable, str]]
    """Tables with a reference that could not be written so, and why."""


@dataclass(frozen=True, slots=True)
class _Reference:
    """A column that refers to another table's."""

    place: int
    """In the rows that come back."""
    column: ColumnPlan
    parent: str
    key: str


def spell_as_keys(
    pair: Pair, batch: Sequence[tuple[TablePlan, RowsBack]], spelled: Spelled
) -> None:
    """Rewrite the references of rows that have just been put into the source, in the caller's
    transaction, and add to ``spelled``. Only references to tables with a ledger are looked at, and
    of these only what refers to nothing as it is spelled."""
    relations = Relations(pair.catalogue)
    found = [
        (plan, rows, reference)
        for plan, rows in batch
        if rows.rows
        for reference in _references(pair, relations, plan, rows)
    ]
    if not found:
        return
    noted = records.tables_noted(pair.target, sorted({r.parent for _, _, r in found}))
    for plan, rows, reference in found:
        if reference.parent in noted:
            _spell(pair, plan, rows, reference, spelled)


def _references(
    pair: Pair, relations: Relations, plan: TablePlan, rows: RowsBack
) -> Iterator[_Reference]:
    """Those that the source declares, and those that the target alone has."""
    columns = {fold(str(c.source)): (i, c) for i, c in enumerate(plan.copied)}
    ends = {*_declared(relations, rows.table), *_targets_own(pair, plan)}
    for name, table, column in sorted(ends):
        if name in columns:
            place, own = columns[name]
            yield _Reference(place, own, table, column)


def _declared(relations: Relations, table: SourceTable) -> Iterator[tuple[str, str, str]]:
    """Column, parent and its column of each reference that SQLite knows."""
    for relation in relations.of(table.name):
        for (_, child), (_, parent) in relation.pairs:
            yield fold(child), relation.parent, parent


def _targets_own(pair: Pair, plan: TablePlan) -> Iterator[tuple[str, str, str]]:
    """The same of those that the target has, by the source's names."""
    own = {c.target: str(c.source) for c in plan.copied}
    for key in plan.foreign_keys:
        for parent in (t for t in pair.plan.tables if t.target == key.parent):
            theirs = {c.target: str(c.source) for c in parent.copied}
            for column, other in zip(key.columns, key.parent_columns, strict=True):
                if parent.source is not None and column in own and other in theirs:
                    yield fold(own[column]), parent.source, theirs[other]


def _spell(
    pair: Pair, plan: TablePlan, rows: RowsBack, reference: _Reference, spelled: Spelled
) -> None:
    lost: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows.rows:
        value = row[reference.place]
        text = _text(reference.column, value)
        if text is not None and not _is_there(pair, reference, value):
            lost[text].append(row)
    if not lost:
        return
    name = str(reference.column.source)
    for after, before in _originals(pair, reference, list(lost)):
        value = from_json(json.loads(before))
        if not _is_there(pair, reference, value):
            continue
        if name in plan.key:
            spelled.behind.append(
                (
                    rows.table,
                    f"{name} names a row and refers to {reference.parent}, where the key {after} "
                    f"is spelled {before} on the source",
                )
            )
            continue
        for row in lost.pop(after, ()):
            key = tuple(row[rows.columns.index(c)] for c in rows.key)
            _write(pair, rows, name, value, key)
            spelled.entries.append(
                records.LedgerEntry(
                    rows.table.name,
                    key_text(key),
                    name,
                    to_text(value),
                    after,
                    reference.column.rule.kind,
                )
            )


def _originals(pair: Pair, reference: _Reference, texts: list[str]) -> list[tuple[str, str]]:
    """What the keys that are one of ``texts`` on the target were before: ``(after, before)``."""
    found = pair.target.execute(
        "SELECT after, before FROM migration.ledger WHERE tab = %s AND col = %s "
        "AND after = ANY(%s) ORDER BY after, key",
        (reference.parent, reference.key, texts),
    )
    return [(str(after), str(before)) for after, before in found]


def _text(column: ColumnPlan, value: SourceValue) -> str | None:
    """What the target has for it; None where there is nothing to look for."""
    try:
        return column.rule.forward(value)
    except CannotCarry:
        return None


def _is_there(pair: Pair, reference: _Reference, value: SourceValue) -> bool:
    query = compose(
        "SELECT 1 FROM {table} WHERE {column} = ? LIMIT 1",
        table=sqlite_table(reference.parent),
        column=sqlite_name(reference.key),
    )
    return pair.source.execute(query, (bindable(value),)).fetchone() is not None


def _write(pair: Pair, rows: RowsBack, column: str, value: SourceValue, key: Row) -> None:
    where, parameters = keys_condition(rows.table, rows.key, [key])
    pair.source.execute(
        compose(
            "UPDATE {table} AS t SET {column} = ? WHERE {where}",
            table=sqlite_table(rows.table.name),
            column=sqlite_name(column),
            where=where,
        ),
        (bindable(value), *(bindable(v) for v in parameters)),
    )
