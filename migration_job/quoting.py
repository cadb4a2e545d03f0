"""How a name or a text becomes part of an SQL text, for both engines. Nothing else quotes one.

A name never reaches SQL but through one of these functions, which say by their own names for which
engine they quote: the two agree on the quotes and differ in what can be a name at all. PostgreSQL's
side is what ``psycopg.sql`` writes, which a test compares; importing that would be half of what
starting takes for a command that asks no PostgreSQL. Two more rules keep a name from being read as
something else:

- A statement that holds names and takes parameters has them as ``$1`` (``psycopg.RawCursor``,
  :func:`migration_job.stores.postgres.database.execute_raw`): where they are ``%s``, the per cent
  sign of a name would be one too.
- The body of a function that holds names is a literal (:func:`postgres_text`), not text between
  dollar tags, which a name could hold as well.

A text of SQL is put together by :func:`compose` and by nothing else: no f-string, no ``+``, no
``%``. Its template is a literal of the program, and a part that would reach out of its place is
refused, so that a name which somebody forgot to quote is an error and not a statement.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import LiteralString

from migration_job.errors import InputError

POSTGRES_NAME_BYTES = 63
"""NAMEDATALEN - 1: PostgreSQL cuts longer names silently, so they are refused here."""


def sqlite_name(name: str) -> str:
    """The name as an identifier of SQLite's, of any length. Raises InputError for a NUL, at which
    SQLite would end the statement."""
    if "\x00" in name:
        raise InputError(f"expected a name without a NUL character, found {name!r}")
    return '"' + name.replace('"', '""') + '"'


def sqlite_table(name: str, schema: str = "main") -> str:
    """A table, view or index of the file itself: a temporary one of that name does not hide it."""
    return f"{sqlite_name(schema)}.{sqlite_name(name)}"


def sqlite_text(text: str) -> str:
    """The text as a literal of SQLite's. Raises InputError for a NUL."""
    if "\x00" in text:
        raise InputError(f"expected a text without a NUL character, found {text!r}")
    return "'" + text.replace("'", "''") + "'"


def postgres_name(name: str) -> str:
    """The name as an identifier of PostgreSQL's. Raises InputError for what cannot be one: an empty
    name, a NUL, more than :data:`POSTGRES_NAME_BYTES` bytes."""
    if not name or "\x00" in name or len(name.encode()) > POSTGRES_NAME_BYTES:
        raise InputError(
            f"expected a name of 1 to {POSTGRES_NAME_BYTES:,} bytes without a NUL character for "
            f"PostgreSQL, found {name!r}"
        )
    return '"' + name.replace('"', '""') + '"'


def postgres_relation(name: str, schema: str) -> str:
    """A table, view, index or sequence in its schema. Raises InputError as :func:`postgres_name`
    does."""
    return f"{postgres_name(schema)}.{postgres_name(name)}"


def postgres_text(text: str) -> str:
    """The text as a literal of PostgreSQL's, the same under any ``standard_conforming_strings``.
    Raises InputError for a NUL, which PostgreSQL cannot hold."""
    if "\x00" in text:
        raise InputError(f"expected a text without a NUL character, found {text!r}")
    quoted = "'" + text.replace("'", "''") + "'"
    return "E" + quoted.replace("\\", "\\\\") if "\\" in text else quoted


def postgres_element(text: str) -> str:
    """The text as an element of an array's text (``{...}``), always in quotation marks."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


# --------------------------------------------------------------------------- texts of SQL


class Sql(str):
    """A text of SQL that was composed here: as a part of another it needs no second look."""

    __slots__ = ()


_TOKEN = re.compile(
    r"""
      (?<![A-Za-z0-9_$])[eE]'(?:[^'\\]|\\.|'')*'   # PostgreSQL's literal with backslashes
    | '(?:[^']|'')*'
    | "(?:[^"]|"")*"
    | `(?:[^`]|``)*`
    | /\*.*?\*/
    | (?P<opening>[(\[])
    | (?P<closing>[)\]])
    | (?P<loose>['"`;\x00] | -- | /\* | \$(?:[A-Za-z_\x80-\U0010ffff][^\s$]*)?\$)
    """,
    re.VERBOSE | re.DOTALL,
)


def compose(template: LiteralString, /, **parts: str | int | None) -> Sql:
    """The template with ``{name}`` replaced by the part of that name; ``{{`` is a brace.

    A part is a name or a text that a function of this module quoted, a number, SQL that was
    composed before, or a piece of it such as a list of names. Raises InputError for one that ends
    its statement, that leaves a quote, a comment or a parenthesis open, or closes one that it did
    not open, and for None: it would change what the rest means.
    """
    for name, part in parts.items():
        _require_part(part, name)
    return Sql(template.format_map(parts))


def joined(separator: LiteralString, parts: Iterable[str]) -> Sql:
    """The parts with a separator between them. Raises InputError as :func:`compose` does."""
    found = list(parts)
    for part in found:
        _require_part(part, "a part of a list")
    return Sql(separator.join(found))


def as_written(text: str) -> Sql:
    """SQL that the plan holds as a whole: translated from a parsed expression, or the operator's
    own words in a policy or a profile, which run on the target as its owner's by right."""
    return Sql(text)


_SQLITE_PIECE = re.compile(
    r"""
      '(?:[^']|'')*' | "(?:[^"]|"")*" | `(?:[^`]|``)*`
    | \[(?P<name>[^\]]*)\]
    | (?P<comment> --[^\n]*(?:\n|$) | /\*.*?(?:\*/|$) )
    """,
    re.VERBOSE | re.DOTALL,
)


def sqlite_expression(text: str) -> Sql:
    """An expression that the schema of a SQLite file has, without its comments and with its names
    in quotes of the standard. Raises InputError for what cannot be one."""

    def plain(piece: re.Match[str]) -> str:
        if piece["comment"]:
            return " "
        return piece[0] if piece["name"] is None else sqlite_name(piece["name"])

    written = _SQLITE_PIECE.sub(plain, text)
    _require_part(written, "an expression")
    return Sql(written)


def _require_part(part: str | int | None, what: str) -> None:
    if isinstance(part, int | Sql):
        return
    if part is not None and (_seen if len(part) < LONGEST_KEPT else _stays_in_its_place)(part):
        return
    raise InputError(
        f"expected SQL that closes what it opens as {what} of a statement, found other text there",
        advice="a name or an expression holds what no statement can; please report it",
    )


_UNUSUAL = re.compile(r"[\\$`;\x00]|--|/\*")
"""Without any of these, quotes end where the next one is, and nothing else hides a parenthesis."""

_QUOTED_OR_BRACKET = re.compile(r"""'[^']*'|"[^"]*"|['"()\[\]]""")


def _stays_in_its_place(part: str) -> bool:
    if _UNUSUAL.search(part):
        return _closes_what_it_opens(part)
    depth = 0
    for piece in _QUOTED_OR_BRACKET.findall(part):
        if len(piece) > 1:
            continue
        if piece in "'\"":
            return False
        depth += 1 if piece in "([" else -1
        if depth < 0:
            return False
    return depth == 0


LONGEST_KEPT = 1_000
_seen = lru_cache(maxsize=1_024)(_stays_in_its_place)
"""The same few parts come again and again: the names of columns, and what is asked of each."""


def _closes_what_it_opens(part: str) -> bool:
    depth = 0
    for token in _TOKEN.finditer(part):
        if token["loose"]:
            return False
        depth += bool(token["opening"]) - bool(token["closing"])
        if depth < 0:
            return False
    return depth == 0
