"""Keys in the source's log, and in tables that are filled from it: text and blobs told apart, text
that does not decode included."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from migration_job.stores.sqlite.reader import decode
from migration_job.values import SourceValue


def key_terms(width: int) -> str:
    """The columns ``k0`` and on as terms of a SELECT, which :func:`key_of` puts together again."""
    return ", ".join(
        f"typeof(k{i}) = 'text', CASE WHEN typeof(k{i}) = 'text' THEN CAST(k{i} AS BLOB) "
        f"ELSE k{i} END"
        for i in range(width)
    )


def key_of(found: Sequence[Any], width: int, codec: str) -> tuple[SourceValue, ...]:
    """The key's first ``width`` values, of what the terms of :func:`key_terms` gave."""
    return tuple(
        decode(found[i + 1], codec) if found[i] else found[i + 1] for i in range(0, 2 * width, 2)
    )
