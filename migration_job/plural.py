"""A number and its noun, or its verb, in agreement."""

from __future__ import annotations


def counted(number: int, thing: str) -> str:
    """``1 row``, ``2,000 rows``, ``2 queries``; ``thing`` is one of them."""
    if number == 1:
        return f"1 {thing}"
    if thing.endswith("y") and thing[-2:-1] not in "aeiou":
        return f"{number:,} {thing[:-1]}ies"
    return f"{number:,} {thing}s"


def counted_doing(number: int, thing: str, verb: str) -> str:
    """``1 finding stops``, ``2 findings stop``; ``verb`` is that of several."""
    return f"{counted(number, thing)} {verb}{'s' if number == 1 else ''}"


def either(number: int, one: str, several: str) -> str:
    """What is said of one, or of none or several."""
    return one if number == 1 else several
