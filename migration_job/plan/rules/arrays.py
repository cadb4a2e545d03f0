"""Lists in JSON, to an array."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, ClassVar, Literal

from pydantic import SerializerFunctionWrapHandler, model_serializer

from migration_job.plan.facts import ColumnFacts
from migration_job.plan.rules.base import (
    INT64_HIGH,
    INT64_LOW,
    CannotCarry,
    RuleBase,
    StorageClass,
    expected,
    text_for,
)
from migration_job.plan.rules.decimals import PaddedNumericRule
from migration_job.plan.rules.numbers import BOUNDS, postgres_float
from migration_job.quoting import postgres_element
from migration_job.values import SourceValue

Element = Literal["text", "uuid", "integer", "real", "numeric", "boolean"]

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
BARE = re.compile(r"[^\s{}\",\\]+", re.ASCII)
"""An element that PostgreSQL writes without quotes, unless it spells NULL."""


ELEMENTS: Mapping[str, Element] = {
    **dict.fromkeys(("text", "varchar", "citext"), "text"),
    **dict.fromkeys(("smallint", "integer", "bigint"), "integer"),
    **{name: name for name in ("uuid", "numeric", "boolean")},
    "double precision": "real",
}
"""By the type of an array's elements what the lists of the source hold."""


class OfLists(RuleBase):
    """What the rules to an array have in common, whatever carries an element."""

    spelled: ClassVar[tuple[str, ...]] = ("spaced", "pointed", "separator", "literal")
    no_escapes: ClassVar[bool] = False
    unbounded: ClassVar[bool] = True
    classes: ClassVar[frozenset[StorageClass]] = frozenset({"text"})
    misfit: ClassVar[str] = "not-a-list"

    @model_serializer(mode="wrap")
    def _short(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What a list is not says nothing in a plan, and plans of earlier releases, whose rules
        said nothing of these, keep their digests."""
        data: dict[str, Any] = handler(self)
        unsaid = ("pointed", "separator", "literal")
        return {name: value for name, value in data.items() if name not in unsaid or value}


class ArrayRule(OfLists):
    """TEXT that is a list in JSON to an array of texts, numbers or truth values."""

    kind: Literal["array"] = "array"
    bijective: bool = False
    type: str = "text"
    """The array's type as SQL."""
    element: Element = "text"
    low: int = INT64_LOW
    high: int = INT64_HIGH
    """The bounds of integers."""
    numbers: tuple[int, ...] = ()
    """The most characters of a text, or the precision and scale of a number; () without."""
    spaced: bool = True
    """Whether the column writes a blank after each comma."""
    pointed: bool = False
    """Whether the column writes whole reals with a decimal, as Python does."""
    separator: str | None = None
    """What stands between the elements of a column whose lists are not JSON; '' is no element."""
    literal: Literal["", "bare", "quoted"] = ""
    """Whether the column's lists are written as PostgreSQL's own arrays are (pq.StringArray), and
    whether with each text in quotes."""

    doc: ClassVar[str] = (
        "Lists in JSON, as PostgreSQL writes arrays, or with the separator that the policy "
        "declares; those spelled as the column's others come back."
    )

    @classmethod
    def of(
        cls,
        type_sql: str,
        name: str,
        numbers: tuple[int, ...],
        facts: ColumnFacts,
        separator: str | None = None,
    ) -> ArrayRule | None:
        """The rule to an array of that type, whose elements are of the type ``name``; None where
        none leads to such elements. The blanks are those of the column's values."""
        element = ELEMENTS.get(name)
        if element is None:
            return None
        lists = [value for value in facts.sample if isinstance(value, str)]
        low, high = BOUNDS.get(name, BOUNDS["bigint"])
        return cls(
            type=type_sql,
            element=element,
            spaced=has_blanks(lists),
            pointed=element == "real" and has_decimals(lists),
            low=low,
            high=high,
            numbers=numbers,
            separator=separator,
            literal="" if separator is not None else literal_in(lists),
        )

    @property
    def target_type(self) -> str:
        return self.type

    def forward(self, value: SourceValue) -> str | None:
        if value is None:
            return None
        text = text_for(value, "a list in JSON" if self.separator is None else "a list")
        if self.separator is not None:
            parts = text.split(self.separator) if text else []
            return "{" + ",".join(self._part(self._said(part)) for part in parts) + "}"
        if self.literal:
            return self._of_literal(text)
        try:
            found = json.loads(text, parse_float=_Digits, parse_int=_Digits)
        except (ValueError, RecursionError):
            raise expected("a list in JSON", value) from None
        if not isinstance(found, list):
            raise expected("a list in JSON", value)
        if found and all(isinstance(part, list) for part in found):
            raise CannotCarry("lists in lists have no rule")
        return "{" + ",".join(self._part(part) for part in found) + "}"

    def _of_literal(self, text: str) -> str:
        found = split_array(text)
        if found is None:
            raise expected("a list as PostgreSQL writes it, of one dimension", text)
        said = ("NULL" if part is None else self._part(self._said(part)) for part in found)
        return "{" + ",".join(said) + "}"

    def _said(self, part: str) -> Any:
        """What an element of a list that is no JSON says."""
        if self.element == "boolean":
            return {"true": True, "t": True, "false": False, "f": False}.get(part, part)
        numbers = self.element in ("integer", "real", "numeric")
        return _Digits(part) if numbers and NUMBER.fullmatch(part) else part

    def _part(self, part: Any) -> str:
        match part:
            case None:
                return "NULL"
            case bool():
                if self.element == "boolean":
                    return "t" if part else "f"
            case _Digits():
                number = self._number(part)
                if number is not None:
                    return number
            case str() if self.element == "uuid" and _UUID.fullmatch(part):
                return part
            case str() if self.element == "text":
                return self._text(part)
        raise CannotCarry(f"expected {self.element} in the list, found {part!r}")

    def _text(self, part: str) -> str:
        if "\x00" in part:
            raise CannotCarry("text with a NUL character in a list")
        if self.numbers and len(part) > self.numbers[0]:
            raise CannotCarry(
                f"a text of {len(part)} characters in the list, {self.numbers[0]} allowed"
            )
        if any("\ud800" <= c <= "\udfff" for c in part):
            raise CannotCarry("half of a surrogate pair in a list, which is no character")
        return as_postgres_writes(part)

    def _number(self, digits: str) -> str | None:
        """The number as PostgreSQL prints it; None for one that is none of the elements' type."""
        if self.element == "real":
            real = float(digits)
            if math.isinf(real) or (real == 0 and Decimal(digits) != 0):
                raise CannotCarry(f"{digits} in the list is too large or too small for a real")
            return postgres_float(real)
        if self.element == "integer":
            whole = re.fullmatch(r"-?\d{1,19}", digits, re.ASCII) is not None
            fits = whole and self.low <= int(digits) <= self.high
            return str(int(digits)) if fits else None
        if self.element == "numeric":
            precision, scale = (*self.numbers, 0)[:2] if self.numbers else (None, 0)
            return PaddedNumericRule(precision=precision, scale=scale).forward(str(digits))
        return None

    def inverse(self, text: str | None) -> SourceValue:
        if text is None:
            return None
        parts = split_array(text)
        if parts is None:
            return text
        if self.literal == "bare" or (self.literal and self.element not in ("text", "uuid")):
            return text
        if self.literal:
            quoted = ("NULL" if part is None else postgres_element(part) for part in parts)
            return "{" + ",".join(quoted) + "}"
        if self.separator is not None:
            return self._joined(self.separator, parts, text)
        separator = ", " if self.spaced else ","
        return "[" + separator.join(map(self._json, parts)) + "]"

    def _joined(self, separator: str, parts: list[str | None], text: str) -> str:
        """The list as the column writes it; PostgreSQL's own text where it has no way to."""
        texts = self.element in ("text", "uuid")
        found = [part if texts or part is None else self._json(part) for part in parts]
        if found == [""] or any(part is None or separator in part for part in found):
            return text
        return separator.join(map(str, found))

    def _json(self, part: str | None) -> str:
        if part is None:
            return "null"
        if self.element == "boolean":
            return "true" if part == "t" else "false"
        texts = self.element in ("text", "uuid")
        if self.pointed and part.removeprefix("-").isdigit():
            return f"{part}.0"
        return json.dumps(part, ensure_ascii=False) if texts else part


def as_postgres_writes(text: str) -> str:
    """An element as PostgreSQL's own output of an array has it: in quotes where it needs them."""
    bare = BARE.fullmatch(text) is not None and text.upper() != "NULL"
    return text if bare else postgres_element(text)


def literal_in(lists: Sequence[str]) -> Literal["", "bare", "quoted"]:
    """How most of the lists are written, where that is PostgreSQL's own way."""
    found = [text for text in lists if text[:1] == "{" and text[-1:] == "}"]
    if 2 * len(found) <= len(lists):
        return ""
    return "quoted" if any('"' in text for text in found) else "bare"


def has_blanks(lists: Sequence[str]) -> bool:
    """Whether at least half of the lists in JSON that have a comma have a blank after one."""
    return 2 * sum(", " in text for text in lists) >= sum("," in text for text in lists)


def has_decimals(lists: Sequence[str]) -> bool:
    """Whether most of the whole numbers in lists have a decimal."""
    found = [match[1] for text in lists for match in _WHOLE.finditer(text)]
    return bool(found) and 2 * sum(map(bool, found)) > len(found)


NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][-+]?\d+)?", re.ASCII)
_WHOLE = re.compile(r"(?<=[\[,\s-])\d+(\.0)?(?=[\],\s])")


class _Digits(str):
    """A number as JSON spells it."""


_PART = re.compile(r'"((?:[^"\\]|\\.)*)"|([^",{}\\]+)', re.DOTALL)


def split_array(text: str) -> list[str | None] | None:
    """The elements of PostgreSQL's text of an array of one dimension; None for any other."""
    if text[:1] != "{" or text[-1:] != "}":
        return None
    found: list[str | None] = []
    place, end = 1, len(text) - 1
    while place < end:
        match = _PART.match(text, place, end)
        if match is None:
            return None
        quoted, bare = match.groups()
        if quoted is not None:
            found.append(re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL))
        else:
            found.append(None if bare == "NULL" else bare)
        place = match.end()
        if place < end and text[place] != ",":
            return None
        place += 1
    return found
