"""How the source writes a value that only PostgreSQL has yet.

A rule brings back what its column's values look like. In a column in which nothing stands, nothing
shows that: but the columns that are declared as it is were written by the same application, and
what refers to a key is found on the source only where it is written as the key is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

from migration_job.plan.assignment import Assignment
from migration_job.plan.choose import Choice
from migration_job.plan.planner.column_assignments import Assignments
from migration_job.plan.planner.context import Planning
from migration_job.plan.planner.side_by_side import Seen
from migration_job.plan.relations import Place, Relation
from migration_job.plan.rules import MapRule, Rule
from migration_job.values import fold

_Group = tuple[str | None, str, str]
"""A table (None: all of them), a declared type and a kind of rule."""

_SAYS_NOTHING = frozenset({"action", "acknowledge"})


def as_columns_like_them(planning: Planning, seen: Seen, assignments: Assignments) -> Assignments:
    """The assignments with each column without a value written as those are that are declared as it
    is: in its table, else in the whole source, and only where all of them agree. What the policy or
    the profile speaks of neither learns nor teaches."""
    known: defaultdict[_Group, dict[str, Rule]] = defaultdict(dict)
    silent: list[Place] = []
    for place, assignment in assignments.items():
        if not assignment.rule.spelled or _said(planning, place):
            continue
        if not seen.of(place).values:
            silent.append(place)
            continue
        for group in _groups(planning, seen, place, assignment):
            known[group].setdefault(_spelling(assignment.rule), assignment.rule)
    if not silent or not known:
        return assignments
    found = dict(assignments)
    for place in silent:
        groups = _groups(planning, seen, place, found[place])
        rules = next((known[group] for group in groups if group in known), {})
        if len(rules) == 1:
            rule = planning.rules.one(found[place].rule.spelled_as(*rules.values()))
            found[place] = replace(found[place], rule=rule, type=Choice.of(rule).type)
    return found


def _said(planning: Planning, place: Place) -> bool:
    own = planning.policy.column(*place)
    return not own.model_fields_set <= _SAYS_NOTHING or planning.profile.wish(*place) is not None


def _groups(
    planning: Planning, seen: Seen, place: Place, assignment: Assignment
) -> Iterator[_Group]:
    declared = fold(planning.subject(seen, place).column.declared)
    for table in (place[0], None):
        yield table, declared, assignment.rule.kind


def _spelling(rule: Rule) -> str:
    return rule.model_dump_json(include=set(rule.spelled))


def as_their_keys(
    planning: Planning, seen: Seen, agreed: dict[Place, Assignment], relations: Sequence[Relation]
) -> None:
    """Have what refers to a key be written as the key is, where it holds nothing that is written
    otherwise. A child of a child follows with the next round."""
    pairs = [pair for relation in relations for pair in relation.pairs]
    for _ in range(len(pairs) + 1):
        followed = sum(_follow(planning, seen, agreed, *pair) for pair in pairs)
        if not followed:
            return


def _follow(
    planning: Planning, seen: Seen, agreed: dict[Place, Assignment], child: Place, parent: Place
) -> bool:
    if child not in agreed or parent not in agreed or agreed[child].type != agreed[parent].type:
        return False
    own, key = agreed[child].rule, agreed[parent].rule
    if isinstance(own, MapRule) or isinstance(key, MapRule):
        return False
    rule = own.spelled_as(key)
    if rule == own:
        return False
    choice = Choice(rule, agreed[child].type)
    examined = planning.assigner.forced(planning.subject(seen, child), choice).examination
    if examined.cannot.count or examined.bad.count or examined.changed.count:
        return False
    agreed[child] = replace(agreed[child], rule=planning.rules.one(rule), examination=examined)
    return True
