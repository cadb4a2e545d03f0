"""Comparisons and patterns as SQLite has them: by affinity, collation and shape."""

from __future__ import annotations

import re
from dataclasses import replace

from migration_job.plan import moments
from migration_job.plan.expression_parts import (
    NUMBERS,
    Known,
    Typed,
    Untranslatable,
    lowered,
    number,
    text_literal,
)
from migration_job.plan.rules import (
    NUMBER_AFFINITIES,
    CannotCarry,
    RuleBase,
    TimeRule,
    TimestampRule,
    inside,
)

ORDERING = ("<", "<=", ">", ">=")


def compare(left: Typed, right: Typed, word: str) -> Typed:
    """A comparison by SQLite's affinities and collations. Raises Untranslatable."""
    if "null" in (left.kind, right.kind):
        if "DISTINCT" in word:
            a, b = left.sql, right.sql
            return Typed(f"({a} {word} {b})", "boolean")
        return Typed("NULL::boolean", "boolean")
    left, right = _coerced(left, right), _coerced(right, left)
    if left.kind == right.kind == "boolean":
        return Typed(f"({left.sql} {word} {right.sql})", "boolean")
    if "boolean" in (left.kind, right.kind):
        left, right = number(left), number(right)
    if left.kind in NUMBERS and right.kind in NUMBERS:
        left, right = _beside(left, right), _beside(right, left)
        return Typed(f"({left.sql} {word} {right.sql})", "boolean")
    if left.kind == right.kind == "text":
        return _compare_text(left, right, word)
    if left.kind == right.kind and left.kind in ("bytea", "uuid", "date"):
        return Typed(f"({left.sql} {word} {right.sql})", "boolean")
    if left.kind == right.kind == "time" and _same_shape(left, right):
        return Typed(f"({left.sql} {word} {right.sql})", "boolean")
    raise Untranslatable(f"a comparison of {left.kind} with {right.kind}")


def _beside(part: Typed, other: Typed) -> Typed:
    """A literal without a fraction beside an integer, which PostgreSQL would make a double of."""
    whole = isinstance(part.literal, float) and part.literal.is_integer()
    if other.kind == "integer" and part.is_literal and whole and isinstance(part.literal, float):
        return replace(part, sql=f"({int(part.literal)})::numeric")
    return part


def _compare_text(left: Typed, right: Typed, word: str) -> Typed:
    # A COLLATE written here comes first, then a column's own; the left before the right.
    sides = (left, right)
    numeric = [p.known is not None and p.known.affinity not in ("text", "blob") for p in sides]
    if numeric[0] != numeric[1] and not any(p.is_literal for p in sides):
        # SQLite compares the other side's text as a number where it looks like one.
        raise Untranslatable("text compared with a column of numeric affinity")
    candidates = [p.collation for p in sides if p.named]
    candidates += [p.collation for p in sides if p.known is not None]
    collation = candidates[0] if candidates else "BINARY"
    a, b = left.sql, right.sql
    if collation.upper() == "NOCASE":
        a, b = lowered(left), lowered(right)
    elif collation.upper() == "RTRIM":
        a, b = f"rtrim({a}, ' ')", f"rtrim({b}, ' ')"
    elif collation.upper() != "BINARY":
        raise Untranslatable(f"the collation {collation} is the application's own")
    if word in ORDERING:
        a = f'{a} COLLATE "C"'
    return Typed(f"({a} {word} {b})", "boolean")


def _coerced(part: Typed, other: Typed) -> Typed:
    """A literal under the affinity of the column that it is compared with."""
    if not part.is_literal or other.known is None:
        return part
    known = other.known
    if _of_other_classes(part.literal, known):
        raise Untranslatable("a number compared with text")
    if known.kind == "text" and isinstance(part.literal, int):
        return Typed(
            text_literal(str(part.literal)), "text", literal=str(part.literal), is_literal=True
        )
    if known.kind in NUMBERS and isinstance(part.literal, str):
        if re.fullmatch(r"-?\d{1,18}", part.literal):
            whole = int(part.literal)
            return Typed(str(whole), "integer", literal=whole, is_literal=True)
        raise Untranslatable("a number compared with text")
    if known.kind == "boolean" and part.literal in (0, 1):
        return Typed("TRUE" if part.literal else "FALSE", "boolean")
    if known.kind in ("time", "date", "uuid") and isinstance(part.literal, str):
        return _spelled(part.literal, known)
    return part


def _of_other_classes(literal: str | int | float | None, known: Known) -> bool:
    """Whether SQLite compares a number with text here, of which the number is always the less."""
    if known.kind in NUMBERS:
        return known.affinity == "blob" and isinstance(literal, str)
    if known.kind != "text" or known.affinity == "text":
        return False
    if isinstance(literal, str) and known.affinity != "blob":
        return bool(re.match(r"\s*[-+]?\.?\d", literal))
    return isinstance(literal, int)


def _spelled(text: str, known: Known) -> Typed:
    """A text literal as a value of the column's type, where the column spells its values so."""
    inner = inside(known.rule)
    if known.kind == "time":
        moment = moments.read(text)
        same = moment is not None and moment.shape == getattr(inner, "shape", None)
        if not same or not known.exact or not in_order(inner):
            raise Untranslatable("a time compared with text of another shape than its own")
    try:
        spelled = inner.forward(text)
    except CannotCarry as reason:
        raise Untranslatable(str(reason)) from None
    types = {"time": "timestamptz" if isinstance(inner, TimestampRule) else "time"}
    cast = types.get(known.kind, known.kind)
    return Typed(f"'{spelled}'::{cast}", known.kind)


def _same_shape(left: Typed, right: Typed) -> bool:
    """Whether two times compare as their texts do in SQLite: one shape, nothing else in it."""
    rules = [inside(p.known.rule) for p in (left, right) if p.known is not None]
    if len(rules) < 2:
        # A literal was brought to the column's shape already.
        return True
    exact = all(p.known is None or p.known.exact for p in (left, right)) and all(
        in_order(rule) for rule in rules
    )
    return exact and getattr(rules[0], "shape", 0) == getattr(rules[1], "shape", 1)


def in_order(rule: RuleBase) -> bool:
    """Whether the texts of the column's times are in the order of the times. A zone at their end
    is in the way where some say more of a second than others."""
    inner = inside(rule)
    if not isinstance(inner, TimestampRule | TimeRule) or inner.shape == "epoch":
        return True
    shape = moments.parse_shape(inner.shape)
    return not shape.zone or (shape.has_seconds and inner.precision <= shape.digits)


def changes_class(known: Known) -> bool:
    """Whether the source has values of another class than the target's type tells of: a text that
    refers to an integer is one there, and text in a column of numbers may be a number."""
    if not known.rule.own_class:
        return True
    return known.rule.kind == "text" and known.affinity in NUMBER_AFFINITIES


def glob_to_regex(pattern: str) -> str:
    """SQLite's GLOB pattern as an anchored regular expression of PostgreSQL's. Raises
    Untranslatable for an unclosed set."""
    parts: list[str] = []
    index = 0
    while index < len(pattern):
        character = pattern[index]
        index += 1
        if character == "*":
            parts.append(".*")
        elif character == "?":
            parts.append(".")
        elif character == "[":
            negated = pattern[index : index + 1] == "^"
            start = index + negated
            # A ']' that comes first is a member of the set.
            end = pattern.find("]", start + 1)
            if end < 0:
                raise Untranslatable("GLOB with an unclosed set")
            members = pattern[start:end].replace("\\", "\\\\").replace("[", "\\[")
            members = members.replace("]", "\\]").replace("^", "\\^")
            parts.append(f"[{'^' if negated else ''}{members}]")
            index = end + 1
        else:
            parts.append(re.sub(r"([\\.^$|()*+?{}\[\]])", r"\\\1", character))
    return f"^{''.join(parts)}$"
