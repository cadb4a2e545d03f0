"""What values mean in types that only an application's own schema has; the rest of
:mod:`migration_job.verify.meaning`, and as apart from the copier as that is."""

from __future__ import annotations

import ipaddress
import json
import math
import re
import struct
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

from migration_job.values import SourceValue, display


class Inexact(Exception):
    """The column cannot hold this source value as what it is, so a ledger entry must exist for
    it; the message says why."""


def wrong(value: SourceValue, expected: str) -> Inexact:
    return Inexact(f"{display(value)} is not {expected}")


# -------------------------------------------------------------------------------- durations

_PER_UNIT = {"s": 1_000_000, "ms": 1_000, "us": 1}

_PARTS = re.compile(
    r"([-+]?\d+) (year|mon|day)s?|([-+]?)(\d+):([0-5]\d):([0-5]\d)(\.\d{1,6})?", re.ASCII
)


def _interval_target(_rule: Any, text: str) -> str:
    """Months and microseconds, a day being 24 hours."""
    months = micros = 0
    rest = text
    for part in _PARTS.finditer(text):
        rest = rest.replace(part[0], "", 1)
        if part[2] is not None:
            size = int(part[1])
            months += size * {"year": 12, "mon": 1, "day": 0}[part[2]]
            micros += size * 86_400_000_000 if part[2] == "day" else 0
            continue
        clock = (int(part[4]) * 3600 + int(part[5]) * 60 + int(part[6])) * 1_000_000
        clock += int(((part[7] or ".")[1:]).ljust(6, "0"))
        micros += -clock if part[3] == "-" else clock
    if rest.strip() or not text:
        raise ValueError(f"not an interval: {text!r}")
    return f"{months} mons {micros // 1_000_000} seconds {micros % 1_000_000} microseconds"


def _days_source(value: float) -> str:
    """Days: a real of them is the microsecond that it is nearest to, if it is that but for its last
    digit."""
    exact = Fraction(value) * 86_400_000_000
    whole = round(exact)
    if abs(exact - whole) > Fraction(math.ulp(max(abs(float(value)), 1.0))) * 86_400_000_000:
        raise Inexact(f"{display(value)} days say more than a microsecond")
    return f"0 mons {whole // 1_000_000} seconds {whole % 1_000_000} microseconds"


def _interval_source(rule: Any, value: SourceValue) -> str:
    if isinstance(value, int | float) and rule.unit == "julian":
        return _days_source(value)
    if isinstance(value, int | float) and rule.unit is not None:
        micros = Decimal(repr(value)) * _PER_UNIT[rule.unit]
        if not micros.is_finite() or micros != micros.to_integral_value():
            raise Inexact(f"{display(value)} says more than a microsecond")
        whole = int(micros)
        return f"0 mons {whole // 1_000_000} seconds {whole % 1_000_000} microseconds"
    if not isinstance(value, str):
        raise wrong(value, "a duration")
    if rule.since is not None:
        try:
            apart = datetime.fromisoformat(value) - datetime(1970, 1, 1)
        except (ValueError, TypeError):
            pass  # in PostgreSQL's own spelling
        else:
            whole = (apart.days * 86_400 + apart.seconds) * 1_000_000 + apart.microseconds
            return f"0 mons {whole // 1_000_000} seconds {whole % 1_000_000} microseconds"
    try:
        return _interval_target(rule, value)
    except ValueError:
        raise wrong(value, "a duration as PostgreSQL spells it") from None


# -------------------------------------------------------------------------------- addresses


def _network_target(rule: Any, text: str) -> str:
    if rule.type in ("macaddr", "macaddr8"):
        return text.lower()
    if rule.type == "cidr":
        return str(ipaddress.ip_network(text))
    return str(ipaddress.ip_interface(text))


def _network_source(rule: Any, value: SourceValue) -> str:
    if not isinstance(value, str):
        raise wrong(value, "an address")
    if rule.type in ("macaddr", "macaddr8"):
        size = 6 if rule.type == "macaddr" else 8
        if re.fullmatch(rf"([0-9a-f]{{2}}:){{{size - 1}}}[0-9a-f]{{2}}", value, re.ASCII) is None:
            raise wrong(value, "an address as PostgreSQL spells it")
        return value
    try:
        return _network_target(rule, value)
    except ValueError:
        raise wrong(value, "an address") from None


# ------------------------------------------------------------------------------------- text


def _character_source(_rule: Any, value: SourceValue) -> str:
    if not isinstance(value, str) or value.endswith(" "):
        raise wrong(value, "text without blanks at its end")
    return value


def _character_target(_rule: Any, text: str) -> str:
    return text.rstrip(" ")


def _citext_source(_rule: Any, value: SourceValue) -> str:
    if not isinstance(value, str) or "\x00" in value:
        raise wrong(value, "text")
    return value


def _label_source(rule: Any, value: SourceValue) -> str:
    if not isinstance(value, str) or value not in rule.labels:
        raise wrong(value, "a label of the type")
    return value


def _same_text(_rule: Any, text: str) -> str:
    return text


# ---------------------------------------------------------------------------------- numbers


def _single(value: float) -> str:
    """The number that 24 bits make of it."""
    try:
        return struct.pack(">f", value).hex()
    except OverflowError:
        raise wrong(value, "a number of the type real") from None


def _single_source(_rule: Any, value: SourceValue) -> str:
    if value == "NaN":
        return "NaN"
    if not isinstance(value, int | float):
        raise wrong(value, "a number")
    kept = _single(float(value))
    (single,) = struct.unpack(">f", bytes.fromhex(kept))
    if float(_shortest(single, kept)) != value:
        raise Inexact(f"{display(value)} has more digits than real keeps")
    return kept


def _shortest(single: float, kept: str) -> str:
    """The fewest digits that stand between what is half way to the next single on either side:
    what PostgreSQL prints."""
    if single in (0, math.inf, -math.inf):
        return str(single)
    bits = int(kept, 16) & 0x7FFF_FFFF
    below, own, above = (_of_bits(each) for each in (bits - 1, bits, bits + 1))
    for digits in range(1, 18):
        text = f"{single:.{digits}g}"
        if below + own < 2 * abs(Fraction(text)) < own + above:
            break
    return text


def _of_bits(bits: int) -> Fraction:
    """The number above 0 of which a single has these bits; beyond the highest, what would follow
    it."""
    exponent, fraction = bits >> 23, bits & 0x7F_FFFF
    whole = fraction | (1 << 23 if exponent else 0)
    return whole * Fraction(2) ** (max(exponent, 1) - 150)


def _single_target(rule: Any, text: str) -> str:
    # Under these affinities SQLite has one zero.
    one_zero = rule.affinity in ("integer", "real", "numeric")
    if text == "NaN":
        return text
    return _single(0.0 if one_zero and float(text) == 0 else float(text))


# ----------------------------------------------------------------------------------- vectors


def _vector_source(rule: Any, value: SourceValue) -> str:
    """The bits of each single, the first byte the highest."""
    if rule.blobs:
        if not isinstance(value, bytes) or not value or len(value) % 4:
            raise wrong(value, "a vector in a blob")
        return " ".join(value[i : i + 4][::-1].hex() for i in range(0, len(value), 4))
    if not isinstance(value, str):
        raise wrong(value, "a vector in text")
    try:
        parts = json.loads(value, parse_int=Decimal, parse_float=Decimal)
    except ValueError:
        raise wrong(value, "a vector in text") from None
    if not isinstance(parts, list) or not all(isinstance(part, Decimal) for part in parts):
        raise wrong(value, "a vector in text")
    return " ".join(_kept_of(part) for part in parts)


def _kept_of(part: Decimal) -> str:
    kept = _single(float(part))
    (single,) = struct.unpack(">f", bytes.fromhex(kept))
    if Decimal(_shortest(single, kept)) != part:
        raise Inexact(f"{part} in a vector has more digits than a single keeps")
    return kept


def _vector_target(_rule: Any, text: str) -> str:
    if not (text.startswith("[") and text.endswith("]")):
        raise ValueError(f"not a vector: {text!r}")
    return " ".join(_single(float(part)) for part in text[1:-1].split(","))


# ------------------------------------------------------------------------------- JSON in blobs


def _json_bytes_source(rule: Any, value: SourceValue) -> str:
    if not isinstance(value, bytes):
        raise wrong(value, "JSON in a blob")
    try:
        text = value.decode()
        return _document(text) if rule.binary else text
    except ValueError:
        raise wrong(value, "JSON in a blob") from None


def _document(text: str) -> str:
    def number(digits: str) -> Any:
        return {"\x00number": format(Decimal(digits).normalize(), "f")}

    return json.dumps(json.loads(text, parse_float=number, parse_int=number), sort_keys=True)


def _json_bytes_target(rule: Any, text: str) -> str:
    return _document(text) if rule.binary else text


# ----------------------------------------------------------------------------- digits in blobs


def _digits_source(_rule: Any, value: SourceValue) -> str:
    if not isinstance(value, bytes) or not value.isascii():
        raise wrong(value, "digits in a blob")
    try:
        number = int(value)
    except ValueError:
        raise wrong(value, "digits in a blob") from None
    if str(number).encode() != value:
        raise wrong(value, "digits in a blob")
    return str(number)


UNBOUNDED = frozenset(
    {"character", "citext", "padded-numeric", "array", "list", "vector", "json-bytes"}
)
"""Rules of these whose values may be of any size."""

SOURCE: dict[str, Callable[[Any, SourceValue], str]] = {
    "interval": _interval_source,
    "network": _network_source,
    "character": _character_source,
    "label": _label_source,
    "citext": _citext_source,
    "single": _single_source,
    "vector": _vector_source,
    "json-bytes": _json_bytes_source,
    "digit-bytes": _digits_source,
}

TARGET: dict[str, Callable[[Any, str], str]] = {
    "interval": _interval_target,
    "network": _network_target,
    "character": _character_target,
    "label": _same_text,
    "citext": _same_text,
    "single": _single_target,
    "vector": _vector_target,
    "json-bytes": _json_bytes_target,
    "digit-bytes": _same_text,
}


def as_parameter(kind: str, meaning: str) -> str:
    """A meaning as PostgreSQL's input text."""
    if kind == "single" and meaning != "NaN":
        (single,) = struct.unpack(">f", bytes.fromhex(meaning))
        return repr(single)
    if kind == "vector":
        numbers = (struct.unpack(">f", bytes.fromhex(bits))[0] for bits in meaning.split(" "))
        return f"[{','.join(map(repr, numbers))}]"
    return meaning
