"""A column that PostgreSQL has got while it serves: what it becomes on SQLite, and its rule.

The types are those that a plan chooses by itself; for any other there is no rule, and the table's
changes do not come back. What a rule promises is compared row by row all the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

from migration_job.plan.model import Plan
from migration_job.plan.rules import (
    BooleanRule,
    ByteaRule,
    DateRule,
    IntegerRule,
    IntegerTextRule,
    JsonbRule,
    JsonRule,
    MapRule,
    NumericRule,
    RealRule,
    Rule,
    TextRule,
    TimeRule,
    TimestampRule,
    UuidRule,
)

Affinity = Literal["integer", "text", "blob", "real", "numeric"]

_INTEGERS = {"smallint": 15, "integer": 31, "bigint": 63}
_NUMBERS = ("integer", "real", "numeric", "boolean")
_BOUNDS = ("low", "high", "max_length", "precision", "scale")
"""What of a rule follows from its type's length or size alone."""


def rule_of(type_sql: str, plan: Plan) -> tuple[Rule, str, str] | None:
    """The rule of a type as ``format_type`` names it, the type as a plan spells it, and what
    SQLite is to declare; None where no rule carries it. Times are written as the plan's are."""
    if type_sql in _INTEGERS:
        end = 2 ** _INTEGERS[type_sql]
        return IntegerRule(low=-end, high=end - 1), type_sql, "INTEGER"
    fixed: dict[str, tuple[Rule, str]] = {
        "double precision": (RealRule(), "REAL"),
        "numeric": (NumericRule(), "NUMERIC"),
        "boolean": (BooleanRule(), "BOOLEAN"),
        "text": (TextRule(), "TEXT"),
        "bytea": (ByteaRule(), "BLOB"),
        "uuid": (UuidRule(), "TEXT"),
        "json": (JsonRule(), "TEXT"),
        "jsonb": (JsonbRule(), "TEXT"),
        "date": (DateRule(), "TEXT"),
    }
    if type_sql in fixed:
        rule, declared = fixed[type_sql]
        return rule, type_sql, declared
    return _with_modifier(type_sql, plan)


def _with_modifier(type_sql: str, plan: Plan) -> tuple[Rule, str, str] | None:
    found = re.fullmatch(r"([a-z ]+?)(?:\((\d+)(?:,(\d+))?\))?( with(?:out)? time zone)?", type_sql)
    if found is None:
        return None
    name, size = found[1] + (found[4] or ""), int(found[2]) if found[2] else None
    match name:
        case "character varying":
            spelled = "varchar" if size is None else f"varchar({size})"
            return TextRule(max_length=size), spelled, "TEXT"
        case "numeric":
            scale = int(found[3] or 0)
            return NumericRule(precision=size, scale=scale), type_sql, "NUMERIC"
        case "timestamp with time zone":
            return _times(plan, 6 if size is None else size), type_sql, "TEXT"
        case "time without time zone":
            precision = 6 if size is None else size
            spelled = "time" if size is None else f"time({size})"
            return TimeRule.model_validate({"precision": precision}), spelled, "TEXT"
    return None


def _times(plan: Plan, precision: int) -> TimestampRule:
    used = [
        column.rule
        for table in plan.tables
        for column in table.columns
        if isinstance(column.rule, TimestampRule) and column.rule.epoch is None
    ]
    more = {"shape": used[0].shape, "zone": used[0].zone} if used else {}
    return TimestampRule.model_validate({"precision": precision, **more})


def rule_after(rule: Rule, fresh: Rule, affinity: Affinity, *, strict: bool) -> Rule | None:
    """The rule of a column whose type was changed, to one that ``fresh`` is the rule of; None where
    its source's column cannot hold what PostgreSQL now has."""
    if rule.kind == fresh.kind:
        bounds = {n: getattr(fresh, n) for n in _BOUNDS if n in type(fresh).model_fields}
        return rule.model_copy(update=bounds)
    if isinstance(rule, MapRule) or strict:
        return None
    if affinity == "text" and isinstance(fresh, IntegerRule):
        return IntegerTextRule(low=fresh.low, high=fresh.high)
    if affinity == "text" and fresh.kind in _NUMBERS:
        return None
    if "affinity" in type(fresh).model_fields:
        return fresh.model_copy(update={"affinity": affinity})
    return fresh


_CONSTANT = re.compile(
    r"""-?[0-9]+(\.[0-9]+)?|\(?'(?:[^']|'')*'(::[a-z][a-z ]*(\([0-9,]+\))?)?\)?(::[a-z ]+)?
    |true|false""",
    re.VERBOSE,
)


def is_constant(expression: str) -> bool:
    """Whether a default, as PostgreSQL prints it, is a value that does not depend on anything."""
    # 'now'::timestamp is a value by the time it is printed: what it was then.
    return _CONSTANT.fullmatch(expression) is not None


def free_name(name: str, taken: Iterable[str]) -> bool:
    """Whether none of these is that name for SQLite."""
    return name.lower() not in {one.lower() for one in taken}
