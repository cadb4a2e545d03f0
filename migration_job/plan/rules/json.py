"""JSON documents: json, jsonb."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import ClassVar, Literal

from migration_job.plan import jsontext
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
    text_for,
)
from migration_job.values import SourceValue, display


class JsonRule(RuleBase):
    """JSON to ``json``, which keeps the text as it is. A number that SQLite's affinity made of a
    document such as ``5`` comes back as that number."""

    kind: Literal["json"] = "json"
    affinity: Affinity = "text"

    types: ClassVar[tuple[TargetType, ...]] = (TargetType("json", "json", "TEXT", ('{"a": 1}',)),)
    doc: ClassVar[str] = "JSON documents, their text as it is."
    plain: ClassVar[bool] = False
    unbounded: ClassVar[bool] = True
    streamed: ClassVar[StorageClass | None] = "text"
    spelling: ClassVar[bool] = True
    misfit: ClassVar[str] = "not-json"
    declared: ClassVar[frozenset[str]] = frozenset({"JSON", "JSONB"})

    @classmethod
    def asked(cls, request: Request) -> RuleBase:
        return cls(affinity=request.affinity)

    @property
    def target_type(self) -> str:
        return "json"

    def forward(self, value: SourceValue) -> str | None:
        match value:
            case None:
                return None
            case float():
                if math.isinf(value):
                    raise CannotCarry(f"{value} is not JSON")
                return repr(value)
            case int():
                return str(value)
            case _:
                text = text_for(value, "JSON")
        try:
            jsontext.parse(text)
        except jsontext.BadJson as error:
            raise CannotCarry(f"not JSON ({error}): {display(value, 60)}") from None
        return text

    def inverse(self, text: str | None) -> SourceValue:
        if text is None:
            return None
        if self.affinity in NUMBER_AFFINITIES:
            bare = text.strip(" \t\n\r")
            whole = re.fullmatch(r"-?[0-9]{1,19}", bare, re.ASCII) is not None
            if whole and self.affinity != "real" and INT64_LOW <= int(bare) <= INT64_HIGH:
                return int(bare)
            if re.fullmatch(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?", bare, re.ASCII):
                return float(bare)
        return text

    def fast_sql(self, column: str) -> str | None:
        return column

    def fast_condition(self, column: str) -> str | None:
        return f"({column} IS NULL OR typeof({column}) = 'text' AND json_valid({column}, 1))"


class JsonbRule(RuleBase):
    """JSON to ``jsonb``, which keeps the value but not the text. What is exact is a document that
    ``style`` spells the same from jsonb's order of keys."""

    kind: Literal["jsonb"] = "jsonb"
    bijective: bool = False
    style: jsontext.Style = "compact"
    affinity: Affinity = "text"

    types: ClassVar[tuple[TargetType, ...]] = (TargetType("jsonb", "json", "TEXT", ('{"a": 1}',)),)
    doc: ClassVar[str] = (
        "JSON documents by their value; those in the column's commonest spelling, keys in jsonb's "
        "order, come back as they were."
    )
    plain: ClassVar[bool] = False
    unbounded: ClassVar[bool] = True
    spelling: ClassVar[bool] = True
    misfit: ClassVar[str] = "not-json"

    @classmethod
    def asked(cls, request: Request) -> RuleBase:
        return cls(style=_commonest(request.facts.sample), affinity=request.affinity)

    @property
    def target_type(self) -> str:
        return "jsonb"

    def forward(self, value: SourceValue) -> str | None:
        match value:
            case None:
                return None
            case float():
                if math.isinf(value):
                    raise CannotCarry(f"{value} is not JSON")
                return jsontext.normalise(repr(value))
            case int():
                return str(value)
            case _:
                text = text_for(value, "JSON")
        try:
            return jsontext.normalise(text)
        except jsontext.BadJson as error:
            raise CannotCarry(f"no jsonb ({error}): {display(value, 60)}") from None

    def inverse(self, text: str | None) -> SourceValue:
        if text is None:
            return None
        if self.affinity in NUMBER_AFFINITIES:
            number = JsonRule(affinity=self.affinity).inverse(text)
            if not isinstance(number, str):
                return number
        return jsontext.restyle(text, self.style)

    def changes(self, value: SourceValue) -> bool:
        if isinstance(value, str) and jsontext.surely_returns(value, self.style):
            return False
        return super().changes(value)

    def fast_sql(self, column: str) -> str | None:
        return column

    def fast_condition(self, column: str) -> str | None:
        # Whether a document's keys are in jsonb's order is nothing that SQLite can say.
        return (
            f"({column} IS NULL OR typeof({column}) = 'text' "
            f"AND {column} COLLATE BINARY IN ('[]', '{{}}'))"
        )


def _commonest(sample: Sequence[SourceValue]) -> jsontext.Style:
    """The style that gives most of the sampled documents back."""
    styles: tuple[jsontext.Style, ...] = ("compact", "spaced", "compact-ascii", "spaced-ascii")
    best: dict[jsontext.Style, int] = dict.fromkeys(styles, 0)
    for value in sample:
        if not isinstance(value, str):
            continue
        try:
            text = jsontext.normalise(value)
        except jsontext.BadJson:
            continue
        for style in styles:
            best[style] += jsontext.restyle(text, style) == value
    return max(styles, key=lambda s: best[s])
