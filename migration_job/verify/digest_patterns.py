"""What a pattern of the policy makes of a text, as SQLite's own expression, for the digest.

Only of patterns of literal text around groups of a fixed number of digits, and at most one group of
anything: what such an expression meets, the pattern meets with the same groups. What it does not
meet is left to the pattern itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from migration_job.quoting import sqlite_text

_PART = re.compile(
    r"(?P<digits>\((?P<run>(?:\\d|\[0-9\])+)(?:\{(?P<times>\d+)\})?\))"
    r"|(?P<any>\(\.[*+]\))|\\(?P<escaped>[^A-Za-z0-9])|(?P<plain>[^\\^$.|?*+()\[\]{}\x00])",
    re.DOTALL,
)
_WRITTEN = re.compile(r"\\(?P<group>[1-9])(?![0-9])|(?P<plain>[^\\\x00])", re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Piece:
    """A literal text, digits of a number, or (``width`` None) anything of at least ``least``."""

    literal: str = ""
    width: int | None = 0
    least: int = 0


def pattern_sql(pattern: Any, here: str) -> str | None:
    """``WHEN met THEN made`` for a CASE; None for a pattern of another kind."""
    pieces = _pieces(pattern.match)
    if pieces is None:
        return None
    terms, groups = _met(pieces, here)
    made = _made(pattern.replace, groups)
    return None if made is None else f"WHEN {' AND '.join(terms)} THEN {made}"


def _pieces(match: str) -> list[_Piece] | None:
    found: list[_Piece] = []
    place = 0
    while place < len(match):
        part = _PART.match(match, place)
        if part is None:
            return None
        place = part.end()
        if part["digits"]:
            count = len(re.findall(r"\\d|\[0-9\]", part["run"]))
            if part["times"] and count > 1:
                return None  # the number is the last one's alone
            found.append(_Piece(width=count * int(part["times"] or 1)))
        elif part["any"]:
            found.append(_Piece(width=None, least=int("+" in part["any"])))
        else:
            literal = part["escaped"] or part["plain"]
            if found and found[-1].literal:
                literal = found.pop().literal + literal
            found.append(_Piece(literal=literal, width=len(literal)))
    if sum(piece.width is None for piece in found) > 1:
        return None
    return found


def _met(pieces: list[_Piece], here: str) -> tuple[list[str], list[str]]:
    """The predicates of a text that the pieces meet, and their groups' texts."""
    fixed = sum(piece.width or 0 for piece in pieces)
    free = next((piece for piece in pieces if piece.width is None), None)
    length = f"length({here})"
    terms = [f"typeof({here}) = 'text' AND instr({here}, char(0)) = 0"]
    terms.append(f"{length} = {fixed}" if free is None else f"{length} >= {fixed + free.least}")
    groups: list[str] = []
    before, after = 0, fixed
    for piece in pieces:
        if piece.width is None:
            groups.append(f"substr({here}, {before + 1}, {length} - {fixed})")
            before = -after - 1  # from here on places count from the end
            continue
        start = before + 1
        text = f"substr({here}, {start}, {piece.width})"
        if piece.literal:
            terms.append(f"{text} = {sqlite_text(piece.literal)} COLLATE BINARY")
        else:
            terms.append(f"{text} NOT GLOB '*[^0-9]*'")
            groups.append(text)
        before += piece.width
        after -= piece.width
    return terms, groups


def _made(replace: str, groups: list[str]) -> str | None:
    parts: list[str] = []
    literal, place = "", 0
    while place < len(replace):
        part = _WRITTEN.match(replace, place)
        if part is None or int(part["group"] or 1) > max(len(groups), 1):
            return None
        place = part.end()
        if part["group"]:
            if literal:
                parts.append(sqlite_text(literal))
            literal = ""
            parts.append(groups[int(part["group"]) - 1])
        else:
            literal += part["plain"]
    if literal or not parts:
        parts.append(sqlite_text(literal))
    return " || ".join(parts)
