"""Lists to an array whose elements have a rule of their own: dates, labels, documents."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import ClassVar, Literal

from migration_job.plan.facts import ColumnFacts
from migration_job.plan.rules.arrays import (
    NUMBER,
    ArrayRule,
    OfLists,
    as_postgres_writes,
    has_blanks,
    has_decimals,
    literal_in,
    split_array,
)
from migration_job.plan.rules.base import (
    INT64_HIGH,
    INT64_LOW,
    CannotCarry,
    Rule,
    RuleBase,
    expected,
    text_for,
)
from migration_job.plan.rules.times import DateRule
from migration_job.quoting import postgres_element
from migration_job.stores.sqlite.model import SourceColumn
from migration_job.values import SourceValue

DOCUMENTS = frozenset({"json", "jsonb"})
"""Rules for which an element is the JSON that stands in the list, not what it says."""

ELEMENT = SourceColumn(
    name="element", declared="", affinity="blob", not_null=False, default=None, primary_key=0,
    generated="",
)  # fmt: skip
"""What an element is, as a column: SQLite converts none of them."""


class ListRule(OfLists):
    """TEXT that is a list to an array, each element by the rule ``each``.

    A text in the list is the element's text, a number its number. Of an array of JSON documents
    each element of the list is one; null is NULL.
    """

    kind: Literal["list"] = "list"
    bijective: bool = False
    type: str = "text"
    """The array's type as SQL."""
    each: Rule = DateRule()
    spaced: bool = True
    """Whether the column writes a blank after each comma."""
    pointed: bool = False
    """Whether the column writes whole reals with a decimal."""
    separator: str | None = None
    """What stands between the elements of a column whose lists are not JSON; '' is no element."""
    literal: Literal["", "bare", "quoted"] = ""
    """Whether the column's lists are written as PostgreSQL's own arrays are, and whether with each
    text in quotes."""

    doc: ClassVar[str] = (
        "Lists whose elements another rule carries: dates, times, intervals, an enum's labels, "
        "addresses, JSON documents, reals and others; spelled as those of `array` may be."
    )

    @classmethod
    def of(
        cls, type_sql: str, each: RuleBase, facts: ColumnFacts, separator: str | None = None
    ) -> ListRule:
        """The rule to an array of that type, spelled as the column's values are."""
        lists = [value for value in facts.sample if isinstance(value, str)]
        return cls(
            type=type_sql,
            each=each,
            spaced=has_blanks(lists),
            pointed=has_decimals(lists),
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
        parts = [self._part(part) for part in parts_of(text, self.separator, self.literal)]
        return "{" + ",".join(parts) + "}"

    def _part(self, part: Part) -> str:
        if part is None:
            return "NULL"
        for value in self._values(part):
            try:
                text = self.each.forward(value)
            except CannotCarry as error:
                refused, text = error, self.each.returned(value)
                if text is None:
                    continue
            return "NULL" if text is None else as_postgres_writes(text)
        raise CannotCarry(f"in the list: {refused}")

    def _values(self, part: _Json | str) -> Iterator[SourceValue]:
        """What the element may be, the likelier first: one without quotes says nothing of its
        class."""
        if self.each.kind in DOCUMENTS:
            yield str(part)
        elif isinstance(part, _Json):
            yield part.value()
        else:
            yield part
            if NUMBER.fullmatch(part):
                yield _Json(part).value()

    def inverse(self, text: str | None) -> SourceValue:
        if text is None:
            return None
        parts = split_array(text)
        if parts is None:
            return text
        values = [None if part is None else self.each.inverse(part) for part in parts]
        if any(not isinstance(value, str | int | float | None) for value in values):
            return text
        if self.literal:
            return "{" + ",".join(map(self._literal, values)) + "}"
        if self.separator is not None:
            return self._joined(self.separator, values, text)
        return "[" + (", " if self.spaced else ",").join(map(self._json, values)) + "]"

    def _literal(self, value: SourceValue) -> str:
        if value is None:
            return "NULL"
        said = isinstance(value, str)
        text = str(value) if said else self._json(value)
        return (
            postgres_element(text)
            if said and self.literal == "quoted"
            else as_postgres_writes(text)
        )

    def _joined(self, separator: str, values: Sequence[SourceValue], text: str) -> str:
        """The list as the column writes it; PostgreSQL's own text where it has no way to."""
        found = [v if isinstance(v, str) else self._json(v) for v in values]
        if found == [""] or None in values or any(separator in part for part in found):
            return text
        return separator.join(found)

    def _json(self, value: SourceValue) -> str:
        if value is None:
            return "null"
        if isinstance(value, str):
            return value if self.each.kind in DOCUMENTS else json.dumps(value, ensure_ascii=False)
        if isinstance(value, float) and math.isinf(value):
            return next(text for text, number in INFINITE.items() if number == value)
        if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
            return f"{value:.1f}" if self.pointed else str(int(value))
        return repr(value)


class _Json(str):
    """An element as JSON spells it."""

    def value(self) -> SourceValue:
        """What it says. Raises CannotCarry for what no column of SQLite has as one value."""
        if self[0] in "-0123456789":
            return _number(self)
        if self[0] != '"':
            raise CannotCarry(f"{self[:60]} has no place there")
        found = str(json.loads(self))
        if any("\ud800" <= c <= "\udfff" for c in found):
            raise CannotCarry("half of a surrogate pair, which is no character")
        return found


INFINITE = {"1e999": math.inf, "-1e999": -math.inf}
"""How JSON spells what has no number there: as SQLite does."""


def _number(digits: str) -> int | float:
    if digits in INFINITE:
        return INFINITE[digits]
    whole = re.fullmatch(r"-?\d+", digits, re.ASCII) is not None
    if whole and len(digits) < 21 and INT64_LOW <= int(digits) <= INT64_HIGH:
        return int(digits)
    real = float(digits)
    if whole or not math.isfinite(real):
        raise CannotCarry(f"the number {digits[:60]} is beyond what SQLite holds exactly")
    return real


Part = _Json | str | None
"""An element as it stands in the list: JSON, a text without quotes, or none."""


def parts_of(text: str, separator: str | None, literal: str) -> list[Part]:
    """The elements of a list. Raises CannotCarry where it is none."""
    if separator is not None:
        return list(text.split(separator)) if text else []
    if literal:
        found = split_array(text)
        if found is None:
            raise expected("a list as PostgreSQL writes it, of one dimension", text)
        return list(found)
    return list(_json_parts(text))


_BLANKS = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()


def _json_parts(text: str) -> Iterator[_Json | None]:
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        raise expected("a list in JSON", text) from None
    if not isinstance(whole, list):
        raise expected("a list in JSON", text)
    place = text.index("[") + 1
    for part in whole:
        place = _end_of_blanks(text, place)
        _, end = _DECODER.raw_decode(text, place)
        yield None if part is None else _Json(text[place:end])
        place = _end_of_blanks(text, end) + 1


def _end_of_blanks(text: str, place: int) -> int:
    match = _BLANKS.match(text, place)
    return place if match is None else match.end()


def facts_of_elements(facts: ColumnFacts, separator: str | None) -> ColumnFacts:
    """What the lists of the sample say of their elements, as if these were a column."""
    lists = [value for value in facts.sample if isinstance(value, str)]
    literal = "" if separator is not None else literal_in(lists)
    found = ColumnFacts()
    for text in lists:
        try:
            parts = parts_of(text, separator, literal)
            values = [_said(part) for part in parts if part is not None]
        except CannotCarry:
            continue
        found.sample += values
    found.rows = len(found.sample)
    found.texts = sum(isinstance(value, str) for value in found.sample)
    found.reals = sum(isinstance(value, float) for value in found.sample)
    whole = [value for value in found.sample if isinstance(value, int)]
    low, high = min(whole, default=None), max(whole, default=None)
    return replace(found, integers=len(whole), low=low, high=high)


def _said(part: _Json | str) -> SourceValue:
    if not isinstance(part, _Json):
        return _number(part) if NUMBER.fullmatch(part) else part
    return part.value() if part[0] not in "[{tf" else str(part)


def separated(rule: RuleBase, separator: str | None) -> RuleBase:
    """The rule, that of lists with the separator where one is declared."""
    if separator is None or not isinstance(rule, ArrayRule | ListRule):
        return rule
    return rule.model_copy(update={"separator": separator})


def carries_some(rule: RuleBase, facts: ColumnFacts) -> bool:
    """Whether the rule carries a list of the sample that has an element, or there is none."""
    lists = [v for v in facts.sample if isinstance(v, str) and v.strip() not in ("", "[]", "{}")]
    refused = 0
    for text in lists:
        try:
            rule.forward(text)
        except CannotCarry:
            refused += 1
    return not lists or refused < len(lists)
