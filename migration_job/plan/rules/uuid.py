"""UUIDs in text, and in blobs of 16 bytes: uuid."""

from __future__ import annotations

import re
from collections import Counter
from typing import ClassVar, Literal
from uuid import UUID

from migration_job.plan.rules.base import (
    NUMBER_AFFINITIES,
    Affinity,
    Request,
    RuleBase,
    StorageClass,
    TargetType,
    expected,
    text_for,
)
from migration_job.values import SourceValue

Style = Literal["lower", "upper", "hex", "HEX"]
ByteOrder = Literal["network", "dotnet"]

_GROUPS_OF_TEXT = ((1, 8), (9, 4), (13, 4), (17, 4), (21, 12))
"""Of each group of digits without hyphens its place from 1 and its length."""

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_LIKE_NUMBER = re.compile(r"[0-9]+(e[0-9]+)?")


class UuidRule(RuleBase):
    """TEXT to uuid. Only the canonical lower-case spelling comes back; other spellings that
    PostgreSQL reads are changed to it."""

    kind: Literal["uuid"] = "uuid"
    style: Style = "lower"
    """How the column spells its UUIDs; ``hex`` and ``HEX`` have no hyphens."""
    affinity: Affinity = "text"

    types: ClassVar[tuple[TargetType, ...]] = (
        TargetType("uuid", "uuid", "TEXT", ("3430b28f-c298-4294-ab74-d146c13db605",), (16, 1)),
    )
    spelled: ClassVar[tuple[str, ...]] = ("style",)
    doc: ClassVar[str] = (
        "UUIDs in text; those in the column's commonest spelling come back as they were."
    )
    own_class: ClassVar[bool] = True
    spelling: ClassVar[bool] = True
    misfit: ClassVar[str] = "not-a-uuid"
    declared: ClassVar[frozenset[str]] = frozenset({"UUID", "GUID", "UNIQUEIDENTIFIER"})

    @classmethod
    def wished(cls, request: Request) -> RuleBase:
        # Nothing in a blob says in which order its bytes are: that is the policy's to know.
        return cls(style=_style(request), affinity=request.affinity)

    @classmethod
    def asked(cls, request: Request) -> RuleBase:
        if request.facts.classes == {"blob"}:
            return UuidBytesRule()
        return cls(style=_style(request), affinity=request.affinity)

    def spelled_as(self, other: RuleBase) -> RuleBase:
        return other if isinstance(other, UuidBytesRule) else super().spelled_as(other)

    @property
    def target_type(self) -> str:
        return "uuid"

    def forward(self, value: SourceValue) -> str | None:
        if value is None:
            return None
        text = text_for(value, "a UUID")
        bare = text.strip("{}") if text[:1] == "{" and text[-1:] == "}" else text
        digits = bare.replace("-", "").lower()
        hyphens = [i for i, c in enumerate(bare) if c == "-"]
        canonical = f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
        if hyphens not in ([], [8, 13, 18, 23]) or _UUID.fullmatch(canonical) is None:
            raise expected("a UUID", value)
        return canonical

    def inverse(self, text: str | None) -> SourceValue:
        if text is None:
            return None
        bare = text if self.style in ("lower", "upper") else text.replace("-", "")
        if self.affinity in NUMBER_AFFINITIES and _LIKE_NUMBER.fullmatch(bare) is not None:
            bare = text  # SQLite would make a number of these digits
        return bare.upper() if self.style in ("upper", "HEX") else bare

    def fast_sql(self, column: str) -> str | None:
        match self.style:
            case "lower":
                return column
            case "upper":
                return f"lower({column})"
        groups = (f"substr({column}, {place}, {count})" for place, count in _GROUPS_OF_TEXT)
        joined = " || '-' || ".join(groups)
        return f"CASE WHEN {column} IS NOT NULL THEN lower({joined}) END"

    def fast_condition(self, column: str) -> str | None:
        if self.style != "lower" and self.affinity in NUMBER_AFFINITIES:
            return None  # how digits come back is for each value to say
        # SQLite reads hexadecimal digits twice as fast as it compares 32 sets of them.
        shaped = {
            "lower": f"{column} GLOB '{_glob('[0-9a-f]')}'",
            "upper": f"{column} GLOB '{_glob('[0-9A-F]')}'",
            "hex": f"{_bare(column)} AND {column} COLLATE BINARY = lower({column})",
            "HEX": f"{_bare(column)} AND {column} COLLATE BINARY = upper({column})",
        }[self.style]
        return f"({column} IS NULL OR typeof({column}) = 'text' AND {shaped})"


def _glob(digit: str) -> str:
    return "-".join(digit * count for _, count in _GROUPS_OF_TEXT)


def _bare(column: str) -> str:
    return f"length({column}) = 32 AND unhex({column}) IS NOT NULL"


class UuidBytesRule(RuleBase):
    """Blobs of 16 bytes to uuid."""

    kind: Literal["uuid-bytes"] = "uuid-bytes"
    order: ByteOrder = "network"

    spelled: ClassVar[tuple[str, ...]] = ("order",)
    doc: ClassVar[str] = (
        "UUIDs in blobs of 16 bytes, by policy. `type: uuid` takes their bytes in order; "
        "`guid: dotnet` reverses the first three groups, as .NET's `ToByteArray()` does."
    )
    classes: ClassVar[frozenset[StorageClass]] = frozenset({"blob"})
    misfit: ClassVar[str] = "not-a-uuid"
    word: ClassVar[str] = "uuid"

    def spelled_as(self, other: RuleBase) -> RuleBase:
        return other if isinstance(other, UuidRule) else super().spelled_as(other)

    @property
    def target_type(self) -> str:
        return "uuid"

    def forward(self, value: SourceValue) -> str | None:
        if value is None:
            return None
        if not isinstance(value, bytes) or len(value) != _BYTES:
            raise expected("a UUID in a blob of 16 bytes", value)
        return str(UUID(bytes=value) if self.order == "network" else UUID(bytes_le=value))

    def inverse(self, text: str | None) -> SourceValue:
        if text is None:
            return None
        return UUID(text).bytes if self.order == "network" else UUID(text).bytes_le

    def fast_sql(self, column: str) -> str | None:
        groups = _GROUPS if self.order == "network" else _GROUPS_OF_DOTNET
        terms = (
            " || ".join(f"substr({column}, {place}, {count})" for place, count in group)
            for group in groups
        )
        joined = " || '-' || ".join(f"hex({term})" for term in terms)
        return f"CASE WHEN {column} IS NOT NULL THEN lower({joined}) END"

    def fast_condition(self, column: str) -> str | None:
        return f"({column} IS NULL OR typeof({column}) = 'blob' AND length({column}) = {_BYTES})"


_BYTES = 16
_GROUPS = [[(1, 4)], [(5, 2)], [(7, 2)], [(9, 2)], [(11, 6)]]
_GROUPS_OF_DOTNET = [
    [(4, 1), (3, 1), (2, 1), (1, 1)],
    [(6, 1), (5, 1)],
    [(8, 1), (7, 1)],
    [(9, 2)],
    [(11, 6)],
]
"""Of each group of digits its bytes: place from 1 and number."""


def _style(request: Request) -> Style:
    """The column's commonest spelling; of one without a UUID yet, what its declared length has
    room for: ``CHAR(32)`` is Django's and SQLAlchemy's, who look for 32 digits there."""
    counts: Counter[Style] = Counter()
    for value in request.facts.sample:
        if not isinstance(value, str):
            continue
        if "-" in value:
            counts["lower" if value == value.lower() else "upper"] += 1
        elif re.fullmatch(r"[0-9a-fA-F]{32}", value):
            counts["hex" if value == value.lower() else "HEX"] += 1
    if counts:
        return counts.most_common(1)[0][0]
    return "hex" if _OF_32_DIGITS.search(request.declared) else "lower"


_OF_32_DIGITS = re.compile(r"\(\s*32\s*\)")
