"""Which rule a column should have: by its declared type, by a wished PostgreSQL type, or by what
its values are. Only a proposal: preflight tries it on every value."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Literal

from migration_job.errors import InputError
from migration_job.plan import jsontext, moments
from migration_job.plan.facts import ColumnFacts
from migration_job.plan.rules import (
    BooleanRule,
    ByteaRule,
    BytesTextRule,
    DateRule,
    EpochUnit,
    IntegerRule,
    IntegerTextRule,
    JsonbRule,
    JsonRule,
    NumericRule,
    RealRule,
    Rule,
    TextIntegerRule,
    TextRule,
    TimeRule,
    TimestampRule,
    UuidRule,
    WidenedByteaRule,
    WidenedTextRule,
)
from migration_job.stores.sqlite.model import Affinity, SourceColumn
from migration_job.values import SourceValue

Family = Literal[
    "integer",
    "boolean",
    "real",
    "decimal",
    "numeric",
    "text",
    "varchar",
    "timestamp",
    "date",
    "time",
    "uuid",
    "json",
    "blob",
    "any",
]

INT2 = (-(2**15), 2**15 - 1)
INT4 = (-(2**31), 2**31 - 1)
INT8 = (-(2**63), 2**63 - 1)

PLAUSIBLE_EPOCH = (315_532_800, 4_102_444_800)
"""1980 to 2100 in seconds: integers in a DATETIME column that all lie here are epoch seconds; the
ranges of milliseconds and microseconds do not overlap with it."""

MAX_VARCHAR = 10_485_760
MAX_NUMERIC_PRECISION = 1000
"""PostgreSQL's own limits of a declared varchar(n) and numeric(p,s)."""

TYPES_ALLOWED = (
    "smallint, integer, bigint, numeric, numeric(p,s), double precision, boolean, text, "
    "varchar(n), bytea, uuid, json, jsonb, timestamp with time zone, "
    "timestamptz(n), date, time, time(n)"
)

_DECLARED = re.compile(
    r"\s*([A-Za-z_][A-Za-z_0-9 ]*?)?\s*(?:\(\s*(\d+)\s*(?:,\s*(\d+)\s*)?\)[A-Za-z ]*)?"
)


def family_of(column: SourceColumn) -> tuple[Family, tuple[int, ...]]:
    """What a declared type means to people, and its numbers, e.g. ``("decimal", (10, 2))``."""
    return _family(column.declared, column.affinity)


@lru_cache(maxsize=1_000)
def _family(declared: str, affinity: Affinity) -> tuple[Family, tuple[int, ...]]:  # noqa: PLR0912 - one branch a family
    match = _DECLARED.fullmatch(declared)
    name = (match[1] or "").upper() if match is not None else declared.upper()
    numbers = tuple(int(n) for n in match.groups()[1:3] if n) if match is not None else ()
    first = name.split(" ")[0] if name else ""
    if first in ("BOOL", "BOOLEAN"):
        return "boolean", ()
    if first in ("DATETIME", "TIMESTAMP", "TIMESTAMPTZ", "DATETIME2", "SMALLDATETIME"):
        return "timestamp", numbers[:1]
    if name == "DATE":
        return "date", ()
    if first == "TIME":
        return "time", numbers[:1]
    if name in ("UUID", "GUID", "UNIQUEIDENTIFIER"):
        return "uuid", ()
    if name in ("JSON", "JSONB"):
        return "json", ()
    if first in ("DECIMAL", "NUMERIC", "NUMBER", "DEC"):
        if numbers and 1 <= numbers[0] <= MAX_NUMERIC_PRECISION and numbers[-1] <= numbers[0]:
            return "decimal", (numbers[0], numbers[1] if len(numbers) > 1 else 0)
        return "numeric", ()
    match affinity:
        case "text":
            if "CHAR" in name and numbers and 1 <= numbers[0] <= MAX_VARCHAR:
                return "varchar", numbers[:1]
            return "text", ()
        case "integer":
            return "integer", ()
        case "real":
            return "real", ()
        case "blob":
            return ("blob" if "BLOB" in name else "any"), ()
        case _:
            return "any", ()


def wished(  # noqa: PLR0912 - one branch a wish
    column: SourceColumn, facts: ColumnFacts, zone: str, *, spare: int = 0, key: bool = False
) -> Rule:
    """The rule that the declared type asks for; integers with room for ``spare`` more above the
    highest. ``key``: the column is part of a primary key or refers to one."""
    family, numbers = family_of(column)
    match family:
        case "integer":
            return sized_integer(column, facts, spare, key=key)
        case "boolean":
            return BooleanRule()
        case "real":
            return RealRule(affinity=column.affinity)
        case "decimal":
            return NumericRule(precision=numbers[0], scale=numbers[1], affinity=column.affinity)
        case "numeric":
            return NumericRule(affinity=column.affinity)
        case "text":
            return TextRule()
        case "varchar":
            return TextRule(max_length=numbers[0])
        case "timestamp":
            return timestamp(facts, zone, declared=numbers)
        case "date":
            return DateRule()
        case "time":
            return clock(facts, numbers)
        case "uuid":
            return uuid_rule(column, facts)
        case "json":
            return json_rule(column)
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


def _says_nothing(column: SourceColumn, facts: ColumnFacts) -> bool:
    """Whether neither the declared type nor a value says how large a column's integers become:
    SQLite's INTEGER has 64 bits."""
    plain = bool(column.declared) and set(_words(column.declared)) <= {"INT", "INTEGER"}
    return plain and not facts.low and not facts.high


def sized_integer(
    column: SourceColumn, facts: ColumnFacts, spare: int = 0, *, key: bool = False
) -> IntegerRule:
    """``integer``; ``bigint`` where the declared type or a value is beyond it, and where a plain
    INTEGER that is no ``key`` has no value (other than 0) that would say so."""
    low, high = facts.low or 0, facts.high or 0
    wide = declared_wide(column.declared) or (not key and _says_nothing(column, facts))
    if not wide and INT4[0] <= low and high + spare <= INT4[1]:
        return IntegerRule(low=INT4[0], high=INT4[1])
    return IntegerRule()


def uuid_rule(column: SourceColumn, facts: ColumnFacts) -> UuidRule:
    """The rule to uuid, in the column's commonest spelling."""
    return UuidRule(style=_uuid_style(facts.sample), affinity=column.affinity)


def json_rule(column: SourceColumn) -> JsonRule:
    return JsonRule(affinity=column.affinity)


def lossless(column: SourceColumn, facts: ColumnFacts) -> Rule:
    """The narrowest rule that carries every value of these classes."""
    classes = facts.classes
    if not classes:
        return ByteaRule() if "BLOB" in column.declared.upper() else TextRule()
    if classes == {"integer"}:
        return sized_integer(column, facts, key=True)
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


def as_bytes(facts: ColumnFacts) -> Rule:
    """The rule that carries every value to bytea."""
    if facts.classes <= {"blob"}:
        return ByteaRule()
    return BytesTextRule() if facts.classes == {"text"} else WidenedByteaRule()


def timestamp(
    facts: ColumnFacts,
    zone: str,
    epoch: EpochUnit | None = None,
    *,
    or_date: bool = True,
    declared: Sequence[int] = (),
    precision: int | None = None,
) -> TimestampRule:
    """The rule for times: the commonest shape of the text, or the unit of the numbers. Its
    precision is the finest that the sample or the declared type has, where none is given."""
    numbers = facts.integers + facts.reals
    if epoch is None and numbers and not facts.texts and not facts.reals:
        epoch = epoch_unit(facts)
    if epoch is not None and numbers >= facts.texts:
        if precision is None:
            precision = FINEST if facts.reals else {"s": 0, "ms": 3}.get(epoch, FINEST)
        return TimestampRule(shape="epoch", epoch=epoch, zone=zone, precision=precision)
    shape, seen = _shape_and_digits(facts)
    if epoch is not None and numbers:
        seen = max(seen or 0, {"s": 0, "ms": 3}.get(epoch, FINEST))
    if shape is None or (not or_date and "H" not in shape):
        shape = "YYYY-MM-DD HH:MM:SS"
    if precision is None:
        precision = _precision(seen, declared)
    return TimestampRule(shape=shape, epoch=epoch, zone=zone, precision=precision)


def clock(
    facts: ColumnFacts, declared: Sequence[int] = (), precision: int | None = None
) -> TimeRule:
    """The rule for times of day, as :func:`timestamp` is for times."""
    shape, seen = _shape_and_digits(facts, clock_only=True)
    if precision is None:
        precision = _precision(seen, declared)
    return TimeRule(shape=shape or "HH:MM:SS", precision=precision)


FINEST = moments.MICROSECOND_DIGITS


def _precision(seen: int | None, declared: Sequence[int]) -> int:
    """Decimals of a second that a column needs: nothing is known of one without a value."""
    return min(FINEST, max([FINEST if seen is None else seen, *declared]))


def epoch_unit(facts: ColumnFacts) -> EpochUnit | None:
    """The one unit in which all integers lie between 1980 and 2100."""
    if facts.low is None or facts.high is None:
        return None
    units: tuple[tuple[EpochUnit, int], ...] = (("s", 1), ("ms", 1_000), ("us", 1_000_000))
    for unit, size in units:
        if PLAUSIBLE_EPOCH[0] * size <= facts.low and facts.high <= PLAUSIBLE_EPOCH[1] * size:
            return unit
    return None


_DIGITS = str.maketrans("123456789", "000000000")
_CLOCK_END = len("YYYY-MM-DD HH:MM:SS")
"""Behind it a fraction and a zone, which are part of the shape, digits and all."""


def _shape_and_digits(
    facts: ColumnFacts, *, clock_only: bool = False
) -> tuple[str | None, int | None]:
    """The shape of most of the sampled texts, and the most decimals of a second among them; None
    where there is none. Texts that differ in the digits of their date and clock alone are of one
    shape, so that one of them is read."""
    alike: defaultdict[str, list[str]] = defaultdict(list)
    for value in facts.sample:
        if isinstance(value, str):
            alike[value[:_CLOCK_END].translate(_DIGITS) + value[_CLOCK_END:]].append(value)
    counts: Counter[str] = Counter()
    for texts in alike.values():
        moment = next(filter(None, map(moments.read, texts)), None)
        if moment is not None and (moment.day is None) == clock_only:
            counts[moment.shape] += len(texts)
    if not counts:
        return None, None
    digits = max(moments.parse_shape(shape).digits for shape in counts)
    shape = counts.most_common(1)[0][0]
    # Many libraries leave a fraction of zero out: then its absence is the shape, and a fraction
    # what is finer.
    whole = moments.finer(shape, 0)
    if whole in counts and moments.parse_shape(shape).has_clock:
        shape = whole
    return shape, digits


def _uuid_style(sample: Sequence[SourceValue]) -> Literal["lower", "upper", "hex", "HEX"]:
    counts: Counter[Literal["lower", "upper", "hex", "HEX"]] = Counter()
    for value in sample:
        if not isinstance(value, str):
            continue
        if "-" in value:
            counts["lower" if value == value.lower() else "upper"] += 1
        elif re.fullmatch(r"[0-9a-fA-F]{32}", value):
            counts["hex" if value == value.lower() else "HEX"] += 1
    return counts.most_common(1)[0][0] if counts else "lower"


def _json_style(sample: Sequence[SourceValue]) -> jsontext.Style:
    """The style that gives most of the sampled documents back."""
    styles: tuple[jsontext.Style, ...] = ("compact", "spaced", "compact-ascii", "spaced-ascii")
    best: dict[jsontext.Style, int] = dict.fromkeys(styles, 0)
    for value in sample:
        if not isinstance(value, str):
            continue
        try:
            text = jsontext.normalise(value)
        except jsontext.BadJson:
            continue
        for style in styles:
            best[style] += jsontext.restyle(text, style) == value
    return max(styles, key=lambda s: best[s])


_TYPE = re.compile(
    r"([a-z][a-z0-9 ]*?)\s*(?:\(\s*(\d+)\s*(?:,\s*(\d+)\s*)?\))?( with(?:out)? time zone)?"
)


def for_type(  # noqa: C901, PLR0912 - one branch a target type
    wanted: str,
    column: SourceColumn,
    facts: ColumnFacts,
    zone: str,
    epoch: EpochUnit | None = None,
) -> Rule:
    """The rule to a named PostgreSQL type. Raises InputError for a type that is not offered."""
    match = _TYPE.fullmatch(" ".join(wanted.lower().split()))
    name = match[1] + (match[4] or "") if match is not None else ""
    numbers = [int(n) for n in match.groups()[1:3] if n] if match is not None else []
    classes = facts.classes
    match name:
        case "smallint" | "int2":
            return _integer(INT2, classes)
        case "integer" | "int" | "int4" | "serial":
            return _integer(INT4, classes)
        case "bigint" | "int8" | "bigserial":
            return _integer(INT8, classes)
        case "numeric" | "decimal":
            if not numbers:
                return NumericRule(affinity=column.affinity)
            scale = numbers[1] if len(numbers) > 1 else 0
            return NumericRule(precision=numbers[0], scale=scale, affinity=column.affinity)
        case "double precision" | "float8" | "double":
            return RealRule(affinity=column.affinity)
        case "boolean" | "bool":
            return BooleanRule()
        case "text" | "varchar" | "character varying":
            if numbers:
                return TextRule(max_length=numbers[0])
            if classes == {"integer"}:
                return TextIntegerRule()
            return TextRule() if classes <= {"text"} else WidenedTextRule()
        case "bytea":
            return as_bytes(facts)
        case "uuid":
            return uuid_rule(column, facts)
        case "json":
            return json_rule(column)
        case "jsonb":
            return JsonbRule(style=_json_style(facts.sample), affinity=column.affinity)
        case "timestamptz" | "timestamp with time zone":
            return timestamp(facts, zone, epoch, precision=_given(numbers))
        case "date":
            return DateRule()
        case "time" | "time without time zone":
            return clock(facts, precision=_given(numbers))
    raise InputError(
        f"expected one of the types {TYPES_ALLOWED}; found {wanted!r} for column {column.name}",
        advice="real (float4) would round and timestamp (without time zone) would forget the "
        "zone: take double precision, and timestamp with time zone.",
    )


def _given(numbers: Sequence[int]) -> int:
    """The precision of a type that is asked for by name: PostgreSQL's own where it names none."""
    return min(FINEST, numbers[0]) if numbers else FINEST


def _integer(bounds: tuple[int, int], classes: set[str]) -> Rule:
    if classes == {"text"}:
        return IntegerTextRule(low=bounds[0], high=bounds[1])
    return IntegerRule(low=bounds[0], high=bounds[1])
