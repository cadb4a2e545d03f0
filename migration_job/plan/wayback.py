"""What a target's column must refuse, since its source could not hold it.

A rule gives most of what PostgreSQL may hold in a type back to the source. What SQLite has no value
for, where its affinity or a STRICT table leaves no room for text either, the target refuses when it
is written: the application learns it then, and not the operator at the rollback.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import apsw

from migration_job.plan import naming
from migration_job.plan.model import CheckPlan, ColumnPlan, TablePlan
from migration_job.plan.rules import (
    NUMBER_AFFINITIES,
    TARGETS,
    CannotCarry,
    JsonbRule,
    JsonRule,
    MapRule,
    NumericRule,
    RealRule,
    RuleBase,
    TextRule,
    WidenedTextRule,
    base_of,
)
from migration_job.quoting import compose, postgres_name
from migration_job.stores.sqlite.model import SourceTable
from migration_job.stores.sqlite.reader import bindable
from migration_job.values import SourceValue, fold

SURE_DIGITS = 15
"""A real gives every decimal number of so many digits back."""

INT64 = "BETWEEN -9223372036854775808 AND 9223372036854775807"


def refusals(table: SourceTable, target: str, columns: Sequence[ColumnPlan]) -> list[CheckPlan]:
    """A CHECK for each column of the target that could take what its source cannot hold."""
    found: list[CheckPlan] = []
    told_apart = _told_apart(table)
    computed = [column.generated for column in columns if column.generated is not None]
    for column in columns:
        if column.source is None or column.generated is not None:
            continue
        name = postgres_name(column.target)
        terms = [refusal(column.rule, name, strict=table.strict)]
        if fold(column.source) in told_apart:
            terms.append(_spelled_once(column.rule, name))
        if any(name in expression for expression in computed):
            terms.append(_no_number(column.rule, name) or _spelled_once(column.rule, name))
            terms.append(_computed_alike(column.rule, name))
        expression = " AND ".join(dict.fromkeys(term for term in terms if term))
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
        case TextRule(affinity=affinity) | WidenedTextRule(affinity=affinity) if (
            affinity in NUMBER_AFFINITIES
        ):
            return _text_of_number(column, real=affinity == "real")
        case _:
            return ""


def _told_apart(table: SourceTable) -> set[str]:
    """The columns, folded, that a primary key or a unique index tells rows apart by."""
    unique = (index for index in table.indexes if index.unique)
    found = {fold(term.column) for index in unique for term in index.columns if term.column}
    return found | {fold(name) for name in table.primary_key}


def _spelled_once(rule: RuleBase, column: str) -> str:
    """Of text that a column of SQLite's numbers makes a number of, the one spelling that it has
    there: '1' and '1.0' are two keys on PostgreSQL, and were one key on SQLite."""
    affinity = getattr(rule, "affinity", "text")
    if not isinstance(rule, TextRule | WidenedTextRule) or affinity not in NUMBER_AFFINITIES:
        return ""
    text = f"{column}::text"
    real = f"{column}::double precision"
    exact = f"{real}::text::numeric = {column}::numeric"
    if affinity == "real":
        whole = f"{text} ~ '{_WHOLE_REAL}' AND {exact}"
        least = "1e16"
    else:
        whole = f"{text} ~ '{_INT64_TEXT}' AND {column}::numeric {INT64}"
        least = "9.3e18"
    broken = f"{text} ~ '{_BROKEN_NUMBER}' AND abs({real}) >= 1e-4 AND {exact}"
    wide = f"abs({real}) < 1e-4 OR abs({real}) >= {least}"
    half_way = f"{_mantissa(text)} = 16 AND {_mantissa(f'{real}::text')} = 17"
    sure = f"({real}::text = {text} OR {_mantissa(text)} <= {SURE_DIGITS} OR {half_way})"
    far = f"{text} ~ '{_WITH_EXPONENT}' AND {sure} AND ({wide})"
    return f"CASE WHEN {text} ~ '{_NUMBER}' THEN {whole} OR {broken} OR {far} ELSE true END"


_NUMBER = r"^[ \t\n\v\f\r]*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?[ \t\n\v\f\r]*$"
"""What SQLite takes for a number; the others are the spellings that its values have as text."""
_INT64_TEXT = "^(0|-?[1-9][0-9]{0,18})$"
_WHOLE_REAL = r"^(0|-?[1-9][0-9]{0,15})\.0$"
_BROKEN_NUMBER = r"^-?(0|[1-9][0-9]*)\.[0-9]*[1-9]$"
_WITH_EXPONENT = r"^-?[1-9](\.[0-9]*[1-9])?e[+-][0-9]{2,3}$"


def _no_number(rule: RuleBase, column: str) -> str:
    """Of a column of text alone that SQLite makes a number of, and that another is computed of:
    that one would be computed of '007' here, and of 7 there."""
    affinity = getattr(rule, "affinity", "text")
    alone = isinstance(rule, TextRule) and affinity in NUMBER_AFFINITIES
    return f"{column}::text !~ '{_NUMBER}'" if alone else ""


def _computed_alike(rule: RuleBase, column: str) -> str:
    """Of a number that both sides compute with: SQLite has no NaN, and takes its text for 0."""
    inner = rule.inner if isinstance(rule, MapRule) else rule
    return f"{column} <> 'NaN'" if isinstance(inner, RealRule | NumericRule) else ""


def _number(rule: NumericRule, column: str, *, strict: bool) -> str:
    terms = [f"{column} <> 'NaN'"] if strict else []
    if rule.precision is None or rule.precision > SURE_DIGITS:
        terms.append(f"({_representable(column, real=rule.affinity == 'real')})")
    return " AND ".join(terms)


def _mantissa(text: str) -> str:
    """How many digits a number's text has before its exponent."""
    return f"length(translate(split_part({text}, 'e', 1), '-.', ''))"


def _representable(number: str, *, real: bool) -> str:
    """Whether SQLite has the number: an integer of 64 bits, or what a real has enough digits for.
    The text of a ``double precision`` has as many as it takes to tell it from every other, and one
    more where the shortest lies half way between two (1e23, 2.379050243560251e16): a number of 16
    digits whose real needs 17 there can lie nowhere else."""
    digits = f"length(trim(both '0' from replace(abs({number})::text, '.', '')))"
    text = f"{number}::double precision::text"
    as_real = (
        f"CASE WHEN {text}::numeric = {number} THEN true WHEN {digits} <= {SURE_DIGITS} "
        f"THEN abs({number}) > 1e-300 ELSE {digits} = 16 AND {_mantissa(text)} = 17 END"
    )
    if real:
        return as_real
    return f"{number} = trunc({number}) AND {number} {INT64} OR {as_real}"


def _document(kind: str, column: str, *, real: bool) -> str:
    """Of a document that is a number SQLite makes a number."""
    number = f"({column} #>> '{{}}')::numeric"
    return f"{kind}_typeof({column}) <> 'number' OR {_representable(number, real=real)}"


def _text_of_number(column: str, *, real: bool) -> str:
    """Of text that SQLite makes a number of: a number that it has, whatever its spelling."""
    number = f"{column}::numeric"
    return (
        f"CASE WHEN {column}::text ~ '{_NUMBER}' THEN {_representable(number, real=real)} "
        "ELSE true END"
    )


DECLARED = {"integer": "INTEGER", "real": "REAL", "numeric": "NUMERIC", "text": "TEXT", "blob": ""}


def without_way_back(table: SourceTable, plan: TablePlan) -> str:
    """Why a new row of the target's would not mean the same on the source, '' where it would. Tried
    on a value or two of each column: its rule's inverse, as the source's affinity leaves it, and
    there again."""
    if plan.where is not None:
        return "a new row may have the key of one that has stayed on SQLite"
    columns = plan.columns
    if table.strict and (why := _computed_unknown(table, columns)):
        return why
    sources = {fold(c.name): c for c in table.columns if not c.generated}
    memory = apsw.Connection(":memory:")
    for kind, declared in DECLARED.items():
        memory.execute(compose("CREATE TABLE {kind}_(c {declared})", kind=kind, declared=declared))
    for column in columns:
        own = sources.get(fold(column.source or ""))
        if own is None or column.generated is not None:
            continue
        target = TARGETS.get(base_of(column.type))
        for text in map(column.rule.sized, target.natural if target is not None else ()):
            if not _returns(memory, own.affinity, column.rule, text):
                shown = {"t": "true", "f": "false"}.get(text, text)
                return f"nothing of {own.name} on SQLite stands for {shown} on PostgreSQL"
    return ""


_STRICT: Mapping[str, tuple[str, ...]] = {
    "integer": ("smallint", "integer", "bigint"),
    "real": ("double precision", "smallint", "integer", "bigint"),
    "text": ("text", "varchar"),
    "blob": ("bytea",),
}
"""By the affinity of a STRICT table's column the types whose every value it takes."""


def _computed_unknown(table: SourceTable, columns: Sequence[ColumnPlan]) -> str:
    """Of a column that a STRICT table computes, and PostgreSQL does not, or as another type: SQLite
    refuses a row whose value there is of another type than the column's (older releases let it be
    in a VIRTUAL one), and PostgreSQL does not look."""
    planned = {fold(c.source or ""): c for c in columns}
    blobs = any(c.affinity == "blob" and not c.generated for c in table.columns)
    for column in table.columns:
        own = planned.get(fold(column.name))
        if not column.generated or column.declared.upper() == "ANY":
            continue
        expression = (column.expression or "").lower()
        if own is not None and own.generated is not None:
            fits = base_of(own.type) in _STRICT.get(column.affinity, ())
        else:
            # Every number fits a column of text, only a blob does not.
            fits = column.affinity == "text" and not (
                blobs or "blob" in expression or "x'" in expression
            )
        if not fits:
            return (
                f"SQLite computes {column.name} and refuses a row where that is no "
                f"{column.declared}, and PostgreSQL does not check that"
            )
    return ""


def _returns(memory: apsw.Connection, affinity: str, rule: RuleBase, text: str) -> bool:
    stored: SourceValue = rule.inverse(text)
    memory.execute(compose("DELETE FROM {affinity}_", affinity=affinity))
    memory.execute(
        compose("INSERT INTO {affinity}_ VALUES (?)", affinity=affinity), (bindable(stored),)
    )
    stored = memory.execute(compose("SELECT c FROM {affinity}_", affinity=affinity)).get
    try:
        again = rule.forward(stored)
    except CannotCarry:
        again = rule.returned(stored)
    if again is not None and again[:1] == text[:1] == "{":
        return bool(json.loads(again) == json.loads(text))  # its blanks mean nothing
    # A numeric of some scale spells its zero with it.
    return again == text or (text == "0" and again is not None and not again.strip("0."))
