"""Numbers and truth values: smallint, integer, bigint, double precision, numeric, boolean."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import ClassVar, Literal

from migration_job.plan.facts import ColumnFacts
from migration_job.plan.rules.base import (
    INT64_HIGH,
    INT64_LOW,
    NUMBER_AFFINITIES,
    Affinity,
    CannotCarry,
    Request,
    RuleBase,
    StorageClass,
    TargetType,
    expected,
    text_for,
)
from migration_job.stores.sqlite.database import POSITIONAL
from migration_job.values import SourceValue, positional, same

INT2 = (-(2**15), 2**15 - 1)
INT4 = (-(2**31), 2**31 - 1)
INT8 = (INT64_LOW, INT64_HIGH)
"""The lowest and the highest value of PostgreSQL's integer types."""

MAX_NUMERIC_PRECISION = 1000
"""PostgreSQL's limit of a declared numeric(p,s)."""

BOUNDS = {"smallint": INT2, "integer": INT4, "bigint": INT8}


def _integer_type(low: int, high: int) -> str:
    """The narrowest type that holds the two bounds."""
    for name, (lowest, highest) in BOUNDS.items():
        if lowest <= low and high <= highest:
            return name
    return "bigint"


class IntegerRule(RuleBase):
    """INTEGER to smallint, integer, bigint or numeric."""

    kind: Literal["integer"] = "integer"
    low: int = INT64_LOW
    high: int = INT64_HIGH

    types: ClassVar[tuple[TargetType, ...]] = (
        TargetType("smallint", "integer", "INTEGER", ("7",), (2, 2), ("int2",)),
        TargetType("integer", "integer", "INTEGER", ("7",), (4, 4), ("int", "int4", "serial")),
        TargetType("bigint", "integer", "INTEGER", ("7",), (8, 8), ("int8", "bigserial")),
    )
    doc: ClassVar[str] = "Integers. `bigint` where the declared type or a value asks for it."
    classes: ClassVar[frozenset[StorageClass]] = frozenset({"integer"})
    own_class: ClassVar[bool] = True
    misfit: ClassVar[str] = "out-of-range"

    @classmethod
    def asked(cls, request: Request) -> RuleBase:
        low, high = BOUNDS[request.type]
        if request.facts.classes == {"text"}:
            return IntegerTextRule(low=low, high=high)
        return cls(low=low, high=high)

    @property
    def target_type(self) -> str:
        return _integer_type(self.low, self.high)

    def implied_by(self, facts: ColumnFacts) -> bool:
        low, high = facts.low or 0, facts.high or 0
        return facts.classes <= {"integer"} and self.low <= low and high <= self.high

    def forward(self, value: SourceValue) -> str | None:
        if value is None:
            return None
        if not isinstance(value, int):
            raise expected("an integer", value)
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
    return in_places(*fewest_digits(Decimal(repr(value))), places=15)


def fewest_digits(number: Decimal) -> tuple[bool, str, int]:
    """Whether a number is below 0, its digits without zeros at the end, and the power of ten of
    the first of them."""
    sign, digits, power = number.as_tuple()
    return bool(sign), "".join(map(str, digits)).rstrip("0"), len(digits) + int(power) - 1


def in_places(negative: bool, text: str, exponent: int, *, places: int) -> str:
    """Digits as PostgreSQL places them: with an exponent below 1e-4, and from 10 to the power of
    ``places`` on."""
    if -4 <= exponent < places:
        if exponent >= len(text) - 1:
            body = text.ljust(exponent + 1, "0")
        elif exponent >= 0:
            body = text[: exponent + 1] + "." + text[exponent + 1 :]
        else:
            body = "0." + "0" * (-exponent - 1) + text
    else:
        mark = "-" if exponent < 0 else "+"
        body = text[0] + ("." + text[1:] if len(text) > 1 else "") + f"e{mark}{abs(exponent):02d}"
    return ("-" if negative else "") + body


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

    types: ClassVar[tuple[TargetType, ...]] = (
        TargetType("double precision", "real", "REAL", ("1.5",), (8, 8), ("float8", "double")),
    )
    doc: ClassVar[str] = "Reals, and integers that a real holds exactly."
    canonical: ClassVar[bool] = False
    # Nor is forward always: PostgreSQL prints one digit more than the shortest for some reals.
    classes: ClassVar[frozenset[StorageClass]] = frozenset({"real"})
    own_class: ClassVar[bool] = True

    @classmethod
    def asked(cls, request: Request) -> RuleBase:
        return cls(affinity=request.affinity)

    @property
    def target_type(self) -> str:
        return "double precision"

    def forward(self, value: SourceValue) -> str | None:
        if value is None:
            return None
        if isinstance(value, int) and not isinstance(value, bool):
            if int(float(value)) != value:
                raise CannotCarry(f"{value} is not exact in double precision")
            return postgres_float(float(value))
        if not isinstance(value, float):
            raise expected("a real", value)
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
    texts: bool = False
    """Whether text that spells a number is carried as it, with a ledger row."""

    types: ClassVar[tuple[TargetType, ...]] = (
        TargetType(
            "numeric",
            "numeric",
            "NUMERIC",
            ("0",),
            words=("decimal",),
            forms=("numeric", "numeric(p,s)"),
        ),
    )
    doc: ClassVar[str] = (
        "Integers and reals, each as what it was; with a precision, numbers that fit it exactly: "
        "nothing is rounded."
    )
    classes: ClassVar[frozenset[StorageClass]] = frozenset({"integer", "real"})
    declared_first: ClassVar[frozenset[str]] = frozenset({"DECIMAL", "NUMERIC", "NUMBER", "DEC"})

    @classmethod
    def wished(cls, request: Request) -> RuleBase:
        numbers = request.numbers
        if numbers and 1 <= numbers[0] <= MAX_NUMERIC_PRECISION and numbers[-1] <= numbers[0]:
            return cls._made(request)
        return cls(affinity=request.affinity)

    @classmethod
    def asked(cls, request: Request) -> RuleBase:
        classes, made = request.facts.classes, cls._made(request)
        if "text" not in classes:
            return made
        if classes == {"text"} and request.affinity not in NUMBER_AFFINITIES:
            return DecimalTextRule(precision=made.precision, scale=made.scale)
        return made.model_copy(update={"texts": True})

    @classmethod
    def _made(cls, request: Request) -> NumericRule:
        if not request.numbers:
            return cls(affinity=request.affinity)
        precision, scale = (*request.numbers, 0)[:2]
        return cls(precision=precision, scale=scale, affinity=request.affinity)

    @property
    def target_type(self) -> str:
        return _numeric_type(self.precision, self.scale)

    def forward(self, value: SourceValue) -> str | None:
        if value is None:
            return None
        if self.texts and isinstance(value, str):
            return _decimal(value, self.precision, self.scale)
        if not isinstance(value, int | float):
            raise expected("a number", value)
        if isinstance(value, float) and math.isinf(value):
            if self.precision is not None:
                raise CannotCarry(f"{value} does not fit {self.target_type}")
            return "Infinity" if value > 0 else "-Infinity"
        if self.precision is None:
            if isinstance(value, float):
                text = positional(value)
                return text[1:] if value == 0 and text.startswith("-") else text
            return str(value)
        return self._in_precision(value, self.precision)

    def _in_precision(self, value: float, precision: int) -> str:
        """The number with as many decimals as the type has. Raises CannotCarry."""
        number = Decimal(repr(value))
        _, digits, power = number.as_tuple()
        decimals = max(0, -int(power) - _trailing_zeros(digits)) if number else 0
        if decimals > self.scale:
            raise CannotCarry(f"{value!r} has {decimals} decimals, {self.target_type} keeps fewer")
        if number and number.adjusted() + 1 > precision - self.scale:
            raise CannotCarry(f"{value!r} does not fit {self.target_type}")
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

    types: ClassVar[tuple[TargetType, ...]] = (
        TargetType("boolean", "boolean", "BOOLEAN", ("t", "f"), (1, 1), ("bool",)),
    )
    doc: ClassVar[str] = "The integers 0 and 1."
    classes: ClassVar[frozenset[StorageClass]] = frozenset({"integer"})
    own_class: ClassVar[bool] = True
    misfit: ClassVar[str] = "not-a-boolean"
    declared_first: ClassVar[frozenset[str]] = frozenset({"BOOL", "BOOLEAN"})

    @property
    def target_type(self) -> str:
        return "boolean"

    def implied_by(self, facts: ColumnFacts) -> bool:
        return facts.classes <= {"integer"} and {facts.low or 0, facts.high or 0} <= {0, 1}

    def forward(self, value: SourceValue) -> str | None:
        if value is None:
            return None
        if not isinstance(value, int) or value not in (0, 1):
            raise expected("0 or 1", value)
        return "t" if value else "f"

    def inverse(self, text: str | None) -> SourceValue:
        return None if text is None else int(text == "t")

    def fast_sql(self, column: str) -> str | None:
        return f"CASE {column} WHEN 1 THEN 't' WHEN 0 THEN 'f' END"

    def fast_condition(self, column: str) -> str | None:
        return f"({column} IS NULL OR typeof({column}) = 'integer' AND {column} BETWEEN 0 AND 1)"


class IntegerTextRule(RuleBase):
    """TEXT that spells an integer, to an integer type: a reference to an integer key."""

    kind: Literal["integer-text"] = "integer-text"
    low: int = INT64_LOW
    high: int = INT64_HIGH

    doc: ClassVar[str] = "Text that spells an integer, in a column that is or refers to one."

    @property
    def target_type(self) -> str:
        return _integer_type(self.low, self.high)

    def forward(self, value: SourceValue) -> str | None:
        if value is None:
            return None
        text = text_for(value, "text that spells an integer")
        if re.fullmatch(r"0|-?[1-9][0-9]{0,18}", text, re.ASCII) is None:
            raise expected("text that spells an integer", value)
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


class DecimalTextRule(RuleBase):
    """TEXT that spells a decimal number, to numeric: the text comes back as PostgreSQL prints the
    number, so that with a precision its scale is the spelling."""

    kind: Literal["numeric-text"] = "numeric-text"
    bijective: bool = False
    precision: int | None = None
    scale: int = 0

    doc: ClassVar[str] = (
        "Text that spells a decimal number, where the policy says `numeric`. `0.10` comes back as "
        "`0.10`; with a scale every number has that many decimals. Other spellings (`+1`, `.5`, "
        "`007`) are in the ledger."
    )
    unbounded: ClassVar[bool] = True

    @property
    def target_type(self) -> str:
        return _numeric_type(self.precision, self.scale)

    def forward(self, value: SourceValue) -> str | None:
        if value is None:
            return None
        return _decimal(text_for(value, _SPELLED), self.precision, self.scale)

    def inverse(self, text: str | None) -> SourceValue:
        return text

    def returned(self, value: SourceValue) -> str | None:
        return str(value) if value in ("NaN", "Infinity", "-Infinity") else None

    def fast_sql(self, column: str) -> str | None:
        return column

    def fast_condition(self, column: str) -> str | None:
        body = f"ltrim({column}, '-')"
        terms = [
            f"typeof({column}) = 'text'",
            f"length({column}) = octet_length({column})",
            f"length({column}) < {_SHORT}",
            f"{body} NOT GLOB '*[^0-9.]*'",
            f"{body} GLOB '[0-9]*'",
            f"{body} NOT GLOB '0[0-9]*'",
            f"(length({column}) = length({body}) OR {column} GLOB '-[0-9]*[1-9]*' "
            f"OR {column} GLOB '-[1-9]*')",
        ]
        if self.precision is None:
            terms += [f"{body} NOT GLOB '*.*.*'", f"{body} GLOB '*[0-9]'"]
        elif not 0 <= self.scale < self.precision:
            return "0"
        else:
            most = self.precision + (1 if self.scale else 0)
            digits = "[0-9]" * self.scale
            terms.append(f"length({body}) <= {most}")
            terms += (
                [f"{body} GLOB '*[0-9].{digits}'", f"{body} NOT GLOB '*.*.*'"]
                if self.scale
                else [f"NOT instr({body}, '.')"]
            )
        return f"({column} IS NULL OR {' AND '.join(terms)})"


_SPELLED = "text that spells a decimal number"
_SHORT = 100
"""Characters of a number that SQLite looks at by itself."""
_DECIMAL = re.compile(r"([+-]?)([0-9]*)(?:\.([0-9]*))?", re.ASCII)
MOST_WHOLE, MOST_BROKEN = 131_072, 16_383
"""Digits that PostgreSQL's numeric has room for before the point, and after it."""


def _numeric_type(precision: int | None, scale: int) -> str:
    return "numeric" if precision is None else f"numeric({precision},{scale})"


def _decimal(text: str, precision: int | None, scale: int) -> str:
    """PostgreSQL's output text of the number that the text spells; nothing is rounded. Raises
    CannotCarry for other text, and for a number that the type does not hold."""
    found = _DECIMAL.fullmatch(text)
    if found is None or not (found[2] or found[3]):
        raise expected(_SPELLED, text)
    whole, fraction = found[2].lstrip("0"), found[3] or ""
    if precision is not None:
        _require_fit(text, (whole, fraction), precision, scale)
        fraction = fraction[: max(scale, 0)].ljust(max(scale, 0), "0")
    elif len(whole) > MOST_WHOLE or len(fraction) > MOST_BROKEN:
        raise CannotCarry(f"a number of {len(text):,} characters does not fit numeric")
    sign = "-" if found[1] == "-" and (whole or fraction.strip("0")) else ""
    return f"{sign}{whole or '0'}" + (f".{fraction}" if fraction else "")


def _require_fit(text: str, digits: tuple[str, str], precision: int, scale: int) -> None:
    """Raise CannotCarry where a number, its digits before and after the point, has more than the
    type keeps."""
    whole, fraction = digits
    needed = len(fraction.rstrip("0"))
    dropped = len(whole) - len(whole.rstrip("0")) if whole else -scale
    if needed > max(scale, 0) or (scale < 0 and dropped < -scale):
        raise CannotCarry(
            f"{text!r} has {needed} decimals, {_numeric_type(precision, scale)} keeps fewer"
        )
    first = len(whole) or -(len(fraction) - len(fraction.lstrip("0")))
    if (whole or fraction.strip("0")) and first > precision - scale:
        raise CannotCarry(f"{text!r} does not fit {_numeric_type(precision, scale)}")


def number_text(value: float) -> str:
    """A real as text that SQLite reads back as the same real."""
    if math.isinf(value):
        return "Inf" if value > 0 else "-Inf"
    return repr(value)
