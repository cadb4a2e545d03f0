"""A table and its columns with their rules, and how expressions name them."""

from __future__ import annotations

from dataclasses import dataclass
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
