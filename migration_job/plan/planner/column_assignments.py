"""A rule and a type for each column, tried on its values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from migration_job.plan.assignment import Assignment, Wish, wrap
from migration_job.plan.choose import Choice
from migration_job.plan.column_reports import Subject
from migration_job.plan.facts import ColumnFacts
from migration_job.plan.planner.context import Planning
from migration_job.plan.planner.side_by_side import Reader, Seen
from migration_job.plan.relations import Place
from migration_job.plan.row_names import Span
from migration_job.plan.rules import Rule, TextRule, WidenedTextRule
from migration_job.stores.sqlite.model import SourceTable

Assignments = Mapping[Place, Assignment]
"""What became of each column that can be read."""

Wishes = Mapping[Place, Wish]


def assign_all(planning: Planning, seen: Seen) -> Assignments:
    """Propose a rule for each column, try it on every value, and ask the policy where it fails."""
    tables = planning.catalogue.tables
    wishes = planning.relations.spread_wishes(_wishes(planning))

    def begin(_: Reader, table: SourceTable) -> tuple[Sequence[Span], dict[str, Choice]]:
        return seen.spans[table.name], _propose(planning, seen, table, wishes)

    def trial(
        reader: Reader, table: SourceTable, span: Span, choices: dict[str, Choice]
    ) -> dict[str, int]:
        rules = {name: choice.rule for name, choice in choices.items()}
        found = reader.observer.trial(table, rules, seen.facts[table.name], span)
        planning.readers.pace.tried(table, len(seen.spans[table.name]))
        return found

    assignments: dict[Place, Assignment] = {}
    tried = planning.readers.by_part(tables, begin, trial)
    for table, (_, choices, found) in zip(tables, tried, strict=True):
        slow: Counter[str] = Counter()
        for counts in found:
            slow.update(counts)
        for column in table.columns:
            place = (table.name, column.name)
            if column.name in choices:
                assignments[place] = planning.assigner.assign(
                    Subject(table, column, seen.of(place)),
                    choices[column.name],
                    slow=slow[column.name],
                    wish=wishes.get(place),
                )
    return assignments


def _wishes(planning: Planning) -> dict[Place, Wish]:
    found: dict[Place, Wish] = {}
    for table in planning.catalogue.tables:
        for column in table.columns:
            wish = planning.profile.wish(table.name, column.name)
            if wish is not None:
                found[table.name, column.name] = wish
    return found


def _propose(
    planning: Planning, seen: Seen, table: SourceTable, wishes: Wishes
) -> dict[str, Choice]:
    """The rule and type that each readable column would have if all its values met it."""
    choices: dict[str, Choice] = {}
    for column in table.columns:
        place = (table.name, column.name)
        facts = seen.of(place)
        if facts.unreadable:
            continue
        wish = wishes.get(place)
        choice = planning.assigner.propose(Subject(table, column, facts), wish)
        if choice.type == "json" and planning.relations.needs_equality(table, column.name):
            # json has no equality: no key, no index, no comparison.
            policy = planning.policy.column(table.name, column.name)
            choice = Choice.of(wrap(_text_for(facts), policy, wish))
        choices[column.name] = replace(choice, rule=planning.rules.one(choice.rule))
    return choices


def _text_for(facts: ColumnFacts) -> Rule:
    return TextRule() if facts.classes <= {"text"} else WidenedTextRule()


def report_columns(
    planning: Planning, seen: Seen, assignments: Assignments, table: SourceTable
) -> None:
    """Tell of a table's columns that cannot be read, and of values that change on their way."""
    for column in table.columns:
        place = (table.name, column.name)
        assignment, facts = assignments.get(place), seen.of(place)
        if assignment is None:
            planning.findings.add(
                "generated-unreadable",
                "error",
                f"the generated column cannot be read: {facts.unreadable}; it would be left out",
                table=table.name,
                column=column.name,
            )
        elif not column.generated:
            subject = Subject(table, column, facts)
            planning.assigner.report_changes(
                subject, assignment, planning.quarantine.of(table.name)
            )
            if planning.profile.wish(table.name, column.name) is None:
                planning.assigner.report_hint(subject, assignment)
