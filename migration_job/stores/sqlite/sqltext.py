"""SQLite's SQL cut into tokens: enough to find the parts of a CREATE statement that no PRAGMA tells
(CHECKs, collations, generated columns, the terms of an expression index).

Expressions are not interpreted here; they are handed on as the text between two tokens.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from migration_job.values import fold

TokenKind = Literal["word", "name", "string", "blob", "number", "symbol"]

_TOKEN = re.compile(
    r"""
      (?P<space>  [ \t\r\n\f]+ | --[^\n]*(?:\n|$) | /\*.*?(?:\*/|$) )
    | (?P<blob>   [xX]'[0-9a-fA-F]*' )
    | (?P<string> '(?:[^']|'')*' )
    | (?P<name>   "(?:[^"]|"")*" | `(?:[^`]|``)*` | \[[^\]]*\] )
    | (?P<number> 0[xX][0-9a-fA-F_]+ | (?:\d[\d_]*(?:\.[\d_]*)?|\.\d[\d_]*)(?:[eE][+-]?\d[\d_]*)? )
    | (?P<word>   [A-Za-z_\u0080-\U0010ffff][A-Za-z0-9_$\u0080-\U0010ffff]* )
    | (?P<symbol> \|\| | ->>? | << | >> | <= | >= | <> | == | != | . )
    """,
    re.VERBOSE | re.DOTALL,
)


class Token(NamedTuple):
    kind: TokenKind
    text: str
    start: int
    end: int

    def is_word(self, *words: str) -> bool:
        """Whether this is one of the keywords (given in upper case), unquoted."""
        return self.kind == "word" and self.text.upper() in words

    def is_symbol(self, symbol: str) -> bool:
        return self.kind == "symbol" and self.text == symbol

    @property
    def name(self) -> str:
        """The identifier without its quotes. SQLite takes a string where a name is due."""
        if self.kind in ("name", "string"):
            if self.text[0] == "[":
                return self.text[1:-1]
            mark = self.text[0]
            return self.text[1:-1].replace(mark * 2, mark)
        return self.text


def tokenize(sql: str) -> list[Token]:
    """The tokens without blanks and comments."""
    tokens: list[Token] = []
    for match in _TOKEN.finditer(sql):
        kind = match.lastgroup
        if kind == "space" or kind is None:
            continue
        tokens.append(Token(kind, match.group(), match.start(), match.end()))  # type: ignore[arg-type]
    return tokens


def text_of(sql: str, tokens: Sequence[Token]) -> str:
    """The source text from the first token to the last; '' for none."""
    return sql[tokens[0].start : tokens[-1].end] if tokens else ""


def closing(tokens: Sequence[Token], opening: int) -> int:
    """The index of the parenthesis that closes the one at ``opening`` (the last token where the
    text ends first)."""
    depth = 0
    for index in range(opening, len(tokens)):
        if tokens[index].is_symbol("("):
            depth += 1
        elif tokens[index].is_symbol(")"):
            depth -= 1
            if depth == 0:
                return index
    return len(tokens) - 1


def split_commas(tokens: Sequence[Token]) -> list[list[Token]]:
    """The tokens cut at the commas outside parentheses."""
    parts: list[list[Token]] = [[]]
    depth = 0
    for token in tokens:
        if token.is_symbol("("):
            depth += 1
        elif token.is_symbol(")"):
            depth -= 1
        if token.is_symbol(",") and depth == 0:
            parts.append([])
        else:
            parts[-1].append(token)
    return [part for part in parts if part]


@dataclass(frozen=True, slots=True)
class ColumnText:
    """What the text of a column definition adds to ``PRAGMA table_xinfo``."""

    name: str
    collation: str
    expression: str | None
    autoincrement: bool
    deferred: bool
    """Whether a foreign key written with the column is INITIALLY DEFERRED."""


@dataclass(frozen=True, slots=True)
class TableText:
    columns: tuple[ColumnText, ...]
    checks: tuple[str, ...]
    deferred: tuple[frozenset[str], ...]
    """Lower-cased column sets of the table-level foreign keys that are INITIALLY DEFERRED."""
    items: tuple[tuple[bool, tuple[Token, ...]], ...] = ()
    """The tokens of each item of the list, and whether it defines a column."""


_TELLING = re.compile(
    r"\b(?:COLLATE|AUTOINCREMENT|AS|CHECK|INITIALLY|CONSTRAINT|CONFLICT)\b", re.IGNORECASE
)
"""Without any of these words, quoted ones among them, a table's text tells nothing of its own."""

_TABLE_CONSTRAINTS = ("CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "FOREIGN")


def parse_table(sql: str) -> TableText:
    """What a CREATE TABLE statement says beyond the PRAGMAs; no columns where it is nothing."""
    if _TELLING.search(sql) is None:
        return TableText((), (), ())
    tokens = tokenize(sql)
    opening = next((i for i, t in enumerate(tokens) if t.is_symbol("(")), None)
    if opening is None:
        return TableText((), (), ())
    items = split_commas(tokens[opening + 1 : closing(tokens, opening)])
    columns: list[ColumnText] = []
    checks: list[str] = []
    deferred: list[frozenset[str]] = []
    constraints = False
    kept: list[tuple[bool, tuple[Token, ...]]] = []
    for item in items:
        constraints = constraints or (
            bool(columns) and item[0].is_word(*_TABLE_CONSTRAINTS) and _is_constraint(item)
        )
        checks.extend(_checks(sql, item))
        kept.append((not constraints, tuple(item)))
        if constraints:
            deferred.extend(_deferred_keys(item))
        else:
            columns.append(_column(sql, item))
    return TableText(tuple(columns), tuple(checks), tuple(deferred), tuple(kept))


def _is_constraint(item: Sequence[Token]) -> bool:
    """SQLite's own grammar decides by the keyword alone: all five are reserved."""
    return len(item) > 1


def _column(sql: str, item: Sequence[Token]) -> ColumnText:
    collation = "BINARY"
    expression: str | None = None
    autoincrement = False
    depth = 0
    for index, token in enumerate(item):
        if depth == 0 and index:
            following = item[index + 1] if index + 1 < len(item) else None
            if token.is_word("COLLATE") and following is not None:
                collation = following.name
            elif token.is_word("AUTOINCREMENT"):
                autoincrement = True
            elif token.is_word("AS") and following is not None and following.is_symbol("("):
                end = closing(item, index + 1)
                expression = text_of(sql, item[index + 2 : end])
        depth += token.is_symbol("(") - token.is_symbol(")")
    return ColumnText(item[0].name, collation, expression, autoincrement, _is_deferred(item))


def _checks(sql: str, item: Sequence[Token]) -> list[str]:
    found: list[str] = []
    depth = 0
    for index, token in enumerate(item):
        if depth == 0 and token.is_word("CHECK") and index + 1 < len(item):
            end = closing(item, index + 1)
            found.append(text_of(sql, item[index + 2 : end]))
        depth += token.is_symbol("(") - token.is_symbol(")")
    return found


def _is_deferred(item: Sequence[Token]) -> bool:
    words = [t.text.upper() if t.kind == "word" else "" for t in item]
    for index in range(len(words) - 1):
        if words[index : index + 2] == ["INITIALLY", "DEFERRED"]:
            before = words[:index]
            return before[-1:] == ["DEFERRABLE"] and before[-2:] != ["NOT", "DEFERRABLE"]
    return False


def _deferred_keys(item: Sequence[Token]) -> list[frozenset[str]]:
    for index, token in enumerate(item):
        if token.is_word("FOREIGN"):
            opening = next(
                (i for i in range(index, len(item)) if item[i].is_symbol("(")), len(item) - 1
            )
            names = split_commas(item[opening + 1 : closing(item, opening)])
            if _is_deferred(item):
                return [frozenset(fold(part[0].name) for part in names)]
    return []


@dataclass(frozen=True, slots=True)
class IndexText:
    terms: tuple[str, ...]
    """Each term's expression, without COLLATE at its end and without ASC or DESC."""
    where: str | None


def parse_index(sql: str) -> IndexText:
    """The terms and the condition of a CREATE INDEX statement."""
    tokens = tokenize(sql)
    on = next(i for i, t in enumerate(tokens) if t.is_word("ON"))
    opening = next(i for i in range(on, len(tokens)) if tokens[i].is_symbol("("))
    end = closing(tokens, opening)
    terms = [_term(sql, part) for part in split_commas(tokens[opening + 1 : end])]
    rest = tokens[end + 1 :]
    where = text_of(sql, rest[1:]).rstrip("; \n\t") if rest and rest[0].is_word("WHERE") else None
    return IndexText(tuple(terms), where)


def _term(sql: str, part: list[Token]) -> str:
    if len(part) > 1 and part[-1].is_word("ASC", "DESC"):
        part = part[:-1]
    if len(part) > 2 and part[-2].is_word("COLLATE"):
        part = part[:-2]
    return text_of(sql, part)


@dataclass(frozen=True, slots=True)
class TriggerText:
    """A row trigger of a table."""

    event: str
    """``INSERT``, ``UPDATE`` or ``DELETE``."""
    columns: str
    """The list after ``UPDATE OF``, as text; '' where there is none."""
    when: str
    """``WHEN ...``, or ''."""
    statements: tuple[tuple[str, str], ...]
    """Of each statement within, the table that it writes to, folded ('' for a SELECT), and its
    text."""


def _place_of(tokens: Sequence[Token], start: int, *words: str) -> int | None:
    """Where the first of the words stands from ``start`` on; None: nowhere."""
    return next((i for i in range(start, len(tokens)) if tokens[i].is_word(*words)), None)


def parse_trigger(sql: str) -> TriggerText | None:
    """What a CREATE TRIGGER statement says; None where it is none of a table's rows."""
    tokens = tokenize(sql)
    begin = _place_of(tokens, 0, "BEGIN")
    head = tokens[:begin]
    event = _place_of(head, 0, "INSERT", "UPDATE", "DELETE")
    on = None if event is None else _place_of(head, event, "ON")
    if begin is None or event is None or on is None:
        return None
    of = head[event + 2 : on] if head[event + 1].is_word("OF") else []
    when = _place_of(head, on + 2, "WHEN")
    found: list[list[Token]] = [[]]
    for token in tokens[begin + 1 :]:
        if token.is_symbol(";"):
            found.append([])
        else:
            found[-1].append(token)
    return TriggerText(
        head[event].text.upper(),
        text_of(sql, of),
        "" if when is None else text_of(sql, head[when:]),
        tuple((_written(part), text_of(sql, part)) for part in found[:-1] if part),
    )


def _written(statement: Sequence[Token]) -> str:
    """The table that a statement writes to."""
    if not statement[0].is_word("INSERT", "REPLACE", "UPDATE", "DELETE"):
        return ""
    words = ("INTO", "FROM") if not statement[0].is_word("UPDATE") else ("UPDATE",)
    at = next((i for i, t in enumerate(statement) if t.is_word(*words)), len(statement) - 1)
    if statement[0].is_word("UPDATE") and statement[1].is_word("OR"):
        at += 2
    return fold(statement[at + 1].name) if at + 1 < len(statement) else ""
