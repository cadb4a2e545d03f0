"""Which maps keep every two values of their column apart, and so are its rule forth and back."""

from __future__ import annotations

from dataclasses import replace

from migration_job.plan.decide import Decision
from migration_job.plan.defaults import truth_word
from migration_job.plan.facts import Rows
from migration_job.plan.planner.column_decisions import Decisions
from migration_job.plan.planner.context import Planning, column_named
from migration_job.plan.planner.side_by_side import Seen
from migration_job.plan.relations import Place
from migration_job.plan.rules import MapRule
from migration_job.values import same

NUMBERS = ("integer", "real", "numeric")


def settle_maps(planning: Planning, seen: Seen, decisions: Decisions) -> Decisions:
    """The decisions with each map either marked as one that goes both ways, or made one-way."""
    return {
        place: _settled(planning, seen, place, decision) for place, decision in decisions.items()
    }


def _settled(planning: Planning, seen: Seen, place: Place, decision: Decision) -> Decision:
    rule = decision.rule
    if not isinstance(rule, MapRule):
        return decision
    if rule.patterns:
        return _settled_pattern(planning, seen, place, decision, rule)
    if not rule.entries or not rule.bijective:
        return decision
    if not _goes_both_ways(planning, seen, place, decision, rule):
        return _one_way(planning, seen, place, decision, rule)
    table = planning.catalogue.table(place[0])
    met = planning.observer.some_of(table, place[1], [e.source for e in rule.entries])
    return replace(decision, met=met, told_apart=not decision.examination.changed.count)


def _goes_both_ways(
    planning: Planning, seen: Seen, place: Place, decision: Decision, rule: MapRule
) -> bool:
    """Whether no value of the column but the entries' own ends as one of theirs."""
    if _maps_a_default(planning, place, decision):
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
    planning: Planning, seen: Seen, place: Place, decision: Decision, rule: MapRule
) -> Decision:
    one_way = rule.model_copy(update={"bijective": False})
    examination = planning.decider.examine(planning.subject(seen, place), one_way)
    return replace(decision, rule=one_way, examination=examination, met=examination.changed)


def _settled_pattern(
    planning: Planning, seen: Seen, place: Place, decision: Decision, rule: MapRule
) -> Decision:
    """Let patterns be the column's rule forth and back where they bring every value back."""
    facts = seen.of(place)
    decision = replace(decision, met=decision.examination.changed)
    if not rule.bijective:
        return decision
    if not decision.examination.slow:
        return replace(decision, met=Rows(count=facts.values), told_apart=True)
    one_way = _one_way(planning, seen, place, decision, rule)
    # Odd values among numbers: a new number is that number.
    odd = rule.inner.kind in (*NUMBERS, "integer-text")
    all_met = one_way.met is not None and one_way.met.count >= facts.values
    if not decision.examination.changed.count and (not odd or all_met):
        return replace(decision, met=one_way.met, told_apart=True)
    return one_way


def _maps_a_default(planning: Planning, place: Place, decision: Decision) -> bool:
    """Whether the column's map is that of its default, and not the policy's."""
    column = column_named(planning.catalogue.table(place[0]), place[1])
    of_default = decision.type == "boolean" and truth_word(column.default) is not None
    return of_default and not planning.policy.column(*place).entries
