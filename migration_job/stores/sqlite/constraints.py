"""The constraints of a CREATE TABLE statement as they are written: their names, and what a conflict
with each does. No PRAGMA tells either."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from migration_job.stores.sqlite.sqltext import Token, closing, split_commas
from migration_job.values import fold

ConstraintKind = Literal["primary key", "unique", "not null", "check", "foreign key"]

_KINDS: dict[str, ConstraintKind] = {
    "PRIMARY": "primary key",
    "UNIQUE": "unique",
    "CHECK": "check",
    "FOREIGN": "foreign key",
    "REFERENCES": "foreign key",
}


@dataclass(frozen=True, slots=True)
class ConstraintText:
    """One constraint, in the order of the statement."""

    kind: ConstraintKind
    columns: tuple[str, ...]
    """Folded; () for a CHECK of the table."""
    name: str | None
    conflict: str = ""
    """REPLACE, IGNORE and so on, '' where no ON CONFLICT stands."""


def constraints_of(item: Sequence[Token], *, column: bool) -> list[ConstraintText]:
    """The constraints of a column's definition, or of an item behind the columns (SQLite takes
    several there without a comma between)."""
    own = (fold(item[0].name),) if column else ()
    found: list[ConstraintText] = []
    name: str | None = None
    inside_foreign = False
    for index, token in _outside(item):
        following = item[index + 1] if index + 1 < len(item) else None
        if (column and index == 0) or _is_name(item, index, following):
            continue
        kind = _KINDS.get(token.text.upper()) if token.kind == "word" else None
        if token.is_word("CONSTRAINT"):
            name = following.name if following is not None else name
        elif _follows(item, index, "ON", "CONFLICT"):
            if found and following is not None:
                found[-1] = replace(found[-1], conflict=following.text.upper())
        elif column and _follows(item, index + 1, "NOT", "NULL"):
            found.append(ConstraintText("not null", own, name))
            name = None
        elif token.is_word("REFERENCES") and inside_foreign:
            inside_foreign = False
        elif kind is not None:
            inside_foreign = token.is_word("FOREIGN")
            columns = own or (() if kind == "check" else _columns(item, index))
            found.append(ConstraintText(kind, columns, name))
            name = None
        elif token.is_word("DEFAULT", "COLLATE", "GENERATED", "AS", "NULL"):
            name = None
    return found


def _follows(item: Sequence[Token], index: int, first: str, second: str) -> bool:
    """Whether the token is the second of these two words, and the first stands before it."""
    words = item[index - 1 : index + 1] if index > 0 else ()
    return len(words) == 2 and words[0].is_word(first) and words[1].is_word(second)


def _is_name(item: Sequence[Token], index: int, following: Token | None) -> bool:
    """Whether the token is the name of a constraint, which may be a word such as unique."""
    if following is None or item[index].is_word("CONSTRAINT"):
        return False
    return index > 0 and item[index - 1].is_word("CONSTRAINT")


def _outside(item: Sequence[Token]) -> Iterator[tuple[int, Token]]:
    """The tokens outside parentheses, with their places."""
    depth = 0
    for index, token in enumerate(item):
        if depth == 0:
            yield index, token
        depth += token.is_symbol("(") - token.is_symbol(")")


def _columns(item: Sequence[Token], start: int) -> tuple[str, ...]:
    opening = next((i for i in range(start, len(item)) if item[i].is_symbol("(")), None)
    if opening is None:
        return ()
    parts = split_commas(item[opening + 1 : closing(item, opening)])
    return tuple(fold(part[0].name) for part in parts)
