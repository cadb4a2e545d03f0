"""Text: text, varchar."""

from __future__ import annotations

import re
from typing import ClassVar, Literal, Self

from migration_job.plan.facts import ColumnFacts
from migration_job.plan.rules.base import (
    INT64_HIGH,
    INT64_LOW,
    NUMBER_AFFINITIES,
    Affinity,
    CannotCarry,
    Request,
    RuleBase,
    StorageClass,
    TargetType,
    expected,
    text_for,
)
from migration_job.plan.rules.numbers import number_text
from migration_job.values import SourceValue

OMEGA = "\N{GREEK SMALL LETTER OMEGA}"


class TextRule(RuleBase):
    """TEXT to text, or to varchar where ``max_length`` (in characters) is given or the source says
    VARCHAR."""

    kind: Literal["text"] = "text"
    max_length: int | None = None
    varying: bool = False
    """Whether the type without a length is called varchar, as the source has it."""
    affinity: Affinity = "text"
    """The column's: under a numeric one SQLite makes a number of text that looks like one."""

    types: ClassVar[tuple[TargetType, ...]] = (
        TargetType("text", "text", "TEXT", (OMEGA,)),
        TargetType(
            "varchar",
            "text",
            "TEXT",
            (OMEGA,),
            words=("character varying",),
            forms=("varchar", "varchar(n)"),
        ),
    )
    doc: ClassVar[str] = (
        "Text; to `varchar(n)` where no value is longer, to `varchar` where that is declared."
    )
    no_escapes: ClassVar[bool] = False
    unbounded: ClassVar[bool] = True
    streamed: ClassVar[StorageClass | None] = "text"
    own_class: ClassVar[bool] = True

    @classmethod
    def asked(cls, request: Request) -> RuleBase:
        if request.numbers:
            return cls(max_length=request.numbers[0])
        if request.facts.classes == {"integer"}:
            return TextIntegerRule()
        if not request.facts.classes <= {"text"}:
            return WidenedTextRule()
        return cls(varying=request.type == "varchar")

    @property
    def target_type(self) -> str:
        if self.max_length is None:
            return "varchar" if self.varying else "text"
        return f"varchar({self.max_length})"

    def implied_by(self, facts: ColumnFacts) -> bool:
        short = self.max_length is None or facts.heaviest <= self.max_length
        return facts.classes <= {"text"} and short

    def under(self, affinity: Affinity) -> Self:
        return self.model_copy(update={"affinity": affinity})

    def forward(self, value: SourceValue) -> str | None:
        if value is None:
            return None
        if self.affinity in NUMBER_AFFINITIES and isinstance(value, int | float):
            # Planned for text alone; what looks like a number arrives as one all the same.
            value = number_text(value) if isinstance(value, float) else str(value)
        text = text_for(value, "text")
        if self.max_length is not None and len(text) > self.max_length:
            raise CannotCarry(f"{len(text)} characters, {self.max_length} allowed")
        return text

    def inverse(self, text: str | None) -> SourceValue:
        return text

    def fast_sql(self, column: str) -> str | None:
        return column

    def fast_condition(self, column: str) -> str | None:
        if self.max_length is None:
            return f"typeof({column}) IN ('text', 'null')"
        return (
            f"({column} IS NULL OR typeof({column}) = 'text' "
            f"AND (octet_length({column}) <= {self.max_length} "
            f"OR octet_length({column}) <= {4 * self.max_length} "
            f"AND length({column}) <= {self.max_length}))"
        )


class WidenedTextRule(RuleBase):
    """Anything but blobs to text: a number becomes its digits, and so another storage class."""

    kind: Literal["widened-text"] = "widened-text"
    bijective: bool = False
    affinity: Affinity = "text"

    doc: ClassVar[str] = "Text and numbers in one column, numbers as their digits."
    no_escapes: ClassVar[bool] = False
    unbounded: ClassVar[bool] = True
    streamed: ClassVar[StorageClass | None] = "text"
    widened: ClassVar[bool] = True

    @property
    def target_type(self) -> str:
        return "text"

    def implied_by(self, facts: ColumnFacts) -> bool:
        return facts.classes <= {"text"}

    def under(self, affinity: Affinity) -> Self:
        return self.model_copy(update={"affinity": affinity})

    def forward(self, value: SourceValue) -> str | None:
        match value:
            case None:
                return None
            case float():
                return number_text(value)
            case int():
                return str(value)
            case _:
                return text_for(value, "text or a number")

    def inverse(self, text: str | None) -> SourceValue:
        return text

    def fast_sql(self, column: str) -> str | None:
        return column

    def fast_condition(self, column: str) -> str | None:
        return f"typeof({column}) IN ('text', 'null')"


class TextIntegerRule(RuleBase):
    """INTEGER to text: a reference to a text key, which SQLite compares as text."""

    kind: Literal["text-integer"] = "text-integer"

    doc: ClassVar[str] = "Integers in a column that refers to text."

    @property
    def target_type(self) -> str:
        return "text"

    def implied_by(self, facts: ColumnFacts) -> bool:
        return facts.classes <= {"integer"}

    def forward(self, value: SourceValue) -> str | None:
        if value is None:
            return None
        if not isinstance(value, int):
            raise expected("an integer", value)
        return str(value)

    def inverse(self, text: str | None) -> SourceValue:
        return int(text) if text is not None and _spells_int64(text) else text

    def returned(self, value: SourceValue) -> str | None:
        if isinstance(value, float):
            return number_text(value)
        return value if isinstance(value, str) and "\x00" not in value else None

    def fast_sql(self, column: str) -> str | None:
        return f"CAST({column} AS TEXT)"

    def fast_condition(self, column: str) -> str | None:
        return f"typeof({column}) IN ('integer', 'null')"


def _spells_int64(text: str) -> bool:
    """Whether the text is how an integer of SQLite's is spelled."""
    plain = re.fullmatch(r"0|-?[1-9][0-9]{0,18}", text, re.ASCII) is not None
    return plain and INT64_LOW <= int(text) <= INT64_HIGH
