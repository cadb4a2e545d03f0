"""What a column without a value will hold, told by the source's other columns.

The plan is made from values, and later ones follow it: those that the source gets while it is
copied, and those that PostgreSQL gets and that come back. A column in which none stands yet (a
`deleted_at` that nobody used) is planned as the columns that are declared as it is and go to the
same type: in its table first, else in the whole source, and only where all of these agree.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from migration_job.plan.column_reports import Subject
from migration_job.plan.relations import Place
from migration_job.plan.rules import EpochUnit, Rule
from migration_job.plan.target import TargetColumn
from migration_job.stores.sqlite.model import SourceColumn
from migration_job.values import fold

_SECONDS = re.compile(r"\bunixepoch\s*\(|strftime\s*\(\s*'%s'", re.IGNORECASE)
_MILLISECONDS = re.compile(r"\*\s*1000(\.0)?\b|86400000|'%s'\s*\|\|", re.IGNORECASE)
_OF_DECIMALS: Mapping[str, EpochUnit] = {"0": "s", "3": "ms"}


_Group = tuple[str | None, str, str]
"""A table (None: all of them), a declared type and a type of the target's."""

_Silent = Literal["nothing known", "not one"]


@dataclass(frozen=True, slots=True)
class Example:
    """A column with values, and where it goes."""

    subject: Subject
    there: TargetColumn


RuleOf = Callable[[Example, TargetColumn], Rule | None]
"""The rule that the values of an example lead to where they go to that column; None without one."""


class Likeness:
    """The columns of one source that have values, by how they are declared and where they go."""

    def __init__(self, examples: Iterable[Example], rule_of: RuleOf) -> None:
        self._rule_of = rule_of
        self._known: defaultdict[_Group, list[Example]] = defaultdict(list)
        self._agreed: dict[tuple[_Group, str], tuple[Rule, Place] | _Silent] = {}
        for example in examples:
            for group in _groups(example.subject, example.there):
                self._known[group].append(example)

    def rule_for(self, subject: Subject, there: TargetColumn) -> tuple[Rule, Place] | None:
        """The rule in which the nearest columns like it agree, and one of them."""
        for group in _groups(subject, there):
            key = group, there.type
            if key not in self._agreed:
                self._agreed[key] = self._agree(group, there)
            agreed = self._agreed[key]
            if agreed != "nothing known":
                return None if agreed == "not one" else agreed
        return None

    def _agree(self, group: _Group, there: TargetColumn) -> tuple[Rule, Place] | _Silent:
        first: tuple[Rule, Place] | None = None
        for example in self._known.get(group, ()):
            rule = self._rule_of(example, there)
            if rule is None:
                continue
            if first is not None and rule != first[0]:
                return "not one"
            first = first or (rule, example.subject.place)
        return first or "nothing known"


def _groups(subject: Subject, there: TargetColumn) -> list[_Group]:
    """What a column is like, the nearest first."""
    declared = fold(subject.column.declared)
    names = dict.fromkeys((there.base, _family(there)))
    return [(table, declared, name) for name in names for table in (subject.table.name, None)]


def counts_times(column: SourceColumn, there: TargetColumn) -> bool:
    """Whether a number is what the column is declared to hold, and a time where it goes."""
    return column.affinity in ("integer", "real") and _family(there) in ("timestamp", "interval")


def unit_of_default(column: SourceColumn) -> EpochUnit | None:
    """What the column's default counts, where it computes a number from the time."""
    default = column.default or ""
    if not _SECONDS.search(default) and "julianday" not in default.lower():
        return None
    return "ms" if _MILLISECONDS.search(default) else "s" if _SECONDS.search(default) else None


def unit_of_type(column: SourceColumn, there: TargetColumn) -> EpochUnit | None:
    """What integers count that need the decimals of a second which the target's type has."""
    decimals = re.search(r"\((\d)\)", there.base)
    if _family(there) != "timestamp" or column.affinity != "integer" or decimals is None:
        return None
    return _OF_DECIMALS.get(decimals[1])


def _family(there: TargetColumn) -> str:
    """The type without its numbers and fields and, of times, without the zone."""
    name = re.sub(r"\(.*?\)", "", there.base)
    return next((known for known in ("timestamp", "interval") if name.startswith(known)), name)
