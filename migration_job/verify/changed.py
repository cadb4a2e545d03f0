"""What rules made of values on purpose, so that a query may answer it instead on the target.

A value that the plan changes is in the ledger, but for those of a map that goes forth and back:
these are in the plan alone, and are read from it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import psycopg

from migration_job.plan.model import ColumnPlan, Plan
from migration_job.values import SourceValue, key_values
from migration_job.verify.meaning import Inexact, of_source, of_target

LEDGER_PAIRS = 10_000
"""Different pairs of values that are read from the ledger."""


@dataclass(frozen=True, slots=True)
class Changed:
    """``(source value, target text) in changed``: whether a rule made the one of the other."""

    ledger: frozenset[tuple[str, str | None]] = frozenset()
    maps: dict[tuple[type, SourceValue], list[tuple[ColumnPlan, str | None]]] = field(
        default_factory=dict
    )
    """Each entry's source value: the columns that map it, and what it means there."""

    patterned: tuple[ColumnPlan, ...] = ()
    """The columns whose patterns go forth and back: any text may be one that they meet."""

    def __contains__(self, pair: object) -> bool:
        if not isinstance(pair, tuple) or len(pair) != 2:
            return False
        source, text = pair
        if (str(source), text) in self.ledger:
            return True
        return any(
            _means(column, text, meaning)
            for column, meaning in self.maps.get((type(source), source), ())
        ) or any(_rewritten(column, source, text) for column in self.patterned)


def _rewritten(column: ColumnPlan, source: SourceValue, text: str | None) -> bool:
    """Whether a pattern of the column meets the source's value, and the text is what it makes."""
    if not isinstance(source, str) or not any(
        re.fullmatch(p.match, source, re.DOTALL) for p in _patterns(column)
    ):
        return False
    try:
        return _means(column, text, of_source(column, source))
    except Inexact:
        return False


def _patterns(column: ColumnPlan) -> tuple[Any, ...]:
    """The patterns of the column's map, where it goes forth and back."""
    rule: Any = column.rule
    return tuple(rule.patterns) if rule.kind == "map" and rule.bijective else ()


def _means(column: ColumnPlan, text: str | None, meaning: str | None) -> bool:
    try:
        return of_target(column, text) == meaning
    except ValueError:
        return False  # another column's text, which is none of this type


def changed_values(target: psycopg.Connection[Any], plan: Plan) -> Changed:
    """What the plan's maps and the target's ledger say was changed."""
    rows = target.execute(
        "SELECT DISTINCT before, after FROM migration.ledger LIMIT %s", (LEDGER_PAIRS,)
    )
    ledger = frozenset(
        (str(key_values(f"[{before}]")[0]), None if after is None else str(after))
        for before, after in rows
    )
    columns = (column for table in plan.tables for column in table.columns)
    found = Changed(ledger, patterned=tuple(c for c in columns if _patterns(c)))
    for table in plan.tables:
        for column in table.columns:
            for value, meaning in _mapped(column):
                found.maps.setdefault((type(value), value), []).append((column, meaning))
    return found


def _mapped(column: ColumnPlan) -> Iterator[tuple[SourceValue, str | None]]:
    """The source values that the column's maps change without a ledger row, and their meanings."""
    rule: Any = column.rule
    while rule.kind == "map":
        for entry in rule.entries if rule.bijective else ():
            try:
                yield entry.source, of_source(column, entry.source)
            except Inexact:
                continue  # it has a row in the ledger
        rule = rule.inner
