"""Which rule a column should have: by its declared type, by a wished PostgreSQL type, or by what
its values are. Only a proposal: preflight tries it on every value."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Literal

from migration_job.errors import InputError
from migration_job.plan.facts import ColumnFacts
from migration_job.plan.rules import (
    ALLOWED,
    INT4,
    OWNERS,
    TARGETS,
    ByteaRule,
    EpochUnit,
    IntegerRule,
    NumericRule,
    RealRule,
    Request,
    Rule,
    RuleBase,
    TextRule,
    WidenedByteaRule,
    WidenedTextRule,
    declared_as,
    target_named,
)
from migration_job.plan.rules.arrays import ArrayRule
from migration_job.plan.rules.lists import ELEMENT, ListRule, facts_of_elements
from migration_job.plan.rules.other import LabelRule
from migration_job.quoting import POSTGRES_NAME_BYTES
from migration_job.stores.sqlite.model import Affinity, SourceColumn

ARRAYS = "an array (TYPE[]) of one of these but bytea, citext and vector"
"""What else a policy may ask for, as an error names it."""

ENUMS = "NAME enum('label', 'label')"
"""How a policy asks for a type that the run makes."""

RESERVED = re.compile(
    r"all|analyse|analyze|and|any|array|as|asc|asymmetric|authorization|binary|both|case|"
    r"cast|check|collate|collation|column|concurrently|constraint|create|cross|"
    r"current_catalog|current_date|current_role|current_schema|current_time|"
    r"current_timestamp|current_user|default|deferrable|desc|distinct|do|else|end|except|"
    r"false|fetch|for|foreign|freeze|from|full|grant|group|having|ilike|in|initially|"
    r"inner|intersect|into|is|isnull|join|lateral|leading|left|like|limit|localtime|"
    r"localtimestamp|natural|not|notnull|null|offset|on|only|or|order|outer|overlaps|"
    r"placing|primary|references|returning|right|select|session_user|similar|some|"
    r"symmetric|system_user|table|tablesample|then|to|trailing|true|union|unique|user|"
    r"using|variadic|verbose|when|where|window|with"
)
"""Words that are no type's name without quotes (PostgreSQL's appendix C)."""

Fallback = Literal["integer", "real", "text", "varchar", "blob", "any"]
"""What a declared type means of which only the affinity is known."""

MAX_VARCHAR = 10_485_760
"""PostgreSQL's limit of a declared varchar(n)."""

_VARYING = frozenset({"VARCHAR", "NVARCHAR", "CHARACTER VARYING"})
"""Declared without a length they are PostgreSQL's own ``varchar``."""

_DECLARED = re.compile(
    r"\s*([A-Za-z_][A-Za-z_0-9 ]*?)?\s*(?:\(\s*(\d+)\s*(?:,\s*(\d+)\s*)?\)[A-Za-z ]*)?"
)


@dataclass(frozen=True, slots=True)
class Choice:
    """A rule and the target type that it leads to. The type is the rule's own where the plan
    chooses, and another that the rule's values fit where the table exists already."""

    rule: Rule
    type: str

    @classmethod
    def of(cls, rule: Rule) -> Choice:
        """The rule with the type that it leads to by itself."""
        return cls(rule, rule.target_type)


@dataclass(frozen=True, slots=True)
class Declared:
    """What a declared type means to people."""

    rule: type[RuleBase] | None
    """The rule that it asks for by name; None where its affinity decides."""
    fallback: Fallback
    numbers: tuple[int, ...]


def meaning_of(column: SourceColumn) -> Declared:
    """What a column's declared type means, with its numbers, e.g. those of ``DECIMAL(10,2)``."""
    return _meaning(column.declared, column.affinity)


@lru_cache(maxsize=1_000)
def _meaning(declared: str, affinity: Affinity) -> Declared:
    match = _DECLARED.fullmatch(declared)
    name = (match[1] or "").upper() if match is not None else declared.upper()
    numbers = tuple(int(n) for n in match.groups()[1:3] if n) if match is not None else ()
    return Declared(declared_as(name), _fallback(name, affinity, numbers), numbers)


def _fallback(name: str, affinity: Affinity, numbers: tuple[int, ...]) -> Fallback:
    match affinity:
        case "text":
            sized = "CHAR" in name and numbers and 1 <= numbers[0] <= MAX_VARCHAR
            bare = name in _VARYING and not numbers
            return "varchar" if sized or bare else "text"
        case "integer":
            return "integer"
        case "real":
            return "real"
        case "blob":
            return "blob" if "BLOB" in name else "any"
        case _:
            return "any"


def says_nothing(column: SourceColumn) -> bool:
    """Whether the declared type leaves open what the values are, or says no more than BLOB."""
    declared = meaning_of(column)
    return declared.rule is None and declared.fallback in ("any", "blob")


def is_any(column: SourceColumn) -> bool:
    """Whether the declared type leaves open what the values are."""
    declared = meaning_of(column)
    return declared.rule is None and declared.fallback == "any"


def wished(
    column: SourceColumn, facts: ColumnFacts, zone: str, *, spare: int = 0, key: bool = False
) -> Rule:
    """The rule that the declared type asks for; integers with room for ``spare`` more above the
    highest. ``key``: the column is part of a primary key or refers to one."""
    declared = meaning_of(column)
    if declared.rule is not None:
        return declared.rule.wished(
            Request(
                facts,
                column.affinity,
                numbers=declared.numbers,
                zone=zone,
                declared=column.declared,
            )
        )
    match declared.fallback:
        case "integer":
            return sized_integer(column, facts, spare, key=key)
        case "real":
            return RealRule(affinity=column.affinity)
        case "text":
            return TextRule()
        case "varchar":
            length = declared.numbers[0] if declared.numbers else None
            return TextRule(max_length=length, varying=length is None)
        case "blob":
            return ByteaRule()
        case "any":
            return lossless(column, facts)


_WIDE_WORDS = frozenset(
    {"BIGINT", "BIGSERIAL", "SERIAL8", "INT8", "INT64", "INT128", "UINT32", "UINT64", "UINT128"}
)
_NARROW_WORDS = frozenset({"TINYINT", "SMALLINT", "MEDIUMINT"})


@lru_cache(maxsize=1_000)
def _words(declared: str) -> tuple[str, ...]:
    return tuple(re.sub(r"\([^)]*\)", " ", declared).upper().split())


def declared_wide(declared: str) -> bool:
    """Whether a declared type promises integers beyond PostgreSQL's ``integer``. It is a lower
    bound: the rows of today do not take the promise back."""
    words = _words(declared)
    if _WIDE_WORDS.intersection(words):
        return True
    pairs = set(pairwise(words))
    if {("BIG", "INT"), ("BIG", "INTEGER"), ("LONG", "INT"), ("LONG", "INTEGER")} & pairs:
        return True
    return "UNSIGNED" in words and not _NARROW_WORDS.intersection(words)


def _size_unknown(column: SourceColumn, facts: ColumnFacts) -> bool:
    """Whether neither the declared type nor a value says how large a column's integers become:
    SQLite's INTEGER has 64 bits."""
    plain = bool(column.declared) and set(_words(column.declared)) <= {"INT", "INTEGER"}
    return plain and not facts.low and not facts.high


def sized_integer(
    column: SourceColumn, facts: ColumnFacts, spare: int = 0, *, key: bool = False
) -> IntegerRule:
    """``integer``; ``bigint`` where the declared type or a value is beyond it, and where a column
    that is no ``key`` is computed, or is a plain INTEGER without a value (other than 0) that would
    say so."""
    low, high = facts.low or 0, facts.high or 0
    # What is computed of two integers may be beyond either of them.
    open_ended = bool(column.generated) or _size_unknown(column, facts)
    wide = declared_wide(column.declared) or (not key and open_ended)
    if not wide and INT4[0] <= low and high + spare <= INT4[1]:
        return IntegerRule(low=INT4[0], high=INT4[1])
    return IntegerRule()


def lossless(column: SourceColumn, facts: ColumnFacts) -> Rule:
    """The narrowest rule that carries every value of these classes."""
    classes = facts.classes
    if not classes:
        return ByteaRule() if "BLOB" in column.declared.upper() else TextRule()
    if classes == {"integer"}:
        return sized_integer(column, facts, key=not column.generated)
    if classes == {"real"}:
        return RealRule(affinity=column.affinity)
    if classes == {"integer", "real"}:
        return NumericRule(affinity=column.affinity)
    if classes == {"text"}:
        return TextRule()
    if classes == {"blob"}:
        return ByteaRule()
    return WidenedByteaRule() if "blob" in classes else WidenedTextRule()


def of_classes(column: SourceColumn, classes: set[str]) -> Rule | None:
    """The rule for a column without a type or a value of which a CHECK says what it takes."""
    match sorted(classes):
        case ["integer"]:
            return IntegerRule()
        case ["real"]:
            return RealRule(affinity=column.affinity)
        case ["integer", "real"]:
            return NumericRule(affinity=column.affinity)
        case ["text"]:
            return TextRule()
        case ["blob"]:
            return ByteaRule()
    return None


_TYPE = re.compile(
    r"([a-z][a-z0-9 ]*?)\s*(?:\(\s*(\d+)\s*(?:,\s*(\d+)\s*)?\))?( with(?:out)? time zone)?"
)


def split_type(type_sql: str) -> tuple[str, tuple[int, ...]]:
    """The name of a PostgreSQL type, as a plan spells it, and its length, precision or scale; the
    name is '' where no rule leads to it."""
    match = _TYPE.fullmatch(" ".join(type_sql.lower().split()))
    target = None if match is None else target_named(match[1] + (match[4] or ""))
    if match is None or target is None:
        return "", ()
    return target.name, tuple(int(n) for n in match.groups()[1:3] if n)


def _array(wanted: str, facts: ColumnFacts, zone: str, epoch: EpochUnit | None) -> Rule | None:
    element = wanted.rstrip().removesuffix("[]").rstrip()
    name, numbers = split_type(element)
    if name in ("", "bytea") or TARGETS[name].extension:
        return None
    size = f"({','.join(map(str, numbers))})" if numbers else ""
    if (plain := ArrayRule.of(f"{name}{size}[]", name, numbers, facts)) is not None:
        return plain
    each = OWNERS[name].asked(
        Request(facts_of_elements(facts, None), ELEMENT.affinity, name, numbers, zone, epoch)
    )
    return ListRule.of(f"{each.target_type}[]", each, facts)


_ENUM = re.compile(
    r"(?P<name>\w+)\s+enum\s*\(\s*(?P<labels>'(?:[^']|'')*'(?:\s*,\s*'(?:[^']|'')*')*)\s*\)",
    re.IGNORECASE,
)


def enum_named(wanted: str) -> LabelRule | None:
    """The rule to a type that the run makes, as ``mood enum('sad', 'ok')``; None where the words
    are none. Raises InputError for a name or labels that PostgreSQL cannot have."""
    match = _ENUM.fullmatch(wanted.strip())
    if match is None:
        return None
    name = match["name"]
    quoted = re.findall(r"'((?:[^']|'')*)'", match["labels"])
    labels = tuple(label.replace("''", "'") for label in quoted)
    plain = re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", name)
    if plain is None or RESERVED.fullmatch(name) or target_named(name) is not None:
        raise InputError(
            "expected a name for the enum of small letters, digits and underscores, which is no "
            f"word of SQL's and no type of PostgreSQL's, found {name!r}",
            advice="call it after its table and column, as in \"order_status enum('new', 'paid')\"",
        )
    long = [label for label in labels if len(label.encode()) > POSTGRES_NAME_BYTES]
    if long or len(set(labels)) < len(labels):
        problem = f"a longer one, {long[0][:40]!r}" if long else "one of them twice"
        raise InputError(
            f"expected different labels of at most {POSTGRES_NAME_BYTES:,} bytes for the enum "
            f"{name}, found {problem}",
            advice="correct the policy, or leave the column text",
        )
    return LabelRule(type=name, labels=labels, made=True)


def for_type(
    wanted: str,
    column: SourceColumn,
    facts: ColumnFacts,
    zone: str,
    epoch: EpochUnit | None = None,
) -> Rule:
    """The rule to a named PostgreSQL type. Raises InputError for a type that is not offered."""
    if wanted.rstrip().endswith("[]"):
        array = _array(wanted, facts, zone, epoch)
        if array is not None:
            return array
    labelled = enum_named(wanted)
    if labelled is not None:
        return labelled
    name, numbers = split_type(wanted)
    if name:
        request = Request(facts, column.affinity, name, numbers, zone, epoch, column.declared)
        return OWNERS[name].asked(request)
    raise InputError(
        f"expected one of the types {ALLOWED}, {ARRAYS}, or {ENUMS}; found {wanted!r} for column "
        f"{column.name}",
        advice="docs/types.md says what each of them carries.",
    )
