"""Times without a zone: timestamp."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import ClassVar, Literal

from migration_job.plan import moments
from migration_job.plan.rules.base import (
    EpochUnit,
    Request,
    RuleBase,
    TargetType,
    expected,
)
from migration_job.plan.rules.times import FINEST, Precision, TimestampRule, timestamp
from migration_job.values import SourceValue

_OUTPUT = re.compile(r"-?infinity|\d{4,6}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{1,6})?( BC)?", re.ASCII)
_OWN = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{1,6})?", re.ASCII)


_PLACE = "\x01"
"""Stands for a column's name, which may look like anything."""


class LocalTimestampRule(RuleBase):
    """Times to ``timestamp without time zone``, which says what a clock shows. What the source
    says without a zone is that; what it says of an instant (an offset, a number) is what a clock
    in ``zone`` shows then."""

    kind: Literal["local-timestamp"] = "local-timestamp"
    bijective: bool = False
    shape: str = "YYYY-MM-DD HH:MM:SS"
    zone: str = "UTC"
    epoch: EpochUnit | None = None
    precision: Precision = 6

    types: ClassVar[tuple[TargetType, ...]] = (
        TargetType(
            "timestamp without time zone",
            "opaque",
            "TEXT",
            ("2026-01-02 03:04:05",),
            (8, 8),
            words=("timestamp",),
            forms=("timestamp without time zone", "timestamp(n)"),
        ),
    )
    spelled: ClassVar[tuple[str, ...]] = ("shape", "zone", "epoch")
    doc: ClassVar[str] = (
        "Local times in text, or numbers whose unit is known, in the declared zone. Text "
        "in the column's commonest shape comes back as it was."
    )
    spelling: ClassVar[bool] = True
    misfit: ClassVar[str] = "not-a-time"

    @classmethod
    def asked(cls, request: Request) -> RuleBase:
        precision = min(FINEST, request.numbers[0]) if request.numbers else FINEST
        like = timestamp(request.facts, request.zone, request.epoch, precision=precision)
        return cls(shape=like.shape, zone=like.zone, epoch=like.epoch, precision=like.precision)

    @property
    def target_type(self) -> str:
        precision = "" if self.precision == FINEST else f"({self.precision})"
        return f"timestamp{precision} without time zone"

    @property
    def _says_instants(self) -> bool:
        return self.shape == "epoch" or moments.parse_shape(self.shape).offset is not None

    def _like(self, zone: str = "UTC") -> TimestampRule:
        return TimestampRule(
            shape=self.shape, zone=zone, epoch=self.epoch, precision=self.precision
        )

    def forward(self, value: SourceValue) -> str | None:
        text = self._like().forward(value)
        if text is None:
            return None
        moment = moments.read(value) if isinstance(value, str) else None
        if moment is not None and moment.offset is None:
            return text.removesuffix("+00")
        instant = moments.read_postgres_timestamp(text)
        try:
            local = instant.astimezone(moments.zone_of(self.zone)).replace(tzinfo=UTC)
        except OverflowError:
            raise expected("a time of the years 1 to 9999", value) from None
        return moments.postgres_timestamp(local).removesuffix("+00")

    def inverse(self, text: str | None) -> SourceValue:
        if text is None or _OWN.fullmatch(text) is None:
            return text
        if not self._says_instants:
            return self._like().inverse(text + "+00")
        local = datetime.fromisoformat(text)
        try:
            instant = local.replace(tzinfo=moments.zone_of(self.zone)).astimezone(UTC)
        except OverflowError:
            return text
        return self._like().inverse(moments.postgres_timestamp(instant))

    def returned(self, value: SourceValue) -> str | None:
        if not isinstance(value, str) or _OUTPUT.fullmatch(value) is None:
            return None
        return value if self.inverse(value) == value else None

    def _needs_no_zone(self) -> bool:
        """Whether no zone has to be worked with."""
        return not self._says_instants or self.zone.upper() in ("UTC", "Z", "GMT")

    def fast_sql(self, column: str) -> str | None:
        sql = self._like().fast_sql(_PLACE) if self._needs_no_zone() else None
        return None if sql is None else sql.replace("+00'", "'").replace(_PLACE, column)

    def fast_condition(self, column: str) -> str | None:
        return self._like().fast_condition(column) if self._needs_no_zone() else None
