"""Shapes of dates and times in text: recognised, read, and written again bit for bit.

A shape is a template such as ``YYYY-MM-DDTHH:MM:SS.fffZ``: what is not one of the letters
``Y M D H S f`` stands for itself, and the zone at its end is written out (``Z``, ``+02:00``,
`` +0200 CEST`` as Go does).
Only what PostgreSQL reads as the same instant is recognised: no hour 24, no second 60, no year 0.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_SHAPE = re.compile(
    r"(?P<date>\d{4}-\d{2}-\d{2})?"
    r"(?P<sep>[ Tt])?"
    r"(?P<hm>\d{2}:\d{2})?(?P<s>:\d{2})?(?P<f>\.\d{1,9})?"
    r"(?P<zone>\ [+-]\d{4}\ (?:[A-Z]{1,5}|[+-]\d{2}(?:\d{2})?)(?=$|\ m=)"
    r"|\ ?(?:Z|z|UTC|GMT|[+-]\d{2}(?::?\d{2})?)(?=$))?"
    # Go's String() adds what its process' own clock says, which is no part of the moment.
    r"(?P<process>\ m=[+-]\d+\.\d+)?",
    re.ASCII,
)

MICROSECOND_DIGITS = 6


class Moment(NamedTuple):
    """A text taken apart. ``naive`` is what it says, before its zone is applied."""

    shape: str
    day: date | None
    clock: time | None
    offset: timedelta | None
    """None where the text names no zone."""


def read(text: str) -> Moment | None:
    """The moment that the text spells, cut to microseconds; None where it is of no known shape or
    no real date."""
    match = _SHAPE.fullmatch(text)
    if match is None or not text:
        return None
    day_text, hm, seconds, fraction, zone = match.group("date", "hm", "s", "f", "zone")
    if not _complete(match):
        return None
    offset = _offset(zone) if zone else None
    if zone and offset is None:
        return None
    try:
        day = date.fromisoformat(day_text) if day_text else None
        clock = None if hm is None else _clock_of(hm, seconds, fraction)
    except ValueError:
        return None
    return Moment(_shape_of(match), day, clock, offset)


def _shape_of(match: re.Match[str]) -> str:
    """The template of a text's parts."""
    day, separator, hm, seconds, fraction, zone = match.group("date", "sep", "hm", "s", "f", "zone")
    shape = ("YYYY-MM-DD" if day else "") + (separator or "")
    shape += ("HH:MM:SS" if seconds else "HH:MM") if hm else ""
    shape += "." + "f" * (len(fraction) - 1) if fraction else ""
    return shape + (zone or "")


def _complete(match: re.Match[str]) -> bool:
    """Whether no part of the text stands without the part that it needs."""
    day, separator, hm, seconds, fraction, zone = match.group("date", "sep", "hm", "s", "f", "zone")
    if (day is not None and hm is not None) != (separator is not None):
        return False
    if hm is None and (day is None or seconds or fraction or zone):
        return False
    if match["process"] and not zone:
        return False
    return not (fraction and not seconds) and not (zone and day is None)


def _clock_of(hm: str, seconds: str | None, fraction: str | None) -> time:
    """A time of day, cut to microseconds. Raises ValueError."""
    micro = int((fraction or ".")[1 : MICROSECOND_DIGITS + 1].ljust(6, "0"))
    return time(int(hm[:2]), int(hm[3:]), int((seconds or ":0")[1:]), micro)


def _offset(zone: str) -> timedelta | None:
    bare = zone.strip()
    if bare in ("Z", "z", "UTC", "GMT"):
        return timedelta()
    bare = bare.split(" ")[0]  # Go names the zone behind its offset
    hours, minutes = int(bare[1:3]), int(bare[3:].replace(":", "") or 0)
    # PostgreSQL takes offsets below 16 hours.
    if hours > 15 or minutes > 59:
        return None
    size = timedelta(hours=hours, minutes=minutes)
    return -size if bare[0] == "-" else size


@dataclass(frozen=True, slots=True)
class Shape:
    """The parts of a shape's template."""

    has_date: bool
    separator: str
    has_clock: bool
    has_seconds: bool
    digits: int
    zone: str

    @property
    def offset(self) -> timedelta | None:
        return _offset(self.zone) if self.zone else None


_TEMPLATE = re.compile(r"(YYYY-MM-DD)?([ Tt])?(HH:MM)?(:SS)?(\.f{1,9})?(.*)")


@lru_cache(maxsize=256)
def parse_shape(template: str) -> Shape:
    """The parts of a template. Raises ValueError where it is none."""
    match = _TEMPLATE.fullmatch(template)
    if match is None or (match[1] is None and match[3] is None):
        raise ValueError(f"no shape of date or time: {template!r}")
    return Shape(
        has_date=match[1] is not None,
        separator=match[2] or "",
        has_clock=match[3] is not None,
        has_seconds=match[4] is not None,
        digits=len(match[5]) - 1 if match[5] else 0,
        zone=match[6],
    )


def write(template: str, moment: datetime) -> str:
    """The moment (naive, or with the shape's own offset applied already) in the shape. What the
    shape has no room for is left out, so the caller compares."""
    shape = parse_shape(template)
    parts: list[str] = []
    if shape.has_date:
        parts.append(f"{moment.year:04d}-{moment.month:02d}-{moment.day:02d}")
    parts.append(shape.separator)
    if shape.has_clock:
        parts.append(f"{moment.hour:02d}:{moment.minute:02d}")
        if shape.has_seconds:
            parts.append(f":{moment.second:02d}")
        if shape.digits:
            parts.append("." + f"{moment.microsecond:06d}".ljust(9, "0")[: shape.digits])
    parts.append(shape.zone)
    return "".join(parts)


@lru_cache(maxsize=256)
def finer(template: str, digits: int) -> str:
    """The template that says the same down to ``digits`` decimals of a second."""
    shape = parse_shape(template)
    day = "YYYY-MM-DD" if shape.has_date else ""
    separator = (shape.separator or " ") if shape.has_date else ""
    fraction = "." + "f" * digits if digits else ""
    return f"{day}{separator}HH:MM:SS{fraction}{shape.zone}"


def fits(template: str, moment: datetime) -> bool:
    """Whether the template has room for all that the moment says."""
    shape = parse_shape(template)
    if moment.microsecond and moment.microsecond % 10 ** max(6 - shape.digits, 0):
        return False
    if moment.second and not shape.has_seconds:
        return False
    return shape.has_clock or not (moment.hour or moment.minute)


def write_finely(template: str, digits: int, moment: datetime) -> str:
    """The moment in the template; in its finer one (:func:`finer`) where it has no room."""
    return write(template if fits(template, moment) else finer(template, digits), moment)


def offset_text(moment: datetime) -> str:
    """The offset of an aware moment, e.g. ``+01:00``."""
    return f"{moment:%z}"[:3] + ":" + f"{moment:%z}"[3:5]


def is_finer(text: str, digits: int) -> bool:
    """Whether the text of a moment says more than ``digits`` decimals of a second keep."""
    match = _SHAPE.fullmatch(text)
    return match is not None and (match["f"] or ".")[digits + 1 :].strip("0") != ""


def cut(moment: datetime, digits: int) -> datetime:
    """The moment without what is finer than ``digits`` decimals of a second."""
    if digits >= MICROSECOND_DIGITS:
        return moment
    size = 10 ** (MICROSECOND_DIGITS - digits)
    return moment.replace(microsecond=moment.microsecond // size * size)


@lru_cache(maxsize=64)
def zone_of(name: str) -> tzinfo:
    """The zone of an IANA name, or of a fixed offset such as ``+02:00``. Raises ValueError."""
    if name.upper() in ("UTC", "Z", "GMT"):
        return UTC
    if re.fullmatch(r"[+-]\d{2}:?\d{2}", name, re.ASCII):
        offset = _offset(name)
        if offset is None:
            raise ValueError(f"expected an offset below 16 hours, found {name!r}")
        return timezone(offset)
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(
            f"expected a time zone such as 'UTC' or 'Europe/Berlin', found {name!r}"
        ) from error


def postgres_timestamp(instant: datetime) -> str:
    """An aware instant as PostgreSQL prints it in UTC, e.g. ``2026-11-22 17:43:41.5+00``."""
    utc = instant.astimezone(UTC)
    text = f"{utc.year:04d}-{utc.month:02d}-{utc.day:02d} {utc:%H:%M:%S}"
    if utc.microsecond:
        text += f".{utc.microsecond:06d}".rstrip("0")
    return text + "+00"


def read_postgres_timestamp(text: str) -> datetime:
    """The aware instant that PostgreSQL printed in UTC. Raises ValueError outside years 1-9999."""
    moment = read(text)
    if moment is None or moment.day is None or moment.clock is None or moment.offset is None:
        raise ValueError(f"no timestamp of the years 1 to 9999: {text!r}")
    return datetime.combine(moment.day, moment.clock, UTC) - moment.offset
