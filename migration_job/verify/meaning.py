"""What a value means, read from each side by itself: the typed comparison's own parsing.

``of_source`` reads a raw SQLite value, ``of_target`` PostgreSQL's text output; both give canonical
text that PostgreSQL takes as the type's input, and equal texts mean equal values. Nothing here
knows how the copier writes a value: only what the plan says a column's values mean, which is data
(the rule's kind and its settings).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from migration_job.plan.model import ColumnPlan
from migration_job.values import BrokenText, SourceValue, display
from migration_job.verify import (
    meaning_lists,
    meaning_numbers,
    meaning_target,
    meaning_texts,
    meaning_times,
)
from migration_job.verify.meaning_numbers import REAL
from migration_job.verify.meaning_target import Inexact as Inexact
from migration_job.verify.meaning_times import EPOCH


def of_source(column: ColumnPlan, value: SourceValue) -> str | None:
    """The meaning of a source value in this column. Raises Inexact."""
    return _of_source(column.rule, value)


def _of_source(rule: Any, value: SourceValue) -> str | None:
    if value is None and not (rule.kind == "map" and rule.bijective):
        return None
    while rule.kind == "map":
        if rule.bijective:
            value = _through_map(rule, value)
        rule = rule.inner
    return None if value is None else _SOURCE[rule.kind](rule, value)


def _through_map(rule: Any, value: SourceValue) -> SourceValue:
    """What a map that goes both ways makes of a value. Raises Inexact for one that would not come
    back: the first entry of a target value is the one that does."""
    place = {(type(e.source), e.source): n for n, e in reversed(list(enumerate(rule.entries)))}
    number = place.get((type(value), value)) if not isinstance(value, bytes | BrokenText) else None
    targets = [(type(e.target), e.target) for e in rule.entries if e.target is not None]
    if number is None:
        if (type(value), value) in targets:
            raise Inexact(f"{display(value)} would come back as another value of the map's")
        return _through_patterns(rule, value)
    target = rule.entries[number].target
    first = next(n for n, e in enumerate(rule.entries) if _alike(e.target, target))
    if target is None:
        return value  # on the target only where it was written there, as what it is
    if first != number:
        raise Inexact(f"{display(value)} would come back as another value of the map's")
    if isinstance(target, int) and rule.inner.kind in ("text", "widened-text", "integer-text"):
        return str(target)
    return target if isinstance(target, int | float | str) else None


def _through_patterns(rule: Any, value: SourceValue) -> SourceValue:
    """What the first pattern that meets a text as a whole makes of it."""
    if isinstance(value, str):
        for pattern in rule.patterns:
            found = re.fullmatch(pattern.match, value, re.DOTALL)
            if found is not None:
                return found.expand(pattern.replace)
    return value


def _alike(left: object, right: object) -> bool:
    return type(left) is type(right) and left == right


def of_target(column: ColumnPlan, text: str | None) -> str | None:
    """The meaning of a target value's text output (or of input text, as the ledger has it).
    Raises ValueError for text that is none of the type."""
    return None if text is None else _of_target(column.rule, text)


def _of_target(rule: Any, text: str) -> str:
    while rule.kind == "map":
        rule = rule.inner
    return _TARGET[rule.kind](rule, text)


def _list_source(rule: Any, value: SourceValue) -> str:
    def each(own: Any, part: SourceValue) -> str | None:
        return _as_input(own, _of_source(own, part))

    return meaning_lists.list_source(rule, value, each)


def _list_target(rule: Any, text: str) -> str:
    def each(own: Any, part: str) -> str:
        return str(_as_input(own, _of_target(own, part)))

    return meaning_lists.list_target(rule, text, each)


# ---------------------------------------------------------------------------------- the kinds

_SOURCE: dict[str, Callable[[Any, SourceValue], str]] = {
    **meaning_numbers.SOURCE,
    **meaning_texts.SOURCE,
    **meaning_times.SOURCE,
    **meaning_target.SOURCE,
    **meaning_lists.SOURCE,
    "list": _list_source,
}

_TARGET: dict[str, Callable[[Any, str], str]] = {
    **meaning_numbers.TARGET,
    **meaning_texts.TARGET,
    **meaning_times.TARGET,
    **meaning_target.TARGET,
    **meaning_lists.TARGET,
    "list": _list_target,
}
"""Complete for every kind of rule; a test compares it with the rules that there are."""


def as_parameter(column: ColumnPlan, meaning: str | None) -> str | None:
    """A meaning as input text for a query by key."""
    return _as_input(column.rule, meaning)


def _as_input(rule: Any, meaning: str | None) -> str | None:
    if meaning is None:
        return None
    while rule.kind == "map":
        rule = rule.inner
    if rule.kind in ("timestamp", "local-timestamp") and meaning.lstrip("-").isdigit():
        instant = EPOCH + timedelta(microseconds=int(meaning))
        text = f"{instant.year:04d}-{instant:%m-%d %H:%M:%S.%f}"
        return text + "+00" if rule.kind == "timestamp" else text
    if rule.kind == "json" and meaning.startswith("real "):
        return meaning[5:]
    if meaning.startswith(REAL):
        return meaning.removeprefix(REAL)
    return meaning_target.as_parameter(rule.kind, meaning)
