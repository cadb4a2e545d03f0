"""JSON as PostgreSQL takes it: what ``json`` accepts, and what ``jsonb`` makes of it.

``jsonb`` keeps the value, not the text: keys sorted by length and then by bytes, the last of a
duplicate key, numbers as ``numeric`` prints them, a fixed spacing. Predicting that text is what
lets preflight say, without a server, which documents come back as they were.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from itertools import pairwise
from typing import Any, Literal

Style = Literal["compact", "spaced", "compact-ascii", "spaced-ascii"]
"""How an application writes JSON: JSON.stringify is ``compact``, Python's json.dumps
``spaced-ascii``; ``spaced`` is also PostgreSQL's own."""

MAX_DEPTH = 1000
"""SQLite's own limit (json_valid). PostgreSQL's, by max_stack_depth, is several times that."""

SHALLOW = 100
"""Depths below this need no care."""

QUICK_LENGTH = 1_000_000

MAX_JSONB_BYTES = 250_000_000
"""PostgreSQL allows 268,435,455 bytes for all elements of one array or object."""

MAX_INTEGER_DIGITS = 131_072
MAX_FRACTION_DIGITS = 16_383
"""The limits of numeric."""


class BadJson(ValueError):
    """The text is not JSON for PostgreSQL; the message says why."""


class Number(str):
    """A JSON number's text."""

    __slots__ = ()


class Pairs(list[tuple[str, Any]]):
    """An object's members in their order, duplicates included."""


def _reject(text: str) -> Any:
    raise BadJson(f"{text} is not JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=Pairs,
    parse_float=Number,
    parse_int=Number,
    parse_constant=_reject,
    strict=True,
)

_BLANKS = " \t\n\r"


def parse(text: str) -> Any:
    """The document, objects as Pairs and numbers as Number. Raises BadJson."""
    stripped = text.strip(_BLANKS)
    depth = _depth(stripped)
    if depth > MAX_DEPTH:
        raise BadJson(f"nested deeper than {MAX_DEPTH} levels")
    try:
        with _room_for(depth):
            value, end = _DECODER.raw_decode(stripped)
    except ValueError as error:
        raise BadJson(str(error)) from None
    if end != len(stripped):
        raise BadJson(f"text follows the document at character {end}")
    return value


@contextmanager
def _room_for(depth: int) -> Iterator[None]:
    """Python's recursion limit raised for a document of that depth, where it needs to be."""
    before = sys.getrecursionlimit()
    if depth < SHALLOW:
        yield
        return
    sys.setrecursionlimit(before + 4 * depth)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)


def _depth(text: str) -> int:
    most = text.count("[") + text.count("{")
    if most < SHALLOW:
        return most
    deepest = depth = 0
    for character in _STRINGS.sub("", text):
        if character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest


def normalise(text: str) -> str:
    """The text that ``jsonb`` prints for this document. Raises BadJson where jsonb refuses it."""
    if len(text) > MAX_JSONB_BYTES // 4 and len(text.encode()) > MAX_JSONB_BYTES:
        raise BadJson(f"longer than {MAX_JSONB_BYTES:,} bytes")
    return _write(parse(text), _depth(text), "spaced", as_jsonb=True)


class _OutOfOrder(ValueError):
    """An object's keys are not in jsonb's order."""


def _ordered(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > 1:
        keys = [(len(key.encode()), key.encode()) for key, _ in pairs]
        if any(a >= b for a, b in pairwise(keys)):
            raise _OutOfOrder
    return dict(pairs)


_QUICK = json.JSONDecoder(object_pairs_hook=_ordered, parse_constant=_reject)
_EXPONENT = re.compile(r"[0-9][eE]")


def surely_returns(text: str, style: Style) -> bool:
    """Whether the document certainly comes back from jsonb as it is; False where that takes a
    closer look. Most documents of most applications are told apart by this, at a fraction of the
    cost."""
    if "\\" in text or "\x00" in text or _EXPONENT.search(text) or len(text) > QUICK_LENGTH:
        return False
    spaced = style.startswith("spaced")
    try:
        value = _QUICK.decode(text)
        return text == json.dumps(
            value,
            ensure_ascii=style.endswith("ascii"),
            separators=(", ", ": ") if spaced else (",", ":"),
        )
    except (ValueError, RecursionError):
        return False


def restyle(text: str, style: Style) -> str:
    """A document as jsonb printed it, in the application's own style."""
    return _write(parse(text), _depth(text), style, as_jsonb=False)


def _write(value: Any, depth: int, style: Style, *, as_jsonb: bool) -> str:
    spaced = style.startswith("spaced")
    comma, colon = (", ", ": ") if spaced else (",", ":")
    parts: list[str] = []
    emit = parts.append

    def text(string: str) -> str:
        if as_jsonb:
            _check_string(string)
        return json.dumps(string, ensure_ascii=style.endswith("ascii"))

    def walk(item: Any) -> None:
        match item:
            case Number():
                emit(number(item) if as_jsonb else item)
            case str():
                emit(text(item))
            case Pairs():
                members = sorted_members(item) if as_jsonb else item
                emit("{")
                for position, (key, member) in enumerate(members):
                    emit((comma if position else "") + text(key) + colon)
                    walk(member)
                emit("}")
            case list():
                emit("[")
                for position, member in enumerate(item):
                    if position:
                        emit(comma)
                    walk(member)
                emit("]")
            case True:
                emit("true")
            case False:
                emit("false")
            case None:
                emit("null")

    with _room_for(depth):
        walk(value)
    return "".join(parts)


def _check_string(string: str) -> None:
    if "\x00" in string:
        raise BadJson("a string holds \\u0000, which jsonb cannot hold")
    if any("\ud800" <= c <= "\udfff" for c in string):
        raise BadJson("a string holds half of a surrogate pair, which jsonb cannot hold")


def sorted_members(pairs: Pairs) -> list[tuple[str, Any]]:
    """The last of each duplicate key, shorter keys first, equal lengths by bytes."""
    for key, _ in pairs:
        _check_string(key)
    return sorted(dict(pairs).items(), key=lambda m: (len(m[0].encode()), m[0].encode()))


def number(text: str) -> str:
    """The number as PostgreSQL's numeric prints it. Raises BadJson beyond numeric's limits."""
    if not any(c in text for c in "eE"):
        digits = text.lstrip("-")
        whole, _, fraction = digits.partition(".")
        if len(whole) > MAX_INTEGER_DIGITS or len(fraction) > MAX_FRACTION_DIGITS:
            raise BadJson("a number is beyond the limits of numeric")
        return digits if not digits.strip("0.") else text
    mantissa, _, exponent_text = text.lower().partition("e")
    if len(exponent_text) > 8:
        raise BadJson("a number is beyond the limits of numeric")
    whole, _, fraction = mantissa.lstrip("-").partition(".")
    exponent = int(exponent_text)
    scale = max(0, len(fraction) - exponent)
    zero = not (whole + fraction).strip("0")
    if scale > MAX_FRACTION_DIGITS or (not zero and len(whole) + exponent > MAX_INTEGER_DIGITS):
        raise BadJson("a number is beyond the limits of numeric")
    if zero:
        return "0" + ("." + "0" * scale if scale else "")
    # Decimal is exact here: the text is built from digits and an exponent, nothing is rounded.
    sign, digits_tuple, power = Decimal(mantissa).as_tuple()
    digits = "".join(map(str, digits_tuple)) + "0" * max(0, int(power) + exponent)
    point = scale
    digits = digits.rjust(point + 1, "0")
    body = digits[: len(digits) - point].lstrip("0") or "0"
    return ("-" if sign else "") + body + ("." + digits[len(digits) - point :] if point else "")
