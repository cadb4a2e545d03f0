"""Numbers that SQLite keeps as reals or as text, to a numeric that the application has declared."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import ClassVar, Literal

from migration_job.plan.rules.base import CannotCarry, RuleBase, StorageClass, TargetType, text_for
from migration_job.plan.rules.numbers import NumericRule
from migration_job.values import SourceValue, same


class NearNumericRule(NumericRule):
    """To a ``numeric(p,s)`` that exists: as :class:`NumericRule`, and a real whose first 15 digits
    fit is that number. Beyond them are the traces of an arithmetic with reals
    (995585.0651219999), which the application rounds away when it reads; the ledger has them."""

    kind: Literal["near-numeric"] = "near-numeric"  # type: ignore[assignment]

    types: ClassVar[tuple[TargetType, ...]] = ()
    doc: ClassVar[str] = (
        "Numbers to a numeric(p,s) that exists: a real whose first 15 digits fit is that number, "
        "with a ledger row where it has more."
    )
    declared_first: ClassVar[frozenset[str]] = frozenset()

    def forward(self, value: SourceValue) -> str | None:
        try:
            return super().forward(value)
        except CannotCarry:
            if not isinstance(value, float):
                raise
            return super().forward(float(f"{value:.15g}"))


_DECIMAL = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?", re.ASCII)


class PaddedNumericRule(RuleBase):
    """TEXT that spells a decimal number, to numeric."""

    kind: Literal["padded-numeric"] = "padded-numeric"
    bijective: bool = False
    precision: int | None = None
    scale: int = 0
    places: int | None = None
    """How many decimals the column's texts have at least; None: as many as the type."""

    doc: ClassVar[str] = "Decimal numbers in text; those spelled as the column's others come back."
    unbounded: ClassVar[bool] = True
    classes: ClassVar[frozenset[StorageClass]] = frozenset({"text"})
    misfit: ClassVar[str] = "not-a-number"

    @property
    def target_type(self) -> str:
        return "numeric" if self.precision is None else f"numeric({self.precision},{self.scale})"

    def forward(self, value: SourceValue) -> str | None:
        if value is None:
            return None
        text = text_for(value, "a decimal number")
        if _DECIMAL.fullmatch(text) is None:
            raise CannotCarry(f"expected a decimal number, found text {text[:60]!r}")
        if self.precision is None:
            return text if Decimal(text) else text.removeprefix("-")  # there is one zero
        sign = "-" * text.startswith("-")
        whole, _, fraction = text.removeprefix("-").partition(".")
        # By its digits: arithmetic with decimals has a precision of its own.
        digits = (whole + fraction.rstrip("0").ljust(max(0, self.scale), "0")).lstrip("0")
        beyond = len(fraction.rstrip("0")) > max(0, self.scale)
        unround = self.scale < 0 and not digits.endswith("0" * -self.scale) and digits
        if beyond or unround or len(digits) > max(self.precision, self.precision - self.scale):
            raise CannotCarry(f"{text[:60]} does not fit {self.target_type}")
        kept = fraction[: max(0, self.scale)].ljust(max(0, self.scale), "0")
        return f"{sign if digits else ''}{whole}" + (f".{kept}" if kept else "")

    def inverse(self, text: str | None) -> SourceValue:
        if text is None or self.places is None or _DECIMAL.fullmatch(text) is None:
            return text
        whole, _, fraction = text.partition(".")
        fraction = fraction.rstrip("0").ljust(self.places, "0")
        return f"{whole}.{fraction}" if fraction else whole

    def returned(self, value: SourceValue) -> str | None:
        special = isinstance(value, str) and value in ("NaN", "Infinity", "-Infinity")
        return str(value) if special else None

    @classmethod
    def like(
        cls, sample: list[SourceValue], precision: int | None, scale: int
    ) -> PaddedNumericRule:
        """The rule whose spelling most of the sample has."""
        candidates = [
            cls(precision=precision, scale=scale, places=places) for places in (None, 0, 1, 2)
        ]
        return max(candidates, key=lambda rule: sum(rule.keeps(value) for value in sample))

    def keeps(self, value: SourceValue) -> bool:
        """Whether the value comes back as it was."""
        try:
            return value is not None and same(self.inverse(self.forward(value)), value)
        except CannotCarry:
            return False
