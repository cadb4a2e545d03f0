"""What a value means, read from each side by itself: the typed comparison's own parsing.

``of_source`` reads a raw SQLite value, ``of_target`` PostgreSQL's text output; both give canonical
text that PostgreSQL takes as the type's input, and equal texts mean equal values. Nothing here
knows how the copier writes a value: only what the plan says a column's values mean, which is data
(the rule's kind and its settings).
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

import apsw

from migration_job.plan.model import ColumnPlan
from migration_job.values import BrokenText, SourceValue, display
from migration_job.verify import meaning_target
from migration_job.verify.meaning_target import Inexact as Inexact

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


def of_source(column: ColumnPlan, value: SourceValue) -> str | None:
    """The meaning of a source value in this column. Raises Inexact."""
    if value is None and not (column.rule.kind == "map" and column.rule.bijective):
        return None
    rule: Any = column.rule
    while rule.kind == "map":
        if rule.bijective:
            value = _through_map(rule, value)
        rule = rule.inner
    return None if value is None else _SOURCE[rule.kind](rule, value)


def _through_map(rule: Any, value: SourceValue) -> SourceValue:
    """What a map that goes both ways makes of a value. Raises Inexact for one that would not come
    back: the first entry of a target value is the one that does."""
    place = {(type(e.source), e.source): n for n, e in reversed(list(enumerate(rule.entries)))}
    number = place.get((type(value), value)) if not isinstance(value, bytes | BrokenText) else None
    targets = [(type(e.target), e.target) for e in rule.entries if e.target is not None]
    if number is None:
        if (type(value), value) in targets:
            raise Inexact(f"{display(value)} would come back as another value of the map's")
        return _through_patterns(rule, value)
    target = rule.entries[number].target
    first = next(n for n, e in enumerate(rule.entries) if _alike(e.target, target))
    if target is None:
        return value  # on the target only where it was written there, as what it is
    if first != number:
        raise Inexact(f"{display(value)} would come back as another value of the map's")
    if isinstance(target, int) and rule.inner.kind in ("text", "widened-text", "integer-text"):
        return str(target)
    return target if isinstance(target, int | float | str) else None


def _through_patterns(rule: Any, value: SourceValue) -> SourceValue:
    """What the first pattern that meets a text as a whole makes of it."""
    if isinstance(value, str):
        for pattern in rule.patterns:
            found = re.fullmatch(pattern.match, value, re.DOTALL)
            if found is not None:
                return found.expand(pattern.replace)
    return value


def _alike(left: object, right: object) -> bool:
    return type(left) is type(right) and left == right


def of_target(column: ColumnPlan, text: str | None) -> str | None:
    """The meaning of a target value's text output (or of input text, as the ledger has it).
    Raises ValueError for text that is none of the type."""
    if text is None:
        return None
    rule: Any = column.rule
    while rule.kind == "map":
        rule = rule.inner
    return _TARGET[rule.kind](rule, text)


def _wrong(value: SourceValue, expected: str) -> Inexact:
    return Inexact(f"{display(value)} is not {expected}")


# ---------------------------------------------------------------------------------- numbers


def _integer_source(_rule: Any, value: SourceValue) -> str:
    if not isinstance(value, int):
        raise _wrong(value, "an integer")
    return str(value)


def _integer_target(_rule: Any, text: str) -> str:
    return str(int(text))


def _bits(value: float) -> str:
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
        raise _wrong(value, "a real")
    return _bits(value)


def _whole(value: int) -> float | int:
    """The real of which a column without whole reals has made an integer."""
    return float(value) if int(float(value)) == value else value


NOT_A_NUMBER = "NaN"


def _real_target(rule: Any, text: str) -> str:
    bits = _bits(float(text))
    # Under these affinities SQLite has one zero.
    return "0.0" if bits == "-0.0" and rule.affinity in NUMBERS else bits


def _plain_decimal(text: str) -> str:
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
        return _plain_decimal(str(value))
    if value == NOT_A_NUMBER:
        return NOT_A_NUMBER
    if isinstance(value, str) and rule.affinity in ("text", "blob") and _DIGITS.fullmatch(value):
        plain = _plain_decimal(value)
        if not _has_fewer_digits(value):
            return plain  # a number with more digits than a real of SQLite's
    if not isinstance(value, float):
        raise _wrong(value, "a number")
    if math.isinf(value):
        return _bits(value)
    if value == 0 and math.copysign(1, value) < 0:
        raise Inexact("numeric has no negative zero")
    plain = _plain_decimal(repr(value))
    return plain + ".0" if _tells_reals(rule) and "." not in plain else plain


def _numeric_text_source(rule: Any, value: SourceValue) -> str:
    """The very text that PostgreSQL prints: the same number in other words is the ledger's."""
    if not isinstance(value, str):
        raise _wrong(value, "text")
    if value in (NOT_A_NUMBER, "Infinity", "-Infinity"):
        return value
    whole, _, fraction = value.removeprefix("-").partition(".")
    spelled = re.fullmatch(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?", value, re.ASCII) is not None
    nothing = not (whole + fraction).strip("0")
    decimals = len(fraction) if rule.precision is None else max(rule.scale, 0)
    if not spelled or (nothing and value.startswith("-")) or len(fraction) != decimals:
        raise _wrong(value, "a number as PostgreSQL prints it")
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
    plain = _plain_decimal(text)
    if _tells_reals(rule) and "." in text and "." not in plain and _has_fewer_digits(text):
        return plain + ".0"
    return plain


def _padded_source(rule: Any, value: SourceValue) -> str:
    if not isinstance(value, str):
        raise _wrong(value, "a decimal number in text")
    if value not in SPECIAL and re.fullmatch(r"-?(0|[1-9]\d*)(\.\d+)?", value, re.ASCII) is None:
        raise _wrong(value, "a decimal number")
    fraction = value.partition(".")[2]
    if value not in SPECIAL and rule.precision is not None:
        places = rule.scale if rule.places is None else max(rule.places, len(fraction.rstrip("0")))
        if len(fraction) != places:
            raise _wrong(value, "spelled as the column spells its numbers")
    return _padded_target(rule, value)


SPECIAL = ("NaN", "Infinity", "-Infinity")


def _padded_target(rule: Any, text: str) -> str:
    # Without a scale of its own the type keeps the text's.
    return text if text in SPECIAL or rule.precision is None else _plain_decimal(text)


def _boolean_source(_rule: Any, value: SourceValue) -> str:
    if not isinstance(value, int) or value not in (0, 1):
        raise _wrong(value, "0 or 1")
    return "tf"[1 - value]


def _boolean_target(_rule: Any, text: str) -> str:
    if text not in ("t", "f", "true", "false"):
        raise ValueError(f"not a boolean: {text!r}")
    return text[0]


# ------------------------------------------------------------------------------- text, bytes


_LIKE_NUMBER = re.compile(r"[ \t-\r]*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?[ \t-\r]*", re.ASCII)
NUMBERS = ("integer", "real", "numeric")


def _text_source(rule: Any, value: SourceValue) -> str:
    if isinstance(value, float) and math.isinf(value):
        raise _wrong(value, "text, nor does SQLite make this number of any")
    if rule.affinity in NUMBERS and isinstance(value, int | float):
        return _as_number(str(value) if isinstance(value, int) else repr(value))
    if isinstance(value, BrokenText) or not isinstance(value, str) or "\x00" in value:
        raise _wrong(value, "text")
    return value


def _text_target(rule: Any, text: str) -> str:
    if rule.affinity in NUMBERS and _LIKE_NUMBER.fullmatch(text) is not None:
        return _as_number(text)
    return text


def _text_integer_source(_rule: Any, value: SourceValue) -> str:
    if isinstance(value, int | float):
        return _as_number(str(value) if isinstance(value, int) else repr(value))
    if not isinstance(value, str) or "\x00" in value or _LIKE_NUMBER.fullmatch(value):
        raise _wrong(value, "an integer")
    return value  # PostgreSQL's text takes what SQLite makes no integer of


def _text_integer_target(_rule: Any, text: str) -> str:
    return _as_number(text) if _LIKE_NUMBER.fullmatch(text) is not None else text


def _as_number(text: str) -> str:
    """What a column of numeric affinity makes of a text that looks like a number. Its digits are
    read as SQLite reads them, whose last one may not be the nearest."""
    stored = apsw.Connection(":memory:").execute("SELECT CAST(? AS NUMERIC)", (text,)).get
    return str(stored) if isinstance(stored, int) else f"{REAL}{_bits(float(stored))}"


REAL = "\x00real "
"""Before a number that a column of text has: no text holds a NUL."""


def _same_text(_rule: Any, text: str) -> str:
    return text


def _text_bytes_source(_rule: Any, value: SourceValue) -> str:
    if isinstance(value, BrokenText):
        return "\\x" + value.raw.hex()
    if not isinstance(value, str):
        raise _wrong(value, "text")
    return "\\x" + value.encode().hex()


def _blob_source(_rule: Any, value: SourceValue) -> str:
    if not isinstance(value, bytes):
        raise _wrong(value, "a blob")
    return "\\x" + value.hex()


def _blob_target(_rule: Any, text: str) -> str:
    if not text.startswith("\\x"):
        raise ValueError("not bytes in hex")
    return "\\x" + bytes.fromhex(text[2:]).hex()


def _never_exact(_rule: Any, value: SourceValue) -> str:
    raise _wrong(value, "a blob, and the column keeps bytes")


def _integer_text_source(_rule: Any, value: SourceValue) -> str:
    if not isinstance(value, str) or not value.isascii() or str(_int_or_none(value)) != value:
        raise _wrong(value, "text that spells an integer")
    return value


def _int_or_none(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None


_UUID_LENGTHS = {"lower": 36, "upper": 36, "hex": 32, "HEX": 32}


def _uuid_source(rule: Any, value: SourceValue) -> str:
    if _kept_its_hyphens(rule, value):
        return str(value).lower()
    if not isinstance(value, str) or len(value) != _UUID_LENGTHS[rule.style]:
        raise _wrong(value, "a UUID as this column spells them")
    wanted = value.upper() if rule.style in ("upper", "HEX") else value.lower()
    bare = value.replace("-", "")
    if value != wanted or len(bare) != 32 or not all(c in "0123456789abcdefABCDEF" for c in bare):
        raise _wrong(value, "a UUID as this column spells them")
    canonical = _hyphened(bare.lower())
    if _UUID_LENGTHS[rule.style] == 36 and canonical != value.lower():
        raise _wrong(value, "a UUID as this column spells them")
    return canonical


def _kept_its_hyphens(rule: Any, value: SourceValue) -> bool:
    """Whether it is a UUID whose bare digits the column's affinity would make a number of, so that
    a column of bare ones has it with its hyphens."""
    if not isinstance(value, str) or _UUID_LENGTHS[rule.style] != 32:
        return False
    if rule.affinity not in NUMBERS:
        return False
    bare = value.replace("-", "")
    wanted = value.upper() if rule.style == "HEX" else value.lower()
    return (
        re.fullmatch(r"\d+([eE]\d+)?", bare, re.ASCII) is not None
        and len(bare) == 32
        and value == wanted
        and value.lower() == _hyphened(bare.lower())
    )


def _hyphened(bare: str) -> str:
    return "-".join((bare[:8], bare[8:12], bare[12:16], bare[16:20], bare[20:]))


def _uuid_bytes_source(rule: Any, value: SourceValue) -> str:
    if not isinstance(value, bytes) or len(value) != 16:
        raise _wrong(value, "a UUID of 16 bytes")
    digits = value.hex()
    if rule.order == "dotnet":
        # The first three groups are numbers with their lowest byte first.
        numbers = struct.unpack("<IHH", value[:8])
        digits = "{:08x}{:04x}{:04x}".format(*numbers) + value[8:].hex()
    return _hyphened(digits)


def _uuid_target(_rule: Any, text: str) -> str:
    return _hyphened(text.lower().replace("-", "").strip("{}"))


# ------------------------------------------------------------------------------------- JSON


def _json_blob_source(rule: Any, value: SourceValue) -> str:
    """The document as SQLite reads its own JSONB; of a blob of text the text."""
    if rule.form == "text":
        if not isinstance(value, bytes):
            raise _wrong(value, "JSON in a blob")
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise _wrong(value, "JSON in a blob") from None
    if isinstance(value, str):
        if _minified(value) is not None:
            raise _wrong(value, "JSONB")
        return value  # PostgreSQL's, which SQLite takes for no document
    found = _one("SELECT CASE WHEN json_valid(?1, 8) THEN json(?1) END", value)
    again = None if found is None else _one("SELECT jsonb(?)", found)
    if not isinstance(found, str) or again != value:
        raise _wrong(value, "JSONB as SQLite makes it")
    return found


def _json_blob_target(rule: Any, text: str) -> str:
    if rule.form == "text":
        return text
    return _minified(text) or text


def _minified(text: str) -> str | None:
    found = _one("SELECT json(jsonb(?))", text)
    return found if isinstance(found, str) else None


def _one(query: str, value: Any) -> object:
    try:
        found: object = apsw.Connection(":memory:").execute(query, (value,)).get
    except (apsw.Error, TypeError, UnicodeDecodeError):
        return None
    return found


def _json_source(rule: Any, value: SourceValue) -> str:
    if isinstance(value, str):
        if rule.affinity != "text" and _json_number(value) is not None:
            raise _wrong(value, "what this column's affinity keeps as text")
        return value
    if isinstance(value, BrokenText | bytes) or rule.affinity in ("text", "blob"):
        raise _wrong(value, "JSON text")
    return str(value) if isinstance(value, int) else _json_real(rule, float(value or 0))


def _json_number(text: str) -> float | None:
    if re.fullmatch(r"-?\d+(\.\d+)?([eE][+-]?\d+)?", text, re.ASCII) is None:
        return None
    return float(text)


def _json_target(rule: Any, text: str) -> str:
    if rule.affinity in ("text", "blob"):
        return text
    # Blanks around it do not keep SQLite from making a number of the document.
    bare = text.strip(" \t\n\r")
    number = _json_number(bare)
    if number is None:
        return text
    if rule.affinity != "real" and _is_int64(bare):
        return str(int(bare))
    return _json_real(rule, number)


def _json_real(rule: Any, number: float) -> str:
    """A column of numeric affinity holds no whole real (https://sqlite.org/datatype3.html)."""
    if rule.affinity != "real" and number.is_integer() and abs(number) < 2**63:
        return str(int(number))
    return "real " + _bits(number)


def _is_int64(text: str) -> bool:
    return re.fullmatch(r"-?\d{1,19}", text, re.ASCII) is not None and -(2**63) <= int(text) < 2**63


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise Inexact("a JSON object has a key twice")
    return members


def _canonical_json(text: str, pairs: Callable[[list[tuple[str, Any]]], Any]) -> str:
    def number(digits: str) -> Any:
        return {"\x00number": _plain_decimal(digits)}

    document = json.loads(text, object_pairs_hook=pairs, parse_float=number, parse_int=number)
    return json.dumps(document, sort_keys=True)


def _jsonb_source(rule: Any, value: SourceValue) -> str:
    if isinstance(value, int | float) and rule.affinity in NUMBERS and math.isfinite(value):
        value = repr(value)
    if not isinstance(value, str):
        raise _wrong(value, "JSON text")
    try:
        return _canonical_json(value, _no_duplicates)
    except (ValueError, RecursionError) as error:
        raise Inexact(f"not JSON: {error}") from None


def _jsonb_target(_rule: Any, text: str) -> str:
    return _canonical_json(text, dict)


# ---------------------------------------------------------------------------- dates and times


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
        raise _wrong(value, f"text of the shape {shape}")
    match = _shape_pattern(shape).fullmatch(value)
    if match is None:
        match = _finer_match(shape, value, precision)
    if match is None:
        raise _wrong(value, f"of the shape {shape}")
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
        return _epoch_micros(rule.epoch, float((micros - origin) / size)) != micros
    except Inexact:
        return True


def _timestamp_source(rule: Any, value: SourceValue) -> str:
    if isinstance(value, str) and _is_output(rule, value):
        return _timestamp_target(rule, value)
    if rule.shape == "epoch":
        micros = _epoch_micros(rule.epoch, value)
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


def _epoch_micros(unit: str, value: SourceValue) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(value, "a number")
    if isinstance(value, float) and not math.isfinite(value):
        raise _wrong(value, "a time")
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


def _time_source(rule: Any, value: SourceValue) -> str:
    if value == _END_OF_DAY:
        return f"{_END_OF_DAY}.000000"
    hour, minute, second, micro = _clock(_parts(rule.shape, value, rule.precision))
    if hour > 23 or minute > 59 or second > 59:
        raise _wrong(value, "a time of day")
    return f"{hour:02d}:{minute:02d}:{second:02d}.{micro:06d}"


_END_OF_DAY = "24:00:00"
"""A time of PostgreSQL's that no clock of the source's shows."""


def _time_target(_rule: Any, text: str) -> str:
    match = re.fullmatch(r"(\d\d:\d\d:\d\d)(?:\.(\d{1,6}))?", text, re.ASCII)
    if match is None:
        raise ValueError(f"not a time of day: {text!r}")
    return f"{match[1]}.{(match[2] or '').ljust(6, '0')}"


# ---------------------------------------------------------------------------------- the kinds

_SOURCE: dict[str, Callable[[Any, SourceValue], str]] = {
    "integer": _integer_source,
    "real": _real_source,
    "numeric": _numeric_source,
    "boolean": _boolean_source,
    "text": _text_source,
    "widened-text": _text_source,
    "bytea": _blob_source,
    "widened-bytea": _blob_source,
    "text-bytea": _text_bytes_source,
    "integer-text": _integer_text_source,
    "text-integer": _text_integer_source,
    "numeric-text": _numeric_text_source,
    "uuid": _uuid_source,
    "uuid-bytes": _uuid_bytes_source,
    "json": _json_source,
    "json-blob": _json_blob_source,
    "jsonb": _jsonb_source,
    "timestamp": _timestamp_source,
    "date": _date_source,
    "time": _time_source,
    "none": _never_exact,
    "local-timestamp": _local_source,
    "near-numeric": _numeric_source,
    "padded-numeric": _padded_source,
    **meaning_target.SOURCE,
}

_TARGET: dict[str, Callable[[Any, str], str]] = {
    "integer": _integer_target,
    "real": _real_target,
    "numeric": _numeric_target,
    "boolean": _boolean_target,
    "text": _text_target,
    "widened-text": _text_target,
    "bytea": _blob_target,
    "widened-bytea": _blob_target,
    "text-bytea": _blob_target,
    "integer-text": _integer_target,
    "text-integer": _text_integer_target,
    "numeric-text": _same_text,
    "uuid": _uuid_target,
    "uuid-bytes": _uuid_target,
    "json": _json_target,
    "json-blob": _json_blob_target,
    "jsonb": _jsonb_target,
    "timestamp": _timestamp_target,
    "date": _same_text,
    "time": _time_target,
    "none": _same_text,
    "local-timestamp": _local_target,
    "near-numeric": _numeric_target,
    "padded-numeric": _padded_target,
    **meaning_target.TARGET,
}
"""Complete for every kind of rule; a test compares it with the rules that there are."""


def as_parameter(column: ColumnPlan, meaning: str | None) -> str | None:
    """A meaning as input text for a query by key."""
    if meaning is None:
        return None
    rule: Any = column.rule
    while rule.kind == "map":
        rule = rule.inner
    if rule.kind in ("timestamp", "local-timestamp") and meaning.lstrip("-").isdigit():
        instant = EPOCH + timedelta(microseconds=int(meaning))
        text = f"{instant.year:04d}-{instant:%m-%d %H:%M:%S.%f}"
        return text + "+00" if rule.kind == "timestamp" else text
    if rule.kind == "json" and meaning.startswith("real "):
        return meaning[5:]
    if meaning.startswith(REAL):
        return meaning.removeprefix(REAL)
    return meaning_target.as_parameter(rule.kind, meaning)
