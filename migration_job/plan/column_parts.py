"""What hangs on a table's columns: defaults, generated columns, CHECKs, collations."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

import apsw

from migration_job.plan import expression_parts, naming
from migration_job.plan.defaults import is_local, translate_default
from migration_job.plan.expression_parts import Untranslatable
from migration_job.plan.findings import Findings
from migration_job.plan.model import CheckPlan
from migration_job.plan.overflows import Overflows
from migration_job.plan.reach import Risk
from migration_job.plan.rules import inside
from migration_job.plan.rules.other import LabelRule
from migration_job.plan.storage import names_class
from migration_job.plan.table_views import ColumnView, TableView, not_carried, spellings
from migration_job.quoting import postgres_name, postgres_text
from migration_job.stores.sqlite.model import Affinity
from migration_job.stores.sqlite.sqltext import Token, tokenize


class ColumnParts:
    """Plans them, and reports what has no counterpart on the target."""

    def __init__(self, findings: Findings, overflows: Overflows) -> None:
        self._findings = findings
        self._overflows = overflows

    def report_collations(self, view: TableView) -> None:
        """Report the columns that compare under a collation on the source alone."""
        for name, column in view.columns.items():
            collation = column.source.collation.upper()
            if collation != "BINARY" and expression_parts.kind_of(column.type) == "text":
                how = {"NOCASE": "lower(...)", "RTRIM": "rtrim(...)"}.get(
                    collation, "the same rule"
                )
                self._findings.add(
                    "collation",
                    "warning",
                    f"compares under {collation} on the source and byte by byte on the target; "
                    f"unique constraints are kept as they were, queries have to say {how}"
                    + (
                        ", or `type: citext` compares without case" if collation == "NOCASE" else ""
                    ),
                    table=view.source.name,
                    column=name,
                )

    def defaults(self, view: TableView) -> Iterator[tuple[str, str]]:
        """Columns and their default expressions on the target."""
        for name, column in view.columns.items():
            if column.source.generated:
                continue
            try:
                default = translate_default(column.source, column.rule)
            except Untranslatable as reason:
                not_carried(self._findings, "default-not-carried", view, str(reason), column=name)
                continue
            if default is None:
                continue
            if is_local(column.source.default):
                self._findings.add(
                    "default-in-local-time",
                    "warning",
                    f"the default {column.source.default} takes the time zone of the "
                    "application's host on the source, and the session's TimeZone on the target",
                    table=view.source.name,
                    column=name,
                )
            yield name, default

    def generated(self, view: TableView) -> Iterator[tuple[str, str]]:
        """Columns that are generated on the target too, and their expressions there."""
        if not any(column.source.generated for column in view.columns.values()):
            return
        # Here: the parser behind it takes longer to import than a small file to plan.
        from migration_job.plan import expressions

        within = dict(view.scope_of_exact)
        for name, column in view.columns.items():
            if column.source.generated:
                why = f"it refers to the generated column {name}, which is not one there"
                for key in spellings(view, name):
                    within[key] = replace(view.scope[key], hidden=why)
        for name, column in view.columns.items():
            expression = column.source.expression
            if not column.source.generated or expression is None:
                continue
            try:
                if column.rule.kind.startswith("widened"):
                    raise Untranslatable("its values are of several storage classes")
                risks: list[Risk] = []
                part = expressions.generated(expression, within, risks)
                sql = f"({_stored(part, column)})::{column.type}"
                what = f"the generated column {name}"
                self._overflows.look(view, risks, what, column=name)
                yield name, sql
                # PostgreSQL's generated columns may not refer to one another: the expression
                # stands in for the column.
                for key in spellings(view, name):
                    within[key] = replace(view.scope[key], sql=f"({sql})")
            except Untranslatable as reason:
                self._findings.add(
                    "generated-as-plain",
                    "by-action",
                    f"the generated column's values are carried{_computed(column)}, its "
                    f"expression is not ({expression}): {reason}",
                    table=view.source.name,
                    column=name,
                )

    def checks(self, view: TableView, broken: set[str]) -> Iterator[tuple[int, CheckPlan]]:
        """Those that are carried, by their numbers."""
        if not view.source.checks:
            return
        from migration_job.plan import expressions

        for number, check in enumerate(view.source.checks, 1):
            if f"{view.source.name}.{number}" in broken:
                continue
            try:
                _refuse_impossible(view, check)
                risks: list[Risk] = []
                own = _of_labels(view, check)
                expression = own or expressions.condition(check, view.scope_of_checks, risks)
                self._overflows.look(view, risks, f"CHECK ({_short(check)})")
            except Untranslatable as reason:
                not_carried(
                    self._findings,
                    "check-not-carried",
                    view,
                    f"CHECK ({_short(check)}): {reason}",
                    item=f"{view.source.name}.{number}",
                )
                continue
            # Constraints of one table have names of their own.
            wanted = f"{view.target}_check_{number}"
            name = wanted if naming.cut(wanted) == wanted else f"check_{number}"
            given = view.source.check_names[number - 1] if view.source.check_names else None
            yield (
                number,
                CheckPlan(name=naming.cut(given) if given else name, expression=expression),
            )


def _of_labels(view: TableView, check: str) -> str | None:
    """The condition that a column is one of some texts, where it has become an enum: no other text
    can be there. None for another condition."""
    tokens = tokenize(check)
    column = view.named(tokens[0].name)
    rule = None if column is None else inside(column.rule)
    if column is None or not isinstance(rule, LabelRule):
        return None
    listed = _listed(tokens[1:])
    labels = [label for label in rule.labels if label in listed]
    if not labels:
        return None
    return f"{postgres_name(column.target)} IN ({', '.join(map(postgres_text, labels))})"


def _listed(tokens: Sequence[Token]) -> set[str]:
    """The texts of ``IN ('a', 'b')``, where the tokens are just that."""
    shape = "".join("t" if t.kind == "string" else t.text.upper() for t in tokens)
    if re.fullmatch(r"IN\(t(,t)*\)", shape) is None:
        return set()
    return {t.name for t in tokens if t.kind == "string"}


def _refuse_impossible(view: TableView, check: str) -> None:
    """Raises Untranslatable where ``typeof`` asks for another class than the one that the
    target's column was given, no value having told: every row would be refused."""
    for column in view.columns.values():
        word = expression_parts.CLASS_WORDS.get(expression_parts.kind_of(column.type))
        if column.facts.values or word is None:
            continue
        if not names_class(check, column.source.name, word):
            raise Untranslatable(
                f"no value shows the type of {column.source.name}, which is {column.type} here"
            )


def _computed(column: ColumnView) -> str:
    """SQLite's versions do not agree on every value, the digits of a real as text for one."""
    if column.source.generated != "virtual":
        return ""
    return f" as SQLite {apsw.sqlite_lib_version()} computes them"


def _stored(part: expression_parts.Typed, column: ColumnView) -> str:
    """The part as the generated column's type: truth values are numbers unless it is boolean."""
    wanted, affinity = expression_parts.kind_of(column.type), column.source.affinity
    if part.kind == "boolean" and wanted in expression_parts.NUMBERS:
        return expression_parts.number(part).sql
    # PostgreSQL rounds a real to 15 digits for numeric, and either to a whole number for integer.
    rounded = (part.kind, wanted) in {
        ("real", "numeric"),
        ("real", "integer"),
        ("numeric", "integer"),
    }
    if part.kind == wanted == "numeric" and (
        part.known is None or _makes_integers(part.known.affinity) != _makes_integers(affinity)
    ):
        raise Untranslatable("SQLite makes integers of the reals 1.0 and 2.0 in one of the columns")
    both_numbers = {part.kind, wanted} <= expression_parts.NUMBERS and not rounded
    gives = part.known.rule.target_type if part.kind == "time" and part.known is not None else None
    if gives not in (None, column.type):
        raise Untranslatable(f"it gives a {gives} for a column of {column.type}")
    if part.kind not in ("null", wanted) and not both_numbers:
        raise Untranslatable(f"it gives a {part.kind} for a column of {column.type}")
    return part.sql


def _makes_integers(affinity: Affinity) -> bool:
    """Whether a column of this affinity holds no whole real
    (https://sqlite.org/datatype3.html, section 3)."""
    return affinity in ("integer", "numeric")


def _short(sql: str) -> str:
    text = " ".join(sql.split())
    return text if len(text) <= 60 else text[:59] + "…"
