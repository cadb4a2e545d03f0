"""Rows without their parent."""

from __future__ import annotations

from migration_job.plan.column_reports import count_rows
from migration_job.plan.facts import Rows
from migration_job.plan.findings import policy_for_table
from migration_job.plan.planner.column_assignments import Assignments
from migration_job.plan.planner.context import Planning
from migration_job.plan.planner.side_by_side import Reader, Seen
from migration_job.plan.quarantine import Spelling
from migration_job.plan.relations import Place, Relation


def find_orphans(
    planning: Planning, seen: Seen, assignments: Assignments, dropped: frozenset[Relation]
) -> frozenset[Relation]:
    """Look for rows without their parent; the foreign keys that cannot be validated."""
    rules = {place: assignment.rule for place, assignment in assignments.items()}
    relations = [r for r in planning.relations.all if r not in dropped]

    def look(reader: Reader, relation: Relation) -> Rows:
        spellings = [_spelling(seen, assignments, *pair) for pair in relation.pairs]
        return reader.quarantine.orphans(relation, rules, spellings)

    unvalidated: set[Relation] = set()
    for relation, rows in zip(relations, planning.readers.at_once(look, relations), strict=True):
        if rows.count and not _judge(planning, relation, rows):
            unvalidated.add(relation)
    return frozenset(unvalidated)


def _judge(planning: Planning, relation: Relation, rows: Rows) -> bool:
    """Whether the rows go to quarantine, so that the foreign key can be validated."""
    orphans = _action(planning, relation)
    text = f"{relation.text}: {count_rows(rows.count)} without a parent"
    column = relation.columns[0] if len(relation.columns) == 1 else None
    if orphans == "quarantine":
        planning.set_aside(relation.child, rows, f"no parent for the {relation.text}", column)
        text += "; to quarantine by the policy"
    elif orphans == "keep":
        text += "; kept, and the foreign key guards new rows only (NOT VALID)"
    planning.findings.add(
        "orphans",
        "error" if orphans == "block" else "warning",
        text,
        table=relation.child,
        column=column,
        rows=rows,
        resolution=policy_for_table(relation.child, orphans="keep") if orphans == "block" else "",
    )
    return orphans == "quarantine"


def _action(planning: Planning, relation: Relation) -> str:
    named = planning.policy.table(relation.child).orphans or planning.policy.orphans
    if named:
        return named
    action = planning.findings.action_for(relation.child)
    return "keep" if action == "widen" else action


def _spelling(seen: Seen, assignments: Assignments, child: Place, parent: Place) -> Spelling:
    """How the target compares a reference with its parent."""
    columns = (child, parent)
    kinds = {assignments[end].rule.kind for end in columns}
    numbers = set().union(*(seen.of(end).classes for end in columns)) & {"integer", "real"}
    if numbers and kinds <= _AS_TEXT and kinds != {"text"}:
        return "text"  # SQLite would compare text with a column of numbers as a number
    if len(kinds) > 1 or not numbers:
        return "same"
    kind = kinds.pop()
    if kind == "widened-bytea":
        return "text"
    return "decimal" if kind == "numeric" and len(numbers) > 1 else "same"


_AS_TEXT = frozenset({"text", "text-integer", "widened-text"})
"""Rules whose values PostgreSQL has as text, numbers as their digits."""
