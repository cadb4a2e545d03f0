"""Numbers that count time, as databases keep them: seconds, days and ticks from some beginning.

A real has no digits for microseconds far from its beginning. Of the times that one real stands for
it is read as the coarsest: a day number that is a whole second's is that second, and not what its
last bits add to it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction

DAY = 86_400_000_000
"""Microseconds."""

_UNITS: Mapping[str, tuple[Fraction, int]] = {
    "s": (Fraction(1_000_000), 0),
    "ms": (Fraction(1_000), 0),
    "us": (Fraction(1), 0),
    "ns": (Fraction(1, 1_000), 0),
    "apple": (Fraction(1_000_000), 978_307_200_000_000),
    "filetime": (Fraction(1, 10), -11_644_473_600_000_000),
    "ticks": (Fraction(1, 10), -62_135_596_800_000_000),
    "excel": (Fraction(DAY), -2_209_161_600_000_000),
    "julian": (Fraction(DAY), -210_866_760_000_000_000),
}
"""Microseconds that one of each unit is, and its beginning in microseconds from 1970: seconds from
2001, tenths of microseconds from 1601 and from the year 1, days from 1899-12-30 and from noon of
-4713-11-24."""

COARSE: Mapping[str, int] = {"s": 0, "ms": 3, "apple": 0}
"""Decimals of a second that integers of a unit have; all that there are for others."""

FINEST_OF: Mapping[str, int] = {"julian": 3}
"""Decimals of a second that a unit can tell apart, where it is fewer than PostgreSQL's: a real of
today's Julian days steps by 40 microseconds, and SQLite's own functions count milliseconds."""

_STEPS = (1_000_000, 1_000, 1)


def micros_of(unit: str, number: float) -> int:
    """Microseconds from 1970 that the number counts, without what is finer. Raises ArithmeticError
    or ValueError for what is no number of them."""
    size, origin = _UNITS[unit]
    if isinstance(number, float) and size == DAY:
        exact = Fraction(number) * DAY
        for step in _STEPS:
            micros = round(exact / step) * step
            if micros / DAY == number:
                return origin + micros
        return origin + round(exact)
    exact = Fraction(Decimal(repr(number))) * size
    return origin + (math.floor(exact) if size < 1 else round(exact))


def is_finer(unit: str, number: float, digits: int) -> bool:
    """Whether the number counts more than ``digits`` decimals of a second keep. Raises as
    :func:`micros_of` does."""
    size, _ = _UNITS[unit]
    if micros_of(unit, number) % 10 ** (6 - digits):
        return True
    # What a real has beyond the microsecond of a day is its own noise.
    return size != DAY and (Fraction(Decimal(repr(number))) * size).denominator != 1


def number_of(unit: str, micros: int, *, reals: bool) -> int | float | None:
    """The number that counts so many microseconds from 1970, whole ones as reals where the column
    has ``reals`` alone; None where SQLite has no number for it."""
    size, origin = _UNITS[unit]
    exact = (micros - origin) / size
    if exact.denominator == 1 and not reals:
        return int(exact) if -(2**63) <= exact < 2**63 else None
    real = float(exact)
    return real if micros_of(unit, real) == micros else None
