"""What is assigned and reported differently where the target's schema is there already."""

from __future__ import annotations

from typing import Any

import yaml

from migration_job.errors import InputError
from migration_job.plan import column_reports
from migration_job.plan.assignment import Assigner, Assignment, Wish, with_maps, wrap
from migration_job.plan.choose import Choice
from migration_job.plan.column_reports import Subject
from migration_job.plan.findings import Findings, Judgement, policy_for_column, policy_for_table
from migration_job.plan.hints import Fields
from migration_job.plan.likeness import (
    Example,
    Likeness,
    counts_times,
    unit_of_default,
    unit_of_type,
)
from migration_job.plan.matching import Matched
from migration_job.plan.planner.side_by_side import Seen
from migration_job.plan.policy import ColumnPolicy
from migration_job.plan.rules import EpochUnit, Rule
from migration_job.plan.target import TargetColumn, TargetSchema
from migration_job.plan.toward import Said, Unsupported, toward


class OntoFindings(Findings):
    """Findings of a plan that cannot widen: the target's types are what they are."""

    def action_for(self, table: str | None = None, column: str | None = None) -> str:
        action = super().action_for(table, column)
        return "block" if action == "widen" else action

    def add(self, *args: Any, **fields: Any) -> None:
        """As with other plans; but what was tried, carries every value and brings it back as it was
        resolves a misfit better than to set every row aside."""
        if _respells(fields.get("suggest", "")):
            fields["resolution"], fields["suggest"] = fields["suggest"], ""
        super().add(*args, **fields)

    def _fitted(
        self,
        code: str,
        judgement: Judgement,
        resolution: str | None,
        table: str | None,
        column: str | None,
    ) -> tuple[Judgement, str | None]:
        """What resolves a misfit is to set the rows aside, and an index for searching is the
        application's to make again, as its schema is."""
        if code == "virtual-table-not-carried":
            judgement = "warning"
        if resolution and _gives_way(yaml.safe_load(resolution)):
            resolution = _set_aside(code, table, column)
        return judgement, resolution


def _respells(suggested: str) -> bool:
    """Whether lines of policy for a column say no more than how its values are spelled."""
    tables = (yaml.safe_load(suggested) or {}).get("tables", {}) if suggested else {}
    columns = [column for table in tables.values() for column in table["columns"].values()]
    exact = all(c.keys() & {"separator", "pattern"} and c.keys() <= SPELLED for c in columns)
    return bool(columns) and exact


SPELLED = frozenset({"separator", "pattern", "action"})
"""Fields of a column's policy that bring back every value as it was, where they carry it."""


def _gives_way(resolved: Any) -> bool:
    """Whether lines of policy change a column's type or leave out a key, at any depth: neither can
    be done to a target that is there. Names of tables and columns say nothing."""
    if not isinstance(resolved, dict):
        return False
    chosen = {(name, value) for name, value in resolved.items() if isinstance(value, str)}
    if chosen & {("action", "widen"), ("orphans", "keep")} or any(n == "type" for n, _ in chosen):
        return True
    return any(_gives_way(value) for value in resolved.values())


def _set_aside(code: str, table: str | None, column: str | None) -> str:
    if code == "orphans":
        return policy_for_table(str(table), orphans="quarantine")
    if column is not None:
        return policy_for_column(str(table), column, action="quarantine")
    return policy_for_table(str(table), action="quarantine")


class OntoAssigner(Assigner):
    """Assigns each column the rule that leads to the target's type."""

    def place_in(self, matched: Matched, target: TargetSchema) -> None:
        """Where every column goes."""
        self._targets = {
            (m.source.name, name): there
            for m in matched.tables
            for name, there in m.columns.items()
        }
        self._django = target.table("django_migrations") is not None
        self._likeness = Likeness((), self._like)

    def learn(self, matched: Matched, seen: Seen) -> None:
        """Take the columns that have values for what others will hold."""
        examples = (
            Example(Subject(one.source, column, facts), one.columns[column.name])
            for one in matched.tables
            for column in one.source.columns
            if column.name in one.columns
            and (facts := seen.facts[one.source.name][column.name]).values
        )
        self._likeness = Likeness(examples, self._like)

    def propose(self, subject: Subject, wish: Wish | None) -> Choice:
        own = self._policy.column(*subject.place)
        if own.type is not None:
            raise InputError(
                f"the policy's tables.{subject.table.name}.columns.{subject.column.name}.type: the "
                "type is the target's with --schema existing",
                advice="take the line out; change the type on the target if it has to be another",
            )
        if not subject.facts.values and own.model_fields_set <= {"action", "rename"}:
            return self._as_others(subject)
        return self._proposed(subject, own, wish)

    def _proposed(self, subject: Subject, own: ColumnPolicy, wish: Wish | None) -> Choice:
        there = self._targets[subject.place]
        return Choice(wrap(self._toward(subject, there, own, wish), own, wish), there.type)

    def _toward(
        self,
        subject: Subject,
        there: TargetColumn,
        own: ColumnPolicy,
        wish: Wish | None = None,
        unit: EpochUnit | None = None,
    ) -> Rule:
        said = Said(
            zone=own.zone or self._zone,
            epoch=own.epoch or unit or self._convention(there),
            guid=own.guid,
            separator=own.separator,
        )
        return toward(there, subject.column, with_maps(subject.facts, own, wish), said)

    def _convention(self, there: TargetColumn) -> EpochUnit | None:
        """What an integer means where the framework that made both schemas always means the same by
        it."""
        return "us" if self._django and there.base.startswith("interval") else None

    # ------------------------------------------------------------------- columns without a value

    def _as_others(self, subject: Subject) -> Choice:
        """The rule for a column in which nothing stands yet: that of the columns like it."""
        there = self._targets[subject.place]
        unit, why = unit_of_default(subject.column), "its default computes them"
        found = None if unit else self._likeness.rule_for(subject, there)
        if found is not None:
            rule, why = found[0], f"{'.'.join(found[1])} has them"
        else:
            if unit is None:
                unit, why = unit_of_type(subject.column, there), f"{there.type} holds them"
            rule = self._toward(subject, there, self._own(subject), unit=unit)
        if counts_times(subject.column, there):
            column_reports.report_unit_to_come(self._findings, subject, rule, why)
        return Choice(rule, there.type)

    def _like(self, example: Example, there: TargetColumn) -> Rule | None:
        own = self._policy.column(*example.subject.place)
        if own.entries or own.pattern:
            return None  # what the policy says of one column's values it says of no other's
        try:
            return self._toward(example.subject, there, own)
        except Unsupported:
            return None

    def _hint(self, subject: Subject, narrow: Assignment) -> Fields | None:
        """What carries the values to the target's type; nothing that would change the type."""
        return self._keeping(subject, narrow) if self._unsaid(subject) else None

    def _works(self, subject: Subject, fields: Fields, *, briefly: bool = False) -> bool:
        try:
            return super()._works(subject, fields, briefly=briefly)
        except Unsupported:
            return False

    def _fine_enough(self, subject: Subject, rule: Rule, examination: Any) -> Rule:
        del subject, examination
        return rule  # the precision is the target's
