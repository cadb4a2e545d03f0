"""Defaults: constants by what SQLite stores for them, the current time and random identifiers by
their PostgreSQL counterparts; nothing else is carried."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import NamedTuple

import apsw

from migration_job.errors import InputError
from migration_job.plan import moments
from migration_job.plan.expression_parts import Untranslatable
from migration_job.plan.rules import (
    CannotCarry,
    DateRule,
    IntegerRule,
    NumericRule,
    Rule,
    RuleBase,
    TextRule,
    TimeRule,
    TimestampRule,
    UuidRule,
    WidenedTextRule,
    inside,
)
from migration_job.quoting import compose, postgres_text, sqlite_expression
from migration_job.stores.sqlite.model import SourceColumn
from migration_job.stores.sqlite.sqltext import tokenize
from migration_job.values import SourceValue

_CONSTANT_WORDS = ("NULL", "TRUE", "FALSE")

_NOW = {
    "current_timestamp": "%Y-%m-%d %H:%M:%S",
    "datetime": "%Y-%m-%d %H:%M:%S",
    "current_date": "%Y-%m-%d",
    "date": "%Y-%m-%d",
    "current_time": "%H:%M:%S",
    "time": "%H:%M:%S",
    "unixepoch": "%s",
}
"""What SQLite's functions of the current time write."""

_TO_CHAR = {
    "%Y": "YYYY",
    "%m": "MM",
    "%d": "DD",
    "%H": "HH24",
    "%M": "MI",
    "%S": "SS",
    "%f": "SS.MS",
    "%F": "YYYY-MM-DD",
    "%T": "HH24:MI:SS",
}

_SHAPES = {"%Y-%m-%d": "YYYY-MM-DD", "%H:%M:%S": "HH:MM:SS", "%H:%M": "HH:MM"}

MAX_RANDOM = 64
"""Random bytes of a default, as far as people take them for identifiers and tokens."""

SECONDS_TODAY = 1_700_000_000
"""The order of the seconds since 1970 for as long as this program is in use."""

UTC_NOW = "(CURRENT_TIMESTAMP AT TIME ZONE 'UTC')"


def translate_default(column: SourceColumn, rule: Rule) -> str | None:
    """PostgreSQL's default expression for a column that has become what ``rule`` says; None where
    there is none to have (no default, or NULL). Raises Untranslatable."""
    if column.default is None:
        return None
    if _is_constant(column.default):
        return _constant(column, rule)
    compact = _compact(column.default)
    random = re.fullmatch(r"(lower|upper)?\(?hex\(randomblob\((\d+)\)\)\)?", compact)
    if random is not None:
        return _random_hex(random[1] or "upper", int(random[2]), rule)
    clock = _clock(compact)
    if clock is None:
        raise Untranslatable(f"the default {column.default} has no translation")
    return _now(clock, rule)


class _Clock(NamedTuple):
    """The current time as a default writes it."""

    pattern: str
    """``strftime``'s."""
    local: bool

    @property
    def now(self) -> str:
        """PostgreSQL's expression without a time zone."""
        return "LOCALTIMESTAMP" if self.local else UTC_NOW


_CALL = re.compile(r"(?P<name>[a-z_]+)(?:\((?P<arguments>.*)\))?", re.DOTALL)
_STRINGS = re.compile(r"(?:'(?:[^']|'')*'(?:,(?!$)|$))*", re.DOTALL)


def _clock(compact: str) -> _Clock | None:
    """The current time that a default asks for; None where it asks for something else."""
    cast = re.fullmatch(r"cast\((.*)as(?:integer|int|bigint)\)", compact, re.DOTALL)
    if cast is not None:
        inner = _clock(cast[1])
        return inner if inner is not None and inner.pattern == "%s" else None
    call = _CALL.fullmatch(compact)
    if call is None:
        return None
    name, arguments = call["name"], call["arguments"] or ""
    if _STRINGS.fullmatch(arguments) is None:
        return None
    strings = [s.replace("''", "'") for s in re.findall(r"'((?:[^']|'')*)'", arguments)]
    return _clock_of(name, strings)


def _clock_of(name: str, strings: list[str]) -> _Clock | None:
    """The current time that a call of one of SQLite's functions with these texts gives."""
    pattern = _NOW.get(name)
    if name == "strftime" and strings:
        pattern = strings.pop(0)
    when, *modifiers = [s.lower() for s in strings] or ["now"]
    if pattern is None or when != "now" or not set(modifiers) <= {"localtime", *_FINER}:
        return None
    local = "localtime" in modifiers
    if _FINER.intersection(modifiers) and name != "strftime":
        pattern = pattern.replace("%S", "%f")
        if "%f" not in pattern:
            return None
    return None if local and "%s" in pattern else _Clock(pattern, local)


_FINER = frozenset({"subsec", "subsecond"})


def is_local(default: str | None) -> bool:
    """Whether a default is the time of day where the application runs."""
    clock = _clock(_compact(default)) if default is not None else None
    return clock is not None and clock.local


_TRUTH = {
    **dict.fromkeys(("true", "t", "yes", "y", "on"), True),
    **dict.fromkeys(("false", "f", "no", "n", "off"), False),
}


def truth_word(default: str | None) -> tuple[str, bool] | None:
    """The text that a default stores and the truth value that it spells; None for any other."""
    tokens = tokenize(default or "")
    if len(tokens) != 1 or tokens[0].kind not in ("string", "name"):
        return None
    meant = _TRUTH.get(tokens[0].name.lower())
    return None if meant is None else (tokens[0].name, meant)


def _is_constant(sql: str) -> bool:
    return all(t.kind != "word" or t.is_word(*_CONSTANT_WORDS) for t in tokenize(sql))


def _compact(sql: str) -> str:
    """Without blanks between its tokens and without outer parentheses, words in lower case."""
    text = "".join(t.text.lower() if t.kind == "word" else t.text for t in tokenize(sql))
    while text.startswith("(") and text.endswith(")") and _balanced(text[1:-1]):
        text = text[1:-1]
    return text


def _balanced(text: str) -> bool:
    depth = 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if depth < 0:
            return False
    return depth == 0


def _constant(column: SourceColumn, rule: Rule) -> str | None:
    stored = _stored_by_sqlite(column)
    try:
        text = rule.forward(stored)
    except CannotCarry as reason:
        raise Untranslatable(
            f"the default {column.default} is not {rule.target_type}: {reason}"
        ) from None
    if text is None:
        return None
    if isinstance(inside(rule), TextRule | WidenedTextRule) and stored in (math.inf, -math.inf):
        raise Untranslatable(f"no text represents the number {column.default} on the source")
    if rule.target_type == "boolean":
        return "TRUE" if text == "t" else "FALSE"
    if re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", text) and rule.target_type in (
        "smallint",
        "integer",
        "bigint",
        "double precision",
    ):
        return text
    return postgres_text(text)


def _stored_by_sqlite(column: SourceColumn) -> SourceValue:
    """What a row without a value for the column gets. Raises Untranslatable."""
    kinds = [token.kind for token in tokenize(str(column.default))]
    if "blob" in kinds and len(kinds) > 1:
        raise Untranslatable(f"what the bytes in {column.default} mean depends on the encoding")
    # SQLite itself says what it would store: '0' in an INTEGER column is the integer 0.
    # A double-quoted string is a default without parentheses alone, an expression within.
    bare = any(t.kind == "name" for t in tokenize(str(column.default)))
    default = column.default if bare else f"({column.default})"
    memory = apsw.Connection(":memory:")
    try:
        memory.execute(
            compose(
                "CREATE TABLE d(c {declared} DEFAULT {default}, other)",
                declared=sqlite_expression(_declared(column)),
                default=sqlite_expression(default or ""),
            )
        )
        memory.execute("INSERT INTO d(other) VALUES (1)")
        stored: SourceValue = memory.execute("SELECT c FROM d").fetchall()[0][0]
    except (apsw.Error, InputError, UnicodeDecodeError) as error:
        raise Untranslatable(f"SQLite refuses the default {column.default}: {error}") from None
    finally:
        memory.close()
    return stored


def _declared(column: SourceColumn) -> str:
    return " ".join(t.text for t in tokenize(column.declared) if t.kind in ("word", "name"))


def _random_hex(case: str, size: int, rule: Rule) -> str:
    inner = inside(rule)
    if isinstance(inner, UuidRule) and size == 16:
        return "gen_random_uuid()"
    if not isinstance(inner, TextRule | WidenedTextRule) or not 1 <= size <= MAX_RANDOM:
        raise Untranslatable("random bytes of that length have no translation")
    digests = " || ".join(["md5(gen_random_uuid()::text)"] * -(-size // 16))
    _require_room(inner, 2 * size)
    text = f"left({digests}, {2 * size})"
    return text if case == "lower" else f"upper({text})"


def _now(clock: _Clock, rule: Rule) -> str:
    inner = inside(rule)
    if clock.pattern == "%s":
        return _seconds_now(inner)
    if isinstance(inner, TimestampRule) and _shape(clock.pattern) is not None:
        return _timestamp_now(clock, str(_shape(clock.pattern)))
    if isinstance(inner, DateRule) and clock.pattern == "%Y-%m-%d":
        return f"{clock.now}::date"
    if isinstance(inner, TimeRule) and clock.pattern == "%H:%M:%S":
        return f"date_trunc('second', {clock.now})::time"
    if isinstance(inner, TextRule | WidenedTextRule):
        length = len(datetime.now(UTC).strftime(clock.pattern.replace("%f", "%S.000")))
        _require_room(inner, length)
        return f"to_char({clock.now}, {postgres_text(_format(clock.pattern))})"
    raise Untranslatable(f"the current time in a column of type {rule.target_type}")


def _seconds_now(rule: RuleBase) -> str:
    """The seconds since 1970."""
    narrow = isinstance(rule, IntegerRule) and rule.high < SECONDS_TODAY
    if isinstance(rule, NumericRule) and rule.precision is not None:
        narrow = 10 ** (rule.precision - rule.scale) <= SECONDS_TODAY
    if narrow:
        raise Untranslatable(f"seconds since 1970 do not fit {rule.target_type}")
    if rule.kind in ("integer", "numeric"):
        return "floor(extract(epoch FROM CURRENT_TIMESTAMP))::bigint"
    if isinstance(rule, TimestampRule) and rule.epoch == "s":
        return "date_trunc('second', CURRENT_TIMESTAMP)"
    raise Untranslatable("seconds since 1970 in a column of another type")


def _timestamp_now(clock: _Clock, shape: str) -> str:
    """As fine as the source's clock: what is written there comes back the same."""
    if "YYYY" not in shape:
        raise Untranslatable("a time of day in a column of times")
    if "HH" not in shape:
        midnight = "CURRENT_DATE::timestamp with time zone"
        return f"({midnight})" if clock.local else f"({UTC_NOW}::date AT TIME ZONE 'UTC')"
    unit = "milliseconds" if "f" in shape else "second" if "SS" in shape else "minute"
    return f"date_trunc('{unit}', CURRENT_TIMESTAMP)"


def _require_room(rule: TextRule | WidenedTextRule, length: int) -> None:
    if isinstance(rule, TextRule) and rule.max_length is not None and rule.max_length < length:
        raise Untranslatable(f"its {length} characters do not fit {rule.target_type}")


def _shape(pattern: str) -> str | None:
    template = pattern
    for code, letters in (
        ("%F", "YYYY-MM-DD"),
        ("%T", "HH:MM:SS"),
        ("%Y-%m-%d", "YYYY-MM-DD"),
        ("%H:%M:%f000", "HH:MM:SS.ffffff"),
        ("%H:%M:%f", "HH:MM:SS.fff"),
        ("%H:%M:%S", "HH:MM:SS"),
        ("%H:%M", "HH:MM"),
    ):
        template = template.replace(code, letters)
    if "%" in template:
        return None
    try:
        shape = moments.parse_shape(template)
        return template if not shape.zone or shape.offset is not None else None
    except (ValueError, TypeError):
        return None


def _format(pattern: str) -> str:
    parts: list[str] = []
    for piece in re.findall(r"%.|[^%]+", pattern):
        if piece[0] == "%":
            if piece not in _TO_CHAR:
                raise Untranslatable(f"strftime's {piece} has no translation")
            parts.append(_TO_CHAR[piece])
        else:
            # Letters outside double quotes would be patterns of to_char's own.
            parts.append(
                '"' + piece.replace('"', '\\"') + '"' if re.search("[A-Za-z]", piece) else piece
            )
    return "".join(parts)
