"""What only an application's own schema asks for: char(n), citext, enums, real, uuid from bytes."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from migration_job.plan.rules.base import (
    Affinity,
    CannotCarry,
    Request,
    RuleBase,
    StorageClass,
    TargetType,
    expected,
    text_for,
)
from migration_job.plan.rules.singles import single, single_text
from migration_job.quoting import sqlite_text
from migration_job.values import SourceValue


class CharacterRule(RuleBase):
    """TEXT to ``char(n)``, for which blanks at the end say nothing."""

    kind: Literal["character"] = "character"
    bijective: bool = False
    length: int = 1

    types: ClassVar[tuple[TargetType, ...]] = (
        TargetType(
            "character", "opaque", "TEXT", ("x",), words=("char", "bpchar"), forms=("char(n)",)
        ),
    )
    doc: ClassVar[str] = "Text without blanks at its end, of at most n characters."
    no_escapes: ClassVar[bool] = False
    unbounded: ClassVar[bool] = True
    misfit: ClassVar[str] = "too-long"

    @classmethod
    def asked(cls, request: Request) -> RuleBase:
        return cls(length=request.numbers[0] if request.numbers else 1)

    @property
    def target_type(self) -> str:
        return f"character({self.length})"

    def forward(self, value: SourceValue) -> str | None:
        if value is None:
            return None
        text = text_for(value, "text").rstrip(" ")
        if len(text) > self.length:
            raise CannotCarry(f"{len(text)} characters, {self.length} allowed")
        return text

    def inverse(self, text: str | None) -> SourceValue:
        return None if text is None else text.rstrip(" ")

    def fast_sql(self, column: str) -> str | None:
        return column

    def fast_condition(self, column: str) -> str | None:
        return (
            f"({column} IS NULL OR typeof({column}) = 'text' "
            f"AND length({column}) <= {self.length} "
            f"AND rtrim({column}, ' ') = {column} COLLATE BINARY)"
        )


class CitextRule(RuleBase):
    """TEXT to ``citext``, which compares without case: two spellings are one key there."""

    kind: Literal["citext"] = "citext"

    types: ClassVar[tuple[TargetType, ...]] = (
        TargetType("citext", "opaque", "TEXT", ("x",), extension="citext"),
    )
    doc: ClassVar[str] = (
        "Text that PostgreSQL compares without case, by policy. Keys that differ in case alone "
        "are found before the load."
    )
    no_escapes: ClassVar[bool] = False
    unbounded: ClassVar[bool] = True
    own_class: ClassVar[bool] = True
    without_case: ClassVar[bool] = True

    @property
    def target_type(self) -> str:
        return "citext"

    def forward(self, value: SourceValue) -> str | None:
        return None if value is None else text_for(value, "text")

    def inverse(self, text: str | None) -> SourceValue:
        return text

    def fast_sql(self, column: str) -> str | None:
        return column

    def fast_condition(self, column: str) -> str | None:
        return f"typeof({column}) IN ('text', 'null')"


class LabelRule(RuleBase):
    """TEXT to an enum, whose labels it has to be one of: the application's own, or one that the
    policy has the run make."""

    kind: Literal["label"] = "label"
    type: str = "text"
    labels: tuple[str, ...] = ("1", "x")
    made: bool = False
    """Whether the run makes the type."""

    doc: ClassVar[str] = "Text that is one of an enum's labels."
    no_escapes: ClassVar[bool] = False
    misfit: ClassVar[str] = "not-a-label"

    @property
    def target_type(self) -> str:
        return self.type

    def forward(self, value: SourceValue) -> str | None:
        if value is None:
            return None
        text = text_for(value, "a label")
        if text not in self.labels:
            raise expected(f"one of {', '.join(self.labels[:8])}", value)
        return text

    def inverse(self, text: str | None) -> SourceValue:
        return text

    def fast_sql(self, column: str) -> str | None:
        return column

    def fast_condition(self, column: str) -> str | None:
        labels = ", ".join(sqlite_text(label) for label in self.labels)
        return (
            f"({column} IS NULL OR typeof({column}) = 'text' "
            f"AND {column} COLLATE BINARY IN ({labels}))"
        )


class SingleRule(RuleBase):
    """Numbers to ``real``, which has six digits that are sure: what has more is rounded, and in the
    ledger."""

    kind: Literal["single"] = "single"
    bijective: bool = False
    affinity: Affinity = "real"

    types: ClassVar[tuple[TargetType, ...]] = (
        TargetType("real", "opaque", "REAL", ("1.5",), (4, 4), words=("float4",)),
    )
    doc: ClassVar[str] = (
        "Numbers; those that 24 bits hold come back as they were, others are rounded, with a "
        "ledger row."
    )
    canonical: ClassVar[bool] = False
    classes: ClassVar[frozenset[StorageClass]] = frozenset({"real", "integer"})

    @classmethod
    def asked(cls, request: Request) -> RuleBase:
        return cls(affinity=request.affinity)

    @property
    def target_type(self) -> str:
        return "real"

    def forward(self, value: SourceValue) -> str | None:
        if value is None:
            return None
        if not isinstance(value, int | float):
            raise expected("a number", value)
        if math.isinf(value):
            return "Infinity" if value > 0 else "-Infinity"
        nearest = single(float(value))
        if math.isinf(nearest):
            raise CannotCarry(f"{value!r} is beyond real")
        return single_text(nearest)

    def inverse(self, text: str | None) -> SourceValue:
        if text is None or text == "NaN":
            return text
        real = float(text)
        whole = real.is_integer() and abs(real) < 2**53 and self.affinity in ("integer", "numeric")
        return int(real) if whole else real

    def returned(self, value: SourceValue) -> str | None:
        return "NaN" if value == "NaN" else None
