"""How the pages write values, numbers and times; what a page cannot hide or move is written out."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from html import escape

VALUE_SHOWN = 300
"""Characters of one value."""


class Trusted(str):
    """Text of this project's own that goes into the page as it is."""

    __slots__ = ()

    def __html__(self) -> str:
        return self


def visible(text: object) -> str:
    """The text with everything written out that a page would hide or move: control characters,
    line ends, zero-width and bidirectional marks, lone surrogates."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def prose(text: object) -> Trusted:
    """As :func:`visible`, escaped, with what stands between two backticks as code: the command or
    the setting that a sentence names. A backtick without its pair stays as it is."""
    parts = [escape(part) for part in visible(text).split("`")]
    if len(parts) % 2 == 0 or not all(parts[1::2]):
        return Trusted("`".join(parts))
    return Trusted(
        "".join(f"<code>{part}</code>" if n % 2 else part for n, part in enumerate(parts))
    )


def shown(value: object) -> str:
    """A value of the report as people read it: NULL, text in quotes where it stands alone, a real
    or blob by its content; cut where it is long, and the cut is said."""
    match value:
        case None:
            text = "NULL"
        case str():
            text = visible(value[: VALUE_SHOWN + 1])
        case Mapping() if len(value) == 1 and "real" in value:
            text = str(value["real"])
        case Mapping() if len(value) == 1 and "blob" in value:
            text = f"x'{value['blob']}'"
        case Mapping() if len(value) == 1 and "broken_text" in value:
            text = f"text x'{value['broken_text']}'"
        case Mapping():
            text = ", ".join(f"{visible(k)}: {literal(v)}" for k, v in value.items())
        case list() | tuple():
            text = ", ".join(literal(v) for v in value)
        case _:
            text = visible(json.dumps(value, ensure_ascii=False))
    if len(text) > VALUE_SHOWN:
        return f"{text[:VALUE_SHOWN]}… (cut)"
    return text


def literal(value: object) -> str:
    """As :func:`shown`, text in quotes, so that the text NULL is not taken for NULL."""
    return f"'{shown(value)}'" if isinstance(value, str) else shown(value)


def words(name: object) -> str:
    """A name of the report's as words."""
    return visible(str(name).replace("_", " ").replace("-", " "))


def moment(text: object) -> str:
    """A time as people read it, ``2026-01-31 16:07:55 UTC``; anything else as it is."""
    try:
        at = datetime.fromisoformat(str(text))
    except ValueError:
        return shown(text)
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def number(value: float | None) -> str:
    """A number as people read it; a dash where there is none."""
    return "–" if value is None else f"{value:,}"


def measured(ms: float | None) -> str:
    """How long a query took, beside what it may take: to a tenth of a millisecond, since many take
    less than one."""
    if ms is None or math.isinf(ms) or math.isnan(ms):
        return "–"
    return f"{ms:,.1f} ms" if round(ms, 1) or not ms else "<0.1 ms"


def duration(seconds: float | None) -> str:
    """A time as people read it: in whole milliseconds where it is under a second."""
    if seconds is None or math.isinf(seconds) or math.isnan(seconds):
        return "–"
    if round(seconds * 1000) < 1000:
        return f"{seconds * 1000:,.0f} ms" if seconds >= 0.0005 or seconds <= 0 else "<1 ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
