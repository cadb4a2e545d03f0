"""Days that SQLite holds as the moment at which they begin, to date."""

from __future__ import annotations

import re
from datetime import datetime, time
from typing import ClassVar, Literal

from migration_job.plan import moments
from migration_job.plan.facts import ColumnFacts
from migration_job.plan.rules.base import (
    CannotCarry,
    EpochUnit,
    RuleBase,
    StorageClass,
    expected,
    text_for,
)
from migration_job.plan.rules.local import LocalTimestampRule
from migration_job.plan.rules.times import timestamp
from migration_job.values import SourceValue, display

_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


class DayRule(RuleBase):
    """Midnights to date, as libraries write a day that know of times alone (Go's time.Time,
    JavaScript's Date): text of any known shape whose clock shows zero, or a number of a known unit
    that is midnight in ``zone``. The day is the one that the text spells."""

    kind: Literal["day"] = "day"
    bijective: bool = False
    shape: str = "YYYY-MM-DD HH:MM:SS"
    zone: str = "UTC"
    epoch: EpochUnit | None = None

    spelled: ClassVar[tuple[str, ...]] = ("shape", "zone", "epoch")
    doc: ClassVar[str] = "Midnights, in text or as numbers whose unit is known, to a date."
    classes: ClassVar[frozenset[StorageClass]] = frozenset({"text", "integer", "real"})
    spelling: ClassVar[bool] = True
    misfit: ClassVar[str] = "not-a-date"

    @classmethod
    def of(cls, facts: ColumnFacts, zone: str, epoch: EpochUnit | None) -> DayRule | None:
        """The rule in the commonest shape of the values; None where they are plain dates, or
        numbers that count no time."""
        like = timestamp(facts, zone, epoch)
        numbers = bool(facts.integers + facts.reals)
        if numbers if like.epoch is None else not numbers:
            return None
        if not facts.values or like.shape == "YYYY-MM-DD":
            return None
        return cls(shape=like.shape, zone=zone, epoch=like.epoch)

    @property
    def target_type(self) -> str:
        return "date"

    @property
    def _like(self) -> LocalTimestampRule:
        return LocalTimestampRule(shape=self.shape, zone=self.zone, epoch=self.epoch)

    def forward(self, value: SourceValue) -> str | None:
        if value is None:
            return None
        if isinstance(value, int | float):
            day, _, clock = str(self._like.forward(value)).partition(" ")
            if clock != "00:00:00":
                raise CannotCarry(f"{value!r} is not the beginning of a day: {day} {clock}")
            return day
        moment = moments.read(text_for(value, "a day"))
        if moment is None or moment.day is None:
            raise expected("a date such as 2026-01-31", value)
        if moment.clock not in (None, time()):
            raise CannotCarry(f"a time of day beside the date: {display(value, 60)}")
        return moment.day.isoformat()

    def inverse(self, text: str | None) -> SourceValue:
        if text is None or _DAY.fullmatch(text) is None:
            return text
        if self.shape == "epoch":
            return self._like.inverse(f"{text} 00:00:00")
        return moments.write(self.shape, datetime.fromisoformat(text))

    def returned(self, value: SourceValue) -> str | None:
        """What PostgreSQL alone has: infinite days, and those beyond the years of four digits."""
        own = isinstance(value, str) and _BEYOND.fullmatch(value) is not None
        return str(value) if own else None


_BEYOND = re.compile(r"-?infinity|\d{5,7}-\d\d-\d\d|\d{4,7}-\d\d-\d\d BC", re.ASCII)
