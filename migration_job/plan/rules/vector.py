"""Vectors of pgvector: blobs of singles, and lists of numbers in text."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Sequence
from typing import ClassVar, Literal

from migration_job.plan.rules.arrays import has_blanks, has_decimals
from migration_job.plan.rules.base import (
    CannotCarry,
    Request,
    RuleBase,
    StorageClass,
    TargetType,
    expected,
    text_for,
)
from migration_job.plan.rules.singles import single, single_text
from migration_job.plural import counted
from migration_job.values import SourceValue

MOST_DIMENSIONS = 16_000
"""pgvector's limit (VECTOR_MAX_DIM in its vector.h)."""

_SINGLE = 4
"""Bytes of a number of a vector."""


class VectorRule(RuleBase):
    """A vector: a blob of little-endian singles (as NumPy's ``float32``, sqlite-vec and most
    clients write them), or a list in JSON."""

    kind: Literal["vector"] = "vector"
    bijective: bool = False
    blobs: bool = True
    """Whether the column's values are blobs; otherwise they are text."""
    dimensions: int | None = None
    spaced: bool = True
    """Whether text has a blank after each comma."""
    pointed: bool = True
    """Whether text writes whole numbers with a point, as ``1.0``."""

    types: ClassVar[tuple[TargetType, ...]] = (
        TargetType(
            *("vector", "opaque", "BLOB", ("[1,-2.5,1e-07]",)),
            extension="vector",
            forms=("vector(n)", "vector"),
        ),
    )
    spelled: ClassVar[tuple[str, ...]] = ("blobs", "spaced", "pointed")
    doc: ClassVar[str] = (
        "Vectors of pgvector, by policy: blobs of little-endian singles come back as they were, "
        "and so do lists in JSON spelled as the column's others, of numbers that 24 bits hold."
    )
    unbounded: ClassVar[bool] = True
    classes: ClassVar[frozenset[StorageClass]] = frozenset({"blob", "text"})
    misfit: ClassVar[str] = "not-a-vector"

    @classmethod
    def asked(cls, request: Request) -> RuleBase:
        texts = [value for value in request.facts.sample if isinstance(value, str)]
        blobs = request.facts.classes != {"text"}
        return cls(
            bijective=blobs,
            blobs=blobs,
            dimensions=request.numbers[0] if request.numbers else None,
            spaced=has_blanks(texts),
            pointed=has_decimals(texts),
        )

    @property
    def target_type(self) -> str:
        return "vector" if self.dimensions is None else f"vector({self.dimensions})"

    def forward(self, value: SourceValue) -> str | None:
        if value is None:
            return None
        numbers = self._of_blob(value) if self.blobs else self._of_text(value)
        wanted = self.dimensions or len(numbers)
        if not numbers or len(numbers) > MOST_DIMENSIONS or len(numbers) != wanted:
            allowed = f"1 to {MOST_DIMENSIONS:,}" if self.dimensions is None else f"{wanted:,}"
            raise CannotCarry(f"a vector of {counted(len(numbers), 'number')}, {allowed} allowed")
        return "[" + ",".join(map(single_text, numbers)) + "]"

    def _of_blob(self, value: SourceValue) -> Sequence[float]:
        if not isinstance(value, bytes) or len(value) % _SINGLE:
            raise expected("a vector in a blob, four bytes a number", value)
        numbers = struct.unpack(f"<{len(value) // _SINGLE}f", value)
        if not all(map(math.isfinite, numbers)):
            raise CannotCarry("a vector with an infinite number or NaN, which pgvector refuses")
        return numbers

    def _of_text(self, value: SourceValue) -> Sequence[float]:
        text = text_for(value, "a vector in text, as [1, 2.5]")
        try:
            found = json.loads(text, parse_int=float, parse_constant=_no_number)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, list) or not all(isinstance(part, float) for part in found):
            raise expected("a vector in text, as [1, 2.5]", value)
        numbers = [single(part) for part in found]
        if not all(map(math.isfinite, numbers)):
            raise CannotCarry("a vector with a number beyond what pgvector holds")
        return numbers

    def inverse(self, text: str | None) -> SourceValue:
        if text is None:
            return None
        parts = text.removeprefix("[").removesuffix("]").split(",")
        try:
            numbers = [single(float(part)) for part in parts]
        except ValueError:
            return text
        if self.blobs:
            return struct.pack(f"<{len(numbers)}f", *numbers)
        return "[" + (", " if self.spaced else ",").join(map(self._spelled, parts)) + "]"

    def sized(self, natural: str) -> str:
        parts = natural[1:-1].split(",")
        numbers = (parts[i % len(parts)] for i in range(self.dimensions or len(parts)))
        return f"[{','.join(numbers)}]"

    def changes(self, value: SourceValue) -> bool:
        if not self.blobs:
            return super().changes(value)
        self.forward(value)  # raises CannotCarry
        return False  # each of its singles has a text of its own

    def _spelled(self, part: str) -> str:
        """As JSON of most libraries: the fewest digits that name the single."""
        value = float(part)
        if value.is_integer() and abs(value) < 1e15:
            whole = str(int(value)) if value or math.copysign(1, value) > 0 else "-0"
            return whole + ".0" if self.pointed else whole
        return part if "e" not in part else repr(value)


def _no_number(name: str) -> float:
    raise ValueError(f"no number of JSON's: {name}")
