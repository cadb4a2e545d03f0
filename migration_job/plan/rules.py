"""Rules: how a source value becomes a target value, and how it comes back.

A rule meets every value of its column in one of three ways:

* it carries it **exactly**: ``inverse(forward(v))`` is ``v`` again, storage class and bytes;
* it **changes** it: the forward value exists, but does not come back by itself, or is another
  value by intent (a map) - such a value gets a ledger row;
* it **cannot carry** it: :class:`CannotCarry`, and the policy decides.

Forward values are ``str`` in the type's PostgreSQL input syntax (``None`` for NULL), before any
COPY escaping. ``inverse`` takes PostgreSQL's text output under the session settings
``DateStyle=ISO, TimeZone=UTC, bytea_output=hex, extra_float_digits=1, IntervalStyle=postgres``.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from migration_job.values import SourceValue, same


class CannotCarry(Exception):
    """The rule has no target value for this source value; the message says why, in lower case."""


class RuleBase(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    bijective: bool = True
    """Whether distinct source values always get distinct target values."""

    @abstractmethod
    def forward(self, value: SourceValue) -> str | None:
        """The target value as PostgreSQL input text. Raises CannotCarry."""

    @abstractmethod
    def inverse(self, text: str | None) -> SourceValue:
        """The source value for a target value's text output."""

    def changes(self, value: SourceValue) -> bool:
        """Whether ``value`` needs a ledger row. Raises CannotCarry as ``forward`` does."""
        return not same(self.inverse(self.forward(value)), value)

    def fast_sql(self, column: str) -> str | None:
        """A SQLite expression (``column`` is a quoted column reference) that gives the forward
        text of every value that meets :meth:`fast_condition`; None where there is none."""
        return None

    def fast_condition(self, column: str) -> str | None:
        """A SQLite predicate, true only for values that ``fast_sql`` converts and that need no
        ledger row (NULL included); None where there is none."""
        return None


class IntegerRule(RuleBase):
    """INTEGER to smallint, integer, bigint or numeric."""

    kind: Literal["integer"] = "integer"
    low: int = -(2**63)
    high: int = 2**63 - 1

    def forward(self, value: SourceValue) -> str | None:
        if value is None:
            return None
        if not isinstance(value, int):
            raise CannotCarry(f"expected an integer, found {type(value).__name__}")
        if not self.low <= value <= self.high:
            raise CannotCarry(f"{value} is outside {self.low}..{self.high}")
        return str(value)

    def inverse(self, text: str | None) -> SourceValue:
        return None if text is None else int(text)

    def fast_sql(self, column: str) -> str | None:
        return column

    def fast_condition(self, column: str) -> str | None:
        return (
            f"({column} IS NULL OR typeof({column}) = 'integer' "
            f"AND {column} BETWEEN {self.low} AND {self.high})"
        )


Rule = IntegerRule  # becomes the discriminated union of all rules
