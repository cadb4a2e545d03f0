"""Numbers of 24 bits, which PostgreSQL calls ``real``: what they are, and how it writes them."""

from __future__ import annotations

import math
import struct
from decimal import Decimal

from migration_job.plan.rules.numbers import fewest_digits, in_places

_PLAIN_PLACES = 6
"""PostgreSQL writes a single with an exponent from 1e6 on (float_to_shortest_decimal)."""

_NORMAL = 2**-126
"""The lowest single of 24 bits."""


def single(value: float) -> float:
    """The single nearest to a number; an infinite one beyond the highest."""
    try:
        (nearest,) = struct.unpack("<f", struct.pack("<f", value))
    except OverflowError:
        return math.copysign(math.inf, value)
    return float(nearest)


def single_text(value: float) -> str:
    """A single as PostgreSQL prints it: the fewest digits that only it is nearest to."""
    if value == 0:
        return "-0" if math.copysign(1, value) < 0 else "0"
    packed = _packed(value)
    # Any six digits come back, so that they are the fewest where they name the single; of numbers
    # with fewer bits one digit may do.
    for digits in range(6 if abs(value) >= _NORMAL else 1, 10):
        text = f"{value:.{digits}g}"
        if _packed(float(text)) == packed and not _between(text, value):
            break
    return in_places(*fewest_digits(Decimal(text)), places=_PLAIN_PLACES)


def _packed(value: float) -> bytes:
    """The bits of the single nearest to a number; of none beyond the highest."""
    try:
        return struct.pack("<f", value)
    except OverflowError:
        return b""


def _between(text: str, value: float) -> bool:
    """Whether the text is exactly between two singles: PostgreSQL does not take such digits,
    whichever of both they are rounded to. Only integers beyond 24 bits have so few."""
    if abs(value) < 2**24:
        return False
    (bits,) = struct.unpack("<i", struct.pack("<f", abs(value)))
    (above,) = struct.unpack("<f", struct.pack("<i", min(bits + 1, 0x7F7FFFFF)))
    (below,) = struct.unpack("<f", struct.pack("<i", bits - 1))
    exact = 2 * abs(int(Decimal(text)))
    return exact in (int(abs(value)) + int(above), int(abs(value)) + int(below))
