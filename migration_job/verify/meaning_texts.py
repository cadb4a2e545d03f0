"""What texts, bytes, UUIDs and JSON mean on each side."""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Callable
from typing import Any

import apsw

from migration_job.values import BrokenText, SourceValue
from migration_job.verify.meaning_numbers import (
    LIKE_NUMBER,
    NUMBERS,
    as_number,
    bits_of,
    plain_decimal,
)
from migration_job.verify.meaning_target import Inexact, wrong


def _text_source(rule: Any, value: SourceValue) -> str:
    if isinstance(value, float) and math.isinf(value):
        raise wrong(value, "text, nor does SQLite make this number of any")
    if rule.affinity in NUMBERS and isinstance(value, int | float):
        return as_number(str(value) if isinstance(value, int) else repr(value))
    if isinstance(value, BrokenText) or not isinstance(value, str) or "\x00" in value:
        raise wrong(value, "text")
    return value


def _text_target(rule: Any, text: str) -> str:
    if rule.affinity in NUMBERS and LIKE_NUMBER.fullmatch(text) is not None:
        return as_number(text)
    return text


def _same_text(_rule: Any, text: str) -> str:
    return text


def _text_bytes_source(_rule: Any, value: SourceValue) -> str:
    if isinstance(value, BrokenText):
        return "\\x" + value.raw.hex()
    if not isinstance(value, str):
        raise wrong(value, "text")
    return "\\x" + value.encode().hex()


def _blob_source(_rule: Any, value: SourceValue) -> str:
    if not isinstance(value, bytes):
        raise wrong(value, "a blob")
    return "\\x" + value.hex()


def _blob_target(_rule: Any, text: str) -> str:
    if not text.startswith("\\x"):
        raise ValueError("not bytes in hex")
    return "\\x" + bytes.fromhex(text[2:]).hex()


def _never_exact(_rule: Any, value: SourceValue) -> str:
    raise wrong(value, "a blob, and the column keeps bytes")


_UUID_LENGTHS = {"lower": 36, "upper": 36, "hex": 32, "HEX": 32}


def _uuid_source(rule: Any, value: SourceValue) -> str:
    if _kept_its_hyphens(rule, value):
        return str(value).lower()
    if not isinstance(value, str) or len(value) != _UUID_LENGTHS[rule.style]:
        raise wrong(value, "a UUID as this column spells them")
    wanted = value.upper() if rule.style in ("upper", "HEX") else value.lower()
    bare = value.replace("-", "")
    if value != wanted or len(bare) != 32 or not all(c in "0123456789abcdefABCDEF" for c in bare):
        raise wrong(value, "a UUID as this column spells them")
    canonical = _hyphened(bare.lower())
    if _UUID_LENGTHS[rule.style] == 36 and canonical != value.lower():
        raise wrong(value, "a UUID as this column spells them")
    return canonical


def _kept_its_hyphens(rule: Any, value: SourceValue) -> bool:
    """Whether it is a UUID whose bare digits the column's affinity would make a number of, so that
    a column of bare ones has it with its hyphens."""
    if not isinstance(value, str) or _UUID_LENGTHS[rule.style] != 32:
        return False
    if rule.affinity not in NUMBERS:
        return False
    bare = value.replace("-", "")
    wanted = value.upper() if rule.style == "HEX" else value.lower()
    return (
        re.fullmatch(r"\d+([eE]\d+)?", bare, re.ASCII) is not None
        and len(bare) == 32
        and value == wanted
        and value.lower() == _hyphened(bare.lower())
    )


def _hyphened(bare: str) -> str:
    return "-".join((bare[:8], bare[8:12], bare[12:16], bare[16:20], bare[20:]))


def _uuid_bytes_source(rule: Any, value: SourceValue) -> str:
    if not isinstance(value, bytes) or len(value) != 16:
        raise wrong(value, "a UUID of 16 bytes")
    digits = value.hex()
    if rule.order == "dotnet":
        # The first three groups are numbers with their lowest byte first.
        numbers = struct.unpack("<IHH", value[:8])
        digits = "{:08x}{:04x}{:04x}".format(*numbers) + value[8:].hex()
    return _hyphened(digits)


def _uuid_target(_rule: Any, text: str) -> str:
    return _hyphened(text.lower().replace("-", "").strip("{}"))


def _json_blob_source(rule: Any, value: SourceValue) -> str:
    """The document as SQLite reads its own JSONB; of a blob of text the text."""
    if rule.form == "text":
        if not isinstance(value, bytes):
            raise wrong(value, "JSON in a blob")
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise wrong(value, "JSON in a blob") from None
    if isinstance(value, str):
        if _minified(value) is not None:
            raise wrong(value, "JSONB")
        return value  # PostgreSQL's, which SQLite takes for no document
    found = _one("SELECT CASE WHEN json_valid(?1, 8) THEN json(?1) END", value)
    again = None if found is None else _one("SELECT jsonb(?)", found)
    if not isinstance(found, str) or again != value:
        raise wrong(value, "JSONB as SQLite makes it")
    return found


def _json_blob_target(rule: Any, text: str) -> str:
    if rule.form == "text":
        return text
    return _minified(text) or text


def _minified(text: str) -> str | None:
    found = _one("SELECT json(jsonb(?))", text)
    return found if isinstance(found, str) else None


def _one(query: str, value: Any) -> object:
    try:
        found: object = apsw.Connection(":memory:").execute(query, (value,)).get
    except (apsw.Error, TypeError, UnicodeDecodeError):
        return None
    return found


def _json_source(rule: Any, value: SourceValue) -> str:
    if isinstance(value, str):
        if rule.affinity != "text" and _json_number(value) is not None:
            raise wrong(value, "what this column's affinity keeps as text")
        return value
    if isinstance(value, BrokenText | bytes) or rule.affinity in ("text", "blob"):
        raise wrong(value, "JSON text")
    return str(value) if isinstance(value, int) else _json_real(rule, float(value or 0))


def _json_number(text: str) -> float | None:
    if re.fullmatch(r"-?\d+(\.\d+)?([eE][+-]?\d+)?", text, re.ASCII) is None:
        return None
    return float(text)


def _json_target(rule: Any, text: str) -> str:
    if rule.affinity in ("text", "blob"):
        return text
    # Blanks around it do not keep SQLite from making a number of the document.
    bare = text.strip(" \t\n\r")
    number = _json_number(bare)
    if number is None:
        return text
    if rule.affinity != "real" and _is_int64(bare):
        return str(int(bare))
    return _json_real(rule, number)


def _json_real(rule: Any, number: float) -> str:
    """A column of numeric affinity holds no whole real (https://sqlite.org/datatype3.html)."""
    if rule.affinity != "real" and number.is_integer() and abs(number) < 2**63:
        return str(int(number))
    return "real " + bits_of(number)


def _is_int64(text: str) -> bool:
    return re.fullmatch(r"-?\d{1,19}", text, re.ASCII) is not None and -(2**63) <= int(text) < 2**63


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise Inexact("a JSON object has a key twice")
    return members


def _canonical_json(text: str, pairs: Callable[[list[tuple[str, Any]]], Any]) -> str:
    def number(digits: str) -> Any:
        return {"\x00number": plain_decimal(digits)}

    document = json.loads(text, object_pairs_hook=pairs, parse_float=number, parse_int=number)
    return json.dumps(document, sort_keys=True)


def _jsonb_source(rule: Any, value: SourceValue) -> str:
    if isinstance(value, int | float) and rule.affinity in NUMBERS and math.isfinite(value):
        value = repr(value)
    if not isinstance(value, str):
        raise wrong(value, "JSON text")
    try:
        return _canonical_json(value, _no_duplicates)
    except (ValueError, RecursionError) as error:
        raise Inexact(f"not JSON: {error}") from None


def _jsonb_blob_source(rule: Any, value: SourceValue) -> str:
    """Of a blob what SQLite reads in it; of a blob of text the text; what PostgreSQL has and SQLite
    takes for no document stays a text."""
    found: object = value
    if isinstance(value, bytes) and rule.form == "jsonb":
        found = _one("SELECT CASE WHEN json_valid(?1, 8) THEN json(?1) END", value)
    elif isinstance(value, bytes):
        try:
            found = value.decode()
        except UnicodeDecodeError:
            found = None
    elif rule.form == "text" or (isinstance(value, str) and _minified(value) is not None):
        found = None
    if not isinstance(found, str):
        raise wrong(value, "JSON in a blob")
    return _jsonb_source(rule, found)


def _jsonb_target(_rule: Any, text: str) -> str:
    return _canonical_json(text, dict)


SOURCE: dict[str, Callable[[Any, SourceValue], str]] = {
    "text": _text_source,
    "widened-text": _text_source,
    "bytea": _blob_source,
    "widened-bytea": _blob_source,
    "text-bytea": _text_bytes_source,
    "uuid": _uuid_source,
    "uuid-bytes": _uuid_bytes_source,
    "json": _json_source,
    "json-blob": _json_blob_source,
    "jsonb": _jsonb_source,
    "jsonb-blob": _jsonb_blob_source,
    "none": _never_exact,
}


TARGET: dict[str, Callable[[Any, str], str]] = {
    "text": _text_target,
    "widened-text": _text_target,
    "bytea": _blob_target,
    "widened-bytea": _blob_target,
    "text-bytea": _blob_target,
    "numeric-text": _same_text,
    "uuid": _uuid_target,
    "uuid-bytes": _uuid_target,
    "json": _json_target,
    "json-blob": _json_blob_target,
    "jsonb": _jsonb_target,
    "jsonb-blob": _jsonb_target,
    "date": _same_text,
    "none": _same_text,
}
