"""Times: timestamp with time zone, date, time."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from migration_job.plan import counted, moments
from migration_job.plan.facts import ColumnFacts
from migration_job.plan.rules.base import (
    CannotCarry,
    EpochUnit,
    Request,
    RuleBase,
    TargetType,
    expected,
    text_for,
)
from migration_job.values import SourceValue, display

FINEST = moments.MICROSECOND_DIGITS
"""The most decimals of a second that PostgreSQL keeps."""

PLAUSIBLE_EPOCH = (315_532_800, 4_102_444_800)
"""1980 to 2100 in seconds: integers in a DATETIME column that all lie here are epoch seconds; the
ranges of milliseconds and microseconds do not overlap with it."""

_EPOCH_UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000}
_LAST_SECOND = 253_402_300_799
"""The calendar's, from 1970."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Precision = Annotated[int, Field(ge=0, le=6)]


_TIMESTAMP_OUTPUT = re.compile(
    r"-?infinity|\d{4,6}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{1,6})?\+00( BC)?", re.ASCII
)
_DATE_OUTPUT = re.compile(r"-?infinity|\d{5,7}-\d\d-\d\d|\d{4,7}-\d\d-\d\d BC", re.ASCII)
MIDNIGHT_AFTER = "24:00:00"
"""PostgreSQL's end of a day, which is no time of SQLite's."""


def _fraction_glob(digits: int) -> str:
    return "." + "[0-9]" * digits if digits else ""


class TimestampRule(RuleBase):
    """Times to ``timestamp with time zone``. ``shape`` is how the column writes them (a template
    of :mod:`migration_job.plan.moments`, or ``epoch`` with ``epoch`` the unit of its numbers).

    Text of any known shape is carried to its instant, cut to ``precision``; only text of ``shape``
    comes back as it was, and text of its finer shape (:func:`moments.finer`) where ``shape`` has no
    room for what it says. Text that names no zone is in ``zone``; numbers need ``epoch``.
    """

    kind: Literal["timestamp"] = "timestamp"
    bijective: bool = False
    shape: str = "YYYY-MM-DD HH:MM:SS"
    zone: str = "UTC"
    epoch: EpochUnit | None = None
    precision: Precision = 6
    """Decimals of a second, which the type has as well: PostgreSQL rounds what it is given to a
    time that the source can hold."""
    reals: bool = False
    """Whether the column keeps whole numbers as reals."""

    types: ClassVar[tuple[TargetType, ...]] = (
        TargetType(
            "timestamp with time zone",
            "time",
            "TEXT",
            ("2026-01-02 03:04:05+00",),
            (8, 8),
            words=("timestamptz",),
            forms=("timestamp with time zone", "timestamptz(n)"),
        ),
    )
    spelled: ClassVar[tuple[str, ...]] = ("shape", "zone", "epoch", "reals")
    doc: ClassVar[str] = (
        "Times in text, or numbers whose unit is known; text in the column's commonest shape comes "
        "back as it was."
    )
    spelling: ClassVar[bool] = True
    misfit: ClassVar[str] = "not-a-time"
    declared_first: ClassVar[frozenset[str]] = frozenset(
        {"DATETIME", "TIMESTAMP", "TIMESTAMPTZ", "DATETIME2", "SMALLDATETIME"}
    )

    @classmethod
    def wished(cls, request: Request) -> RuleBase:
        real = request.affinity == "real"
        return timestamp(request.facts, request.zone, declared=request.numbers[:1], reals=real)

    @classmethod
    def asked(cls, request: Request) -> RuleBase:
        return timestamp(
            request.facts,
            request.zone,
            request.epoch,
            precision=_given(request.numbers),
            reals=request.affinity == "real",
        )

    def spelled_as(self, other: RuleBase) -> RuleBase:
        found = super().spelled_as(other)
        if not isinstance(other, TimestampRule) or other.shape != "epoch":
            return found
        # What the unit's numbers cannot tell apart the type must not hold either.
        return found.model_copy(update={"precision": min(self.precision, other.precision)})

    @property
    def target_type(self) -> str:
        return f"timestamp{_modifier(self.precision)} with time zone"

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Plans of earlier releases, whose rules said nothing of reals, keep their digests."""
        data: dict[str, Any] = handler(self)
        return {name: value for name, value in data.items() if name != "reals" or value}

    def forward(self, value: SourceValue) -> str | None:
        if value is None:
            return None
        if isinstance(value, int | float):
            return self._of_number(value)
        text = text_for(value, "a time")
        moment = moments.read(text)
        if moment is None or moment.day is None:
            raise expected("a time of a known shape", value)
        naive = datetime.combine(moment.day, moment.clock or datetime.min.time())
        try:
            if moment.offset is None:
                instant = naive.replace(tzinfo=moments.zone_of(self.zone))
            else:
                instant = naive.replace(tzinfo=UTC) - moment.offset
            return moments.postgres_timestamp(moments.cut(instant, self.precision))
        except OverflowError:
            raise CannotCarry(f"outside the years 1 to 9999: {display(value)}") from None

    def _of_number(self, value: float) -> str:
        if self.epoch is None:
            raise expected("a time in text (or a declared epoch unit)", value)
        try:
            micros = counted.micros_of(self.epoch, value)
            instant = _EPOCH + timedelta(microseconds=micros)
            return moments.postgres_timestamp(moments.cut(instant, self.precision))
        except (OverflowError, ValueError, ArithmeticError):
            raise CannotCarry(f"outside the years 1 to 9999: {value!r}") from None

    def cuts(self, value: SourceValue) -> bool:
        if isinstance(value, int | float) and self.epoch is not None:
            return counted.is_finer(self.epoch, value, self.precision)
        return isinstance(value, str) and moments.is_finer(value, self.precision)

    def inverse(self, text: str | None) -> SourceValue:
        if text is None:
            return None
        try:
            instant = moments.read_postgres_timestamp(text)
        except (ValueError, OverflowError):
            return text
        if self.shape == "epoch":
            return self._number(instant)
        shape, offset = self.shape, moments.parse_shape(self.shape).offset
        try:
            if offset is None:
                there = instant.astimezone(moments.zone_of(self.zone))
                local = there.replace(tzinfo=None)
                if there.fold:
                    # Of the two hours of one name this is the second, and read as the first.
                    shape = moments.finer(shape, self.precision if local.microsecond else 0)
                    return moments.write(shape, local) + moments.offset_text(there)
            else:
                local = (instant + offset).replace(tzinfo=None)
        except OverflowError:
            return text
        return moments.write_finely(shape, self.precision, local)

    def returned(self, value: SourceValue) -> str | None:
        if not isinstance(value, str) or _TIMESTAMP_OUTPUT.fullmatch(value) is None:
            return None
        return value if self.inverse(value) == value else None

    def _number(self, instant: datetime) -> SourceValue:
        delta = instant - _EPOCH
        micros = (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds
        number = counted.number_of(self.epoch or "us", micros, reals=self.reals)
        # The text keeps what a real has no digits for.
        return moments.postgres_timestamp(instant) if number is None else number

    def fast_sql(self, column: str) -> str | None:
        if self.shape == "epoch":
            return self._fast_epoch(column)
        shape = moments.parse_shape(self.shape)
        if not self._fast(shape):
            return None
        if not shape.has_clock:
            return f"{column} || ' 00:00:00+00'"
        minutes = int((shape.offset or timedelta()).total_seconds()) // 60
        if minutes:
            modifier = f"{-minutes:+d} minutes"
            head = f"strftime('%Y-%m-%d %H:%M:%S', substr({column}, 1, 19), '{modifier}')"
        elif shape.separator == " ":
            whole = self.shape == "YYYY-MM-DD HH:MM:SS" and not self.precision
            head = column if whole else f"substr({column}, 1, 19)"
        else:
            head = f"substr({column}, 1, 10) || ' ' || substr({column}, 12, 8)"
        digits = self._digits(shape)
        if digits:
            fraction = f"rtrim(rtrim(substr({column}, 20, {1 + digits}), '0'), '.')"
            if not shape.digits:
                # Where there is no fraction, the zone may stand in its place.
                bare = 19 + len(shape.zone)
                fraction = f"CASE WHEN length({column}) > {bare} THEN {fraction} ELSE '' END"
            head += f" || {fraction}"
        return f"{head} || '+00'"

    def _digits(self, shape: moments.Shape) -> int:
        """Decimals of a second that a text of the column may have."""
        return min(shape.digits or (self.precision if shape.has_seconds else 0), 6)

    def _fast_epoch(self, column: str) -> str | None:
        match self.epoch:
            case "s":
                return f"datetime({column}, 'unixepoch') || '+00'"
            case "ms" | "us":
                size = _EPOCH_UNITS[self.epoch]
                digits = len(str(size)) - 1
                if digits > self.precision:
                    return None
                # As printf('.%03d', ...), in half the time.
                fraction = f"substr({size} + {column} % {size}, 2)"
                return (
                    f"datetime({column} / {size}, 'unixepoch') || CASE {column} % {size} "
                    f"WHEN 0 THEN '' ELSE '.' || rtrim({fraction}, '0') END || '+00'"
                )
            case _:
                return None

    def implied_by(self, facts: ColumnFacts) -> bool:
        if self.shape != "epoch" or self._fast_epoch("c") is None:
            return super().implied_by(facts)
        low, high = facts.low or 0, facts.high or 0
        return facts.classes <= {"integer"} and low >= 0 and high <= self._high

    @property
    def _high(self) -> int:
        """The number of the last second of the year 9999."""
        return _LAST_SECOND * _EPOCH_UNITS[str(self.epoch)]

    def _fast(self, shape: moments.Shape) -> bool:
        """Whether SQLite's own functions read the shape: a full clock, UTC or a fixed offset."""
        if shape.separator == "t" or (shape.has_clock and not shape.has_seconds):
            return False
        if shape.zone == "" and self.zone.upper() not in ("UTC", "Z", "GMT"):
            return False
        # PostgreSQL would round what it is given beyond its precision; the rule cuts it.
        return shape.digits <= self.precision

    def fast_condition(self, column: str) -> str | None:
        if self.shape == "epoch":
            if self._fast_epoch(column) is None:
                return None
            # Non-negative, so that SQLite's / and % floor; up to the year 9999.
            return (
                f"({column} IS NULL OR typeof({column}) = 'integer' "
                f"AND {column} BETWEEN 0 AND {self._high})"
            )
        shape = moments.parse_shape(self.shape)
        if not self._fast(shape):
            return None
        # Comparing with what SQLite's function prints tests the shape, the digits and the
        # calendar at once: 2024-02-30 would come back as 2024-03-01. BINARY, because under RTRIM
        # a trailing blank would pass; substr(), because a column of numeric affinity would make a
        # number of '0000'.
        text = f"typeof({column}) = 'text' AND "
        if not shape.has_clock:
            text += f"date({column}) IS {column} COLLATE BINARY"
        elif self.shape == "YYYY-MM-DD HH:MM:SS" and not self.precision:
            text += f"datetime({column}) IS {column} COLLATE BINARY"
        else:
            head = f"substr({column}, 1, 19)"
            text += (
                f"strftime('%Y-%m-%d{shape.separator}%H:%M:%S', {head}) IS {head} "
                f"AND {self._suffix(column, shape)}"
            )
        # SQLite's functions read years before 1, too ('0000', '-2024'). At both ends an offset
        # would lead out of the calendar.
        text += f" AND substr({column}, 1, 4) >= '0001'"
        if shape.offset:
            text += f" AND substr({column}, 1, 4) NOT IN ('0001', '9999')"
        return f"({column} IS NULL OR {text})"

    def _suffix(self, column: str, shape: moments.Shape) -> str:
        """A predicate of what follows the seconds."""

        def of(digits: int) -> str:
            length = 19 + (digits + 1 if digits else 0) + len(shape.zone)
            glob = _fraction_glob(digits) + shape.zone
            return f"length({column}) = {length} AND substr({column}, 20) GLOB '{glob}'"

        if shape.digits or not self.precision:
            return of(shape.digits)
        finer = f"{of(self.precision)} AND trim(substr({column}, 21, {self.precision}), '0') <> ''"
        return f"({of(0)} OR {finer})"


class DateRule(RuleBase):
    """``YYYY-MM-DD`` to date."""

    kind: Literal["date"] = "date"

    types: ClassVar[tuple[TargetType, ...]] = (
        TargetType("date", "date", "TEXT", ("2026-01-02",), (4, 4)),
    )
    doc: ClassVar[str] = "Dates in text, as in 2026-01-31."
    own_class: ClassVar[bool] = True
    spelling: ClassVar[bool] = True
    misfit: ClassVar[str] = "not-a-date"
    declared: ClassVar[frozenset[str]] = frozenset({"DATE"})

    @property
    def target_type(self) -> str:
        return "date"

    def forward(self, value: SourceValue) -> str | None:
        if value is None:
            return None
        text = text_for(value, "a date")
        moment = moments.read(text)
        if moment is None or moment.shape != "YYYY-MM-DD":
            raise expected("a date such as 2026-01-31", value)
        return text

    def inverse(self, text: str | None) -> SourceValue:
        return text

    def returned(self, value: SourceValue) -> str | None:
        own = isinstance(value, str) and _DATE_OUTPUT.fullmatch(value) is not None
        return str(value) if own else None

    def fast_sql(self, column: str) -> str | None:
        return column

    def fast_condition(self, column: str) -> str | None:
        return (
            f"({column} IS NULL OR typeof({column}) = 'text' "
            f"AND date({column}) IS {column} COLLATE BINARY "
            f"AND substr({column}, 1, 4) >= '0001')"
        )


class TimeRule(RuleBase):
    """``HH:MM``, ``HH:MM:SS`` or ``HH:MM:SS.ffffff`` to time; only ``shape`` comes back."""

    kind: Literal["time"] = "time"
    bijective: bool = False
    shape: str = "HH:MM:SS"
    precision: Precision = 6
    """As with :class:`TimestampRule`."""

    types: ClassVar[tuple[TargetType, ...]] = (
        TargetType(
            "time",
            "time",
            "TEXT",
            ("03:04:05",),
            (8, 8),
            words=("time without time zone",),
            forms=("time", "time(n)"),
        ),
    )
    spelled: ClassVar[tuple[str, ...]] = ("shape",)
    doc: ClassVar[str] = "Times of day in text; those in the column's shape come back as they were."
    spelling: ClassVar[bool] = True
    misfit: ClassVar[str] = "not-a-time"
    declared_first: ClassVar[frozenset[str]] = frozenset({"TIME"})

    @classmethod
    def wished(cls, request: Request) -> RuleBase:
        return clock(request.facts, request.numbers[:1])

    @classmethod
    def asked(cls, request: Request) -> RuleBase:
        return clock(request.facts, precision=_given(request.numbers))

    @property
    def target_type(self) -> str:
        return f"time{_modifier(self.precision)}"

    def forward(self, value: SourceValue) -> str | None:
        if value is None:
            return None
        text = text_for(value, "a time of day")
        moment = moments.read(text)
        if moment is None or moment.day is not None or moment.clock is None:
            raise expected("a time of day such as 13:45:00", value)
        clock = moments.cut(datetime.combine(datetime.min.date(), moment.clock), self.precision)
        fraction = f".{clock.microsecond:06d}".rstrip("0") if clock.microsecond else ""
        return f"{clock:%H:%M:%S}{fraction}"

    def cuts(self, value: SourceValue) -> bool:
        return isinstance(value, str) and moments.is_finer(value, self.precision)

    def inverse(self, text: str | None) -> SourceValue:
        if text is None:
            return None
        moment = moments.read(text)
        if moment is None or moment.clock is None:
            return text
        clock = datetime.combine(datetime.min.date(), moment.clock)
        return moments.write_finely(self.shape, self.precision, clock)

    def returned(self, value: SourceValue) -> str | None:
        return MIDNIGHT_AFTER if value == MIDNIGHT_AFTER else None

    def fast_sql(self, column: str) -> str | None:
        return column if self.shape == "HH:MM:SS" else None

    def fast_condition(self, column: str) -> str | None:
        if self.shape != "HH:MM:SS":
            return None
        return (
            f"({column} IS NULL OR typeof({column}) = 'text' "
            f"AND time({column}) IS {column} COLLATE BINARY)"
        )


def _modifier(precision: int) -> str:
    return "" if precision == FINEST else f"({precision})"


def _given(numbers: Sequence[int]) -> int:
    """The precision of a type that is asked for by name: PostgreSQL's own where it names none."""
    return min(FINEST, numbers[0]) if numbers else FINEST


def timestamp(
    facts: ColumnFacts,
    zone: str,
    epoch: EpochUnit | None = None,
    *,
    declared: Sequence[int] = (),
    precision: int | None = None,
    reals: bool = False,
) -> TimestampRule:
    """The rule for times: the commonest shape of the text, or the unit of the numbers. Its
    precision is the finest that the sample or the declared type has, where none is given, and none
    that the unit's numbers cannot tell apart. ``reals``: the column's numbers are reals."""
    numbers = facts.integers + facts.reals
    if epoch is None and numbers and not facts.reals:
        epoch = epoch_unit(facts)
    if epoch is not None and numbers >= facts.texts:
        if precision is None:
            precision = FINEST if facts.reals else counted.COARSE.get(epoch, FINEST)
        precision = min(precision, counted.FINEST_OF.get(epoch, FINEST))
        return TimestampRule(
            shape="epoch", epoch=epoch, zone=zone, precision=precision, reals=reals
        )
    shape, seen = _shape_and_digits(facts)
    if epoch is not None and numbers:
        seen = max(seen or 0, counted.COARSE.get(epoch, FINEST))
    if shape is None:
        shape = "YYYY-MM-DD HH:MM:SS"
    if precision is None:
        precision = _precision(seen, declared)
    return TimestampRule(shape=shape, epoch=epoch, zone=zone, precision=precision)


def clock(
    facts: ColumnFacts, declared: Sequence[int] = (), precision: int | None = None
) -> TimeRule:
    """The rule for times of day, as :func:`timestamp` is for times."""
    shape, seen = _shape_and_digits(facts, clock_only=True)
    if precision is None:
        precision = _precision(seen, declared)
    return TimeRule(shape=shape or "HH:MM:SS", precision=precision)


def _precision(seen: int | None, declared: Sequence[int]) -> int:
    """Decimals of a second that a column needs: nothing is known of one without a value."""
    return min(FINEST, max([FINEST if seen is None else seen, *declared]))


def epoch_unit(facts: ColumnFacts) -> EpochUnit | None:
    """The one unit in which all integers lie between 1980 and 2100."""
    if facts.low is None or facts.high is None:
        return None
    units: tuple[tuple[EpochUnit, int], ...] = (("s", 1), ("ms", 1_000), ("us", 1_000_000))
    for unit, size in units:
        if PLAUSIBLE_EPOCH[0] * size <= facts.low and facts.high <= PLAUSIBLE_EPOCH[1] * size:
            return unit
    return None


_DIGITS = str.maketrans("123456789", "000000000")
_CLOCK_END = len("YYYY-MM-DD HH:MM:SS")
"""Behind it a fraction and a zone, which are part of the shape, digits and all."""


def _shape_and_digits(
    facts: ColumnFacts, *, clock_only: bool = False
) -> tuple[str | None, int | None]:
    """The shape of most of the sampled texts, and the most decimals of a second among them; None
    where there is none. Texts that differ in the digits of their date and clock alone are of one
    shape, so that one of them is read."""
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for value in facts.sample:
        if isinstance(value, str):
            alike[value[:_CLOCK_END].translate(_DIGITS) + value[_CLOCK_END:]].append(value)
    counts: Counter[str] = Counter()
    for texts in alike.values():
        moment = next(filter(None, map(moments.read, texts)), None)
        if moment is not None and (moment.day is None) == clock_only:
            counts[moment.shape] += len(texts)
    if not counts:
        return None, None
    digits = max(moments.parse_shape(shape).digits for shape in counts)
    shape = counts.most_common(1)[0][0]
    # Many libraries leave a fraction of zero out: then its absence is the shape, and a fraction
    # what is finer.
    whole = moments.finer(shape, 0)
    if whole in counts and moments.parse_shape(shape).has_clock:
        shape = whole
    return shape, digits
