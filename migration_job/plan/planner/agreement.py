"""One type for both ends of every foreign key."""

from __future__ import annotations

from dataclasses import dataclass, replace

from migration_job.plan.assignment import WIDENED, Assignment
from migration_job.plan.choose import Choice
from migration_job.plan.planner.column_assignments import Assignments
from migration_job.plan.planner.context import Planning
from migration_job.plan.planner.side_by_side import Seen
from migration_job.plan.planner.spellings import as_their_keys
from migration_job.plan.relations import Place, Relation, common
from migration_job.plan.rules import IntegerRule


@dataclass(frozen=True, slots=True)
class Agreement:
    """The assignments once both ends of each foreign key have one type."""

    assignments: Assignments
    dropped: frozenset[Relation]
    """Those that are not carried, since their ends cannot agree."""


def agree_on_types(planning: Planning, seen: Seen, assignments: Assignments) -> Agreement:
    """Give both ends of every foreign key one type; what cannot agree is a finding."""
    for table, key, why in planning.relations.broken:
        planning.findings.add(
            "foreign-key-not-carried",
            "by-action",
            f"foreign key ({', '.join(key.columns)}) to {key.parent}: {why}",
            table=table,
            item=f"{table}.{key.columns[0]}",
        )
    agreed = dict(assignments)
    dropped = {
        relation
        for relation in planning.relations.all
        if any(place not in agreed for pair in relation.pairs for place in pair)
    }
    # A change at one end may ask for another at the next: at most once around.
    for _ in range(len(planning.relations.all) + 1):
        changed = False
        for relation in planning.relations.all:
            if relation not in dropped:
                changed = _relate(planning, seen, agreed, relation, dropped) or changed
        if not changed:
            break
    as_their_keys(planning, seen, agreed, [r for r in planning.relations.all if r not in dropped])
    return Agreement(agreed, frozenset(dropped))


def _relate(
    planning: Planning,
    seen: Seen,
    agreed: dict[Place, Assignment],
    relation: Relation,
    dropped: set[Relation],
) -> bool:
    """Whether an end had to change. A relation whose ends cannot agree is dropped."""
    changed = False
    for child, parent in relation.pairs:
        verdict = _one_pair(planning, seen, agreed, child, parent)
        if verdict is None:
            dropped.add(relation)
            planning.findings.add(
                "foreign-key-not-carried",
                "by-action",
                f"{relation.text}: the two sides hold values of different types "
                f"({agreed[child].type} and {agreed[parent].type})",
                table=relation.child,
                item=f"{relation.child}.{child[1]}",
            )
            break
        changed = changed or verdict
    return changed


def _one_pair(
    planning: Planning, seen: Seen, agreed: dict[Place, Assignment], child: Place, parent: Place
) -> bool | None:
    """Whether a side had to change for the two to have one type; None where none is found."""
    left, right = agreed[child], agreed[parent]
    if left.type == right.type:
        # To SQLite the text 0.0 refers to the number 0; widened, they are two texts.
        widened = left.rule.widened or right.rule.widened
        return None if widened and left.rule.kind != right.rule.kind else False
    for end, rule in common(left.rule, right.rule, seen.of(child).classes):
        place = child if end == "child" else parent
        assignment = _forced(planning, seen, agreed[place], place, Choice.of(rule))
        if assignment is None:
            return None
        agreed[place] = assignment
    return True if agreed[child].type == agreed[parent].type else None


def _forced(
    planning: Planning, seen: Seen, before: Assignment, place: Place, choice: Choice
) -> Assignment | None:
    """The assignment for a type that a relation dictates; None where the column cannot have it."""
    subject = planning.subject(seen, place)
    if subject.column.name == subject.table.rowid_alias and not isinstance(
        choice.rule, IntegerRule
    ):
        return None  # it would lose its generator for the sake of one reference
    assignment = planning.assigner.forced(subject, choice)
    unfit = assignment.examination.cannot.ids | assignment.examination.bad.ids
    if unfit - before.quarantined.keys():
        return None
    narrow = before.reason == f"{WIDENED}{assignment.type}"
    retyped = None if narrow else before.retyped
    return replace(assignment, quarantined=before.quarantined, retyped=retyped)
