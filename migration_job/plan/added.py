"""A column that PostgreSQL has got while it serves: what it becomes on SQLite, and its rule.

The types are those that a plan chooses by itself; for any other there is no rule, and the table's
changes do not come back. What a rule promises is compared row by row all the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from migration_job.plan.choose import split_type
from migration_job.plan.facts import ColumnFacts
from migration_job.plan.model import Plan
from migration_job.plan.rules import (
    FINEST,
    OWNERS,
    TARGETS,
    Affinity,
    IntegerRule,
    IntegerTextRule,
    MapRule,
    Request,
    Rule,
    TimestampRule,
)

_AFFINITIES: Mapping[str, Affinity] = {"REAL": "real", "NUMERIC": "numeric"}
"""SQLite's, of the declared types that are not text to it."""

_NUMBERS = ("integer", "real", "numeric", "boolean")
_BOUNDS = ("low", "high", "max_length", "varying", "precision", "scale")
"""What of a rule follows from its type's length or size alone."""


def rule_of(type_sql: str, plan: Plan) -> tuple[Rule, str, str] | None:
    """The rule of a type as ``format_type`` names it, the type as a plan spells it, and what
    SQLite is to declare; None where no rule carries it. Times are written as the plan's are."""
    name, numbers = split_type(type_sql)
    if not name:
        return None
    if name == "timestamp with time zone":
        return _times(plan, numbers[0] if numbers else FINEST), type_sql, TARGETS[name].declared
    declared = TARGETS[name].declared
    affinity = _AFFINITIES.get(declared, "text")
    rule = OWNERS[name].asked(Request(ColumnFacts(), affinity, name, numbers))
    size = f"({','.join(map(str, numbers))})" if numbers else ""
    return rule, name + size, declared


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
