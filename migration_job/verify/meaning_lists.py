"""What lists mean in an array; the rest of :mod:`migration_job.verify.meaning`, and as apart from
the copier as that is."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

from migration_job.quoting import postgres_element
from migration_job.values import SourceValue
from migration_job.verify.meaning_target import Inexact, wrong


def _array_source(rule: Any, value: SourceValue) -> str:
    if isinstance(value, str) and rule.literal:
        try:
            return _array_target(rule, value)
        except (ValueError, IndexError):
            raise wrong(value, "a list as PostgreSQL writes it") from None
    if isinstance(value, str) and rule.separator is not None:
        return _literal([_of_list(rule, part) for part in value.split(rule.separator) if value])
    if not isinstance(value, str):
        raise wrong(value, "a list in JSON")
    try:
        parts = json.loads(value, parse_int=Decimal, parse_float=Decimal)
    except ValueError:
        raise wrong(value, "a list in JSON") from None
    if not isinstance(parts, list):
        raise wrong(value, "a list in JSON")
    return _literal([_of_json(rule, part) for part in parts])


def _of_list(rule: Any, part: str) -> str | None:
    if rule.element == "boolean":
        return {"true": "t", "false": "f"}.get(part, part)
    if rule.element in ("text", "uuid"):
        return part
    try:
        return _of_json(rule, Decimal(part))
    except ArithmeticError:
        raise wrong(part, "a number in a list") from None


def _of_json(rule: Any, part: Any) -> str | None:
    if part is None:
        return None
    if isinstance(part, bool):
        return "t" if part else "f"
    if isinstance(part, Decimal):
        if rule.element != "real":
            return format(part, "f")
        if Decimal(repr(float(part))) != part:
            raise Inexact(f"{part} in a list has more digits, or is larger, than a real")
        return repr(float(part))
    return str(part)


def _literal(parts: list[str | None]) -> str:
    """The array as PostgreSQL reads it, every element quoted."""
    quoted = ("NULL" if part is None else postgres_element(part) for part in parts)
    return "{" + ",".join(quoted) + "}"


def _array_target(rule: Any, text: str) -> str:
    parts = _elements(text)
    if rule.element == "real":
        parts = [None if p is None else repr(float(p)) for p in parts]
    return _literal(parts)


def _elements(text: str) -> list[str | None]:
    """The elements of an array as PostgreSQL writes it."""
    if not (text.startswith("{") and text.endswith("}")):
        raise ValueError(f"not an array: {text!r}")
    parts: list[str | None] = []
    place = 1
    while place < len(text) - 1:
        part, place = _element(text, place)
        parts.append(part)
    return parts


def _element(text: str, place: int) -> tuple[str | None, int]:
    """The element that begins there, and where the next one does."""
    if text[place] != '"':
        end = min(i for i in (text.find(",", place), len(text) - 1) if i >= 0)
        bare = text[place:end]
        return (None if bare == "NULL" else bare), end + 1
    found = []
    place += 1
    while text[place] != '"':
        place += text[place] == "\\"
        found.append(text[place])
        place += 1
    return "".join(found), place + 2


# ------------------------------------------------------------------------ elements with a rule


def list_source(
    rule: Any, value: SourceValue, each: Callable[[Any, SourceValue], str | None]
) -> str:
    """The array of what ``each`` reads in the elements of a list of the source's."""
    if not isinstance(value, str):
        raise wrong(value, "a list")
    parts: list[str | None] = []
    for candidates in _candidates(rule, value):
        parts.append(_first(rule.each, candidates, each))
    return _literal(parts)


def list_target(rule: Any, text: str, each: Callable[[Any, str], str]) -> str:
    """The array of what ``each`` reads in the elements of PostgreSQL's array."""
    return _literal([None if part is None else each(rule.each, part) for part in _elements(text)])


def _first(
    rule: Any, candidates: list[SourceValue], each: Callable[[Any, SourceValue], str | None]
) -> str | None:
    """The meaning of the first candidate that has one."""
    refused: Inexact | None = None
    for candidate in candidates:
        try:
            return each(rule, candidate)
        except Inexact as error:
            refused = refused or error
    if refused is not None:
        raise refused
    return None


def _candidates(rule: Any, text: str) -> Iterator[list[SourceValue]]:
    """Of each element what it may be; nothing of one that is NULL."""
    documents = rule.each.kind in ("json", "jsonb")
    if rule.separator is None and not rule.literal:
        for raw in _slices(text):
            if raw == "null":
                yield []
            else:
                yield [raw] if documents else [_json_value(raw)]
        return
    try:
        found = _elements(text) if rule.literal else _cut(text, rule.separator)
    except (ValueError, IndexError):
        raise wrong(text, "a list as PostgreSQL writes it") from None
    for part in found:
        number = [] if part is None or documents else list(_as_number(part))
        yield [] if part is None else [part, *number]


def _cut(text: str, separator: str) -> list[str | None]:
    return [*text.split(separator)] if text else []


def _as_number(text: str) -> Iterator[int | float]:
    if re.fullmatch(r"-?\d+", text, re.ASCII) and abs(int(text)) < 2**63:
        yield int(text)
    elif re.fullmatch(r"-?\d+(\.\d+)?([eE][-+]?\d+)?", text, re.ASCII):
        yield float(text)


def _json_value(raw: str) -> SourceValue:
    if raw.startswith('"'):
        return str(json.loads(raw))
    for number in _as_number(raw):
        return number
    raise wrong(raw, "a text or a number in a list")


def _slices(text: str) -> Iterator[str]:
    """The elements of a list in JSON, each as it stands there."""
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        raise wrong(text, "a list in JSON") from None
    if not isinstance(whole, list):
        raise wrong(text, "a list in JSON")
    inside = text.strip(" \t\n\r")[1:-1]
    depth, quoted, begin, place = 0, False, 0, 0
    while place < len(inside):
        letter = inside[place]
        if quoted:
            place += letter == "\\"
            quoted = letter != '"'
        elif letter == '"':
            quoted = True
        elif letter == "," and not depth:
            yield inside[begin:place].strip(" \t\n\r")
            begin = place + 1
        else:
            depth += (letter in "[{") - (letter in "]}")
        place += 1
    if whole:
        yield inside[begin:].strip(" \t\n\r")


SOURCE: dict[str, Callable[[Any, SourceValue], str]] = {"array": _array_source}

TARGET: dict[str, Callable[[Any, str], str]] = {"array": _array_target}
