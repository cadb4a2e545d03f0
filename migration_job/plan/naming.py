"""Names on the target: the source's own, as far as PostgreSQL can have them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection

MAX_BYTES = 63
"""PostgreSQL cuts longer names at this length, in an application's queries as well: a name cut the
same way is still found by its long form."""

SYSTEM_COLUMNS = frozenset({"tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"})
"""Every PostgreSQL table has them, so no column may be called so."""


_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
"""Where a new word begins: after a small letter or a digit, and before the last capital of some."""


def cut(name: str) -> str:
    """The name as PostgreSQL would cut it: at most 63 bytes, no character halved."""
    return name.encode()[:MAX_BYTES].decode(errors="ignore")


def snake_case(name: str) -> str:
    """The name in small letters, its words parted by underscores: ``CaseStudyID`` becomes
    ``case_study_id``. What is neither a letter nor a digit parts words too."""
    parted = _WORDS.sub("_", re.sub(r"\W+", "_", name))
    return parted.lower().strip("_") or name


def relation_name(name: str, taken: Collection[str], *, whole: str | None = None) -> str:
    """The target's name of a table, view or index; ``whole`` tells two cut names apart."""
    return distinct(cut(name) or "_", whole or name, taken)


def column_name(name: str, taken: Collection[str]) -> str:
    """The target's name of a column."""
    wanted = cut(name) or "_"
    if wanted in SYSTEM_COLUMNS:
        wanted += "_"
    return distinct(wanted, name, taken)


def distinct(wanted: str, whole: str, taken: Collection[str]) -> str:
    """``wanted`` where it is free; else its beginning and a short digest of ``whole``."""
    if wanted not in taken:
        return wanted
    salt = whole
    while True:
        mark = "_" + hashlib.sha256(salt.encode()).hexdigest()[:8]
        candidate = wanted.encode()[: MAX_BYTES - len(mark)].decode(errors="ignore") + mark
        if candidate not in taken:
            return candidate
        salt += "'"
