"""What numbers mean on each side, also those that stand in a text."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import apsw

from migration_job.values import SourceValue
from migration_job.verify.meaning_target import Inexact, wrong


def _integer_source(_rule: Any, value: SourceValue) -> str:
    if not isinstance(value, int):
        raise wrong(value, "an integer")
    return str(value)


def _integer_target(_rule: Any, text: str) -> str:
    return str(int(text))


def bits_of(value: float) -> str:
    """A real with nothing lost: the shortest digits, and the sign of zero."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return repr(struct.unpack("<d", struct.pack("<d", value))[0])


def _real_source(rule: Any, value: SourceValue) -> str:
    if value == NOT_A_NUMBER:
        return NOT_A_NUMBER  # SQLite has no other way to hold it
    if isinstance(value, int) and rule.affinity in ("integer", "numeric"):
        value = _whole(value)
    if not isinstance(value, float):
        raise wrong(value, "a real")
    return bits_of(value)


def _whole(value: int) -> float | int:
    """The real of which a column without whole reals has made an integer."""
    return float(value) if int(float(value)) == value else value


NOT_A_NUMBER = "NaN"


def _real_target(rule: Any, text: str) -> str:
    bits = bits_of(float(text))
    # Under these affinities SQLite has one zero.
    return "0.0" if bits == "-0.0" and rule.affinity in NUMBERS else bits


def plain_decimal(text: str) -> str:
    """A decimal number without exponent, needless zeros or a negative zero."""
    number = Decimal(text)
    if not number.is_finite():
        raise ValueError(f"not a number: {text!r}")
    sign, digits, power = number.as_tuple()
    exponent = int(power)
    body = "".join(map(str, digits))
    if exponent >= 0:
        whole, fraction = body + "0" * exponent, ""
    else:
        body = body.rjust(1 - exponent, "0")
        whole, fraction = body[:exponent], body[exponent:]
    whole, fraction = whole.lstrip("0") or "0", fraction.rstrip("0")
    plain = f"{whole}.{fraction}" if fraction else whole
    return f"-{plain}" if sign and plain != "0" else plain


def _tells_reals(rule: Any) -> bool:
    """Whether a whole real and an integer are two values in the column: a numeric without precision
    tells them apart by the decimal point, SQLite where its affinity leaves both as they are."""
    return rule.precision is None and rule.affinity in ("text", "blob")


_DIGITS = re.compile(r"-?[0-9]+(\.[0-9]+)?", re.ASCII)


def _numeric_source(rule: Any, value: SourceValue) -> str:
    if isinstance(value, int):
        return plain_decimal(str(value))
    if value == NOT_A_NUMBER:
        return NOT_A_NUMBER
    if isinstance(value, str) and rule.affinity in ("text", "blob") and _DIGITS.fullmatch(value):
        plain = plain_decimal(value)
        if not _has_fewer_digits(value):
            return plain  # a number with more digits than a real of SQLite's
    if not isinstance(value, float):
        raise wrong(value, "a number")
    if math.isinf(value):
        return bits_of(value)
    if value == 0 and math.copysign(1, value) < 0:
        raise Inexact("numeric has no negative zero")
    plain = plain_decimal(repr(value))
    return plain + ".0" if _tells_reals(rule) and "." not in plain else plain


def _numeric_text_source(rule: Any, value: SourceValue) -> str:
    """The very text that PostgreSQL prints: the same number in other words is the ledger's."""
    if not isinstance(value, str):
        raise wrong(value, "text")
    if value in (NOT_A_NUMBER, "Infinity", "-Infinity"):
        return value
    whole, _, fraction = value.removeprefix("-").partition(".")
    spelled = re.fullmatch(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?", value, re.ASCII) is not None
    nothing = not (whole + fraction).strip("0")
    decimals = len(fraction) if rule.precision is None else max(rule.scale, 0)
    if not spelled or (nothing and value.startswith("-")) or len(fraction) != decimals:
        raise wrong(value, "a number as PostgreSQL prints it")
    return value


def _has_fewer_digits(text: str) -> bool:
    """Whether SQLite has a number for the text."""
    if "." not in text:
        return -(2**63) <= int(text) < 2**63
    real = float(text)
    return math.isfinite(real) and Decimal(repr(real)) == Decimal(text)


def _numeric_target(rule: Any, text: str) -> str:
    if text in ("Infinity", "-Infinity", "NaN"):
        return text
    plain = plain_decimal(text)
    if _tells_reals(rule) and "." in text and "." not in plain and _has_fewer_digits(text):
        return plain + ".0"
    return plain


def _padded_source(rule: Any, value: SourceValue) -> str:
    if not isinstance(value, str):
        raise wrong(value, "a decimal number in text")
    if value not in SPECIAL and re.fullmatch(r"-?(0|[1-9]\d*)(\.\d+)?", value, re.ASCII) is None:
        raise wrong(value, "a decimal number")
    fraction = value.partition(".")[2]
    if value not in SPECIAL and rule.precision is not None:
        places = rule.scale if rule.places is None else max(rule.places, len(fraction.rstrip("0")))
        if len(fraction) != places:
            raise wrong(value, "spelled as the column spells its numbers")
    return _padded_target(rule, value)


SPECIAL = ("NaN", "Infinity", "-Infinity")


def _padded_target(rule: Any, text: str) -> str:
    # Without a scale of its own the type keeps the text's.
    return text if text in SPECIAL or rule.precision is None else plain_decimal(text)


def _boolean_source(_rule: Any, value: SourceValue) -> str:
    if not isinstance(value, int) or value not in (0, 1):
        raise wrong(value, "0 or 1")
    return "tf"[1 - value]


def _boolean_target(_rule: Any, text: str) -> str:
    if text not in ("t", "f", "true", "false"):
        raise ValueError(f"not a boolean: {text!r}")
    return text[0]


LIKE_NUMBER = re.compile(r"[ \t-\r]*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?[ \t-\r]*", re.ASCII)
NUMBERS = ("integer", "real", "numeric")


def _text_integer_source(_rule: Any, value: SourceValue) -> str:
    if isinstance(value, int | float):
        return as_number(str(value) if isinstance(value, int) else repr(value))
    if not isinstance(value, str) or "\x00" in value or LIKE_NUMBER.fullmatch(value):
        raise wrong(value, "an integer")
    return value  # PostgreSQL's text takes what SQLite makes no integer of


def _text_integer_target(_rule: Any, text: str) -> str:
    return as_number(text) if LIKE_NUMBER.fullmatch(text) is not None else text


def as_number(text: str) -> str:
    """What a column of numeric affinity makes of a text that looks like a number. Its digits are
    read as SQLite reads them, whose last one may not be the nearest."""
    stored = apsw.Connection(":memory:").execute("SELECT CAST(? AS NUMERIC)", (text,)).get
    return str(stored) if isinstance(stored, int) else f"{REAL}{bits_of(float(stored))}"


REAL = "\x00real "
"""Before a number that a column of text has: no text holds a NUL."""


def _integer_text_source(_rule: Any, value: SourceValue) -> str:
    if not isinstance(value, str) or not value.isascii() or str(_int_or_none(value)) != value:
        raise wrong(value, "text that spells an integer")
    return value


def _int_or_none(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None


SOURCE: dict[str, Callable[[Any, SourceValue], str]] = {
    "integer": _integer_source,
    "real": _real_source,
    "numeric": _numeric_source,
    "boolean": _boolean_source,
    "integer-text": _integer_text_source,
    "text-integer": _text_integer_source,
    "numeric-text": _numeric_text_source,
    "near-numeric": _numeric_source,
    "shown-numeric": _numeric_source,
    "padded-numeric": _padded_source,
}


TARGET: dict[str, Callable[[Any, str], str]] = {
    "integer": _integer_target,
    "real": _real_target,
    "numeric": _numeric_target,
    "boolean": _boolean_target,
    "integer-text": _integer_target,
    "text-integer": _text_integer_target,
    "near-numeric": _numeric_target,
    "shown-numeric": _numeric_target,
    "padded-numeric": _padded_target,
}
