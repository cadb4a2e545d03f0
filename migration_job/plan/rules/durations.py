"""Durations: interval."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import ClassVar, Literal

from migration_job.plan import moments
from migration_job.plan.rules.base import (
    CannotCarry,
    Request,
    RuleBase,
    StorageClass,
    TargetType,
    expected,
    text_for,
)
from migration_job.plan.rules.times import FINEST, Precision, timestamp
from migration_job.values import SourceValue

Unit = Literal["s", "ms", "us", "julian"]

DAY = 86_400_000_000

MICROS: dict[str, int] = {"s": 1_000_000, "ms": 1_000, "us": 1, "julian": DAY}
"""Days are what SQLite's own julianday() counts, and what Pony writes."""

_OUTPUT = re.compile(
    r"(?:(?P<days>-?\d+) days?)?(?: ?(?P<sign>[+-]?)(?P<h>\d+):(?P<m>[0-5]\d):(?P<s>[0-5]\d)"
    r"(?:\.(?P<f>\d{1,6}))?)?",
    re.ASCII,
)
_PYTHON = re.compile(
    r"(?:(?P<days>-?\d+)(?: days?, | ))?(?P<sign>-?)(?P<h>\d{1,3}):(?P<m>[0-5]\d):(?P<s>[0-5]\d)"
    r"(?:\.(?P<f>\d{1,6})0?)?",
    re.ASCII,
)
_DOTNET = re.compile(
    r"(?P<minus>-?)(?P<days>\d+)\.(?P<h>[01]\d|2[0-3]):(?P<m>[0-5]\d):(?P<s>[0-5]\d)"
    r"(?:\.(?P<f>\d{1,6})0?)?",
    re.ASCII,
)
"""As TimeSpan writes them: the sign is of the whole, where Python's is of the days alone."""

_ISO = re.compile(
    r"(?P<minus>-?)P(?:(?P<days>\d+)D)?(?:T(?:(?P<h>\d+)H)?(?:(?P<m>\d+)M)?"
    r"(?:(?P<s>\d+)(?:\.(?P<f>\d{1,6}))?S)?)?",
    re.ASCII,
)


class IntervalRule(RuleBase):
    """Durations to ``interval``: numbers of a unit that is declared, never guessed, or text."""

    kind: Literal["interval"] = "interval"
    bijective: bool = False
    unit: Unit | None = None
    """Of the numbers; None for a column of text."""
    precision: Precision = FINEST
    """Decimals of a second that the type keeps; what is finer is cut."""
    since: str | None = None
    """The shape of texts that are a moment as far from 1970 as the duration is long (as SQLAlchemy
    writes them); None for a column that has none."""

    types: ClassVar[tuple[TargetType, ...]] = (
        TargetType(
            "interval",
            "opaque",
            "TEXT",
            ("1 day 02:03:04",),
            (16, 8),
            # Fields that end with seconds restrict nothing.
            words=(
                "interval day to second",
                "interval hour to second",
                "interval minute to second",
                "interval second",
            ),
        ),
    )
    spelled: ClassVar[tuple[str, ...]] = ("unit", "since")
    doc: ClassVar[str] = (
        "Durations: numbers whose unit the policy declares (`epoch: us`, `ms`, `s`, or `julian` "
        "for days), or text; numbers come back as they were."
    )
    canonical: ClassVar[bool] = False
    classes: ClassVar[frozenset[StorageClass]] = frozenset({"text", "integer", "real"})
    misfit: ClassVar[str] = "not-a-duration"

    @classmethod
    def asked(cls, request: Request) -> RuleBase:
        unit = request.epoch
        like = timestamp(request.facts, "UTC")
        texts = [value for value in request.facts.sample if isinstance(value, str)]
        since = bool(texts) and all(_since(value) is not None for value in texts)
        return cls(
            unit=unit if unit in ("s", "ms", "us", "julian") else None,
            since=like.shape if since else None,
            precision=min(FINEST, *request.numbers) if request.numbers else FINEST,
        )

    @property
    def target_type(self) -> str:
        return "interval" if self.precision == FINEST else f"interval({self.precision})"

    def forward(self, value: SourceValue) -> str | None:
        if value is None:
            return None
        if isinstance(value, int | float):
            if self.unit is None:
                raise expected("a duration in text (or a declared unit: epoch)", value)
            exact = Decimal(repr(value)) * MICROS[self.unit]
            if not exact.is_finite() or abs(exact) >= 2**63:
                raise CannotCarry(f"{value!r} is no duration that PostgreSQL holds")
            if self.unit == "julian":
                return self._cut(round(Fraction(value) * DAY))
            return self._cut(int(exact.to_integral_value()))
        text = text_for(value, "a duration")
        micros = _read(text) if self.since is None else _since(text)
        if micros is None:
            raise expected("a duration such as 1 day 02:03:04 or P1DT2H", value)
        return self._cut(micros)

    def _cut(self, micros: int) -> str:
        size = 10 ** (FINEST - self.precision)
        whole = abs(micros) // size * size
        return postgres_interval(-whole if micros < 0 else whole)

    def inverse(self, text: str | None) -> SourceValue:
        if text is None:
            return None
        micros = _of_output(text)
        if micros is not None and self.since is not None:
            return _as_moment(self.since, micros, text)
        if micros is None or self.unit is None:
            return text  # months have no length of their own
        whole, rest = divmod(micros, MICROS[self.unit])
        if not rest:
            return whole
        if self.unit == "julian":
            days = whole + rest / 1_000_000 / 86_400  # as Pony reckons
            return days if round(Fraction(days) * DAY) == micros else text
        real = micros / MICROS[self.unit]
        return real if Decimal(repr(real)) * MICROS[self.unit] == micros else text

    def returned(self, value: SourceValue) -> str | None:
        """What PostgreSQL alone can have written: months, or more digits than a real has."""
        if not isinstance(value, str) or (self.unit is None and self.since is None):
            return None
        spelled = re.fullmatch(r"[-+0-9:. a-z]+", value, re.ASCII) is not None
        return value if spelled and re.search(r"\d (years?|mons?)|:", value) else None

    @property
    def _fast(self) -> bool:
        """Whether the numbers count parts of a second, and no more decimals than the type has."""
        if self.unit is None or self.unit == "julian":
            return False
        return MICROS[self.unit] >= int(10 ** (FINEST - self.precision))

    def fast_sql(self, column: str) -> str | None:
        if not self._fast or self.unit is None:
            return None
        per_second = 1_000_000 // MICROS[self.unit]
        part = f"printf(' %d microseconds', ({column} % {per_second}) * {MICROS[self.unit]})"
        return (
            f"printf('%d days %d seconds', {column} / {86_400 * per_second}, "
            f"({column} / {per_second}) % 86400)" + (f" || {part}" if per_second > 1 else "")
        )

    def fast_condition(self, column: str) -> str | None:
        if not self._fast or self.unit is None:
            return None
        most = 2**62 // MICROS[self.unit]
        return (
            f"({column} IS NULL OR typeof({column}) = 'integer' "
            f"AND {column} BETWEEN -{most} AND {most})"
        )


def postgres_interval(micros: int) -> str:
    """A duration as PostgreSQL prints it, whole days apart."""
    days, rest = divmod(abs(micros), DAY)
    sign = "-" if micros < 0 else ""
    parts = []
    if days:
        parts.append(f"{sign}{days} day" + ("" if days == 1 and not sign else "s"))
    if rest or not days:
        seconds, fraction = divmod(rest, 1_000_000)
        clock = f"{sign}{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
        parts.append(clock + (f".{fraction:06d}".rstrip("0") if fraction else ""))
    return " ".join(parts)


def _since(text: str) -> int | None:
    """Microseconds from 1970 to the moment that the text spells."""
    moment = moments.read(text)
    if moment is None or moment.day is None or moment.offset is not None:
        return None
    apart = datetime.combine(moment.day, moment.clock or datetime.min.time()) - _EPOCH
    return (apart.days * 86_400 + apart.seconds) * 1_000_000 + apart.microseconds


def _as_moment(shape: str, micros: int, text: str) -> str:
    try:
        return moments.write_finely(
            shape, moments.MICROSECOND_DIGITS, _EPOCH + timedelta(microseconds=micros)
        )
    except OverflowError:
        return text


_EPOCH = datetime(1970, 1, 1)


def _of_output(text: str) -> int | None:
    """Microseconds of what PostgreSQL prints; None where there are months in it."""
    match = _OUTPUT.fullmatch(text)
    return None if match is None or not text else _micros(match)


def _read(text: str) -> int | None:
    iso, dotnet = _ISO.fullmatch(text), _DOTNET.fullmatch(text)
    whole = iso if iso is not None and any(iso.groups()[1:]) else dotnet
    if whole is not None:
        return -_micros(whole) if whole["minus"] else _micros(whole)
    python = _PYTHON.fullmatch(text)
    return _of_output(text) if python is None else _micros(python)


def _micros(match: re.Match[str]) -> int:
    found = match.groupdict()
    seconds = int(found["h"] or 0) * 3600 + int(found["m"] or 0) * 60 + int(found["s"] or 0)
    clock = seconds * 1_000_000 + int((found["f"] or "").ljust(6, "0"))
    return int(found["days"] or 0) * DAY + (-clock if found.get("sign") == "-" else clock)
