"""A number and its noun, in agreement."""

from __future__ import annotations


def counted(number: int, thing: str) -> str:
    """``1 row``, ``2,000 rows``, ``2 queries``; ``thing`` is one of them."""
    if number == 1:
        return f"1 {thing}"
    if thing.endswith("y") and thing[-2:-1] not in "aeiou":
        return f"{number:,} {thing[:-1]}ies"
    return f"{number:,} {thing}s"
