"""What one plan is made of: the source, what is wished, and what its steps share."""

from __future__ import annotations

from dataclasses import dataclass, field

import apsw

from migration_job.plan.assignment import Assigner
from migration_job.plan.column_reports import Subject, count_rows
from migration_job.plan.facts import MAX_SINGLED_OUT, Rows
from migration_job.plan.findings import Findings, policy_for_table
from migration_job.plan.model import OWN_SCHEMA, Reason
from migration_job.plan.observe import Observer
from migration_job.plan.planner.side_by_side import Readers, Seen
from migration_job.plan.policy import Policy
from migration_job.plan.profile import Profile
from migration_job.plan.quarantine import Quarantine
from migration_job.plan.relations import Place, Relations
from migration_job.plan.rules import MapRule, Rule
from migration_job.stores.sqlite.model import Catalogue, SourceColumn, SourceTable
from migration_job.values import fold


class SharedRules:
    """Each rule as one object for all columns that have it: of thousands of tables, most do."""

    def __init__(self) -> None:
        self._by_text: dict[str, Rule] = {}

    def one(self, rule: Rule) -> Rule:
        """The same rule. Safe to call from several threads."""
        if isinstance(rule, MapRule):
            return rule  # JSON does not tell all of its values apart
        return self._by_text.setdefault(rule.model_dump_json(), rule)


@dataclass(frozen=True, slots=True)
class Planning:
    """The source and the wishes of one plan, with what collects findings and rows set aside."""

    connection: apsw.Connection
    catalogue: Catalogue
    profile: Profile
    policy: Policy
    findings: Findings
    readers: Readers
    relations: Relations
    assigner: Assigner
    schema_name: str = OWN_SCHEMA
    """Where the plan's tables are."""
    rules: SharedRules = field(default_factory=SharedRules)

    @property
    def observer(self) -> Observer:
        return self.readers.first.observer

    @property
    def quarantine(self) -> Quarantine:
        return self.readers.first.quarantine

    def subject(self, seen: Seen, place: Place) -> Subject:
        """One column, with what is known of its values."""
        table = self.catalogue.table(place[0])
        return Subject(table, column_named(table, place[1]), seen.of(place))

    def required(self, table: SourceTable, column: SourceColumn) -> bool:
        """Whether source or profile want a value in every row."""
        if column.generated:
            return False
        return column.not_null or self.profile.not_null(table.name, column.name)

    def sets_aside(self, table: str, column: str | None = None) -> bool:
        """Whether rows at fault go to quarantine there."""
        return self.findings.action_for(table, column) == "quarantine"

    def set_aside(self, table: str, rows: Rows, reason: str, column: str | None = None) -> None:
        """Set rows aside; more than can be told one by one stop the run."""
        self.quarantine.add(table, rows.ids, Reason(column=column, text=reason))
        if rows.count > len(rows.ids):
            own = {} if column is None else {"columns": {column: {"action": "widen"}}}
            self.findings.add(
                "too-many-rows",
                "error",
                f"{count_rows(rows.count)} would go to quarantine ({reason}), more than "
                f"{MAX_SINGLED_OUT:,}: that is no longer a few rows at fault",
                table=table,
                rows=rows,
                resolution=policy_for_table(table, action="widen", orphans="keep", **own),
            )


def column_named(table: SourceTable, name: str) -> SourceColumn:
    """The table's column of that name, which it must have."""
    return next(c for c in table.columns if fold(c.name) == fold(name))
