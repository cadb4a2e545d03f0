"""JSON documents: json, jsonb."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Sequence
from typing import ClassVar, Literal

import apsw

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
    no_escapes: ClassVar[bool] = False
    unbounded: ClassVar[bool] = True
    streamed: ClassVar[StorageClass | None] = "text"
    spelling: ClassVar[bool] = True
    misfit: ClassVar[str] = "not-json"
    declared: ClassVar[frozenset[str]] = frozenset({"JSON", "JSONB"})

    @classmethod
    def wished(cls, request: Request) -> RuleBase:
        blobs = [value for value in request.facts.sample if isinstance(value, bytes)]
        if blobs and all(of_jsonb(blob) is not None for blob in blobs):
            return JsonBlobRule()
        return cls(affinity=request.affinity)

    @classmethod
    def asked(cls, request: Request) -> RuleBase:
        if "blob" not in request.facts.classes:
            return cls(affinity=request.affinity)
        blobs = [value for value in request.facts.sample if isinstance(value, bytes)]
        texts = sum(of_jsonb(blob) is None for blob in blobs)
        return JsonBlobRule(form="text" if 2 * texts > len(blobs) else "jsonb")

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


class _JsonBlob(RuleBase):
    """What the rules for JSON in blobs have in common. It is no kind of its own."""

    no_escapes: ClassVar[bool] = False
    unbounded: ClassVar[bool] = True
    classes: ClassVar[frozenset[StorageClass]] = frozenset({"blob", "text"})
    misfit: ClassVar[str] = "not-json"


class JsonBlobRule(_JsonBlob):
    """JSON in blobs to ``json``: what SQLite's ``jsonb()`` makes, or the bytes of a text."""

    kind: Literal["json-blob"] = "json-blob"
    bijective: bool = False
    form: Literal["jsonb", "text"] = "jsonb"
    """How the column keeps its documents, and so what comes back."""

    spelled: ClassVar[tuple[str, ...]] = ("form",)
    doc: ClassVar[str] = (
        "JSON documents in blobs: SQLite's own JSONB, or text; documents in the column's other "
        "forms have a row in the ledger."
    )
    word: ClassVar[str] = "json"

    @property
    def target_type(self) -> str:
        return "json"

    def forward(self, value: SourceValue) -> str | None:
        if value is None:
            return None
        if not isinstance(value, bytes):
            return JsonRule().forward(text_for(value, "JSON"))
        # Some bytes are both: 3000 is a number in text, and a JSONB of the three digits 000.
        readers = (_in_bytes, of_jsonb) if self.form == "text" else (of_jsonb, _in_bytes)
        text = readers[0](value)
        text = readers[1](value) if text is None else text
        if text is None:
            raise CannotCarry(f"no JSON in a blob: {display(value, 60)}")
        return JsonRule().forward(text)

    def inverse(self, text: str | None) -> SourceValue:
        if text is None:
            return None
        if self.form == "text":
            return text.encode()
        made = _to_jsonb(text)
        return text if made is None else made

    def fast_sql(self, column: str) -> str | None:
        if self.form == "text":
            return f"CAST({column} AS TEXT)"
        return f"CASE WHEN json_valid({column}, 8) THEN json({column}) END"

    def fast_condition(self, column: str) -> str | None:
        if self.form == "text":
            # Text that is no UTF-8 is looked for by the preflight in text alone.
            return f"({column} IS NULL)"
        # SQLite does not look at the bytes of a JSONB's strings, and has no function for it: of
        # documents with more than ASCII, Python says whether they are UTF-8.
        return (
            f"({column} IS NULL OR CASE WHEN typeof({column}) <> 'blob' THEN 0 "
            f"WHEN NOT json_valid({column}, 8) THEN 0 "
            f"WHEN NOT json_valid(json({column})) THEN 0 "
            f"ELSE jsonb(json({column})) = {column} "
            f"AND json({column}) NOT GLOB '*[^' || char(1) || '-' || char(127) || ']*' "
            f"AND instr(CAST(json({column}) AS BLOB), x'00') = 0 END)"
        )


_MEMORY = threading.local()


def _memory() -> apsw.Connection:
    """SQLite itself reads and writes its JSONB. Each thread has a connection, from its first
    document on: one that is open keeps SQLite's settings for the process as they are."""
    connection: apsw.Connection | None = getattr(_MEMORY, "connection", None)
    if connection is None:
        connection = _MEMORY.connection = apsw.Connection(":memory:")
    return connection


def _in_bytes(blob: bytes) -> str | None:
    """The blob's bytes as the text of a document; None where they are none."""
    try:
        text = blob.decode()
        jsontext.parse(text)
    except (UnicodeDecodeError, jsontext.BadJson):
        return None
    return text


def of_jsonb(blob: bytes) -> str | None:
    """The text of SQLite's JSONB; None for any other blob."""
    query = "SELECT CASE WHEN json_valid(?1, 8) THEN json(?1) END"
    try:
        text = _memory().execute(query, (blob,)).get
    except (apsw.Error, UnicodeDecodeError):
        return None
    return text if isinstance(text, str) else None


def _to_jsonb(text: str) -> bytes | None:
    """SQLite's JSONB of a document; None for what it does not take for one."""
    try:
        blob = _memory().execute("SELECT jsonb(?)", (text,)).get
    except apsw.Error:
        return None
    return blob if isinstance(blob, bytes) else None


class JsonbRule(RuleBase):
    """JSON to ``jsonb``, which keeps the value but not the text. What is exact is a document that
    ``style`` spells the same from jsonb's order of keys."""

    kind: Literal["jsonb"] = "jsonb"
    bijective: bool = False
    style: jsontext.Style = "compact"
    affinity: Affinity = "text"

    types: ClassVar[tuple[TargetType, ...]] = (TargetType("jsonb", "json", "TEXT", ('{"a": 1}',)),)
    spelled: ClassVar[tuple[str, ...]] = ("style",)
    doc: ClassVar[str] = (
        "JSON documents by their value; those in the column's commonest spelling, keys in jsonb's "
        "order, come back as they were."
    )
    no_escapes: ClassVar[bool] = False
    unbounded: ClassVar[bool] = True
    spelling: ClassVar[bool] = True
    misfit: ClassVar[str] = "not-json"

    @classmethod
    def asked(cls, request: Request) -> RuleBase:
        sample = request.facts.sample
        if "blob" in request.facts.classes:
            return JsonbBlobRule.like(sample)
        return cls(style=commonest_style(sample), affinity=request.affinity)

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


class JsonbBlobRule(_JsonBlob):
    """JSON in blobs to ``jsonb``, which keeps the value: what SQLite's ``jsonb()`` makes, or the
    bytes of a text."""

    kind: Literal["jsonb-blob"] = "jsonb-blob"
    bijective: bool = False
    form: Literal["jsonb", "text"] = "jsonb"
    """How the column keeps its documents, and so what comes back."""
    style: jsontext.Style = "compact"
    """Of the documents in text."""

    spelled: ClassVar[tuple[str, ...]] = ("form", "style")
    doc: ClassVar[str] = (
        "JSON documents in blobs by their value; those whose keys are in jsonb's order, in the "
        "column's form, come back as they were."
    )
    word: ClassVar[str] = "jsonb"

    @classmethod
    def like(cls, sample: Sequence[SourceValue]) -> JsonbBlobRule:
        """The rule in the form and the style that most of the sample's blobs have."""
        blobs = [value for value in sample if isinstance(value, bytes)]
        texts = [blob.decode(errors="replace") for blob in blobs if of_jsonb(blob) is None]
        form: Literal["jsonb", "text"] = "text" if 2 * len(texts) > len(blobs) else "jsonb"
        return cls(form=form, style=commonest_style(texts))

    @property
    def target_type(self) -> str:
        return "jsonb"

    def forward(self, value: SourceValue) -> str | None:
        text = JsonBlobRule(form=self.form).forward(value)
        return None if text is None else JsonbRule().forward(text)

    def inverse(self, text: str | None) -> SourceValue:
        if text is None:
            return None
        restyled = jsontext.restyle(text, self.style if self.form == "text" else "compact")
        return JsonBlobRule(form=self.form).inverse(restyled)


def commonest_style(sample: Sequence[SourceValue]) -> jsontext.Style:
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
