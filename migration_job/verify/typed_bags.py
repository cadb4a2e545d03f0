"""Tables without a key: their rows compared as a bag, by how often each content occurs."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from migration_job.plan.model import ColumnPlan, TablePlan
from migration_job.quoting import postgres_name
from migration_job.stores.sqlite.model import SourceTable
from migration_job.stores.sqlite.reader import Row, batches, read_rows
from migration_job.stores.sqlite.rowkey import key_columns
from migration_job.values import display, key_text
from migration_job.verify.connections import (
    Differences,
    Sides,
    compared_columns,
    ledger_for,
    not_quarantined,
)
from migration_job.verify.meaning import of_target
from migration_job.verify.typed_rows import BATCH, UNKNOWN, expected_of, rows_of_target

BUCKETS = 4_096

PAIRED = 500
"""Up to this many differing rows of a table without a key are paired to name their columns."""


def as_bag(
    sides: Sides, plan: TablePlan, table: SourceTable, differences: Differences
) -> tuple[int, int, str]:
    """Compare the rows as a bag: how often each content occurs on either side."""
    digest = hashlib.sha256()
    here, source_rows = _buckets(m for _, m in _bag_of_source(sides, plan, table, digest))
    there, target_rows = _buckets(_bag_of_target(sides, plan))
    wrong = {n for n in range(BUCKETS) if here[n] != there[n]}
    if wrong:
        _name_bag_differences(sides, plan, table, wrong, differences)
    return source_rows, target_rows, digest.hexdigest()


_UNACCOUNTED = ("?",)
"""Stands for a source value that nothing accounts for: it equals no text of the target's."""

_NO_VALUE = "!"
"""Before a target's text that no value of the column's type is spelled as."""


def _hash(meanings: tuple[Any, ...]) -> int:
    return int.from_bytes(hashlib.blake2b(repr(meanings).encode(), digest_size=16).digest(), "big")


def _buckets(rows: Iterable[tuple[Any, ...]]) -> tuple[list[int], int]:
    sums, count = [0] * BUCKETS, 0
    for meanings in rows:
        number = _hash(meanings)
        sums[number % BUCKETS] += number
        count += 1
    return sums, count


def _bag_of_source(
    sides: Sides, plan: TablePlan, table: SourceTable, digest: Any = None
) -> Iterator[tuple[Row, tuple[Any, ...]]]:
    key = key_columns(plan.key, table)
    columns = compared_columns(plan)
    names = [*key, *(str(c.source) for c in columns)]
    silent = Differences(table.name)
    rows = read_rows(
        sides.source,
        table,
        names,
        encoding=sides.plan.encoding,
        where=not_quarantined(plan),
    )
    sides.read.begin()
    for batch in batches(rows, max_rows=BATCH):
        sides.go_on()
        sides.read.more(len(batch))
        texts = [key_text(row[: len(key)]) for row in batch]
        ledger = ledger_for(sides, table.name, texts)
        for text, row in zip(texts, batch, strict=True):
            expected = expected_of(text, columns, row[len(key) :], ledger, silent)
            meanings = tuple(_UNACCOUNTED if m is UNKNOWN else m for m in expected)
            if digest is not None:
                digest.update(repr(meanings).encode())
            yield row, meanings


def _bag_of_target(sides: Sides, plan: TablePlan) -> Iterator[tuple[Any, ...]]:
    columns = compared_columns(plan)
    outputs = ", ".join(f"{postgres_name(c.target)}::text" for c in columns)
    for row in rows_of_target(sides, plan, outputs):
        yield tuple(_meaning_or_text(c, t) for c, t in zip(columns, row, strict=True))


def _meaning_or_text(column: ColumnPlan, text: str | None) -> Any:
    try:
        return of_target(column, text)
    except ValueError:
        return (_NO_VALUE, text)


def _name_bag_differences(
    sides: Sides,
    plan: TablePlan,
    table: SourceTable,
    wrong: set[int],
    differences: Differences,
) -> None:
    """Collect the rows of the buckets that differ and say which are on one side alone."""
    balance: Counter[tuple[Any, ...]] = Counter()
    examples: dict[tuple[Any, ...], str] = {}
    width = len(key_columns(plan.key, table))
    for row, meanings in _bag_of_source(sides, plan, table):
        if _hash(meanings) % BUCKETS in wrong:
            balance[meanings] += 1
            examples.setdefault(meanings, key_text(row[:width]))
    for meanings in _bag_of_target(sides, plan):
        if _hash(meanings) % BUCKETS in wrong:
            balance[meanings] -= 1
    missing = [m for m, n in balance.items() for _ in range(n)]
    extra = [m for m, n in balance.items() for _ in range(-n)]
    columns = compared_columns(plan)
    for meanings in missing:
        partner = _most_alike(meanings, extra) if len(extra) <= PAIRED else None
        if partner is None:
            differences.add(
                "missing-row",
                f"row {examples[meanings]} of {table.name} is not on the target: "
                f"{_shown(meanings)}",
                key=examples[meanings],
                source=_shown(meanings),
            )
            continue
        extra.remove(partner)
        for column, left, right in zip(columns, meanings, partner, strict=True):
            if left != right:
                differences.add(
                    "value",
                    f"{table.name}, row {examples[meanings]}, column {column.source}: source "
                    f"{_shown((left,))}, target {_shown((right,))}: differs",
                    key=examples[meanings],
                    column=column.source,
                    source=_shown((left,)),
                    target=_shown((right,)),
                )
    for meanings in extra:
        differences.add(
            "extra-row",
            f"a row of {plan.target} is on the target and not in the source: {_shown(meanings)}",
            target=_shown(meanings),
        )


def _most_alike(row: tuple[Any, ...], others: list[tuple[Any, ...]]) -> tuple[Any, ...] | None:
    """The row that shares most values with ``row``, where it shares at least half of them."""
    best, most = None, 0
    for other in others:
        alike = sum(a == b for a, b in zip(row, other, strict=True))
        if alike > most:
            best, most = other, alike
    return best if 2 * most >= len(row) else None


def _shown(meanings: tuple[Any, ...]) -> str:
    return ", ".join(map(_shown_one, meanings))


def _shown_one(meaning: Any) -> str:
    match meaning:
        case _ if meaning == _UNACCOUNTED:
            return "a value that neither plan nor ledger accounts for"
        case (str(mark), text) if mark == _NO_VALUE:
            return f"{display(text)}, which is no value of the column's"
        case str() | None:
            return display(meaning)
        case _:
            return display(repr(meaning))
