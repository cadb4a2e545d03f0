"""Maps: some values become others by intent, ahead of a column's own rule."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from typing import ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict

from migration_job.plan.patterns import both_ways, sql_of
from migration_job.plan.rules.base import Affinity, CannotCarry, Rule, RuleBase
from migration_job.quoting import sqlite_text
from migration_job.values import SourceValue, same

Scalar = str | int | float | None


class Entry(BaseModel):
    """One entry of a map: this very source value becomes that one."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid", strict=True)

    source: Scalar
    target: Scalar


class Pattern(BaseModel):
    """Text that matches as a whole is rewritten; ``\\1`` and the like stand for its groups."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")

    match: str
    replace: str


class MapRule(RuleBase):
    """Changes some values by intent and hands the result to ``inner``.

    Where it is ``bijective``, an entry is the column's rule forth and back, and so is a pattern
    that goes both ways (:mod:`migration_job.plan.patterns`): its value needs no ledger row. Of
    several entries to one value the first comes back; what the others meet has a ledger row, and so
    has every value that is met where it is not bijective: there a target value comes back as what
    it is itself.
    """

    kind: Literal["map"] = "map"
    bijective: bool = False
    """Set by the plan where no value of the column but the entries' own ends as one of theirs."""
    entries: tuple[Entry, ...] = ()
    patterns: tuple[Pattern, ...] = ()
    inner: Rule

    doc: ClassVar[str] = (
        "What the policy's `map`, `pattern`, `empty` and `booleans` make of values, ahead of the "
        "column's own rule."
    )
    unbounded: ClassVar[bool] = True

    @property
    def target_type(self) -> str:
        return self.inner.target_type

    def under(self, affinity: Affinity) -> Self:
        return self.model_copy(update={"inner": self.inner.under(affinity)})

    def mapped(self, value: SourceValue) -> tuple[bool, SourceValue]:
        """Whether an entry or a pattern meets the value, and what it becomes."""
        for entry in self.entries:
            if same(entry.source, value):
                return True, entry.target
        if isinstance(value, str):
            for pattern in self.patterns:
                found = re.fullmatch(pattern.match, value, re.DOTALL)
                if found is not None:
                    return True, found.expand(pattern.replace)
        return False, value

    def forward(self, value: SourceValue) -> str | None:
        return self.inner.forward(self.mapped(value)[1])

    def inverse(self, text: str | None) -> SourceValue:
        if self.bijective and text in self._first:
            return self._first[text].source
        value = self.inner.inverse(text)
        if self.bijective and self.patterns and isinstance(value, str):
            return self._from_pattern(value)
        return value

    def _from_pattern(self, value: str) -> str:
        """What the patterns make this value of; the value itself where they make it of none."""
        for pattern in self.patterns:
            both = both_ways(pattern.match, pattern.replace)
            source = both.back(value) if both is not None else None
            if source is not None and self.mapped(source) == (True, value):
                return source
        return value

    def returned(self, value: SourceValue) -> str | None:
        return None if self.mapped(value)[0] else self.inner.returned(value)

    def sized(self, natural: str) -> str:
        return self.inner.sized(natural)

    def changes(self, value: SourceValue) -> bool:
        if self.bijective:
            return super().changes(value)
        met, _ = self.mapped(value)
        if met:
            self.forward(value)
            return True
        return self.inner.changes(value)

    @property
    def returning(self) -> tuple[Entry, ...]:
        """The entries whose values come back by themselves."""
        return tuple(self._first.values()) if self.bijective else ()

    @cached_property
    def _first(self) -> dict[str | None, Entry]:
        """By the target's text the first entry that leads to it; NULL comes back as NULL."""
        found: dict[str | None, Entry] = {}
        for entry in self.entries:
            with suppress(CannotCarry):
                text = self.inner.forward(entry.target)
                if text is not None:
                    found.setdefault(text, entry)
        return found

    def fast_sql(self, column: str) -> str | None:
        pattern = self._pattern_sql(column)
        if pattern is not None:
            # No value meets the condition that the pattern does not meet, but NULL.
            made = self.inner.fast_sql(pattern[1])
            return None if made is None else f"CASE WHEN {column} IS NOT NULL THEN {made} END"
        inner = self.inner.fast_sql(column)
        if inner is None or not self.returning:
            return inner
        terms = [
            f"WHEN {_is(column, (entry.source,))} THEN {_literal(str(text))}"
            for text, entry in self._first.items()
        ]
        return f"CASE {' '.join(terms)} ELSE {inner} END"

    def fast_condition(self, column: str) -> str | None:
        pattern = self._pattern_sql(column)
        inner = self.inner.fast_condition(column)
        if inner is None or self.fast_sql(column) is None:
            return None
        if pattern is not None:
            met, made = pattern
            return (
                f"(CASE WHEN {column} IS NULL THEN 1 WHEN {met} "
                f"THEN {self.inner.fast_condition(made)} ELSE 0 END)"
            )
        if self.patterns:
            # No SQLite expression tells what a pattern meets: text goes through Python.
            inner = f"({inner} AND typeof({column}) <> 'text')"
        return self._condition_of_entries(column, inner)

    def _condition_of_entries(self, column: str, inner: str) -> str | None:
        """``inner`` for all values but the entries' own; None where SQL cannot tell those."""
        returning = [e.source for e in self.returning]
        others = [e.source for e in self.entries]
        others += [e.target for e in self.returning]
        values = [*returning, *others]
        if any(isinstance(v, str) and "\x00" in v for v in values):
            return None
        if None in returning or any(isinstance(v, float) for v in values):
            return None
        terms = f"WHEN {_is(column, returning)} THEN 1 " if returning else ""
        terms += f"WHEN {_is(column, others)} THEN 0 " if others else ""
        return f"(CASE {terms}ELSE {inner} END)" if terms else inner

    def _pattern_sql(self, column: str) -> tuple[str, str] | None:
        """SQLite's predicate of what the one pattern meets, and what it makes of it; None where the
        map is another, or SQLite has none."""
        if not self.bijective or len(self.patterns) != 1 or self.entries:
            return None
        (pattern,) = self.patterns
        both = both_ways(pattern.match, pattern.replace)
        return None if both is None else sql_of(both, column)


def _is(column: str, values: Sequence[Scalar]) -> str:
    """A predicate, never NULL, for a value that is one of these, class and bytes."""
    texts = [_literal(v) for v in values if isinstance(v, str)]
    numbers = [_literal(v) for v in values if isinstance(v, int)]
    terms = [f"{column} IS NULL"] if None in values else []
    if texts:
        terms.append(
            f"typeof({column}) = 'text' AND {column} COLLATE BINARY IN ({', '.join(texts)})"
        )
    if numbers:
        terms.append(f"typeof({column}) = 'integer' AND {column} IN ({', '.join(numbers)})")
    return f"({' OR '.join(terms)})" if terms else "0"


def _literal(value: str | int | float) -> str:
    if isinstance(value, str):
        return sqlite_text(value)
    if isinstance(value, float) and math.isinf(value):
        return "9e999" if value > 0 else "-9e999"
    return repr(value)


def inside(rule: RuleBase) -> RuleBase:
    """The rule behind a map; any other rule itself."""
    return inside(rule.inner) if isinstance(rule, MapRule) else rule


def again(whole: Rule, inner: Rule) -> Rule:
    """``inner`` behind the map that ``whole`` has, where it has one."""
    if isinstance(whole, MapRule) and not isinstance(inner, MapRule):
        return whole.model_copy(update={"inner": inner})
    return inner
