"""Policies that would give a column a narrower or truer type, each only a proposal: the assigner
tries it on every value before anybody is told of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from migration_job.plan.column_reports import Subject
from migration_job.plan.facts import ColumnFacts
from migration_job.plan.rules import (
    BooleanRule,
    ByteaRule,
    CannotCarry,
    DateRule,
    EpochUnit,
    JsonBlobRule,
    Rule,
    TextRule,
    TimeRule,
    TimestampRule,
    UuidRule,
    inside,
)
from migration_job.plan.rules.arrays import ArrayRule
from migration_job.plan.rules.lists import ListRule
from migration_job.plan.storage import is_truth
from migration_job.values import SourceValue

Fields = Mapping[str, Any]
"""Fields of a column's policy."""

TRUE = frozenset({"true", "t", "yes", "y", "on"})
FALSE = frozenset({"false", "f", "no", "n", "off"})
NULLS = frozenset(
    {"", "null", "none", "nil", "nan", "n/a", "na", "-", "--", "?", "unknown",
     "0000-00-00", "0000-00-00 00:00:00", "00:00:00"}
)  # fmt: skip
"""What applications write for no value, in lower case."""

UNITS: Sequence[EpochUnit] = (
    *("s", "ms", "us", "julian", "filetime", "ticks", "ns", "excel", "apple"),
)
PLAUSIBLE = (datetime(1980, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
"""Times that numbers in a column of times are taken to mean."""

BEGINNING, LONGEST = datetime(1970, 1, 1, tzinfo=UTC), timedelta(days=30)
"""Where times that are durations begin, and how long those are at most."""

MOST_ASIDE = 0.1
"""The part of a column's values up to which the rows at fault are few enough to set aside."""

_HEX32 = re.compile(r"[0-9a-fA-F]{32}", re.ASCII)
_DATED = re.compile(r"(\d{4}-\d\d-\d\d[ T])\d\d:\d\d(:\d\d(\.\d+)?)?", re.ASCII)
_DIGESTS = re.compile(r"md5|hash|digest|checksum|etag|fingerprint|token|secret", re.IGNORECASE)
_TRUTHS = re.compile(r"\s*(TINYINT\s*\(\s*1\s*\)|BIT\s*(\(\s*1\s*\))?)\s*", re.IGNORECASE)


def for_misfits(
    subject: Subject, rule: Rule, misfits: Sequence[SourceValue], *, nullable: bool
) -> Iterator[Fields]:
    """What might keep the type of ``rule``, which does not carry the ``misfits``; the likeliest
    first."""
    inner = inside(rule)
    if isinstance(inner, BooleanRule):
        yield from _truths(misfits, nullable=nullable)
    if isinstance(inner, TimestampRule | DateRule | TimeRule):
        yield from _units(subject.facts.sample)
    if isinstance(inner, TimeRule):
        yield from _clocks(misfits)
    if isinstance(inner, UuidRule):
        yield from _byte_orders(misfits)
    if isinstance(inner, ArrayRule | ListRule):
        yield from ({"separator": separator} for separator in _separators(subject.facts.sample))
    nulls = _nulls(misfits)
    if nulls and nullable:
        yield nulls


def _separators(sample: Sequence[SourceValue]) -> list[str]:
    """What may stand between the elements of lists, the commonest first; none where a list is
    written as in JSON or as PostgreSQL writes it."""
    texts = [value for value in sample if isinstance(value, str)]
    if any(text[:1] in ("[", "{") for text in texts):
        return []
    met = {separator: sum(separator in text for text in texts) for separator in SEPARATORS}
    found = sorted((s for s in SEPARATORS if met[s]), key=lambda s: -met[s])
    return found or [","][: len(texts)]


SEPARATORS = (", ", ",", ";", "|")
"""Those that are tried; of two that are as common the longer one, which leaves no blank."""


def for_mixed(misfits: Sequence[SourceValue], *, nullable: bool) -> Iterator[Fields]:
    """What might make numbers of a column without a declared type, of which ``misfits`` are its
    texts."""
    yield {"type": "numeric"}
    nulls = _nulls(misfits)
    if nulls and nullable:
        yield {"type": "bigint", **nulls}
        yield {"type": "numeric", **nulls}


def for_type(subject: Subject, rule: Rule) -> Iterator[tuple[Fields, str]]:
    """What might be a truer type for a column whose values its type carries, and why."""
    column, facts = subject.column, subject.facts
    why = _why_truths(subject)
    numbers = not isinstance(inside(rule), BooleanRule) and facts.classes == {"integer"}
    if why and numbers and _within(facts.low, facts.high):
        yield {"type": "boolean"}, f"{why}, and every value is 0 or 1: a boolean?"
    if isinstance(rule, ByteaRule) and _all_documents(facts) and not _indexed(subject):
        yield {"type": "json"}, "every blob is a JSON document: JSON?"
    if isinstance(inside(rule), TimestampRule) and _near_the_beginning(facts.sample):
        why = (
            "every time lies in the first days of 1970: durations, as SQLAlchemy's Interval keeps "
            "them?"
        )
        yield {"type": "interval"}, why
    texts = isinstance(rule, TextRule) and facts.classes == {"text"}
    if texts and _all_hex(facts.sample) and not _DIGESTS.search(column.name):
        why = "every text has 32 hexadecimal digits: a UUID, where it is no digest?"
        yield {"type": "uuid"}, why


def _why_truths(subject: Subject) -> str:
    """What says that a column of integers holds truth values; '' where nothing does."""
    column = subject.column
    if _TRUTHS.fullmatch(column.declared):
        return f"declared {column.declared}"
    if is_truth(subject.table.checks, column.name):
        return "a CHECK allows 0 and 1 alone"
    word = (column.default or "").strip("()").strip().lower()
    return f"DEFAULT {word}" if word in ("false", "true") else ""


def _all_documents(facts: ColumnFacts) -> bool:
    """Whether all of these blobs are objects or lists in JSON, as text or as SQLite's JSONB."""
    blobs = [value for value in facts.sample if isinstance(value, bytes)]
    return facts.classes == {"blob"} and bool(blobs) and all(map(_is_document, blobs))


def _is_document(blob: bytes) -> bool:
    try:
        text = JsonBlobRule(form="text").forward(blob)
    except CannotCarry:
        return False
    return (text or "").lstrip()[:1] in ("{", "[")


def _indexed(subject: Subject) -> bool:
    """Whether the column is compared, which ``json`` cannot be."""
    names = {
        *(term.column for index in subject.table.indexes for term in index.columns),
        *(name for key in subject.table.foreign_keys for name in key.columns),
    }
    return subject.column.primary_key > 0 or subject.column.name in names


def _near_the_beginning(values: Sequence[SourceValue]) -> bool:
    """Whether all of these are texts of times that are durations rather, counted from 1970."""
    rule, texts = TimestampRule(), [value for value in values if value is not None]
    if not texts or not all(isinstance(text, str) for text in texts):
        return False
    # One after another: the first value of most columns says that it is none of these.
    found = (datetime.fromisoformat(str(rule.forward(text))) for text in texts)
    try:
        return all(abs(moment - BEGINNING) < LONGEST for moment in found)
    except (CannotCarry, ValueError):
        return False


def carried(rule: Rule, values: Sequence[SourceValue]) -> bool:
    """Whether the rule carries each of the values."""
    try:
        for value in values:
            rule.forward(value)
    except CannotCarry:
        return False
    return True


def _within(low: int | None, high: int | None) -> bool:
    return low is not None and high is not None and low >= 0 and high <= 1


def _all_hex(values: Sequence[SourceValue]) -> bool:
    texts = [value for value in values if value is not None]
    return bool(texts) and all(isinstance(t, str) and _HEX32.fullmatch(t) for t in texts)


def _word(text: str) -> str | None:
    """The text as it is compared; None for what a line of a policy cannot show."""
    return text.strip().lower() if text.isprintable() else None


def _nulls(misfits: Sequence[SourceValue]) -> Fields | None:
    words = [v for v in misfits if isinstance(v, str) and _word(v) in NULLS]
    if not words or len(words) < len(misfits):
        return None
    return {"empty": None} if words == [""] else {"map": dict.fromkeys(sorted(words))}


def _truths(misfits: Sequence[SourceValue], *, nullable: bool) -> Iterator[Fields]:
    words = {v: _word(v) for v in misfits if isinstance(v, str)}
    found: dict[bool, list[str]] = {
        truth: sorted(v for v, word in words.items() if word in meant)
        for truth, meant in ((True, TRUE), (False, FALSE))
    }
    booleans = {truth: texts for truth, texts in found.items() if texts}
    if not booleans:
        return
    yield {"booleans": booleans}
    if "" in words and nullable:
        yield {"booleans": booleans, "empty": None}


def _units(sample: Sequence[SourceValue]) -> Iterator[Fields]:
    numbers = [v for v in sample if isinstance(v, int | float)]
    for unit in UNITS if numbers else ():
        rule = TimestampRule(shape="epoch", epoch=unit)
        if all(_plausible(rule, number) for number in numbers):
            yield {"epoch": unit}


def _clocks(misfits: Sequence[SourceValue]) -> Iterator[Fields]:
    """Times of day that carry one date, as Rails' do."""
    texts = [value for value in misfits if value is not None]
    found = [_DATED.fullmatch(text) if isinstance(text, str) else None for text in texts]
    dates = {match[1] for match in found if match is not None}
    if len(dates) == 1 and None not in found:
        # So it goes both ways; what is no time of day is refused behind it.
        yield {"action": "map", "pattern": [{"match": dates.pop() + "(.*)", "replace": r"\1"}]}


def _plausible(rule: TimestampRule, number: SourceValue) -> bool:
    try:
        text = rule.forward(number)
        moment = datetime.fromisoformat(str(text))
    except (CannotCarry, ValueError):
        return False
    return PLAUSIBLE[0] <= moment <= PLAUSIBLE[1]


def _byte_orders(misfits: Sequence[SourceValue]) -> Iterator[Fields]:
    """The one order of the bytes in which every blob names a version of UUIDs."""
    blobs = [v for v in misfits if isinstance(v, bytes) and len(v) == 16]
    places: Mapping[str, int] = {"network": 6, "dotnet": 7}
    orders = [
        order
        for order, place in places.items()
        if all(1 <= blob[place] >> 4 <= 8 and blob[8] >> 6 == 2 for blob in blobs)
    ]
    if blobs and len(orders) == 1:
        yield {"guid": orders[0]}


def first_that(works: Callable[[Fields], bool], proposals: Iterator[Fields]) -> Fields | None:
    """The first of the proposals that works."""
    return next((fields for fields in proposals if works(fields)), None)
