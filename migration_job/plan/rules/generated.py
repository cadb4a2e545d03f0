"""Columns whose values the target makes."""

from __future__ import annotations

from typing import ClassVar, Literal

from migration_job.plan.rules.base import RuleBase, expected
from migration_job.values import SourceValue


class ConstantRule(RuleBase):
    """No value comes from the source: the column exists on the target alone."""

    kind: Literal["none"] = "none"

    doc: ClassVar[str] = "Columns that a profile adds: no value comes from the source."

    @property
    def target_type(self) -> str:
        raise AssertionError("a column of the target alone has the type that its profile gives it")

    def forward(self, value: SourceValue) -> str | None:
        raise expected("no value", value)

    def inverse(self, text: str | None) -> SourceValue:
        return text
