"""JSON whose text SQLite holds as a BLOB, to json and jsonb."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from migration_job.plan import jsontext
from migration_job.plan.rules.base import CannotCarry, RuleBase, StorageClass, expected
from migration_job.plan.rules.json import commonest_style
from migration_job.values import SourceValue, display


class JsonBytesRule(RuleBase):
    """A BLOB that is a JSON document in UTF-8, to json or jsonb."""

    kind: Literal["json-bytes"] = "json-bytes"
    bijective: bool = False
    binary: bool = False
    """Whether the type is jsonb, which keeps the value and not its text."""
    style: jsontext.Style = "compact"

    spelled: ClassVar[tuple[str, ...]] = ("style",)
    doc: ClassVar[str] = "JSON in a BLOB; from jsonb a document in the column's style comes back."
    no_escapes: ClassVar[bool] = False
    unbounded: ClassVar[bool] = True
    classes: ClassVar[frozenset[StorageClass]] = frozenset({"blob"})
    misfit: ClassVar[str] = "not-json"

    @classmethod
    def like(cls, sample: Sequence[SourceValue], *, binary: bool) -> JsonBytesRule:
        """The rule in the style that most of the sample has."""
        texts = [value.decode(errors="replace") for value in sample if isinstance(value, bytes)]
        return cls(binary=binary, style=commonest_style(texts))

    @property
    def target_type(self) -> str:
        return "jsonb" if self.binary else "json"

    def forward(self, value: SourceValue) -> str | None:
        if value is None:
            return None
        if not isinstance(value, bytes):
            raise expected("a blob", value)
        try:
            text = value.decode()
            if self.binary:
                return jsontext.normalise(text)
            jsontext.parse(text)
        except (UnicodeDecodeError, jsontext.BadJson) as error:
            raise CannotCarry(f"no JSON in the blob ({error}): {display(value, 60)}") from None
        if "\x00" in text:
            raise CannotCarry("JSON with a NUL character")
        return text

    def inverse(self, text: str | None) -> SourceValue:
        if text is None:
            return None
        return (jsontext.restyle(text, self.style) if self.binary else text).encode()
