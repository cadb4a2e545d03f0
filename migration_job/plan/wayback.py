"""What a target's column must refuse, since its source could not hold it.

A rule gives most of what PostgreSQL may hold in a type back to the source. What SQLite has no value
for, where its affinity or a STRICT table leaves no room for text either, the target refuses when it
is written: the application learns it then, and not the operator at the rollback.
"""

from __future__ import annotations

from collections.abc import Sequence

from migration_job.plan import naming
from migration_job.plan.model import CheckPlan, ColumnPlan
from migration_job.plan.rules import (
    NUMBER_AFFINITIES,
    JsonbRule,
    JsonRule,
    MapRule,
    NumericRule,
    RealRule,
    RuleBase,
)
from migration_job.quoting import postgres_name
from migration_job.source.model import SourceTable

SURE_DIGITS = 15
"""A real gives every decimal number of so many digits back."""

INT64 = "BETWEEN -9223372036854775808 AND 9223372036854775807"


def refusals(table: SourceTable, target: str, columns: Sequence[ColumnPlan]) -> list[CheckPlan]:
    """A CHECK for each column of the target that could take what its source cannot hold."""
    found: list[CheckPlan] = []
    for column in columns:
        if column.source is None or column.generated is not None:
            continue
        expression = refusal(column.rule, postgres_name(column.target), strict=table.strict)
        if expression:
            name = naming.cut(f"{target}_{column.target}_representable")
            found.append(CheckPlan(name=name, expression=expression))
    return found


def refusal(rule: RuleBase, column: str, *, strict: bool) -> str:
    """PostgreSQL's predicate of the values that the source can hold; '' where it can hold all.
    ``column`` is quoted; ``strict``: no text in the source's columns of numbers."""
    inner = rule.inner if isinstance(rule, MapRule) else rule
    match inner:
        case NumericRule(affinity=affinity) if affinity in NUMBER_AFFINITIES:
            return _number(inner, column, strict=strict)
        case RealRule() if strict:
            return f"{column} <> 'NaN'"
        case JsonRule(affinity=affinity) if affinity in NUMBER_AFFINITIES:
            return _document("json", column, real=affinity == "real")
        case JsonbRule(affinity=affinity) if affinity in NUMBER_AFFINITIES:
            return _document("jsonb", column, real=affinity == "real")
        case _:
            return ""


def _number(rule: NumericRule, column: str, *, strict: bool) -> str:
    terms = [f"{column} <> 'NaN'"] if strict else []
    if rule.precision is None or rule.precision > SURE_DIGITS:
        terms.append(f"({_representable(column, real=rule.affinity == 'real')})")
    return " AND ".join(terms)


def _representable(number: str, *, real: bool) -> str:
    """Whether SQLite has the number: an integer of 64 bits, or what a real has enough digits for.
    The text of a ``double precision`` has as many as it takes to tell it from every other."""
    as_real = f"{number}::double precision::text::numeric = {number}"
    if real:
        return as_real
    return f"{number} = trunc({number}) AND {number} {INT64} OR {as_real}"


def _document(kind: str, column: str, *, real: bool) -> str:
    """Of a document that is a number SQLite makes a number."""
    number = f"({column} #>> '{{}}')::numeric"
    return f"{kind}_typeof({column}) <> 'number' OR {_representable(number, real=real)}"
