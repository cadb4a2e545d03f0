"""How both sides spell a row as one line of text, in which equal lines mean equal values.

Lines are unambiguous without escaping: separators and NULL are spelled with one control
character, which both sides count (see :mod:`migration_job.verify.digest`)."""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Any

import apsw
import apsw.sqlite_extra

from migration_job.plan.model import ColumnPlan, TablePlan
from migration_job.quoting import postgres_name, sqlite_text
from migration_job.stores.sqlite.database import chain
from migration_job.stores.sqlite.model import SourceTable
from migration_job.stores.sqlite.reader import column_sql
from migration_job.verify.connections import compared_columns
from migration_job.verify.digest_patterns import pattern_sql
from migration_job.verify.facts import ColumnFact

MARK = "\x1d"
"""ASCII's group separator, a character that text for people does not hold."""

FIELD, NULL, LINE = MARK + "1", MARK + "0", MARK + "2"


NONE = "0"
"""A number of NULLs, as SQL, where there can be none."""


@dataclass(frozen=True, slots=True)
class Line:
    """How each side spells a row: expressions for its line and for its number of NULLs."""

    source: str
    source_nulls: str
    target: str
    target_nulls: str
    unexpected_nulls: str
    """Of the target's columns that have none on the source: such a NULL leaves its field out of the
    line, so there must be none."""
    fields: int


def equip(connection: apsw.Connection) -> None:
    """Give a source's connection what its lines are spelled with: ``ieee754_to_blob``, from
    SQLite's own extension, else from Python, and ``decimal_text``, a real's shortest decimal
    digits, never with an exponent."""
    try:
        apsw.sqlite_extra.load(connection, "ieee754")
    except (KeyError, ValueError, OSError, apsw.Error):

        def bits(*values: Any) -> bytes | None:
            value = values[0]
            return struct.pack(">d", value) if isinstance(value, float) else None

        connection.create_scalar_function("ieee754_to_blob", bits, 1, deterministic=True)

    def decimal_text(*values: Any) -> str:
        if math.isinf(values[0]):
            return "Infinity" if values[0] > 0 else "-Infinity"
        text = format(Decimal(repr(values[0])), "f")
        return text if "." in text else text + ".0"

    connection.create_scalar_function("pattern_text", pattern_text, 2, deterministic=True)
    connection.create_scalar_function("moment_text", moment_text, 2, deterministic=True)
    connection.create_scalar_function("decimal_text", decimal_text, 1, deterministic=True)


def pattern_text(*values: Any) -> Any:
    """What the first of some patterns that meets a text as a whole makes of it; any other value
    as it is. The patterns are JSON, since a function of SQL takes no list."""
    patterns, value = values
    if isinstance(value, str):
        for fullmatch, shape, groups, replace in _compiled(patterns):
            found = fullmatch(value)
            if found is not None:
                if shape is None:
                    return found.expand(replace)
                own = found.group(*groups)
                return shape % own
    return value


_Compiled = tuple[Callable[[str], "re.Match[str] | None"], str | None, list[int], str]


@lru_cache(maxsize=256)
def _compiled(patterns: str) -> list[_Compiled]:
    found: list[_Compiled] = []
    for match, replace in json.loads(patterns):
        # Only what has no escape but a group's number is written without Match.expand, which
        # takes most of the time.
        numbers = [int(n) for n in re.findall(r"\\([1-9])", replace)]
        plain = re.fullmatch(r"(?:[^\\]|\\[1-9](?![0-9]))*", replace, re.DOTALL)
        shape = re.sub(r"\\[1-9]", "%s", replace.replace("%", "%%"))
        usual = plain is not None and bool(numbers)
        compiled = re.compile(match, re.DOTALL)
        found.append((compiled.fullmatch, shape if usual else None, numbers, replace))
    return found


def spelling(column: ColumnPlan, here: str) -> tuple[str, str] | None:
    """SQLite's and PostgreSQL's expression of a column's value, as texts that are equal exactly
    where the values are; None where no SQL of both sides can do that. NULL is not their matter."""
    rule: Any = column.rule
    while rule.kind == "map":
        if rule.bijective:
            here = _through_map(rule, here)
        rule = rule.inner
    there = postgres_name(column.target)
    text = f"{there}::text"
    match rule.kind:
        case "integer" | "text-integer" | "integer-text" | "numeric-text" | "label" | "citext":
            return here, text
        case "text" | "widened-text" | "json":
            return here, there if column.type == "text" else text
        case "boolean":
            return here, f"({there}::integer)::text"
        case "real":
            return f"lower(hex(ieee754_to_blob({here})))", f"encode(float8send({there}), 'hex')"
        case "bytea" | "widened-bytea":
            return f"lower(hex({here}))", f"encode({there}, 'hex')"
        case "uuid" if rule.style in ("lower", "upper"):
            return (here if rule.style == "lower" else f"lower({here})"), text
        case "uuid":
            return f"lower({here})", f"replace({text}, '-', '')"
        case "numeric" | "near-numeric" | "shown-numeric":
            return _numeric(rule, here), text
        case _:
            spelled = _moment_of(rule, here)
            return None if spelled is None else (spelled, text)


def _through_map(rule: Any, here: str) -> str:
    """The value that a map which goes both ways makes of the source's. Others are the ledger's."""
    terms = []
    for entry in rule.entries:
        if isinstance(entry.source, str) and "\x00" not in entry.source:
            same = f"typeof({here}) = 'text' AND {here} COLLATE BINARY = {_constant(entry.source)}"
        elif isinstance(entry.source, int):
            same = f"typeof({here}) = 'integer' AND {here} = {entry.source}"
        else:
            continue
        if isinstance(entry.target, str | int) and "\x00" not in str(entry.target):
            terms.append(f"WHEN {same} THEN {_constant(entry.target)}")
    rest = here
    if rule.patterns:
        pairs = json.dumps([[p.match, p.replace] for p in rule.patterns])
        rest = f"pattern_text({sqlite_text(pairs)}, {here})"
        if len(rule.patterns) == 1 and (own := pattern_sql(rule.patterns[0], here)) is not None:
            rest = f"CASE {own} ELSE {rest} END"
    return f"CASE {' '.join(terms)} ELSE {rest} END" if terms else rest


def _constant(value: str | int) -> str:
    return str(value) if isinstance(value, int) else sqlite_text(value)


def _numeric(rule: Any, here: str) -> str:
    """A number's decimal text, proven by reading it back; the word ``doubt`` where it fails."""
    if rule.precision is None:
        real = f"printf('%!.15g', {here})"
        short = f"CAST({real} AS REAL) = {here} AND NOT instr({real}, 'e')"
        # Beyond 15 digits SQLite's last one may be off.
        proven = f"CASE WHEN {short} THEN {real} ELSE decimal_text({here}) END"
        whole = here
    else:
        real = f"printf('%.{max(rule.scale, 0)}f', {here})"
        proven = f"CASE WHEN CAST({real} AS REAL) = {here} THEN {real} ELSE 'doubt' END"
        whole = f"{here} || '.{'0' * rule.scale}'" if rule.scale > 0 else here
    kinds = f"WHEN 'integer' THEN {whole} WHEN 'real' THEN {proven}"
    return f"CASE typeof({here}) {kinds} ELSE 'doubt' END"


def _moment_of(rule: Any, here: str) -> str | None:
    """PostgreSQL's text of a date, a time of day or an instant; None for any other rule."""
    match rule.kind:
        case "date":
            return here
        case "time" if rule.shape == "HH:MM:SS":
            return here
        case "timestamp":
            return _timestamp(rule, here)
        case _:
            return None


def _timestamp(rule: Any, here: str) -> str | None:
    """PostgreSQL's text of the instant, for the shapes that name UTC."""
    if rule.shape == "epoch":
        return _counted(rule.epoch, here)
    shape, zone = rule.shape, ""
    if shape.endswith("Z"):
        shape, zone = shape[:-1], "Z"
    elif rule.zone != "UTC":
        return None
    match shape:
        # What is not of this shape exactly gives a text that PostgreSQL never writes.
        case "YYYY-MM-DD" if not zone:
            return f"{here} || ' 00:00:00+00'"
        case "YYYY-MM-DD HH:MM:SS" if not zone:
            return f"{here} || '+00'"
    match shape.replace("T", " "):
        case "YYYY-MM-DD HH:MM:SS":
            text = f"{_moment(here)} || '+00'"
        case "YYYY-MM-DD HH:MM:SS.fff" | "YYYY-MM-DD HH:MM:SS.ffffff":
            fraction = f"rtrim(rtrim(substr({here}, 20, {len(shape) - 19}), '0'), '.')"
            text = f"{_moment(here)} || {fraction} || '+00'"
        case _:
            return None
    return f"CASE WHEN substr({here}, {len(shape) + 1}) = '{zone}' THEN {text} ELSE 'doubt' END"


_PARTS = {"s": 1, "ms": 1_000, "us": 1_000_000}
"""By the units from 1970 how many make a second."""


def _counted(unit: str, here: str) -> str:
    """PostgreSQL's text of what a number counts; Python says it of reals and of other beginnings,
    which have no function of SQLite's to the microsecond."""
    by_python = f"moment_text('{unit}', {here})"
    parts = _PARTS.get(unit)
    if parts is None:
        return by_python
    text = f"datetime({here} / {parts}, 'unixepoch')"
    if parts > 1:
        width = len(str(parts)) - 1
        digits = f"rtrim(substr('{'0' * width}' || ({here} % {parts}), -{width}), '0')"
        text += f" || iif({here} % {parts}, '.' || {digits}, '')"
    # Below 0 SQLite divides toward 0, and below the year 1 or above 9999 it has no text.
    plain = f"typeof({here}) = 'integer' AND {here} BETWEEN 0 AND {253402300799 * parts}"
    return f"CASE WHEN {plain} THEN {text} || '+00' ELSE {by_python} END"


_BEGIN = {
    "apple": datetime(2001, 1, 1),
    "filetime": datetime(1601, 1, 1),
    "ticks": datetime(1, 1, 1),
    "excel": datetime(1899, 12, 30),
}
"""Where units begin that do not in 1970."""
_SECONDS = {
    "s": Fraction(1),
    "ms": Fraction(1, 10**3),
    "us": Fraction(1, 10**6),
    "ns": Fraction(1, 10**9),
    "apple": Fraction(1),
    "filetime": Fraction(1, 10**7),
    "ticks": Fraction(1, 10**7),
    "excel": Fraction(86_400),
    "julian": Fraction(86_400),
}
_NOON_BEFORE = Fraction(24405875, 10) * 86_400
"""Seconds from the first Julian day to 1970."""


def moment_text(*values: Any) -> str:
    """PostgreSQL's text of what a number of the unit counts; ``doubt`` for what is no such time to
    the microsecond."""
    unit, value = values
    seconds = _seconds(unit, value) if isinstance(value, int | float) else None
    if seconds is None or (seconds * 10**6).denominator != 1:
        return "doubt"
    if unit == "julian":
        seconds -= _NOON_BEFORE
    try:
        begin = _BEGIN.get(unit, datetime(1970, 1, 1))
        there = begin + timedelta(microseconds=int(seconds * 10**6))
    except OverflowError:
        return "doubt"
    text = there.isoformat(" ")
    return (text.rstrip("0") if "." in text else text) + "+00"


def _seconds(unit: str, value: float) -> Fraction | None:
    """Seconds from the unit's beginning. A real of days counts the fewest parts of a second that
    give it again: seconds, else thousandths, else millionths."""
    if isinstance(value, float) and math.isinf(value):
        return None
    if _SECONDS[unit] < 86_400 or isinstance(value, int):
        return Fraction(repr(value)) * _SECONDS[unit]
    for parts in (1, 10**3, 10**6):
        count = round(Fraction(value) * 86_400 * parts)
        if count / (86_400 * parts) == value:
            return Fraction(count, parts)
    return None


def _moment(here: str) -> str:
    return f"substr({here}, 1, 10) || ' ' || substr({here}, 12, 8)"


def line_of(
    plan: TablePlan, table: SourceTable, there_now: Mapping[str, ColumnFact]
) -> Line | None:
    """``there_now`` are the target's columns as they are."""
    columns = compared_columns(plan)
    references = [column_sql(table, str(c.source)) for c in columns]
    pairs = [spelling(c, r) for c, r in zip(columns, references, strict=True)]
    known = [pair for pair in pairs if pair is not None]
    if not columns or len(known) != len(pairs):
        return None
    here = [_field_here(*one) for one in zip(columns, references, known, strict=True)]
    maybe_null = [r for c, r in zip(columns, references, strict=True) if c.nulls]
    there = [_field_there(*one) for one in zip(columns, known, strict=True)]
    open_to_null = [c for c in columns if not there_now[c.target].not_null]
    return Line(
        source=_grouped("concat_ws", sqlite_mark(FIELD), here, 500),
        source_nulls=chain("+", [f"({reference} IS NULL)" for reference in maybe_null]) or NONE,
        target=_grouped("concat_ws", postgres_mark(FIELD), there, 90),
        target_nulls=_nulls_among(open_to_null, expected=True),
        unexpected_nulls=_nulls_among(open_to_null, expected=False),
        fields=len(known),
    )


def _field_here(column: ColumnPlan, reference: str, spelled: tuple[str, str]) -> str:
    # A NULL where preflight met none would leave a mark out, so that the block has too few of them.
    return _or_null(spelled[0], reference) if column.nulls else spelled[0]


def _field_there(column: ColumnPlan, spelled: tuple[str, str]) -> str:
    if column.nulls:
        return f"coalesce({spelled[1]}, {postgres_mark(NULL)})"
    return _as_argument(column, spelled[1])


def _as_argument(column: ColumnPlan, target: str) -> str:
    """What gives concat_ws() the text: it spells any type as a cast to text does, without making a
    text of it first, but for the blanks at the end of a ``char``."""
    character = column.type.startswith(("char", "varchar", "text"))
    return target if character else target.removesuffix("::text")


def _nulls_among(columns: Sequence[ColumnPlan], *, expected: bool) -> str:
    """PostgreSQL's number of NULLs in those of a row's columns in which they are expected, or in
    which they are not."""
    names = [postgres_name(c.target) for c in columns if c.nulls is expected]
    groups = (names[i : i + 90] for i in range(0, len(names), 90))
    return " + ".join(f"num_nulls({', '.join(group)})" for group in groups) or NONE


def summed(number: str) -> str:
    """The sum over the rows."""
    return number if number == NONE else f"sum({number})"


def _or_null(source: str, reference: str) -> str:
    if source == reference:
        return f"ifnull({reference}, {sqlite_mark(NULL)})"
    return f"CASE WHEN {reference} IS NULL THEN {sqlite_mark(NULL)} ELSE {source} END"


def _grouped(function: str, separator: str, parts: list[str], most: int) -> str:
    """The parts joined by ``separator``, in nested calls of at most ``most`` arguments."""
    while True:
        parts = [
            f"{function}({separator}, {', '.join(parts[i : i + most])})"
            for i in range(0, len(parts), most)
        ]
        if len(parts) == 1:
            return parts[0]


def sqlite_mark(text: str) -> str:
    return f"char({ord(text[0])}, {ord(text[1])})"


def postgres_mark(text: str) -> str:
    return f"E'\\x1d{text[1]}'"
