"""Which maps keep every two values of their column apart, and so are its rule forth and back."""

from __future__ import annotations

from dataclasses import replace

from migration_job.plan.assignment import Assignment
from migration_job.plan.defaults import truth_word
from migration_job.plan.facts import Rows
from migration_job.plan.planner.column_assignments import Assignments
from migration_job.plan.planner.context import Planning, column_named
from migration_job.plan.planner.side_by_side import Seen
from migration_job.plan.relations import Place
from migration_job.plan.rules import MapRule
from migration_job.values import same

NUMBERS = ("integer", "real", "numeric")


def set_directions(planning: Planning, seen: Seen, assignments: Assignments) -> Assignments:
    """The assignments with each map either marked as one that goes both ways, or made one-way."""
    return {
        place: _with_direction(planning, seen, place, assignment)
        for place, assignment in assignments.items()
    }


def _with_direction(
    planning: Planning, seen: Seen, place: Place, assignment: Assignment
) -> Assignment:
    rule = assignment.rule
    if not isinstance(rule, MapRule):
        return assignment
    if rule.patterns:
        return _pattern_direction(planning, seen, place, assignment, rule)
    if not rule.entries or not rule.bijective:
        return assignment
    if not _goes_both_ways(planning, seen, place, assignment, rule):
        return _one_way(planning, seen, place, assignment, rule)
    table = planning.catalogue.table(place[0])
    met = planning.observer.some_of(table, place[1], [e.source for e in rule.entries])
    return replace(assignment, met=met, told_apart=not assignment.examination.changed.count)


def _goes_both_ways(
    planning: Planning, seen: Seen, place: Place, assignment: Assignment, rule: MapRule
) -> bool:
    """Whether no value of the column but the entries' own ends as one of theirs."""
    if _maps_a_default(planning, place, assignment):
        return False  # the words of a default: a new truth value is 0 or 1
    own = [e.source for e in rule.entries]
    others = [
        e.target
        for e in rule.entries
        if e.target is not None and not any(same(e.target, v) for v in own)
    ]
    table, column = planning.catalogue.table(place[0]), place[1]
    if rule.inner.kind in NUMBERS and (
        planning.observer.count_of(table, column, own) < seen.of(place).values
    ):
        return False  # odd values among numbers: a new number is that number
    return not others or not planning.observer.count_of(table, column, others)


def _one_way(
    planning: Planning, seen: Seen, place: Place, assignment: Assignment, rule: MapRule
) -> Assignment:
    one_way = rule.model_copy(update={"bijective": False})
    examination = planning.assigner.examine(planning.subject(seen, place), one_way)
    return replace(assignment, rule=one_way, examination=examination, met=examination.changed)


def _pattern_direction(
    planning: Planning, seen: Seen, place: Place, assignment: Assignment, rule: MapRule
) -> Assignment:
    """Let patterns be the column's rule forth and back where they bring every value back."""
    facts = seen.of(place)
    assignment = replace(assignment, met=assignment.examination.changed)
    if not rule.bijective:
        return assignment
    if not assignment.examination.slow:
        return replace(assignment, met=Rows(count=facts.values), told_apart=True)
    one_way = _one_way(planning, seen, place, assignment, rule)
    # Odd values among numbers: a new number is that number.
    odd = rule.inner.kind in (*NUMBERS, "integer-text")
    all_met = one_way.met is not None and one_way.met.count >= facts.values
    if not assignment.examination.changed.count and (not odd or all_met):
        return replace(assignment, met=one_way.met, told_apart=True)
    return one_way


def _maps_a_default(planning: Planning, place: Place, assignment: Assignment) -> bool:
    """Whether the column's map is that of its default, and not the policy's."""
    column = column_named(planning.catalogue.table(place[0]), place[1])
    of_default = assignment.type == "boolean" and truth_word(column.default) is not None
    return of_default and not planning.policy.column(*place).entries
