"""Rules: how a source value becomes a target value, and how it comes back.

A rule meets every value of its column in one of three ways:

* it carries it **exactly**: ``inverse(forward(v))`` is ``v`` again, storage class and bytes;
* it **changes** it: the forward value exists, but does not come back by itself, or is another
  value by intent (a map) - such a value gets a ledger row;
* it **cannot carry** it: :class:`CannotCarry`, and the policy decides.

Forward values are ``str`` in the type's PostgreSQL input syntax (``None`` for NULL), before any
COPY escaping. ``inverse`` takes PostgreSQL's text output under the session settings
``DateStyle=ISO, TimeZone=UTC, bytea_output=hex, extra_float_digits=1, IntervalStyle=postgres``.
``forward`` gives PostgreSQL's own output text, so that what was written can be compared with what
is read; so does ``fast_sql`` where :attr:`RuleBase.canonical` says so.
"""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cached_property
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from migration_job.plan import jsontext, moments
from migration_job.plan.patterns import both_ways, sql_of
from migration_job.quoting import sqlite_text
from migration_job.stores.sqlite.database import POSITIONAL
from migration_job.values import BrokenText, SourceValue, display, positional, same, storage_class

Affinity = Literal["integer", "text", "blob", "real", "numeric"]

INT64_LOW, INT64_HIGH = -(2**63), 2**63 - 1


NUMBER_AFFINITIES = frozenset({"integer", "real", "numeric"})
"""Under these SQLite makes a number of text that looks like one."""


class CannotCarry(Exception):
    """The rule has no target value for this source value; the message says why, in lower case."""


class RuleBase(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    bijective: bool = True
    """Whether distinct source values always get distinct target values."""

    canonical: ClassVar[bool] = True
    """Whether ``fast_sql`` gives PostgreSQL's own output text, not only the same value."""

    plain: ClassVar[bool] = True
    """Whether the forward text never holds a backslash, tab, line feed or carriage return, so that
    COPY text needs no escaping."""

    @abstractmethod
    def forward(self, value: SourceValue) -> str | None:
        """The target value as PostgreSQL input text. Raises CannotCarry."""

    @abstractmethod
    def inverse(self, text: str | None) -> SourceValue:
        """The source value for a target value's text output. A target value that no source value
        can have led to (a NaN, a year 12000) comes back as its text: nothing is lost on the way."""

    def changes(self, value: SourceValue) -> bool:
        """Whether ``value`` needs a ledger row. Raises CannotCarry as ``forward`` does."""
        return not same(self.inverse(self.forward(value)), value)

    def returned(self, value: SourceValue) -> str | None:
        """The target's text of a value that only a rollback can have written, since ``inverse``
        gives it for what no value of the source's own stands for (an infinite time, a NaN); None
        for all others. ``forward`` does not carry such a value: it says nothing of a column's
        type."""
        del value
        return None

    def fast_sql(self, column: str) -> str | None:
        """A SQLite expression (``column`` is a quoted column reference) that gives the forward
        text of every value that meets :meth:`fast_condition`; None where there is none."""
        del column
        return None

    def fast_condition(self, column: str) -> str | None:
        """A SQLite predicate, true only for values that ``fast_sql`` converts and that need no
        ledger row (NULL included); None where there is none. Never NULL itself. It cannot see NUL
        or undecodable bytes inside text: preflight looks for those separately."""
        del column
        return None


def _expected(what: str, value: SourceValue) -> CannotCarry:
    return CannotCarry(f"expected {what}, found {storage_class(value)} {display(value, 60)}")


def _text_for(value: SourceValue, what: str) -> str:
    """The value as storable text. Raises CannotCarry for another class, NUL, undecodable bytes."""
    if isinstance(value, BrokenText):
        raise CannotCarry(f"text with undecodable bytes: {display(value, 60)}")
    if not isinstance(value, str):
        raise _expected(what, value)
    if "\x00" in value:
        raise CannotCarry(f"text with a NUL character: {display(value, 60)}")
    return value


# ---------------------------------------------------------------------------------- numbers


class IntegerRule(RuleBase):
    """INTEGER to smallint, integer, bigint or numeric."""

    kind: Literal["integer"] = "integer"
    low: int = INT64_LOW
    high: int = INT64_HIGH

    def forward(self, value: SourceValue) -> str | None:
        if value is None:
            return None
        if not isinstance(value, int):
            raise _expected("an integer", value)
        if not self.low <= value <= self.high:
            raise CannotCarry(f"{value} is outside {self.low}..{self.high}")
        return str(value)

    def inverse(self, text: str | None) -> SourceValue:
        return None if text is None else int(text)

    def fast_sql(self, column: str) -> str | None:
        return column

    def fast_condition(self, column: str) -> str | None:
        if (self.low, self.high) == (INT64_LOW, INT64_HIGH):
            return f"typeof({column}) IN ('integer', 'null')"
        return (
            f"({column} IS NULL OR typeof({column}) = 'integer' "
            f"AND {column} BETWEEN {self.low} AND {self.high})"
        )


def postgres_float(value: float) -> str:
    """A real as PostgreSQL prints ``double precision``: the shortest digits that come back, and an
    exponent below 1e-4 and from 1e15 on."""
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    if value == 0:
        return "-0" if math.copysign(1, value) < 0 else "0"
    sign, digits, power = Decimal(repr(value)).as_tuple()
    text = "".join(map(str, digits)).rstrip("0")
    exponent = len(digits) + int(power) - 1
    if -4 <= exponent < 15:
        if exponent >= len(text) - 1:
            body = text.ljust(exponent + 1, "0")
        elif exponent >= 0:
            body = text[: exponent + 1] + "." + text[exponent + 1 :]
        else:
            body = "0." + "0" * (-exponent - 1) + text
    else:
        mark = "-" if exponent < 0 else "+"
        body = text[0] + ("." + text[1:] if len(text) > 1 else "") + f"e{mark}{abs(exponent):02d}"
    return ("-" if sign else "") + body


# SQLite's own conversions are exact in these bounds: checked against Python's over millions of
# values. Beyond them the 15 or 17 digits may be off in the last place.
# (Comparisons, not abs(): that fails on the lowest integer, wherever SQLite evaluates it.)
_MODERATE = "({0} > -1e15 AND {0} < 1e15 AND {0} NOT BETWEEN -1e-4 AND 1e-4)"
_FINITE = "({0} > -9e999 AND {0} < 9e999)"


class RealRule(RuleBase):
    """REAL to double precision."""

    kind: Literal["real"] = "real"
    affinity: Affinity = "real"
    """The column's: only under REAL affinity can SQLite hold no negative zero."""

    canonical: ClassVar[bool] = False
    # Nor is forward always: PostgreSQL prints one digit more than the shortest for some reals.

    def forward(self, value: SourceValue) -> str | None:
        if value is None:
            return None
        if isinstance(value, int) and not isinstance(value, bool):
            if int(float(value)) != value:
                raise CannotCarry(f"{value} is not exact in double precision")
            return postgres_float(float(value))
        if not isinstance(value, float):
            raise _expected("a real", value)
        return postgres_float(value)

    def inverse(self, text: str | None) -> SourceValue:
        # SQLite stores a NaN as NULL, so it comes back as text.
        return text if text is None or text == "NaN" else float(text)

    def returned(self, value: SourceValue) -> str | None:
        return "NaN" if value == "NaN" else None

    def fast_sql(self, column: str) -> str | None:
        return f"CASE WHEN {column} IS NOT NULL THEN printf('%!.17g', {column}) END"

    def fast_condition(self, column: str) -> str | None:
        zero = f"{column} = 0.0"
        if self.affinity != "real":
            # The one way in SQL to see the sign of zero.
            zero = f"({zero} AND atan2({column}, -1.0) > 0)"
        bounds = _MODERATE.format(column)
        return (
            f"({column} IS NULL OR typeof({column}) = 'real' AND "
            f"({bounds} OR {zero} OR {_FINITE.format(column)} AND {column} <> 0.0 "
            f"AND CAST(printf('%!.17g', {column}) AS REAL) = {column}))"
        )


class NumericRule(RuleBase):
    """INTEGER and REAL to numeric. Without a precision, an integer has no decimal point there and
    a real always has one, so both come back as they were."""

    kind: Literal["numeric"] = "numeric"
    precision: int | None = None
    scale: int = 0
    affinity: Affinity = "numeric"

    def forward(self, value: SourceValue) -> str | None:
        if value is None:
            return None
        if not isinstance(value, int | float):
            raise _expected("a number", value)
        if isinstance(value, float) and math.isinf(value):
            if self.precision is not None:
                raise CannotCarry(f"{value} does not fit {self._type()}")
            return "Infinity" if value > 0 else "-Infinity"
        if self.precision is None:
            if isinstance(value, float):
                text = positional(value)
                return text[1:] if value == 0 and text.startswith("-") else text
            return str(value)
        number = Decimal(repr(value))
        _, digits, power = number.as_tuple()
        decimals = max(0, -int(power) - _trailing_zeros(digits)) if number else 0
        if decimals > self.scale:
            raise CannotCarry(f"{value!r} has {decimals} decimals, {self._type()} keeps fewer")
        if number and number.adjusted() + 1 > self.precision - self.scale:
            raise CannotCarry(f"{value!r} does not fit {self._type()}")
        text = format(number, "f")
        whole, _, fraction = text.partition(".")
        if number == 0:
            whole = "0"
        fraction = fraction[: self.scale].ljust(self.scale, "0")
        return f"{whole}.{fraction}" if self.scale > 0 else whole

    def inverse(self, text: str | None) -> SourceValue:
        if text is None or text == "NaN":
            return text
        if text in ("Infinity", "-Infinity"):
            return float(text)
        number = Decimal(text)
        point = "." in text if self.precision is None else number != number.to_integral_value()
        if not point and self.affinity != "real":
            return int(number) if INT64_LOW <= number <= INT64_HIGH else text
        real = float(text)
        # Where SQLite makes no number of it, text keeps what a real has no digits for. Elsewhere
        # the target refuses such a number (:mod:`migration_job.plan.wayback`).
        exact = not math.isinf(real) and Decimal(repr(real)) == number
        return real if exact or self.affinity in NUMBER_AFFINITIES else text

    def returned(self, value: SourceValue) -> str | None:
        if value == "NaN":
            return "NaN"
        if self.affinity in NUMBER_AFFINITIES or not isinstance(value, str):
            return None
        plain = re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", value, re.ASCII) is not None
        return value if plain and same(self.inverse(value), value) else None

    def fast_sql(self, column: str) -> str | None:
        if self.precision is None:
            # 15 digits that give the same real again are the shortest ones.
            fifteen = f"printf('%!.15g', {column})"
            short = f"{_MODERATE.format(column)} AND CAST({fifteen} AS REAL) = {column}"
            return (
                f"CASE WHEN typeof({column}) <> 'real' THEN {column} "
                f"WHEN {short} THEN {fifteen} ELSE {POSITIONAL}({column}) END"
            )
        if self.scale <= 0:
            return f"CAST({column} AS INTEGER)"
        return f"CASE WHEN {column} IS NOT NULL THEN printf('%.{self.scale}f', {column}) END"

    def fast_condition(self, column: str) -> str | None:
        if self.precision is None:
            # Zero may be a negative one.
            return (
                f"(typeof({column}) IN ('integer', 'null') OR typeof({column}) = 'real' "
                f"AND {column} <> 0.0 AND {_FINITE.format(column)})"
            )
        whole = max(0, min(15, self.precision - self.scale))
        if self.scale < 0:
            return "0"
        bound = 10**whole
        integers = f"typeof({column}) = 'integer' AND {column} > -{bound} AND {column} < {bound}"
        if self.affinity == "real":
            integers = "0"
        reals = "0"
        if self.scale > 0 and whole + self.scale <= 15:
            # A real that its own text with `scale` decimals gives back is spelled by that text.
            reals = (
                f"typeof({column}) = 'real' AND {column} > -{bound}.0 AND {column} < {bound}.0 "
                f"AND CAST(printf('%.{self.scale}f', {column}) AS REAL) = {column}"
            )
            if self.affinity == "real":
                reals += f" AND ({column} = 0.0 OR {_MODERATE.format(column)})"
            else:
                reals += f" AND {_MODERATE.format(column)}"
                reals += f" AND {column} <> CAST({column} AS INTEGER)"
        if whole + self.scale > 15:
            integers = "0"
        return f"({column} IS NULL OR {integers} OR {reals})"

    def _type(self) -> str:
        return "numeric" if self.precision is None else f"numeric({self.precision},{self.scale})"


def _trailing_zeros(digits: tuple[int, ...]) -> int:
    count = 0
    for digit in reversed(digits):
        if digit:
            break
        count += 1
    return count


class BooleanRule(RuleBase):
    """The integers 0 and 1 to boolean."""

    kind: Literal["boolean"] = "boolean"

    def forward(self, value: SourceValue) -> str | None:
        if value is None:
            return None
        if not isinstance(value, int) or value not in (0, 1):
            raise _expected("0 or 1", value)
        return "t" if value else "f"

    def inverse(self, text: str | None) -> SourceValue:
        return None if text is None else int(text == "t")

    def fast_sql(self, column: str) -> str | None:
        return f"CASE {column} WHEN 1 THEN 't' WHEN 0 THEN 'f' END"

    def fast_condition(self, column: str) -> str | None:
        return f"({column} IS NULL OR typeof({column}) = 'integer' AND {column} BETWEEN 0 AND 1)"


# ------------------------------------------------------------------------------- text, bytes


class TextRule(RuleBase):
    """TEXT to text, or to varchar where ``max_length`` (in characters) is given."""

    kind: Literal["text"] = "text"
    max_length: int | None = None
    affinity: Affinity = "text"
    """The column's: under a numeric one SQLite makes a number of text that looks like one."""
    plain: ClassVar[bool] = False

    def forward(self, value: SourceValue) -> str | None:
        if value is None:
            return None
        if self.affinity in NUMBER_AFFINITIES and isinstance(value, int | float):
            # Planned for text alone; what looks like a number arrives as one all the same.
            value = number_text(value) if isinstance(value, float) else str(value)
        text = _text_for(value, "text")
        if self.max_length is not None and len(text) > self.max_length:
            raise CannotCarry(f"{len(text)} characters, {self.max_length} allowed")
        return text

    def inverse(self, text: str | None) -> SourceValue:
        return text

    def fast_sql(self, column: str) -> str | None:
        return column

    def fast_condition(self, column: str) -> str | None:
        if self.max_length is None:
            return f"typeof({column}) IN ('text', 'null')"
        return (
            f"({column} IS NULL OR typeof({column}) = 'text' "
            f"AND (octet_length({column}) <= {self.max_length} "
            f"OR octet_length({column}) <= {4 * self.max_length} "
            f"AND length({column}) <= {self.max_length}))"
        )


class WidenedTextRule(RuleBase):
    """Anything but blobs to text: a number becomes its digits, and so another storage class."""

    kind: Literal["widened-text"] = "widened-text"
    bijective: bool = False
    affinity: Affinity = "text"
    plain: ClassVar[bool] = False

    def forward(self, value: SourceValue) -> str | None:
        match value:
            case None:
                return None
            case float():
                return number_text(value)
            case int():
                return str(value)
            case _:
                return _text_for(value, "text or a number")

    def inverse(self, text: str | None) -> SourceValue:
        return text

    def fast_sql(self, column: str) -> str | None:
        return column

    def fast_condition(self, column: str) -> str | None:
        return f"typeof({column}) IN ('text', 'null')"


def number_text(value: float) -> str:
    """A real as text that SQLite reads back as the same real."""
    if math.isinf(value):
        return "Inf" if value > 0 else "-Inf"
    return repr(value)


class ByteaRule(RuleBase):
    """BLOB to bytea."""

    kind: Literal["bytea"] = "bytea"
    plain: ClassVar[bool] = False

    def forward(self, value: SourceValue) -> str | None:
        if value is None:
            return None
        if not isinstance(value, bytes):
            raise _expected("a blob", value)
        return "\\x" + value.hex()

    def inverse(self, text: str | None) -> SourceValue:
        return None if text is None else bytes.fromhex(text[2:])

    def fast_sql(self, column: str) -> str | None:
        return f"CASE WHEN {column} IS NOT NULL THEN '\\x' || lower(hex({column})) END"

    def fast_condition(self, column: str) -> str | None:
        return f"typeof({column}) IN ('blob', 'null')"


class WidenedByteaRule(RuleBase):
    """Anything to bytea: text by its bytes (UTF-8; undecodable text by its bytes in the file),
    numbers by their digits. All but blobs change their storage class."""

    kind: Literal["widened-bytea"] = "widened-bytea"
    bijective: bool = False
    plain: ClassVar[bool] = False

    def forward(self, value: SourceValue) -> str | None:
        match value:
            case None:
                return None
            case bytes():
                raw = value
            case BrokenText():
                raw = value.raw
            case str():
                raw = value.encode()
            case float():
                raw = number_text(value).encode()
            case int():
                raw = str(value).encode()
        return "\\x" + raw.hex()

    def inverse(self, text: str | None) -> SourceValue:
        return None if text is None else bytes.fromhex(text[2:])

    def fast_sql(self, column: str) -> str | None:
        return f"CASE WHEN {column} IS NOT NULL THEN '\\x' || lower(hex({column})) END"

    def fast_condition(self, column: str) -> str | None:
        return f"typeof({column}) IN ('blob', 'null')"


class BytesTextRule(RuleBase):
    """A column of TEXT alone to bytea, because some of it cannot be text in PostgreSQL; the bytes
    are those of the text in UTF-8, and text that does not decode keeps those of the file."""

    kind: Literal["text-bytea"] = "text-bytea"
    bijective: bool = False
    plain: ClassVar[bool] = False

    def forward(self, value: SourceValue) -> str | None:
        match value:
            case None:
                return None
            case BrokenText():
                return "\\x" + value.raw.hex()
            case str():
                return "\\x" + value.encode().hex()
            case _:
                raise _expected("text", value)

    def inverse(self, text: str | None) -> SourceValue:
        if text is None:
            return None
        raw = bytes.fromhex(text[2:])
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return BrokenText(raw)

    def changes(self, value: SourceValue) -> bool:
        self.forward(value)
        return value is not None  # another storage class, though it comes back


class IntegerTextRule(RuleBase):
    """TEXT that spells an integer, to an integer type: a reference to an integer key."""

    kind: Literal["integer-text"] = "integer-text"
    low: int = INT64_LOW
    high: int = INT64_HIGH

    def forward(self, value: SourceValue) -> str | None:
        if value is None:
            return None
        text = _text_for(value, "text that spells an integer")
        if re.fullmatch(r"0|-?[1-9][0-9]{0,18}", text, re.ASCII) is None:
            raise _expected("text that spells an integer", value)
        if not self.low <= int(text) <= self.high:
            raise CannotCarry(f"{text} is outside {self.low}..{self.high}")
        return text

    def inverse(self, text: str | None) -> SourceValue:
        return text

    def fast_sql(self, column: str) -> str | None:
        return column

    def fast_condition(self, column: str) -> str | None:
        low, high = max(self.low, -(10**17)), min(self.high, 10**17)
        return (
            f"({column} IS NULL OR typeof({column}) = 'text' "
            f"AND CAST(CAST({column} AS INTEGER) AS TEXT) = {column} COLLATE BINARY "
            f"AND CAST({column} AS INTEGER) BETWEEN {low} AND {high})"
        )


class TextIntegerRule(RuleBase):
    """INTEGER to text: a reference to a text key, which SQLite compares as text."""

    kind: Literal["text-integer"] = "text-integer"

    def forward(self, value: SourceValue) -> str | None:
        if value is None:
            return None
        if not isinstance(value, int):
            raise _expected("an integer", value)
        return str(value)

    def inverse(self, text: str | None) -> SourceValue:
        return int(text) if text is not None and _spells_int64(text) else text

    def returned(self, value: SourceValue) -> str | None:
        if isinstance(value, float):
            return number_text(value)
        return value if isinstance(value, str) and "\x00" not in value else None

    def fast_sql(self, column: str) -> str | None:
        return f"CAST({column} AS TEXT)"

    def fast_condition(self, column: str) -> str | None:
        return f"typeof({column}) IN ('integer', 'null')"


def _spells_int64(text: str) -> bool:
    """Whether the text is how an integer of SQLite's is spelled."""
    plain = re.fullmatch(r"0|-?[1-9][0-9]{0,18}", text, re.ASCII) is not None
    return plain and INT64_LOW <= int(text) <= INT64_HIGH


_HEX = "[0-9a-f]"
_UUID_GLOB = "-".join(_HEX * n for n in (8, 4, 4, 4, 12))
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)


_LIKE_NUMBER = re.compile(r"[0-9]+(e[0-9]+)?")


class UuidRule(RuleBase):
    """TEXT to uuid. Only the canonical lower-case spelling comes back; other spellings that
    PostgreSQL reads are changed to it."""

    kind: Literal["uuid"] = "uuid"
    style: Literal["lower", "upper", "hex", "HEX"] = "lower"
    """How the column spells its UUIDs; ``hex`` and ``HEX`` have no hyphens."""
    affinity: Affinity = "text"

    def forward(self, value: SourceValue) -> str | None:
        if value is None:
            return None
        text = _text_for(value, "a UUID")
        bare = text.strip("{}") if text[:1] == "{" and text[-1:] == "}" else text
        digits = bare.replace("-", "").lower()
        hyphens = [i for i, c in enumerate(bare) if c == "-"]
        canonical = f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
        if hyphens not in ([], [8, 13, 18, 23]) or _UUID.fullmatch(canonical) is None:
            raise _expected("a UUID", value)
        return canonical

    def inverse(self, text: str | None) -> SourceValue:
        if text is None:
            return None
        bare = text if self.style in ("lower", "upper") else text.replace("-", "")
        if self.affinity in NUMBER_AFFINITIES and _LIKE_NUMBER.fullmatch(bare) is not None:
            bare = text  # SQLite would make a number of these digits
        return bare.upper() if self.style in ("upper", "HEX") else bare

    def fast_sql(self, column: str) -> str | None:
        return column if self.style == "lower" else None

    def fast_condition(self, column: str) -> str | None:
        if self.style != "lower":
            return None
        return f"({column} IS NULL OR typeof({column}) = 'text' AND {column} GLOB '{_UUID_GLOB}')"


# ------------------------------------------------------------------------------------- JSON


class JsonRule(RuleBase):
    """JSON to ``json``, which keeps the text as it is. A number that SQLite's affinity made of a
    document such as ``5`` comes back as that number."""

    kind: Literal["json"] = "json"
    plain: ClassVar[bool] = False

    affinity: Affinity = "text"

    def forward(self, value: SourceValue) -> str | None:
        match value:
            case None:
                return None
            case float():
                if math.isinf(value):
                    raise CannotCarry(f"{value} is not JSON")
                return repr(value)
            case int():
                return str(value)
            case _:
                text = _text_for(value, "JSON")
        try:
            jsontext.parse(text)
        except jsontext.BadJson as error:
            raise CannotCarry(f"not JSON ({error}): {display(value, 60)}") from None
        return text

    def inverse(self, text: str | None) -> SourceValue:
        if text is None:
            return None
        if self.affinity in NUMBER_AFFINITIES:
            bare = text.strip(" \t\n\r")
            whole = re.fullmatch(r"-?[0-9]{1,19}", bare, re.ASCII) is not None
            if whole and self.affinity != "real" and INT64_LOW <= int(bare) <= INT64_HIGH:
                return int(bare)
            if re.fullmatch(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?", bare, re.ASCII):
                return float(bare)
        return text

    def fast_sql(self, column: str) -> str | None:
        return column

    def fast_condition(self, column: str) -> str | None:
        return f"({column} IS NULL OR typeof({column}) = 'text' AND json_valid({column}, 1))"


class JsonbRule(RuleBase):
    """JSON to ``jsonb``, which keeps the value but not the text. What is exact is a document that
    ``style`` spells the same from jsonb's order of keys."""

    kind: Literal["jsonb"] = "jsonb"
    bijective: bool = False
    style: jsontext.Style = "compact"
    affinity: Affinity = "text"
    plain: ClassVar[bool] = False

    def forward(self, value: SourceValue) -> str | None:
        match value:
            case None:
                return None
            case float():
                if math.isinf(value):
                    raise CannotCarry(f"{value} is not JSON")
                return jsontext.normalise(repr(value))
            case int():
                return str(value)
            case _:
                text = _text_for(value, "JSON")
        try:
            return jsontext.normalise(text)
        except jsontext.BadJson as error:
            raise CannotCarry(f"no jsonb ({error}): {display(value, 60)}") from None

    def inverse(self, text: str | None) -> SourceValue:
        if text is None:
            return None
        if self.affinity in NUMBER_AFFINITIES:
            number = JsonRule(affinity=self.affinity).inverse(text)
            if not isinstance(number, str):
                return number
        return jsontext.restyle(text, self.style)

    def changes(self, value: SourceValue) -> bool:
        if isinstance(value, str) and jsontext.surely_returns(value, self.style):
            return False
        return super().changes(value)

    def fast_sql(self, column: str) -> str | None:
        return column

    def fast_condition(self, column: str) -> str | None:
        # Whether a document's keys are in jsonb's order is nothing that SQLite can say.
        return (
            f"({column} IS NULL OR typeof({column}) = 'text' "
            f"AND {column} COLLATE BINARY IN ('[]', '{{}}'))"
        )


# ---------------------------------------------------------------------------- dates and times


_EPOCH_UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_JULIAN_EPOCH_DAYS = 2440587.5
_JULIAN_END = 5373484.5

EpochUnit = Literal["s", "ms", "us", "julian"]

Precision = Annotated[int, Field(ge=0, le=6)]


_TIMESTAMP_OUTPUT = re.compile(
    r"-?infinity|\d{4,6}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{1,6})?\+00( BC)?", re.ASCII
)
_DATE_OUTPUT = re.compile(r"-?infinity|\d{5,7}-\d\d-\d\d|\d{4,7}-\d\d-\d\d BC", re.ASCII)
MIDNIGHT_AFTER = "24:00:00"
"""PostgreSQL's end of a day, which is no time of SQLite's."""


def _fraction_glob(digits: int) -> str:
    return "." + "[0-9]" * digits if digits else ""


class TimestampRule(RuleBase):
    """Times to ``timestamp with time zone``. ``shape`` is how the column writes them (a template
    of :mod:`migration_job.plan.moments`, or ``epoch`` with ``epoch`` the unit of its numbers).

    Text of any known shape is carried to its instant, cut to ``precision``; only text of ``shape``
    comes back as it was, and text of its finer shape (:func:`moments.finer`) where ``shape`` has no
    room for what it says. Text that names no zone is in ``zone``; numbers need ``epoch``.
    """

    kind: Literal["timestamp"] = "timestamp"
    bijective: bool = False
    shape: str = "YYYY-MM-DD HH:MM:SS"
    zone: str = "UTC"
    epoch: EpochUnit | None = None
    precision: Precision = 6
    """Decimals of a second, which the type has as well: PostgreSQL rounds what it is given to a
    time that the source can hold."""

    def forward(self, value: SourceValue) -> str | None:
        if value is None:
            return None
        if isinstance(value, int | float):
            return self._of_number(value)
        text = _text_for(value, "a time")
        moment = moments.read(text)
        if moment is None or moment.day is None:
            raise _expected("a time of a known shape", value)
        naive = datetime.combine(moment.day, moment.clock or datetime.min.time())
        try:
            if moment.offset is None:
                instant = naive.replace(tzinfo=moments.zone_of(self.zone))
            else:
                instant = naive.replace(tzinfo=UTC) - moment.offset
            return moments.postgres_timestamp(moments.cut(instant, self.precision))
        except OverflowError:
            raise CannotCarry(f"outside the years 1 to 9999: {display(value)}") from None

    def _of_number(self, value: float) -> str:
        if self.epoch is None:
            raise _expected("a time in text (or a declared epoch unit)", value)
        try:
            if self.epoch == "julian":
                micros = round((value - _JULIAN_EPOCH_DAYS) * 86_400_000_000)
            elif isinstance(value, int):
                micros = value * (1_000_000 // _EPOCH_UNITS[self.epoch])
            else:
                micros = round(Decimal(repr(value)) * (1_000_000 // _EPOCH_UNITS[self.epoch]))
            instant = _EPOCH + timedelta(microseconds=micros)
            return moments.postgres_timestamp(moments.cut(instant, self.precision))
        except (OverflowError, ValueError, ArithmeticError):
            raise CannotCarry(f"outside the years 1 to 9999: {value!r}") from None

    def inverse(self, text: str | None) -> SourceValue:
        if text is None:
            return None
        try:
            instant = moments.read_postgres_timestamp(text)
        except (ValueError, OverflowError):
            return text
        if self.shape == "epoch":
            return self._number(instant)
        shape, offset = self.shape, moments.parse_shape(self.shape).offset
        try:
            if offset is None:
                there = instant.astimezone(moments.zone_of(self.zone))
                local = there.replace(tzinfo=None)
                if there.fold:
                    # Of the two hours of one name this is the second, and read as the first.
                    shape = moments.finer(shape, self.precision if local.microsecond else 0)
                    return moments.write(shape, local) + moments.offset_text(there)
            else:
                local = (instant + offset).replace(tzinfo=None)
        except OverflowError:
            return text
        return moments.write_finely(shape, self.precision, local)

    def returned(self, value: SourceValue) -> str | None:
        if not isinstance(value, str) or _TIMESTAMP_OUTPUT.fullmatch(value) is None:
            return None
        return value if self.inverse(value) == value else None

    def _number(self, instant: datetime) -> SourceValue:
        delta = instant - _EPOCH
        micros = (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds
        if self.epoch == "julian":
            days = micros / 86_400_000_000 + _JULIAN_EPOCH_DAYS
            # The calendar's last microseconds are the first of the year 10000 in days.
            return days if days < _JULIAN_END else moments.postgres_timestamp(instant)
        per_unit = 1_000_000 // _EPOCH_UNITS[self.epoch or "us"]
        whole, rest = divmod(micros, per_unit)
        if not rest:
            return whole
        real = micros / per_unit
        # Far from 1970 a real has no digits for microseconds: then the text keeps them.
        exact = Decimal(repr(real)) * per_unit == micros
        return real if exact else moments.postgres_timestamp(instant)

    def fast_sql(self, column: str) -> str | None:
        if self.shape == "epoch":
            return self._fast_epoch(column)
        shape = moments.parse_shape(self.shape)
        if not self._fast(shape):
            return None
        if not shape.has_clock:
            return f"{column} || ' 00:00:00+00'"
        minutes = int((shape.offset or timedelta()).total_seconds()) // 60
        if minutes:
            modifier = f"{-minutes:+d} minutes"
            head = f"strftime('%Y-%m-%d %H:%M:%S', substr({column}, 1, 19), '{modifier}')"
        elif shape.separator == " ":
            whole = self.shape == "YYYY-MM-DD HH:MM:SS" and not self.precision
            head = column if whole else f"substr({column}, 1, 19)"
        else:
            head = f"substr({column}, 1, 10) || ' ' || substr({column}, 12, 8)"
        digits = self._digits(shape)
        if digits:
            fraction = f"rtrim(rtrim(substr({column}, 20, {1 + digits}), '0'), '.')"
            if not shape.digits:
                # Where there is no fraction, the zone may stand in its place.
                bare = 19 + len(shape.zone)
                fraction = f"CASE WHEN length({column}) > {bare} THEN {fraction} ELSE '' END"
            head += f" || {fraction}"
        return f"{head} || '+00'"

    def _digits(self, shape: moments.Shape) -> int:
        """Decimals of a second that a text of the column may have."""
        return min(shape.digits or (self.precision if shape.has_seconds else 0), 6)

    def _fast_epoch(self, column: str) -> str | None:
        match self.epoch:
            case "s":
                return f"strftime('%Y-%m-%d %H:%M:%S+00', {column}, 'unixepoch')"
            case "ms" | "us":
                size = _EPOCH_UNITS[self.epoch]
                digits = len(str(size)) - 1
                seconds = f"{column} / {size}"
                fraction = f"printf('.%0{digits}d', {column} % {size})"
                return (
                    f"strftime('%Y-%m-%d %H:%M:%S', {seconds}, 'unixepoch') "
                    f"|| rtrim(rtrim({fraction}, '0'), '.') || '+00'"
                )
            case _:
                return None

    def _fast(self, shape: moments.Shape) -> bool:
        """Whether SQLite's own functions read the shape: a full clock, UTC or a fixed offset."""
        if shape.separator == "t" or (shape.has_clock and not shape.has_seconds):
            return False
        if shape.zone == "" and self.zone.upper() not in ("UTC", "Z", "GMT"):
            return False
        return shape.digits <= moments.MICROSECOND_DIGITS

    def fast_condition(self, column: str) -> str | None:
        if self.shape == "epoch":
            if self.epoch in (None, "julian"):
                return None
            # Non-negative, so that SQLite's / and % floor; up to the year 9999.
            high = 253402300799 * _EPOCH_UNITS[str(self.epoch)]
            return (
                f"({column} IS NULL OR typeof({column}) = 'integer' "
                f"AND {column} BETWEEN 0 AND {high})"
            )
        shape = moments.parse_shape(self.shape)
        if not self._fast(shape):
            return None
        # Comparing with what SQLite's function prints tests the shape, the digits and the
        # calendar at once: 2024-02-30 would come back as 2024-03-01. BINARY, because under RTRIM
        # a trailing blank would pass; substr(), because a column of numeric affinity would make a
        # number of '0000'.
        text = f"typeof({column}) = 'text' AND "
        if not shape.has_clock:
            text += f"date({column}) IS {column} COLLATE BINARY"
        elif self.shape == "YYYY-MM-DD HH:MM:SS" and not self.precision:
            text += f"datetime({column}) IS {column} COLLATE BINARY"
        else:
            head = f"substr({column}, 1, 19)"
            text += (
                f"strftime('%Y-%m-%d{shape.separator}%H:%M:%S', {head}) IS {head} "
                f"AND {self._suffix(column, shape)}"
            )
        # SQLite's functions read years before 1, too ('0000', '-2024'). At both ends an offset
        # would lead out of the calendar.
        text += f" AND substr({column}, 1, 4) >= '0001'"
        if shape.offset:
            text += f" AND substr({column}, 1, 4) NOT IN ('0001', '9999')"
        return f"({column} IS NULL OR {text})"

    def _suffix(self, column: str, shape: moments.Shape) -> str:
        """A predicate of what follows the seconds."""

        def of(digits: int) -> str:
            length = 19 + (digits + 1 if digits else 0) + len(shape.zone)
            glob = _fraction_glob(digits) + shape.zone
            return f"length({column}) = {length} AND substr({column}, 20) GLOB '{glob}'"

        if shape.digits or not self.precision:
            return of(shape.digits)
        finer = f"{of(self.precision)} AND trim(substr({column}, 21, {self.precision}), '0') <> ''"
        return f"({of(0)} OR {finer})"


class DateRule(RuleBase):
    """``YYYY-MM-DD`` to date."""

    kind: Literal["date"] = "date"

    def forward(self, value: SourceValue) -> str | None:
        if value is None:
            return None
        text = _text_for(value, "a date")
        moment = moments.read(text)
        if moment is None or moment.shape != "YYYY-MM-DD":
            raise _expected("a date such as 2026-01-31", value)
        return text

    def inverse(self, text: str | None) -> SourceValue:
        return text

    def returned(self, value: SourceValue) -> str | None:
        own = isinstance(value, str) and _DATE_OUTPUT.fullmatch(value) is not None
        return str(value) if own else None

    def fast_sql(self, column: str) -> str | None:
        return column

    def fast_condition(self, column: str) -> str | None:
        return (
            f"({column} IS NULL OR typeof({column}) = 'text' "
            f"AND date({column}) IS {column} COLLATE BINARY "
            f"AND substr({column}, 1, 4) >= '0001')"
        )


class TimeRule(RuleBase):
    """``HH:MM``, ``HH:MM:SS`` or ``HH:MM:SS.ffffff`` to time; only ``shape`` comes back."""

    kind: Literal["time"] = "time"
    bijective: bool = False
    shape: str = "HH:MM:SS"
    precision: Precision = 6
    """As with :class:`TimestampRule`."""

    def forward(self, value: SourceValue) -> str | None:
        if value is None:
            return None
        text = _text_for(value, "a time of day")
        moment = moments.read(text)
        if moment is None or moment.day is not None or moment.clock is None:
            raise _expected("a time of day such as 13:45:00", value)
        clock = moments.cut(datetime.combine(datetime.min.date(), moment.clock), self.precision)
        fraction = f".{clock.microsecond:06d}".rstrip("0") if clock.microsecond else ""
        return f"{clock:%H:%M:%S}{fraction}"

    def inverse(self, text: str | None) -> SourceValue:
        if text is None:
            return None
        moment = moments.read(text)
        if moment is None or moment.clock is None:
            return text
        clock = datetime.combine(datetime.min.date(), moment.clock)
        return moments.write_finely(self.shape, self.precision, clock)

    def returned(self, value: SourceValue) -> str | None:
        return MIDNIGHT_AFTER if value == MIDNIGHT_AFTER else None

    def fast_sql(self, column: str) -> str | None:
        return column if self.shape == "HH:MM:SS" else None

    def fast_condition(self, column: str) -> str | None:
        if self.shape != "HH:MM:SS":
            return None
        return (
            f"({column} IS NULL OR typeof({column}) = 'text' "
            f"AND time({column}) IS {column} COLLATE BINARY)"
        )


# ------------------------------------------------------------------------------------- maps

Scalar = str | int | float | None


class Entry(BaseModel):
    """One entry of a map: this very source value becomes that one."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    source: Scalar
    target: Scalar


class Pattern(BaseModel):
    """Text that matches as a whole is rewritten; ``\\1`` and the like stand for its groups."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    match: str
    replace: str


class MapRule(RuleBase):
    """Changes some values by intent and hands the result to ``inner``.

    Where it is ``bijective``, an entry is the column's rule forth and back, and so is a pattern
    that goes both ways (:mod:`migration_job.plan.patterns`): its value needs no ledger row. Of
    several entries to one value the first comes back; what the others meet has a ledger row, and so
    has every value that is met where it is not bijective: there a target value comes back as what
    it is itself.
    """

    kind: Literal["map"] = "map"
    bijective: bool = False
    """Set by the plan where no value of the column but the entries' own ends as one of theirs."""
    entries: tuple[Entry, ...] = ()
    patterns: tuple[Pattern, ...] = ()
    inner: Rule

    def mapped(self, value: SourceValue) -> tuple[bool, SourceValue]:
        """Whether an entry or a pattern meets the value, and what it becomes."""
        for entry in self.entries:
            if same(entry.source, value):
                return True, entry.target
        if isinstance(value, str):
            for pattern in self.patterns:
                found = re.fullmatch(pattern.match, value, re.DOTALL)
                if found is not None:
                    return True, found.expand(pattern.replace)
        return False, value

    def forward(self, value: SourceValue) -> str | None:
        return self.inner.forward(self.mapped(value)[1])

    def inverse(self, text: str | None) -> SourceValue:
        if self.bijective and text in self._first:
            return self._first[text].source
        value = self.inner.inverse(text)
        if self.bijective and self.patterns and isinstance(value, str):
            return self._from_pattern(value)
        return value

    def _from_pattern(self, value: str) -> str:
        """What the patterns make this value of; the value itself where they make it of none."""
        for pattern in self.patterns:
            both = both_ways(pattern.match, pattern.replace)
            source = both.back(value) if both is not None else None
            if source is not None and self.mapped(source) == (True, value):
                return source
        return value

    def returned(self, value: SourceValue) -> str | None:
        return None if self.mapped(value)[0] else self.inner.returned(value)

    def changes(self, value: SourceValue) -> bool:
        if self.bijective:
            return super().changes(value)
        met, _ = self.mapped(value)
        if met:
            self.forward(value)
            return True
        return self.inner.changes(value)

    @property
    def returning(self) -> tuple[Entry, ...]:
        """The entries whose values come back by themselves."""
        return tuple(self._first.values()) if self.bijective else ()

    @cached_property
    def _first(self) -> dict[str | None, Entry]:
        """By the target's text the first entry that leads to it; NULL comes back as NULL."""
        found: dict[str | None, Entry] = {}
        for entry in self.entries:
            with suppress(CannotCarry):
                text = self.inner.forward(entry.target)
                if text is not None:
                    found.setdefault(text, entry)
        return found

    def fast_sql(self, column: str) -> str | None:
        pattern = self._pattern_sql(column)
        if pattern is not None:
            # No value meets the condition that the pattern does not meet, but NULL.
            made = self.inner.fast_sql(pattern[1])
            return None if made is None else f"CASE WHEN {column} IS NOT NULL THEN {made} END"
        inner = self.inner.fast_sql(column)
        if inner is None or not self.returning:
            return inner
        terms = [
            f"WHEN {_is(column, (entry.source,))} THEN {_literal(str(text))}"
            for text, entry in self._first.items()
        ]
        return f"CASE {' '.join(terms)} ELSE {inner} END"

    def fast_condition(self, column: str) -> str | None:
        pattern = self._pattern_sql(column)
        inner = self.inner.fast_condition(column)
        if inner is None or self.fast_sql(column) is None:
            return None
        if pattern is not None:
            met, made = pattern
            return (
                f"(CASE WHEN {column} IS NULL THEN 1 WHEN {met} "
                f"THEN {self.inner.fast_condition(made)} ELSE 0 END)"
            )
        if self.patterns:
            # No SQLite expression tells what a pattern meets: text goes through Python.
            inner = f"({inner} AND typeof({column}) <> 'text')"
        returning = [e.source for e in self.returning]
        others = [e.source for e in self.entries]
        others += [e.target for e in self.returning]
        values = [*returning, *others]
        if any(isinstance(v, str) and "\x00" in v for v in values):
            return None
        if None in returning or any(isinstance(v, float) for v in values):
            return None
        terms = f"WHEN {_is(column, returning)} THEN 1 " if returning else ""
        terms += f"WHEN {_is(column, others)} THEN 0 " if others else ""
        return f"(CASE {terms}ELSE {inner} END)" if terms else inner

    def _pattern_sql(self, column: str) -> tuple[str, str] | None:
        """SQLite's predicate of what the one pattern meets, and what it makes of it; None where the
        map is another, or SQLite has none."""
        if not self.bijective or len(self.patterns) != 1 or self.entries:
            return None
        (pattern,) = self.patterns
        both = both_ways(pattern.match, pattern.replace)
        return None if both is None else sql_of(both, column)


def _is(column: str, values: Sequence[Scalar]) -> str:
    """A predicate, never NULL, for a value that is one of these, class and bytes."""
    texts = [_literal(v) for v in values if isinstance(v, str)]
    numbers = [_literal(v) for v in values if isinstance(v, int)]
    terms = [f"{column} IS NULL"] if None in values else []
    if texts:
        terms.append(
            f"typeof({column}) = 'text' AND {column} COLLATE BINARY IN ({', '.join(texts)})"
        )
    if numbers:
        terms.append(f"typeof({column}) = 'integer' AND {column} IN ({', '.join(numbers)})")
    return f"({' OR '.join(terms)})" if terms else "0"


def _literal(value: str | int | float) -> str:
    if isinstance(value, str):
        return sqlite_text(value)
    if isinstance(value, float) and math.isinf(value):
        return "9e999" if value > 0 else "-9e999"
    return repr(value)


class ConstantRule(RuleBase):
    """No value comes from the source: the column exists on the target alone."""

    kind: Literal["none"] = "none"

    def forward(self, value: SourceValue) -> str | None:
        raise _expected("no value", value)

    def inverse(self, text: str | None) -> SourceValue:
        return text


Rule = Annotated[
    IntegerRule
    | RealRule
    | NumericRule
    | BooleanRule
    | TextRule
    | WidenedTextRule
    | ByteaRule
    | WidenedByteaRule
    | BytesTextRule
    | IntegerTextRule
    | TextIntegerRule
    | UuidRule
    | JsonRule
    | JsonbRule
    | TimestampRule
    | DateRule
    | TimeRule
    | MapRule
    | ConstantRule,
    Field(discriminator="kind"),
]

MapRule.model_rebuild()

POSTGRES_TYPES: Mapping[str, str] = {
    "boolean": "boolean",
    "real": "double precision",
    "bytea": "bytea",
    "widened-text": "text",
    "widened-bytea": "bytea",
    "text-bytea": "bytea",
    "text-integer": "text",
    "uuid": "uuid",
    "json": "json",
    "jsonb": "jsonb",
    "date": "date",
}


def inside(rule: RuleBase) -> RuleBase:
    """The rule behind a map; any other rule itself."""
    return inside(rule.inner) if isinstance(rule, MapRule) else rule


def again(whole: Rule, inner: Rule) -> Rule:
    """``inner`` behind the map that ``whole`` has, where it has one."""
    if isinstance(whole, MapRule) and not isinstance(inner, MapRule):
        return whole.model_copy(update={"inner": inner})
    return inner


def under(rule: Rule, affinity: Affinity) -> Rule:
    """A rule to text that knows the affinity of its column; any other as it is."""
    if isinstance(rule, MapRule):
        return again(rule, under(rule.inner, affinity))
    if isinstance(rule, TextRule | WidenedTextRule):
        return rule.model_copy(update={"affinity": affinity})
    return rule


def base_of(type_sql: str) -> str:
    """A type without length, precision or scale."""
    return re.sub(r"\([^)]*\)", "", type_sql).strip()


def _modifier(precision: int) -> str:
    return "" if precision == moments.MICROSECOND_DIGITS else f"({precision})"


def type_of(rule: RuleBase) -> str:
    """The PostgreSQL type that goes with a rule by itself (a plan may choose a wider one)."""
    fixed = POSTGRES_TYPES.get(rule.kind)
    if fixed is not None:
        return fixed
    match rule:
        case MapRule():
            return type_of(rule.inner)
        case IntegerRule() | IntegerTextRule():
            if rule.low >= -(2**15) and rule.high < 2**15:
                return "smallint"
            return "integer" if rule.low >= -(2**31) and rule.high < 2**31 else "bigint"
        case NumericRule(precision=precision, scale=scale):
            return "numeric" if precision is None else f"numeric({precision},{scale})"
        case TextRule(max_length=length):
            return "text" if length is None else f"varchar({length})"
        case TimestampRule(precision=precision):
            return f"timestamp{_modifier(precision)} with time zone"
        case TimeRule(precision=precision):
            return f"time{_modifier(precision)}"
    raise AssertionError(f"a rule of an unknown kind: {rule.kind}")
