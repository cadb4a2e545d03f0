"""Numbers that SQLite keeps as reals or as text, to a numeric that the application has declared."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
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


class ShownNumericRule(NumericRule):
    """To ``numeric``: as :class:`NumericRule`, and a real that is the next to the one of its 15
    digits is those digits (between 1e-4 and 1e15). SQLite before 3.42 made such a real of a text
    such as 995585.065122, and shows those digits of it; the ledger has the real."""

    kind: Literal["shown-numeric"] = "shown-numeric"  # type: ignore[assignment]
    bijective: bool = False

    types: ClassVar[tuple[TargetType, ...]] = ()
    doc: ClassVar[str] = (
        "Decimal numbers in reals: one that is the next to the real of its 15 digits is those "
        "digits, with a ledger row."
    )
    declared_first: ClassVar[frozenset[str]] = frozenset()

    def forward(self, value: SourceValue) -> str | None:
        shown = _shown(value) if isinstance(value, float) else None
        return super().forward(value if shown is None else shown)

    def fast_condition(self, column: str) -> str | None:
        condition = super().fast_condition(column)
        if self.precision is not None or condition is None:
            return condition
        # Of a real with more digits Python says whether it is the next to another.
        short = f"CAST(printf('%!.15g', {column}) AS REAL) = {column}"
        moderate = f"{column} > -1e15 AND {column} < 1e15 AND {column} NOT BETWEEN -1e-4 AND 1e-4"
        return f"({condition} AND (typeof({column}) <> 'real' OR NOT ({moderate}) OR {short}))"

    @classmethod
    def fits(cls, sample: Sequence[SourceValue]) -> bool:
        """Whether these are decimal numbers of at most 15 digits: each real is the one of its 15
        digits, or the next to it."""
        reals = [value for value in sample if isinstance(value, float) and math.isfinite(value)]
        return bool(reals) and all(_has_15(real) or _shown(real) is not None for real in reals)


def _has_15(value: float) -> bool:
    return float(f"{value:.15g}") == value


def _shown(value: float) -> float | None:
    """The real of the 15 digits that are shown of a real of usual size, where it is the next one to
    that."""
    if not 1e-4 < abs(value) < 1e15:
        return None
    digits = float(f"{value:.15g}")
    return digits if digits != value and math.nextafter(value, digits) == digits else None


_DECIMAL = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?", re.ASCII)


class PaddedNumericRule(RuleBase):
    """TEXT that spells a decimal number, to numeric."""

    kind: Literal["padded-numeric"] = "padded-numeric"
    bijective: bool = False
    precision: int | None = None
    scale: int = 0
    places: int | None = None
    """How many decimals the column's texts have at least; None: as many as the type."""

    spelled: ClassVar[tuple[str, ...]] = ("places",)
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
