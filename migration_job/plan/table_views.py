"""A table and its columns with their rules, and how expressions name them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from migration_job.plan import expression_parts, reach
from migration_job.plan.expression_parts import Known
from migration_job.plan.facts import ColumnFacts
from migration_job.plan.findings import Findings
from migration_job.plan.rules import Rule
from migration_job.quoting import postgres_name
from migration_job.stores.sqlite.model import ROWID_NAMES, SourceColumn, SourceTable
from migration_job.values import fold


@dataclass(frozen=True, slots=True)
class ColumnView:
    """A column with its rule."""

    source: SourceColumn
    target: str
    type: str
    rule: Rule
    facts: ColumnFacts
    exact: bool


@dataclass(frozen=True)
class TableView:
    source: SourceTable
    target: str
    columns: dict[str, ColumnView]
    encoding: str = "UTF-8"

    def named(self, name: str) -> ColumnView | None:
        """The column that SQLite finds by that name."""
        return next((c for own, c in self.columns.items() if fold(own) == fold(name)), None)

    @cached_property
    def scope(self) -> expression_parts.Scope:
        """The columns as an expression may name them."""
        found: dict[str, Known] = {}
        for name, column in self.columns.items():
            known = Known(
                sql=postgres_name(column.target),
                kind=expression_parts.kind_of(column.type),
                rule=column.rule,
                exact=column.exact,
                collation=column.source.collation.upper(),
                affinity=column.source.affinity,
                same_order=self.encoding == "UTF-8",
                reach=reach.of_column(column.type, column.facts, exact=column.exact),
            )
            for key in spellings(self, name):
                found[key] = known
        alias = self.source.rowid_alias
        if alias is not None and alias in self.columns:
            for name in ROWID_NAMES:
                found.setdefault(name, found[fold(alias)])
        return found

    @cached_property
    def scope_of_exact(self) -> expression_parts.Scope:
        """:attr:`scope` for what has to be the same on both sides: of a column with values that a
        rule changes it can be asked only whether it is NULL."""
        return self._without({name for name, column in self.columns.items() if not column.exact})

    @cached_property
    def scope_of_checks(self) -> expression_parts.Scope:
        """As :attr:`scope_of_exact`, of columns of text alone: a changed text has another length
        and order, a changed number or time is next to the source's."""
        text = {
            name
            for name, column in self.columns.items()
            if not column.exact and self.scope[expression_parts.spelled(name)].kind == "text"
        }
        return self._without(text)

    def _without(self, changed: set[str]) -> expression_parts.Scope:
        found = dict(self.scope)
        for name in changed:
            why = f"it is computed from {name}, some values of which a rule changes"
            for key in spellings(self, name):
                found[key] = replace(self.scope[key], hidden=why, tells_null=True)
        return found


def spellings(view: TableView, column: str) -> tuple[str, str]:
    return expression_parts.spelled(column), expression_parts.spelled(column, view.source.name)


def not_carried(
    findings: Findings,
    code: str,
    view: TableView,
    message: str,
    *,
    column: str | None = None,
    item: str | None = None,
) -> None:
    """Report a part of a table that the target does not get; ``item`` is its name in a policy."""
    findings.add(code, "by-action", message, table=view.source.name, column=column, item=item)
