"""Bytes: bytea."""

from __future__ import annotations

from typing import ClassVar, Literal

from migration_job.plan.facts import ColumnFacts
from migration_job.plan.rules.base import Request, RuleBase, StorageClass, TargetType, expected
from migration_job.plan.rules.numbers import number_text
from migration_job.values import BrokenText, SourceValue


class _BlobRule(RuleBase):
    """What the rules have in common that carry blobs as they are. It is no kind of its own."""

    no_escapes: ClassVar[bool] = False
    bytea: ClassVar[bool] = True
    unbounded: ClassVar[bool] = True
    streamed: ClassVar[StorageClass | None] = "blob"

    @property
    def target_type(self) -> str:
        return "bytea"

    def implied_by(self, facts: ColumnFacts) -> bool:
        return facts.classes <= {"blob"}

    def inverse(self, text: str | None) -> SourceValue:
        return None if text is None else bytes.fromhex(text[2:])

    def fast_sql(self, column: str) -> str | None:
        return f"CASE WHEN {column} IS NOT NULL THEN '\\x' || lower(hex({column})) END"

    def fast_condition(self, column: str) -> str | None:
        return f"typeof({column}) IN ('blob', 'null')"


class ByteaRule(_BlobRule):
    """BLOB to bytea."""

    kind: Literal["bytea"] = "bytea"

    types: ClassVar[tuple[TargetType, ...]] = (TargetType("bytea", "bytea", "BLOB", ("\\x01",)),)
    doc: ClassVar[str] = "Blobs."
    classes: ClassVar[frozenset[StorageClass]] = frozenset({"blob"})
    own_class: ClassVar[bool] = True
    word: ClassVar[str] = "blob"

    @classmethod
    def asked(cls, request: Request) -> RuleBase:
        if request.facts.classes <= {"blob"}:
            return cls()
        return BytesTextRule() if request.facts.classes == {"text"} else WidenedByteaRule()

    def forward(self, value: SourceValue) -> str | None:
        if value is None:
            return None
        if not isinstance(value, bytes):
            raise expected("a blob", value)
        return "\\x" + value.hex()


class WidenedByteaRule(_BlobRule):
    """Anything to bytea: text by its bytes (UTF-8; undecodable text by its bytes in the file),
    numbers by their digits. All but blobs change their storage class."""

    kind: Literal["widened-bytea"] = "widened-bytea"
    bijective: bool = False

    doc: ClassVar[str] = "Values of any class: text by its bytes, numbers by their digits."
    widened: ClassVar[bool] = True

    def forward(self, value: SourceValue) -> str | None:
        match value:
            case None:
                return None
            case bytes():
                raw = value
            case BrokenText():
                raw = value.raw
            case str():
                raw = value.encode()
            case float():
                raw = number_text(value).encode()
            case int():
                raw = str(value).encode()
        return "\\x" + raw.hex()


class BytesTextRule(RuleBase):
    """A column of TEXT alone to bytea, because some of it cannot be text in PostgreSQL; the bytes
    are those of the text in UTF-8, and text that does not decode keeps those of the file."""

    kind: Literal["text-bytea"] = "text-bytea"
    bijective: bool = False

    doc: ClassVar[str] = "Text that PostgreSQL cannot hold as text, by its bytes."
    no_escapes: ClassVar[bool] = False
    bytea: ClassVar[bool] = True
    unbounded: ClassVar[bool] = True
    streamed: ClassVar[StorageClass | None] = "blob"

    @property
    def target_type(self) -> str:
        return "bytea"

    def forward(self, value: SourceValue) -> str | None:
        match value:
            case None:
                return None
            case BrokenText():
                return "\\x" + value.raw.hex()
            case str():
                return "\\x" + value.encode().hex()
            case _:
                raise expected("text", value)

    def inverse(self, text: str | None) -> SourceValue:
        if text is None:
            return None
        raw = bytes.fromhex(text[2:])
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return BrokenText(raw)

    def changes(self, value: SourceValue) -> bool:
        self.forward(value)
        return value is not None  # another storage class, though it comes back
