"""What a SQLite value is to this project.

SQLite types values, not columns: each is one of five storage classes
(https://sqlite.org/datatype3.html). In Python they are

========  =====================================================================
NULL      ``None``
INTEGER   ``int``
REAL      ``float``
TEXT      ``str`` where the bytes decode strictly, else :class:`BrokenText`
BLOB      ``bytes``
========  =====================================================================

A ``str`` may hold NUL (``"\\x00"``) but never a lone surrogate: bytes that would decode to one
are not valid UTF-8 and arrive as :class:`BrokenText`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class BrokenText:
    """A TEXT value whose bytes are not valid in the database's encoding, kept raw."""

    raw: bytes


SourceValue: TypeAlias = int | float | str | bytes | BrokenText | None


def positional(value: float) -> str:
    """A finite real's shortest digits without an exponent, always with a decimal point."""
    text = format(Decimal(repr(value)), "f")
    return text if "." in text else text + ".0"


_ASCII = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")


def fold(name: str) -> str:
    """A name as SQLite compares names: ASCII letters in lower case, all others as they are, so
    that é and É are two tables."""
    return name.lower() if name.isascii() else name.translate(_ASCII)


def find_name(wanted: str, names: Iterable[str]) -> str | None:
    """Which of a file's names is meant by the one that somebody gave: the same one, or else the one
    that SQLite takes for the same; None where there is none."""
    known = list(names)
    if wanted in known:
        return wanted
    return next((name for name in known if fold(name) == fold(wanted)), None)


def storage_class(value: SourceValue) -> str:
    """SQLite's name for the value's class: ``null integer real text blob``."""
    match value:
        case None:
            return "null"
        case int():
            return "integer"
        case float():
            return "real"
        case str() | BrokenText():
            return "text"
        case bytes():
            return "blob"


def same(left: SourceValue, right: SourceValue) -> bool:
    """Bit-for-bit equality: storage class and content, so ``1 != 1.0`` and ``-0.0 != 0.0``."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float) and isinstance(right, float):
        return struct.pack("<d", left) == struct.pack("<d", right)
    return left == right


def display(value: SourceValue, limit: int = 80) -> str:
    """The value as an SQLite literal for people, cut at ``limit`` characters, control characters
    escaped, so that a hostile value cannot forge a line of the log."""
    match value:
        case None:
            text = "NULL"
        case str():
            text = "'" + value[: limit + 1].replace("'", "''") + "'"
        case bytes():
            text = "x'" + value[: limit // 2 + 1].hex() + "'"
        case BrokenText():
            text = "text x'" + value.raw[: limit // 2 + 1].hex() + "'"
        case _:
            text = repr(value)
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


_PLAIN = json.JSONEncoder(ensure_ascii=False)
_COMPACT = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
# Made once: json.dumps makes a new one at each call with such arguments, and these are called
# several times for each changed row.


def to_json(value: SourceValue) -> object:
    """The value for ``report.json``, reversible: text, integers and null as themselves; a real as
    ``{"real": "17 digits"}``; a blob and broken text as ``{"blob"|"broken_text": hex}``."""
    match value:
        case float():
            return {"real": repr(value)}
        case bytes():
            return {"blob": value.hex()}
        case BrokenText():
            return {"broken_text": value.raw.hex()}
        case _:
            return value


def from_json(value: object) -> SourceValue:
    """The value that :func:`to_json` wrote. Raises ValueError for anything else."""
    match value:
        case bool():
            pass
        case None | int() | str():
            return value
        case {"real": str(text)}:
            return float(text)
        case {"blob": str(text)}:
            return bytes.fromhex(text)
        case {"broken_text": str(text)}:
            return BrokenText(bytes.fromhex(text))
    raise ValueError(f"not a value of this project's JSON form: {value!r}")


def to_text(value: SourceValue) -> str:
    """The value as one line of JSON; equal values give equal text, different ones different."""
    return _PLAIN.encode(to_json(value))


def key_text(values: Sequence[SourceValue]) -> str:
    """A row's key as one line of JSON, an array of its values in key order: how the ledger and
    the quarantine name a row. Equal keys give equal text, different ones different."""
    return _COMPACT.encode([to_json(v) for v in values])


def key_values(text: str) -> tuple[SourceValue, ...]:
    """The key that :func:`key_text` wrote."""
    return tuple(from_json(v) for v in json.loads(text))
