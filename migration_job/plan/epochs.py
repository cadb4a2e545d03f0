"""Numbers that are taken for times: what they would mean, and what speaks against it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from migration_job.plan.facts import ColumnFacts
from migration_job.plan.rules import CannotCarry, EpochUnit, TimestampRule
from migration_job.plan.rules.days import DayRule
from migration_job.plan.rules.local import LocalTimestampRule
from migration_job.stores.sqlite.model import SourceTable
from migration_job.values import fold

TimesRule = TimestampRule | LocalTimestampRule | DayRule

UNIT_WORDS: Mapping[EpochUnit, str] = {
    "s": "seconds since 1970",
    "ms": "milliseconds since 1970",
    "us": "microseconds since 1970",
    "ns": "nanoseconds since 1970",
    "julian": "Julian days",
    "apple": "seconds since 2001",
    "filetime": "tenths of microseconds since 1601",
    "ticks": "tenths of microseconds since the year 1",
    "excel": "days since 1899-12-30",
}

_PER_SECOND: Mapping[EpochUnit, int] = {"s": 1, "ms": 1_000, "us": 1_000_000}
_OF_APPLE = 1_000_000_000
"""2001-09-09 in seconds since 1970: what lies before, in the files of today's applications, counts
from 2001 rather."""


def shown_time(rule: TimesRule, number: int) -> str:
    """The time, to the second, as people read it."""
    try:
        return str(rule.forward(number))[:19]
    except CannotCarry:
        return "no time"


def doubt(table: SourceTable, facts: ColumnFacts, rule: TimesRule) -> str:
    """What speaks against the unit that the numbers suggest, as the rest of a sentence; '' where
    nothing does."""
    per_second = _PER_SECOND.get(rule.epoch or "julian")
    if per_second is None or facts.low is None or facts.high is None:
        return ""
    names = {fold(column.name) for column in table.columns}
    if {"z_pk", "z_ent"} <= names:
        return (
            "; the table is Core Data's, which counts seconds from 2001: say `epoch: apple` for "
            "these, or `epoch: s` where it is right"
        )
    if facts.high < _OF_APPLE * per_second:
        other = TimestampRule(shape="epoch", epoch="apple")
        times = " to ".join(
            dict.fromkeys(shown_time(other, end // per_second) for end in (facts.low, facts.high))
        )
        resolved = " (epoch: apple)" if rule.epoch == "s" else ""
        return f"; counted from 2001, as Apple's applications do, it is {times}{resolved}"
    if facts.low > datetime.now(UTC).timestamp() * per_second:
        return "; all of them are still to come: are they times?"
    return ""
