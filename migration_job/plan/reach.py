"""How far arithmetic goes. SQLite makes a real of an integer beyond 64 bits and infinity of a real
beyond the largest; PostgreSQL refuses either, and with it the row, the index or the load."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

from migration_job.plan.facts import ColumnFacts

LOWEST, HIGHEST = -(2**63), 2**63 - 1

Span = tuple[int, int]
"""The least and the greatest of integers."""


@dataclass(frozen=True, slots=True)
class Reach:
    """The integers that an expression can give."""

    ever: Span
    """By the types of its columns."""
    now: Span
    """By the values that the source has."""

    @property
    def fits(self) -> bool:
        """Whether PostgreSQL computes the expression whatever the columns come to hold."""
        return _fits(self.ever)

    @property
    def fits_now(self) -> bool:
        """Whether it fits 64 bits with the values that the rows have now."""
        return _fits(self.now)


def exactly(low: int, high: int) -> Reach:
    """The reach of what is between both, now and ever."""
    return Reach((low, high), (low, high))


ANY = exactly(LOWEST, HIGHEST)
BIT = exactly(0, 1)
LENGTH = exactly(0, 2**31 - 1)
COUNT = exactly(0, 2**40)

GROUP = 2**24
"""Rows that a sum is taken to be over: a view is not given up for a sum that could overflow over
more. SQLite ends a sum that does with an error itself."""

_TYPES = {
    "smallint": exactly(-(2**15), 2**15 - 1),
    "integer": exactly(-(2**31), 2**31 - 1),
    "bigint": ANY,
}


def of_column(type_sql: str, facts: ColumnFacts, *, exact: bool) -> Reach:
    """The integers of a column of that type; ``exact``: its values are the source's own."""
    whole = _TYPES.get(type_sql, ANY)
    if not exact or not facts.classes <= {"integer"}:
        return whole
    low, high = facts.low or 0, facts.high or 0
    return Reach(whole.ever, (max(low, whole.ever[0]), min(high, whole.ever[1])))


def joined(reaches: Sequence[Reach]) -> Reach:
    """Of an expression that is one of several."""
    return Reach(_around([r.ever for r in reaches]), _around([r.now for r in reaches]))


def computed(left: Reach, sign: str, right: Reach) -> Reach:
    """Of an operation, which may not :attr:`~Reach.fits`."""
    return Reach(
        _computed(left.ever, sign, right.ever),
        _computed(left.now, sign, right.now),
    )


def summed(part: Reach) -> Reach:
    """The reach of a sum of such values, over as many rows as a group may have."""
    rows = exactly(0, GROUP)
    return within(Reach(ANY.ever, _computed(part.now, "*", rows.now)))


def within(reach: Reach) -> Reach:
    """What is left once PostgreSQL has computed it: 64 bits."""
    return Reach(_cut(reach.ever), _cut(reach.now))


def _fits(span: Span) -> bool:
    return span[0] >= LOWEST and span[1] <= HIGHEST


def _cut(span: Span) -> Span:
    low, high = (min(max(end, LOWEST), HIGHEST) for end in span)
    return low, high


def _around(spans: Sequence[Span]) -> Span:
    return (min(low for low, _ in spans), max(high for _, high in spans)) if spans else (0, 0)


_ENDS: dict[str, Callable[[int, int], int]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
}


def _computed(left: Span, sign: str, right: Span) -> Span:
    operation = _ENDS.get(sign)
    if operation is not None:
        ends = [operation(a, b) for a, b in product(left, right)]
        return min(ends), max(ends)
    largest = max(abs(end) for end in left)
    if sign == "%":
        largest = min(largest, max(abs(end) for end in right))
    # The lowest integer has no opposite.
    beyond = sign == "/" and right[0] <= -1 <= right[1]
    return -largest, largest if beyond else min(largest, HIGHEST)


@dataclass(frozen=True, slots=True)
class Risk:
    """An operation of an expression that PostgreSQL may refuse to compute."""

    text: str
    """The operation as the source spells it."""
    overflow: str
    """SQLite's condition for the rows in which it goes beyond what PostgreSQL computes."""
    reach: Reach | None
    """None for reals."""
    of_one_value: bool = False
    """Whether the lowest integer alone makes it go beyond."""
    why: str = ""
    """What stands in the way, where it is not that PostgreSQL ends with an error."""

    @property
    def possible_now(self) -> bool:
        """Whether some row that is there now may have it."""
        return self.reach is None or not self.reach.fits_now

    @property
    def worth_a_word(self) -> bool:
        """Whether values that may well come make it go beyond."""
        return self.reach is not None and not self.of_one_value


def whole_risk(text: str, reach: Reach, *, of_one_value: bool = False) -> Risk:
    """Of integers."""
    overflow = f"(typeof({text}) = 'real' AND abs({text}) >= 9.2e18)"
    return Risk(text, overflow, reach, of_one_value)


_EXACT = 2**53


def beside_a_real(text: str, reach: Reach, real: str) -> Risk | None:
    """Of an integer that is compared with a real, which PostgreSQL makes a double of; None where
    every double is exact."""
    if reach.ever[0] >= -_EXACT and reach.ever[1] <= _EXACT:
        return None
    return Risk(
        text,
        f"(typeof({text}) = 'integer' AND {text} NOT BETWEEN -{_EXACT} AND {_EXACT} "
        f"AND {real} IS NOT NULL)",
        None,
        why=f"{text} is beyond 2^53 in a row: SQLite alone compares it exactly with a real",
    )


def real_risk(text: str, left: str, sign: str, right: str) -> Risk:
    """Of reals: a result without end or, where it should not be, zero, NULL for what is no
    number."""
    terms = [
        f"(abs({text}) = 9e999 AND abs({left}) < 9e999 AND abs({right}) < 9e999)",
        f"({text} IS NULL AND {left} IS NOT NULL AND {right} {_is_there(sign)})",
    ]
    if sign == "*":
        terms.append(f"({text} = 0 AND {left} <> 0 AND {right} <> 0)")
    if sign == "/":
        terms.append(f"({text} = 0 AND {left} <> 0 AND abs({right}) < 9e999)")
    return Risk(text, f"({' OR '.join(terms)})", None)


def _is_there(sign: str) -> str:
    return "<> 0" if sign == "/" else "IS NOT NULL"
