"""What a table's CHECKs say of storage classes: ``typeof(c) = 'integer'`` is a type, for a column
that declares none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from migration_job.stores.sqlite.sqltext import Token, tokenize
from migration_job.values import fold

Class = Literal["integer", "real", "text", "blob", "null"]

CLASSES = ("integer", "real", "text", "blob", "null")


def typeof_columns(check: str) -> Iterator[tuple[str, int, list[Token]]]:
    """Each ``typeof(column)`` of an expression: the column's folded name, the index of the token
    behind it, and all tokens."""
    tokens = tokenize(check)
    for index in range(len(tokens) - 3):
        word, opening, name, end = tokens[index : index + 4]
        named = name.kind in ("word", "name")
        if word.is_word("TYPEOF") and opening.is_symbol("(") and named and end.is_symbol(")"):
            yield fold(name.name), index + 4, tokens


def classes_allowed(checks: tuple[str, ...], column: str) -> set[str]:
    """The storage classes, NULL apart, that a CHECK of the form ``typeof(column) = 'class'`` or
    ``typeof(column) IN ('class', ...)`` allows in the column; none where no CHECK says so."""
    for check in checks:
        for name, behind, tokens in typeof_columns(check):
            if name == fold(column) and behind == 4:
                found = _compared_with(tokens[behind:])
                if found:
                    return found - {"null"}
    return set()


def is_json(checks: tuple[str, ...], column: str) -> bool:
    """Whether a CHECK asks for ``json_valid(column)`` of every value but NULL."""
    name = fold(column)
    valid, null = ["json_valid", name], [name, "is", "null"]
    forms = (valid, [*valid, "or", *null], [*null, "or", *valid])
    return any(part in forms for check in checks for part in _conjuncts(check))


def is_truth(checks: tuple[str, ...], column: str) -> bool:
    """Whether a CHECK allows nothing but 0 and 1, and NULL, in the column."""
    name = fold(column)
    null = [name, "is", "null"]
    allowed = [
        *([name, "in", *pair] for pair in (["0", ",", "1"], ["1", ",", "0"])),
        *([name, "=", low, "or", name, "=", high] for low, high in (("0", "1"), ("1", "0"))),
    ]
    forms = [[*before, *one, *after] for one in allowed for before, after in _beside(null)]
    return any(part in forms for check in checks for part in _conjuncts(check))


def _beside(null: list[str]) -> Iterator[tuple[list[str], list[str]]]:
    yield [], []
    yield [*null, "or"], []
    yield [], ["or", *null]


def _conjuncts(check: str) -> Iterator[list[str]]:
    """What an expression asks for, all of it together: its folded words without parentheses."""
    tokens = [t for t in tokenize(check) if not t.is_symbol("(") and not t.is_symbol(")")]
    if any(t.is_word("NOT", "CASE") for t in tokens):
        return
    part: list[str] = []
    for token in tokens:
        if token.is_word("AND"):
            yield part
            part = []
        else:
            part.append(fold(token.name))
    yield part


def _compared_with(tokens: list[Token]) -> set[str]:
    """The classes that the rest of a CHECK names, where it does nothing else."""
    words = [t.text.upper() for t in tokens if t.kind != "string"]
    found = {t.name.lower() for t in tokens if t.kind == "string"}
    equal = words in (["="], ["=="], ["IS"])
    listed = words[:2] == ["IN", "("] and words[-1] == ")" and set(words[2:-1]) <= {","}
    return found if (equal or listed) and found <= set(CLASSES) else set()


def names_class(check: str, column: str, storage_class: str) -> bool:
    """Whether a CHECK that asks for a column's ``typeof`` names the class anywhere; so does one
    that does not ask for it."""
    asked = any(name == fold(column) for name, _, _ in typeof_columns(check))
    named = {t.name.lower() for t in tokenize(check) if t.kind == "string"}
    return not asked or storage_class in named
