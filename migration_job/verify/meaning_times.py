"""What dates and times mean on each side."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from migration_job.values import SourceValue, display
from migration_job.verify.meaning_target import Inexact, wrong

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

UNITS = {
    "s": (Fraction(1_000_000), 0),
    "ms": (Fraction(1_000), 0),
    "us": (Fraction(1), 0),
    "ns": (Fraction(1, 1_000), 0),
    "apple": (Fraction(1_000_000), (datetime(2001, 1, 1, tzinfo=UTC) - EPOCH) // MICROSECOND),
    "filetime": (Fraction(1, 10), (datetime(1601, 1, 1, tzinfo=UTC) - EPOCH) // MICROSECOND),
    "ticks": (Fraction(1, 10), (datetime(1, 1, 1, tzinfo=UTC) - EPOCH) // MICROSECOND),
    "excel": (
        Fraction(86_400_000_000),
        (datetime(1899, 12, 30, tzinfo=UTC) - EPOCH) // MICROSECOND,
    ),
    "julian": (Fraction(86_400_000_000), -int(Fraction(4881175, 2) * 86_400_000_000)),
}
"""Microseconds in one of each unit, and where it begins; the Julian day of 1970-01-01T00:00Z is
2440587.5."""

MICROS_PER_DAY = 86_400_000_000


@lru_cache(maxsize=256)
def _shape_pattern(shape: str) -> re.Pattern[str]:
    """A regular expression with named parts for a template such as ``YYYY-MM-DDTHH:MM:SS.fffZ``:
    digits stand where the template has its letters, all else stands for itself."""
    match = re.fullmatch(r"(YYYY-MM-DD)?([ Tt])?(HH:MM)?(:SS)?(\.f+)?(.*)", shape, re.DOTALL)
    if match is None:
        raise ValueError(f"not a shape of time: {shape!r}")
    day, separator, clock, seconds, fraction, zone = match.groups()
    pattern = r"(?P<Y>\d{4})-(?P<m>\d\d)-(?P<d>\d\d)" if day else ""
    pattern += re.escape(separator or "")
    pattern += r"(?P<H>\d\d):(?P<M>\d\d)" if clock else ""
    pattern += r":(?P<S>\d\d)" if seconds else ""
    pattern += rf"\.(?P<f>\d{{{len(fraction) - 1}}})" if fraction else ""
    return re.compile(pattern + f"(?P<zone>{re.escape(zone)})", re.ASCII)


@lru_cache(maxsize=64)
def _zone(name: str) -> tzinfo:
    bare = name.strip()
    if bare[:1] in ("+", "-"):
        bare = bare.split(" ")[0]  # Go writes the zone's name behind its offset
    if bare.upper() in ("UTC", "Z", "GMT"):
        return UTC
    match = re.fullmatch(r"([+-])(\d\d):?(\d\d)?", bare, re.ASCII)
    if match is None:
        return ZoneInfo(bare)
    size = timedelta(hours=int(match[2]), minutes=int(match[3] or 0))
    return timezone(size if match[1] == "+" else -size)


def _parts(shape: str, value: SourceValue, precision: int = 6) -> dict[str, str]:
    if not isinstance(value, str):
        raise wrong(value, f"text of the shape {shape}")
    match = _shape_pattern(shape).fullmatch(value)
    if match is None:
        match = _finer_match(shape, value, precision)
    if match is None:
        raise wrong(value, f"of the shape {shape}")
    found = {name: text for name, text in match.groupdict().items() if text is not None}
    if found.get("f", "")[precision:].strip("0"):
        raise Inexact(f"{display(value)} says more than {precision} decimals of a second")
    return found


def _finer_match(shape: str, value: str, precision: int) -> re.Match[str] | None:
    """The text as the column writes a time that its shape has no room for: down to ``precision``
    decimals of a second, and only where they are needed."""
    match = re.fullmatch(r"(YYYY-MM-DD)?([ Tt])?(HH:MM)?(:SS)?(\.f+)?(.*)", shape, re.DOTALL)
    if match is None:
        return None
    day, separator, clock, seconds, fraction, zone = match.groups()
    head = day + (separator or " ") if day else ""
    finest = f"{head}HH:MM:SS{'.' * bool(precision)}{'f' * precision}{zone}"
    found = _shape_pattern(finest).fullmatch(value)
    if found is None:
        return None
    digits = len(fraction) - 1 if fraction else 0
    beyond = (found.groupdict().get("f") or "")[digits:].strip("0")
    beyond += "" if seconds else found["S"].strip("0")
    beyond += "" if clock else (found["H"] + found["M"]).strip("0")
    return found if beyond else None


def _clock(found: dict[str, str]) -> tuple[int, int, int, int]:
    micro = int(found.get("f", "")[:6].ljust(6, "0"))
    return int(found.get("H", 0)), int(found.get("M", 0)), int(found.get("S", 0)), micro


_BEYOND = re.compile(
    r"-?infinity|\d{5,6}-\d\d-\d\d( .*\+00)?|\d{4,6}-\d\d-\d\d( .*\+00)? BC"
    r"|(0001-01-01|9999-12-31) .*\+00",
    re.ASCII,
)
"""PostgreSQL's times and dates beyond the calendar of the source's shapes, as it spells them: the
source has them as this text."""


def _is_beyond(value: object) -> bool:
    return isinstance(value, str) and _BEYOND.fullmatch(value) is not None


def _is_output(rule: Any, value: str) -> bool:
    """Whether it is a time in PostgreSQL's spelling that the column has no spelling for."""
    if _is_beyond(value):
        return True
    if rule.shape != "epoch" or not _TARGET_TIMESTAMP.fullmatch(value):
        return False
    micros = int(_timestamp_target(rule, value))
    size, origin = UNITS[rule.epoch]
    if abs((micros - origin) / size) >= 2**63:
        return True
    try:
        return epoch_micros(rule.epoch, float((micros - origin) / size)) != micros
    except Inexact:
        return True


def _timestamp_source(rule: Any, value: SourceValue) -> str:
    if isinstance(value, str) and _is_output(rule, value):
        return _timestamp_target(rule, value)
    if rule.shape == "epoch":
        micros = epoch_micros(rule.epoch, value)
        if micros % 10 ** (6 - rule.precision):
            raise Inexact(f"{display(value)} says more than {rule.precision} decimals of a second")
        return str(micros)
    told = _OFFSET.fullmatch(value) if isinstance(value, str) else None
    if told is not None and rule.zone != "UTC" and not rule.shape.endswith(told[2]):
        return _told_apart(rule, told[1], told[2])
    return _local_micros(rule, value)


_OFFSET = re.compile(r"(.*:\d\d(?:\.\d+)?)([+-]\d\d:\d\d)", re.ASCII)


def _told_apart(rule: Any, text: str, offset: str) -> str:
    """A time in the hour that clocks repeat, which the column's zone alone does not tell: its
    offset is written out, and only there."""
    as_written = _local_micros(rule.model_copy(update={"zone": offset}), text)
    instant = EPOCH + timedelta(microseconds=int(as_written))
    there = instant.astimezone(_zone(rule.zone)).utcoffset()
    naive = _local_micros(rule, text)
    if naive == as_written or there != _zone(offset).utcoffset(None):
        raise Inexact(f"{display(text + offset)} needs no offset in {rule.zone}")
    return as_written


def _local_micros(rule: Any, value: SourceValue) -> str:
    found = _parts(rule.shape, value, rule.precision)
    zone = _zone(found["zone"] or rule.zone)
    try:
        day = int(found["Y"]), int(found["m"]), int(found["d"])
        local = datetime(*day, *_clock(found), tzinfo=zone)
        instant = local - (local.utcoffset() or timedelta())
    except (ValueError, OverflowError) as error:
        raise Inexact(f"{display(value)}: {error}") from None
    if local.fold == 0 and local.replace(fold=1).utcoffset() != local.utcoffset():
        # In the hour that clocks repeat or skip, a local time does not say which instant it is.
        back = instant.replace(tzinfo=UTC).astimezone(zone)
        if back.replace(tzinfo=None) != local.replace(tzinfo=None):
            raise Inexact(f"{display(value)} does not exist in {rule.zone}")
    return str(_micros(instant.replace(tzinfo=UTC)))


def epoch_micros(unit: str, value: SourceValue) -> int:
    """Microseconds from 1970 that a number of the unit counts. Raises Inexact."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong(value, "a number")
    if isinstance(value, float) and not math.isfinite(value):
        raise wrong(value, "a time")
    size, origin = UNITS[unit]
    if isinstance(value, float) and size == MICROS_PER_DAY:
        return _day_micros(origin, value)
    exact = Fraction(Decimal(repr(value))) * size + origin
    if exact.denominator == 1:
        return int(exact)
    raise Inexact(f"{display(value)} says more than a microsecond")


def _day_micros(origin: int, value: float) -> int:
    """A real's days name many microseconds: the roundest of them, a whole second where there is
    one, else a millisecond. What divides to the same real again is a name of it."""
    middle = Fraction(value) * MICROS_PER_DAY
    for unit in (1_000_000, 1_000, 1):
        low = math.floor(middle / unit)
        named = [n * unit for n in (low, low + 1) if n * unit / MICROS_PER_DAY == value]
        if named:
            return min(named, key=lambda micros: abs(micros - middle)) + origin
    raise Inexact(f"{display(value)} says more than a microsecond")


def _micros(instant: datetime) -> int:
    delta = instant - EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


_TARGET_TIMESTAMP = re.compile(
    r"(\d{4,6})-(\d\d)-(\d\d) (\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?([+-]\d\d(?::?\d\d)?)", re.ASCII
)


def _timestamp_target(_rule: Any, text: str) -> str:
    match = _TARGET_TIMESTAMP.fullmatch(text)
    if match is None and _is_beyond(text):
        return text
    if match is None:
        raise ValueError(f"not a timestamp with time zone: {text!r}")
    year, month, day, hour, minute, second = (int(match[i]) for i in range(1, 7))
    if year > 9999:
        return text
    micro = int((match[7] or "").ljust(6, "0"))
    local = datetime(year, month, day, hour, minute, second, micro, tzinfo=_zone(match[8]))
    micros = _micros(local.astimezone(UTC))
    return str(micros)


_LOCAL = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{1,6})?", re.ASCII)


def _local_source(rule: Any, value: SourceValue) -> str:
    """What a clock shows, as microseconds; of an instant what one in the rule's zone shows."""
    if isinstance(value, str) and _local_beyond(value):
        return value
    naive = rule.model_copy(update={"zone": "UTC"})
    if rule.shape != "epoch" and not _says_zone(rule.shape):
        return _local_micros(naive, value)
    micros = _timestamp_source(naive, value)
    there = (EPOCH + timedelta(microseconds=int(micros))).astimezone(_zone(rule.zone))
    return str(_micros(there.replace(tzinfo=UTC)))


def _local_beyond(text: str) -> bool:
    """As :func:`_is_beyond`, for times that name no zone."""
    year = re.fullmatch(r"-?infinity|\d{5,6}-\d\d-\d\d .*|\d{4,6}-\d\d-\d\d .* BC", text)
    return year is not None


def _says_zone(shape: str) -> bool:
    return re.fullmatch(r"(YYYY-MM-DD)?([ Tt])?(HH:MM)?(:SS)?(\.f+)?", shape) is None


def _local_target(_rule: Any, text: str) -> str:
    if _LOCAL.fullmatch(text) is None:
        if _local_beyond(text):
            return text
        raise ValueError(f"not a timestamp without time zone: {text!r}")
    return str(_micros(datetime.fromisoformat(text).replace(tzinfo=UTC)))


def _date_source(_rule: Any, value: SourceValue) -> str:
    if _is_beyond(value):
        return str(value)
    found = _parts("YYYY-MM-DD", value)
    try:
        day = datetime(int(found["Y"]), int(found["m"]), int(found["d"]), tzinfo=UTC)
    except ValueError as error:
        raise Inexact(f"{display(value)}: {error}") from None
    return f"{day.year:04d}-{day.month:02d}-{day.day:02d}"


def _day_source(rule: Any, value: SourceValue) -> str:
    """The day that a midnight begins: the one that the text spells, or that a clock in the rule's
    zone shows."""
    if _is_beyond(value):
        return str(value)
    if rule.shape == "epoch":
        there = EPOCH + timedelta(microseconds=epoch_micros(rule.epoch, value))
        local = there.astimezone(_zone(rule.zone))
        day, clock = local.date(), local.time()
    else:
        found = _parts(rule.shape, value)
        try:
            day = date(int(found["Y"]), int(found["m"]), int(found["d"]))
            clock = time(*_clock(found))
        except ValueError as error:
            raise Inexact(f"{display(value)}: {error}") from None
    if clock != time():
        raise Inexact(f"{display(value)} is not the beginning of a day")
    return day.isoformat()


def _day_target(_rule: Any, text: str) -> str:
    if not _is_beyond(text):
        date.fromisoformat(text)
    return text


def _time_source(rule: Any, value: SourceValue) -> str:
    if value == _END_OF_DAY:
        return f"{_END_OF_DAY}.000000"
    hour, minute, second, micro = _clock(_parts(rule.shape, value, rule.precision))
    if hour > 23 or minute > 59 or second > 59:
        raise wrong(value, "a time of day")
    return f"{hour:02d}:{minute:02d}:{second:02d}.{micro:06d}"


_END_OF_DAY = "24:00:00"
"""A time of PostgreSQL's that no clock of the source's shows."""


def _time_target(_rule: Any, text: str) -> str:
    match = re.fullmatch(r"(\d\d:\d\d:\d\d)(?:\.(\d{1,6}))?", text, re.ASCII)
    if match is None:
        raise ValueError(f"not a time of day: {text!r}")
    return f"{match[1]}.{(match[2] or '').ljust(6, '0')}"


SOURCE: dict[str, Callable[[Any, SourceValue], str]] = {
    "timestamp": _timestamp_source,
    "date": _date_source,
    "time": _time_source,
    "local-timestamp": _local_source,
    "day": _day_source,
}


TARGET: dict[str, Callable[[Any, str], str]] = {
    "timestamp": _timestamp_target,
    "time": _time_target,
    "local-timestamp": _local_target,
    "day": _day_target,
}
