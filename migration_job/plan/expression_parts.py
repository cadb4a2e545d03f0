"""The parts of a translated expression: what is known of a column, and of each piece of SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from migration_job.plan import reach
from migration_job.plan.reach import Reach
from migration_job.plan.rules import TARGETS, Affinity, Kind, RuleBase, base_of
from migration_job.quoting import postgres_text
from migration_job.values import fold


class Untranslatable(Exception):
    """There is no expression of the same meaning; the message says what stands in the way."""


@dataclass(frozen=True, slots=True)
class Known:
    """A column as an expression may meet it."""

    sql: str
    """Its reference in PostgreSQL, quoted."""
    kind: Kind
    rule: RuleBase
    exact: bool = True
    collation: str = "BINARY"
    affinity: Affinity = "blob"
    """SQLite's, which decides what a comparison converts; "blob" where there is none."""
    hidden: str = ""
    """Why an expression cannot refer to it on the target, though it can on the source."""
    tells_null: bool = False
    """Of one that is hidden: an expression can ask whether it is NULL."""
    same_order: bool = True
    """Whether texts are ordered on the source as the target's "C" orders them: by the bytes of
    UTF-8, not of UTF-16."""
    reach: Reach = reach.ANY
    """Of a column of integers."""


Scope = Mapping[str, Known]
"""Columns by what :func:`spelled` makes of their names, with and without their table's."""


def spelled(name: str, table: str = "") -> str:
    """A column's key in a :data:`Scope`. Names hold any character but NUL, the dot as well."""
    return fold(f"{table}\0{name}" if table else name)


@dataclass(frozen=True, slots=True)
class Typed:
    """A translated part: PostgreSQL's SQL and what it yields there."""

    sql: str
    kind: Kind
    known: Known | None = None
    literal: str | int | float | None = None
    is_literal: bool = False
    collation: str = "BINARY"
    named: bool = False
    """Whether COLLATE names the collation here, rather than the column's definition."""
    reach: Reach = reach.ANY
    """Of an integer."""


def lowered(part: Typed) -> str:
    """A text with its ASCII letters as small ones, as SQLite folds them. A literal is folded here:
    in a generated column PostgreSQL computes what is constant before it knows its collation."""
    if isinstance(part.literal, str):
        return text_literal(fold(part.literal))
    return f'lower({part.sql} COLLATE "C")'


def part_of(known: Known) -> Typed:
    """A column as a part of an expression."""
    return Typed(known.sql, known.kind, known=known, collation=known.collation, reach=known.reach)


CLASS_WORDS: Mapping[Kind, str] = {
    "integer": "integer",
    "boolean": "integer",
    "real": "real",
    "text": "text",
    "uuid": "text",
    "date": "text",
    "bytea": "blob",
}
"""What typeof() says of the values that a kind has come from."""


NUMBERS: frozenset[Kind] = frozenset({"integer", "real", "numeric"})


def kind_of(type_sql: str) -> Kind:
    """The kind of a plan's PostgreSQL type; arrays are opaque."""
    known = TARGETS.get(base_of(type_sql))
    return "opaque" if known is None else known.kind


def truth(part: Typed) -> str:
    """The part as a condition: SQLite takes every number but 0 for true."""
    if part.kind == "boolean":
        return part.sql
    if part.kind in NUMBERS:
        return f"{part.sql} <> 0"
    if part.kind == "null":
        return "NULL::boolean"
    raise Untranslatable(f"a {part.kind} where a condition is expected")


def number(part: Typed) -> Typed:
    """The part as a number: SQLite's truth values are 0 and 1."""
    if part.kind == "boolean":
        return Typed(f"({part.sql})::integer", "integer", reach=reach.BIT)
    if part.kind in NUMBERS or part.kind == "null":
        return part
    raise Untranslatable(f"a {part.kind} where a number is expected")


def text_literal(text: str) -> str:
    """Text as a PostgreSQL literal. Raises Untranslatable for NUL."""
    if "\x00" in text:
        raise Untranslatable("a literal holds a NUL character")
    return postgres_text(text)


def unified(parts: Sequence[Typed]) -> list[Typed]:
    """The parts as one kind. Raises Untranslatable where SQLite would mix storage classes."""
    kinds = {p.kind for p in parts} - {"null"}
    if len({base_of(p.known.rule.target_type) for p in parts if p.kind == "time" and p.known}) > 1:
        raise Untranslatable("a time of day beside a time")
    if len(kinds) <= 1:
        return list(parts)
    if kinds <= {"boolean", "integer"}:
        return [number(p) if p.kind == "boolean" else p for p in parts]
    raise Untranslatable(f"values of several types ({', '.join(sorted(kinds))})")


def kind_among(parts: Sequence[Typed]) -> Kind:
    """The one kind of unified parts."""
    return next((p.kind for p in parts if p.kind != "null"), "null")


def reach_among(parts: Sequence[Typed]) -> Reach:
    """The integers that one of the parts is among."""
    return reach.joined([p.reach for p in parts if p.kind == "integer"])
