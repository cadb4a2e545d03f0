"""A number and its noun, or its verb, in agreement."""

from __future__ import annotations

SAME_FOR_SEVERAL = frozenset({"KiB", "MiB"})
"""Things of which two are spelled as one is."""


def counted(number: int, thing: str) -> str:
    """``1 row``, ``2,000 rows``, ``2 queries``, ``2 MiB``; ``thing`` is one of them."""
    return f"{number:,} {named(number, thing)}"


def named(number: int, thing: str) -> str:
    """The noun alone: ``row`` of one, else ``rows``."""
    if number == 1 or thing in SAME_FOR_SEVERAL:
        return thing
    if thing.endswith("y") and thing[-2:-1] not in "aeiou":
        return f"{thing[:-1]}ies"
    return f"{thing}s"


def counted_doing(number: int, thing: str, verb: str) -> str:
    """``1 finding stops``, ``2 findings stop``; ``verb`` is that of several."""
    return f"{counted(number, thing)} {verb}{'s' if number == 1 else ''}"


def either(number: int, one: str, several: str) -> str:
    """What is said of one, or of none or several."""
    return one if number == 1 else several
