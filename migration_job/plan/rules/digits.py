"""Integers whose digits SQLite holds as a BLOB."""

from __future__ import annotations

import re
from typing import ClassVar, Literal

from migration_job.plan.rules.base import CannotCarry, RuleBase, StorageClass, expected
from migration_job.values import SourceValue, display

_DIGITS = re.compile(rb"0|-?[1-9][0-9]*")
_BITS = {"smallint": 16, "integer": 32, "bigint": 64}
_MOST_DIGITS = 1_000
"""Of a numeric without a precision: far fewer than PostgreSQL takes."""


class DigitBytesRule(RuleBase):
    """A BLOB that spells an integer in ASCII (drizzle's ``blob`` of the mode ``bigint``), to a type
    of integers, or to a numeric without decimals."""

    kind: Literal["digit-bytes"] = "digit-bytes"
    type: str = "bigint"

    doc: ClassVar[str] = "Integers that a BLOB spells in digits, as drizzle writes a `bigint`."
    classes: ClassVar[frozenset[StorageClass]] = frozenset({"blob"})
    misfit: ClassVar[str] = "not-a-number"

    @property
    def target_type(self) -> str:
        return self.type

    def forward(self, value: SourceValue) -> str | None:
        if value is None:
            return None
        if not isinstance(value, bytes) or _DIGITS.fullmatch(value[: _MOST_DIGITS + 2]) is None:
            raise expected("a blob that spells an integer", value)
        if len(value) > _MOST_DIGITS or not self._holds(int(value)):
            raise CannotCarry(f"{display(value, 60)} is beyond {self.type}")
        return value.decode()

    def _holds(self, number: int) -> bool:
        bits = _BITS.get(self.type)
        if bits is not None:
            return -(1 << bits - 1) <= number < 1 << bits - 1
        precision = re.search(r"\((\d+)", self.type)
        return precision is None or abs(number) < 10 ** int(precision[1])

    def inverse(self, text: str | None) -> SourceValue:
        return None if text is None else text.encode()
