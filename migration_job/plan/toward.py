"""Which rule leads to a type that the target has already."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from migration_job.plan import choose
from migration_job.plan.facts import ColumnFacts
from migration_job.plan.findings import policy_for_column
from migration_job.plan.rules import (
    FINEST,
    OWNERS,
    BooleanRule,
    Entry,
    EpochUnit,
    MapRule,
    Request,
    Rule,
    TextIntegerRule,
    TextRule,
    TimestampRule,
    WidenedTextRule,
    target_named,
)
from migration_job.plan.rules.arrays import ArrayRule
from migration_job.plan.rules.days import DayRule
from migration_job.plan.rules.decimals import NearNumericRule, PaddedNumericRule
from migration_job.plan.rules.digits import DigitBytesRule
from migration_job.plan.rules.durations import MICROS
from migration_job.plan.rules.json import of_jsonb
from migration_job.plan.rules.jsonbytes import JsonBytesRule
from migration_job.plan.rules.lists import ELEMENT, ListRule, carries_some, facts_of_elements
from migration_job.plan.rules.local import LocalTimestampRule
from migration_job.plan.rules.other import LabelRule
from migration_job.plan.rules.uuid import ByteOrder, UuidBytesRule
from migration_job.plan.target import TargetColumn
from migration_job.plural import counted, either
from migration_job.stores.sqlite.model import SourceColumn

TRUE = frozenset({"true", "t", "yes", "y", "on", "1"})
FALSE = frozenset({"false", "f", "no", "n", "off", "0"})

TEXTS = frozenset({"text", "citext"})

BYTES = re.compile(r"\s*(\w*BLOB|(VAR)?BINARY|BYTEA|BYTES|IMAGE)\b", re.ASCII | re.IGNORECASE)
"""Declared types of columns that hold blobs."""


class Unsupported(Exception):
    """No rule leads to the column's type, or it has to be said first what the values mean."""

    def __init__(self, code: str, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self._fields = fields

    def resolution(self, table: str, column: str) -> str:
        """The lines of policy that resolve it."""
        return policy_for_column(table, column, **self._fields)


@dataclass(frozen=True, slots=True)
class Said:
    """What the policy, or a framework's convention, says of a column's values."""

    zone: str
    epoch: EpochUnit | None = None
    guid: ByteOrder | None = None
    separator: str | None = None


def toward(
    there: TargetColumn,
    column: SourceColumn,
    facts: ColumnFacts,
    said: Said,
) -> Rule:
    """The rule for a column of the source whose place has that type. Raises Unsupported."""
    if there.element is not None:
        return _array(there, facts, said)
    if there.base == "uuid" and _holds_blobs(column, facts):
        return UuidBytesRule(order=said.guid or "network")
    if there.labels:
        return LabelRule(type=there.type, labels=there.labels)
    base = there.base.rpartition(".")[2].strip('"')
    if base in TEXTS:
        return _text(facts)
    name, numbers = choose.split_type(there.base)
    if not name and (own := target_named(choose.split_type(base)[0])) is not None and own.extension:
        name, numbers = choose.split_type(base)  # of an extension in a schema of its own
    if not name:
        raise _unsupported(there)
    request = Request(facts, column.affinity, name, numbers, said.zone, said.epoch, column.declared)
    special = _of_blobs(there, column, request) or _of_values(column, request)
    if special is not None:
        return special
    rule = OWNERS[name].asked(request)
    if isinstance(rule, TimestampRule | LocalTimestampRule):
        # The type is there: what it can hold beyond the unit's numbers comes back as text.
        rule = rule.model_copy(update={"precision": min([*numbers, FINEST])})
    _require_unit(name, rule, facts)
    return rule


def _holds_blobs(column: SourceColumn, facts: ColumnFacts) -> bool:
    """Whether the column's values are blobs; where it has none, whether it is declared so."""
    if not facts.classes:
        return BYTES.match(column.declared) is not None
    return facts.classes == {"blob"}


def _is_whole(name: str, numbers: tuple[int, ...]) -> bool:
    """Whether the type is one of whole numbers, or a numeric that can hold nothing else with its
    declared decimals."""
    if name == "numeric":
        return not any(numbers[1:])
    return name in ("smallint", "integer", "bigint")


def _unsupported(there: TargetColumn) -> Unsupported:
    return Unsupported(
        "type-not-supported",
        f"the target's column {there.name} is {there.type}, which no rule of this job leads "
        "to: leave the column out, and fill it on the target after the switch",
        skip=True,
    )


def _array(there: TargetColumn, facts: ColumnFacts, said: Said) -> Rule:
    """The plain rule of lists, where one is and the values are such lists; else that of their
    elements, for each of them."""
    element = str(there.element)
    name, numbers = choose.split_type(element)
    plain = ArrayRule.of(
        there.type, name or element.rpartition(".")[2], numbers, facts, said.separator
    )
    if plain is not None and carries_some(plain, facts):
        return plain
    of_elements = facts_of_elements(facts, said.separator)
    as_column = TargetColumn(name=there.name, type=element, base=element, labels=there.labels)
    if name == "bytea":
        raise _unsupported(there)  # no list says how its texts are bytes
    try:
        each = toward(as_column, ELEMENT, of_elements, said)
    except Unsupported as error:
        if plain is not None:
            return plain
        raise error if error.code != "type-not-supported" else _unsupported(there) from None
    rule = ListRule.of(there.type, each, facts, said.separator)
    return rule if plain is None or carries_some(rule, facts) else plain


def _of_blobs(there: TargetColumn, column: SourceColumn, request: Request) -> Rule | None:
    """A rule that blobs ask for as well as the type."""
    name, facts = request.type, request.facts
    if not _holds_blobs(column, facts):
        return None
    if _is_whole(name, request.numbers):
        return DigitBytesRule(type=there.base)
    blobs = [value for value in facts.sample if isinstance(value, bytes)]
    own = bool(blobs) and all(of_jsonb(blob) is not None for blob in blobs)
    if name in ("json", "jsonb") and not own:
        return JsonBytesRule.like(facts.sample, binary=name == "jsonb")
    return None


def _of_values(column: SourceColumn, request: Request) -> Rule | None:
    """A rule that other values ask for as well as the type."""
    name, facts, numbers = request.type, request.facts, request.numbers
    if name == "date":
        return DayRule.of(facts, request.zone, request.epoch)
    if name == "boolean" and facts.texts:
        return _spelled_booleans(facts)
    if name == "varchar":
        return _text(facts, numbers)
    return _decimal(column, request) if name == "numeric" else None


def _decimal(column: SourceColumn, request: Request) -> Rule | None:
    facts, numbers = request.facts, request.numbers
    precision, scale = (*numbers, 0)[:2] if numbers else (None, 0)
    # SQLite makes text of whatever is written to a column of text.
    spelled = facts.texts if facts.classes else column.affinity == "text"
    if spelled and not facts.blobs:
        return PaddedNumericRule.like(facts.sample, precision, scale or 0)
    if precision is None:
        return None
    return NearNumericRule(precision=precision, scale=scale or 0, affinity=column.affinity)


def _text(facts: ColumnFacts, numbers: tuple[int, ...] = ()) -> Rule:
    if facts.classes == {"integer"}:
        return TextIntegerRule()
    if not facts.classes <= {"text"}:
        return WidenedTextRule()
    return TextRule(max_length=numbers[0] if numbers else None)


def _spelled_booleans(facts: ColumnFacts) -> Rule:
    """Truth values in words: those of the sample, the commonest word of each first, which is the
    one that comes back."""
    words = [value for value in facts.sample if isinstance(value, str)]
    met = sorted(set(words), key=lambda word: (-words.count(word), word))
    entries = tuple(
        Entry(source=word, target=int(word.lower() in TRUE))
        for word in met
        if word.lower() in TRUE | FALSE
    )
    return MapRule(entries=entries, inner=BooleanRule(), bijective=True)


def _unit_of_durations(facts: ColumnFacts) -> EpochUnit:
    """The unit that durations look like: a part of a microsecond is none, so that what is finer
    counts days, and what has a fraction seconds."""
    reals = [Decimal(repr(value)) for value in facts.sample if isinstance(value, float)]
    if any(value.is_finite() and value * MICROS["s"] % 1 for value in reals):
        return "julian"
    return "s" if any(value.is_finite() and value % 1 for value in reals) else "us"


def _ends(facts: ColumnFacts) -> str:
    """From where to where the numbers go, as far as the sample shows it."""
    numbers = [value for value in facts.sample if isinstance(value, int | float)]
    ends = [*numbers, *(end for end in (facts.low, facts.high) if end is not None)]
    return f"{min(ends)} to {max(ends)}" if ends else "none of them shown"


def _unit_of_times(facts: ColumnFacts) -> EpochUnit:
    """The unit that times look like: today's Julian days, as seconds, are all in January 1970."""
    numbers = [value for value in facts.sample if isinstance(value, int | float)]
    days = bool(numbers) and all(2_415_020 < value < 2_488_435 for value in numbers)
    return "julian" if days else "s"


def _require_unit(name: str, rule: Rule, facts: ColumnFacts) -> None:
    """Raises Unsupported where numbers stand in a column of times and nothing says what they
    count."""
    numbers = facts.integers + facts.reals
    if name == "interval" and numbers and getattr(rule, "unit", None) is None:
        raise Unsupported(
            "unit-unknown",
            f"{counted(numbers, 'number')} for an interval, and nothing says what "
            f"{either(numbers, 'it counts', 'they count')}: microseconds (us, as "
            "Django's), milliseconds (ms), seconds (s) or days (julian, as Pony's)",
            epoch=_unit_of_durations(facts),
        )
    if name.startswith("timestamp") and numbers and getattr(rule, "epoch", None) is None:
        raise Unsupported(
            "unit-unknown",
            f"{counted(numbers, 'number')} for a time, {_ends(facts)}, and nothing says what "
            f"{either(numbers, 'it counts', 'they count')} since 1970: "
            "seconds (s), milliseconds (ms), microseconds (us), nanoseconds (ns), or days of the "
            "Julian calendar (julian)",
            epoch=_unit_of_times(facts),
        )
