"""Patterns that go both ways: the text of the source from the text of the target, and SQLite's own
expression of the one where it has one.

A pattern goes both ways where what it matches is literal text around groups, and what it writes is
literal text around the same groups, each once: nothing that it met is left out. Whether it brings a
value back is tried on that value all the same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from migration_job.quoting import sqlite_text

_ATOM = re.compile(
    r"\\[dw] | \\[^A-Za-z0-9] | \[\^?[^\]\\]+\] | [^\\\[\](){}*+?|^$]", re.VERBOSE | re.DOTALL
)
_QUANTIFIER = re.compile(r"\{(\d+)\}|\+|\*")
_CLASS = re.compile(r"\[\^?(?:[A-Za-z0-9]-[A-Za-z0-9]|[A-Za-z0-9_])+\]")
_REFERENCE = re.compile(r"\\(?:([1-9])|g<([1-9])>|(\\))|([^\\]+)", re.DOTALL)
_GLOB = {r"\d": "[0-9]", r"\w": "[A-Za-z0-9_]", ".": "?"}


@dataclass(frozen=True, slots=True)
class Group:
    """What a pair of parentheses meets."""

    regex: str
    globs: tuple[str, ...] | None
    """GLOB's term of each of its characters, where they have a number; of its only one where it is
    ``open``; None where GLOB cannot tell."""
    open: bool = False
    least: int = 0
    """The characters that an open group has at least."""


@dataclass(frozen=True)
class Both:
    """A pattern in its parts: literal text, or the number of a group from 1."""

    source: tuple[str | int, ...]
    target: tuple[str | int, ...]
    groups: tuple[Group, ...]

    def back(self, text: str) -> str | None:
        """The source's text for the target's, None where this pattern did not write it."""
        found = _regex(self.target, self.groups).fullmatch(text)
        if found is None:
            return None
        order = [p for p in self.target if isinstance(p, int)]
        values = dict(zip(order, found.groups(), strict=True))
        return "".join(values[p] if isinstance(p, int) else p for p in self.source)


@lru_cache(maxsize=256)
def _regex(parts: tuple[str | int, ...], groups: tuple[Group, ...]) -> re.Pattern[str]:
    terms = (f"({groups[p - 1].regex})" if isinstance(p, int) else re.escape(p) for p in parts)
    return re.compile("".join(terms), re.DOTALL)


@lru_cache(maxsize=256)
def both_ways(match: str, replace: str) -> Both | None:
    """The pattern in its parts; None where it does not go both ways."""
    source, groups = _source(match)
    target = _target(replace)
    numbers = sorted(p for p in target if isinstance(p, int))
    if not groups or numbers != list(range(1, len(groups) + 1)):
        return None
    return Both(tuple(source), tuple(target), tuple(groups))


def _source(match: str) -> tuple[list[str | int], list[Group]]:
    """The parts and the groups; no groups where the pattern is anything else."""
    parts: list[str | int] = []
    groups: list[Group] = []
    place, end = int(match.startswith("^")), len(match)
    if match.endswith("$") and not match.endswith("\\$"):
        end -= 1
    while place < end:
        if match[place] == "(":
            group, place = _group(match, place + 1)
            if group is None:
                return [], []
            groups.append(group)
            parts.append(len(groups))
            continue
        atom = _ATOM.match(match, place, end)
        literal = None if atom is None else _literal(atom[0])
        if atom is None or literal is None or match[atom.end() : atom.end() + 1] in tuple("{*+?"):
            return [], []
        parts.append(literal)
        place = atom.end()
    return parts, groups


def _literal(atom: str) -> str | None:
    if len(atom) == 1:
        return None if atom == "." else atom
    return atom[1] if atom[0] == "\\" and atom not in _GLOB else None


def _group(match: str, start: int) -> tuple[Group | None, int]:
    """The group that begins behind a parenthesis, and where it ends."""
    place = start
    globs: list[str] = []
    known, opened, least = True, False, 0
    while place < len(match) and match[place] != ")":
        atom = _ATOM.match(match, place)
        if atom is None:
            return None, place
        place = atom.end()
        term = _glob(atom[0])
        quantifier = _QUANTIFIER.match(match, place)
        if quantifier is not None:
            place = quantifier.end()
        if match[place : place + 1] in ("?", "*", "+", "{", "|"):
            return None, place
        known, shape = known and term is not None, term or ""
        if quantifier is None or quantifier[1]:
            globs += [shape] * (1 if quantifier is None else int(quantifier[1]))
        else:
            known = known and not globs and match[place : place + 1] == ")"
            globs, opened, least = [shape], True, int(quantifier[0] == "+")
    group = Group(match[start:place], tuple(globs) if known else None, opened, least)
    return (group if start < place < len(match) else None), place + 1


def _glob(atom: str) -> str | None:
    if atom in _GLOB:
        return _GLOB[atom]
    literal = _literal(atom)
    if literal is not None:
        return _glob_literal(literal)
    return atom if _CLASS.fullmatch(atom) else None


def _glob_literal(text: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in text)


def _target(replace: str) -> list[str | int]:
    parts: list[str | int] = []
    place = 0
    while place < len(replace):
        found = _REFERENCE.match(replace, place)
        if found is None:
            return []
        number = found[1] or found[2]
        parts.append(int(number) if number else found[3] or found[4])
        place = found.end()
    return parts


def sql_of(both: Both, column: str) -> tuple[str, str] | None:
    """SQLite's predicate, never NULL, of texts that the pattern meets and brings back, and its
    expression of what it makes of them; None where SQLite has none. Of the groups one at most may
    have any length: each other stands at a place that is known from an end."""
    if any(g.globs is None for g in both.groups) or sum(g.open for g in both.groups) > 1:
        return None
    terms, pieces, more = _pieces(both, column)
    met = [f"typeof({column}) = 'text'", f"{column} GLOB {sqlite_text(''.join(terms))}", *more]
    made = [pieces[p] if isinstance(p, int) else sqlite_text(p) for p in both.target]
    return f"({' AND '.join(met)})", f"({' || '.join(made)})" if len(made) > 1 else made[0]


def _pieces(both: Both, column: str) -> tuple[list[str], dict[int, str], list[str]]:
    """The terms of GLOB's pattern; SQLite's expression of each group's text; what a text has to
    meet besides."""
    sizes = [_size(both, part) for part in both.source]
    fixed = sum(size or 0 for size in sizes)
    terms: list[str] = []
    pieces: dict[int, str] = {}
    more: list[str] = []
    position = 0
    behind = False
    for index, part in enumerate(both.source):
        size = sizes[index]
        if size is None and isinstance(part, int):
            group = both.groups[part - 1]
            pieces[part] = f"substr({column}, {position + 1}, length({column}) - {fixed})"
            more.append(f"length({column}) >= {fixed + group.least}")
            more += _only(group, pieces[part])
            terms.append("*")
            behind = True
            continue
        rest = sum(s or 0 for s in sizes[index:])
        if isinstance(part, int):
            start = -rest if behind else position + 1
            pieces[part] = f"substr({column}, {start}, {size})"
            terms += both.groups[part - 1].globs or ()
        else:
            terms.append(_glob_literal(part))
        position += size or 0
    return terms, pieces, more


def _size(both: Both, part: str | int) -> int | None:
    if isinstance(part, str):
        return len(part)
    group = both.groups[part - 1]
    return None if group.open else len(group.globs or ())


def _only(group: Group, piece: str) -> Sequence[str]:
    """What tells that each character of a piece is one of the group's."""
    (term,) = group.globs or ("?",)
    if term == "?":
        return ()
    if not term.startswith("["):
        other = f"[^{term}]"
    elif term.startswith("[^"):
        other = "[" + term[2:]
    else:
        other = "[^" + term[1:]
    return (f"NOT {piece} GLOB {sqlite_text('*' + other + '*')}",)
