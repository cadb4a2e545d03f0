"""One plan for all files of one schema, where that is sound.

A plan rests on values, so two files of one schema may have two: what is ``integer`` in one is
``bigint`` in another. The files of a schema therefore agree on each column's type first: the
narrowest that some file's plan has and that holds every value of all files as well as their own
types do. That is tried on the values, and each file is planned by itself in the end, with those
types wished for; files whose plans then make the same tables have one plan. The others are
outliers, and planned without the wishes.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from migration_job.fleet.tasks import Column, Failed, Looked, Seen
from migration_job.plan.choose import split_type
from migration_job.plan.findings import some, to_yaml
from migration_job.plan.shape import differences
from migration_job.plan.suggest import override
from migration_job.stores.postgres.fleet_ledger import PlanRow

LookAgain = Callable[[Sequence[str], str], Mapping[str, Looked | Failed]]
"""The plans of some tenants' files under a policy (YAML), by tenant."""

NARROW_FIRST = (
    *("boolean", "smallint", "integer", "bigint"),
    *("date", "time", "timestamp", "timestamp without time zone", "timestamp with time zone"),
    *("uuid", "json", "jsonb", "double precision", "numeric", "varchar", "character varying"),
)
"""Types in the order in which they are tried, those of which nothing is said after them; text, and
bytea, which anything can become, come last."""

LAST = ("text", "bytea")


@dataclass(slots=True)
class Agreed:
    """What the files come to."""

    plans: list[PlanRow] = field(default_factory=list)
    plan_of: dict[str, int] = field(default_factory=dict)
    """Tenant to plan."""
    failed: dict[str, Failed] = field(default_factory=dict)
    blocked: dict[str, str] = field(default_factory=dict)
    """Tenants whose plan is stopped by findings, which are told."""


def agree(
    looks: Mapping[str, Looked | Failed],
    policy: str,
    look_again: LookAgain,
    before: Sequence[PlanRow] = (),
) -> Agreed:
    """Plans for all files; ``policy`` is the manifest's. ``before`` are those that files are on the
    target under already: a file of their schema takes their types, or is an outlier."""
    agreed = Agreed(plans=list(before))
    schemas: dict[str, dict[str, Looked]] = {}
    for tenant, look in looks.items():
        if isinstance(look, Failed):
            agreed.failed[tenant] = look
        else:
            schemas.setdefault(look.schema, {})[tenant] = look
    for schema, own in sorted(schemas.items(), key=lambda item: (-len(item[1]), item[0])):
        first = next((p for p in before if p.source_schema == schema), None)
        if first is None:
            wishes, shape = _common_types(own, policy, look_again), None
        else:
            wishes, shape = _types_of(first, own), first.shape
        _assign(agreed, _Group(schema, own, policy, wishes, shape), look_again)
    return agreed


@dataclass(frozen=True, slots=True)
class _Group:
    """The files of one schema, and what they are to have in common."""

    schema: str
    own: Mapping[str, Looked]
    """Each planned without wishes."""
    policy: str
    wishes: Mapping[Column, str]
    shape: str | None
    """That files of it have on the target already."""


def _assign(agreed: Agreed, group: _Group, look_again: LookAgain) -> None:
    """Give the files their plans: the one with the wishes where they come to the same tables under
    it, and their own elsewhere."""
    own, under = group.own, dict(group.own)
    if group.wishes:
        again = look_again(sorted(own), with_wishes(group.policy, group.wishes))
        under = {
            t: a
            for t, a in again.items()
            if isinstance(a, Looked) and not _worse(a.seen, own[t].seen)
        }
    counts = Counter(look.shape for look in under.values())
    shape = group.shape or max(counts, key=lambda s: (counts[s], s), default=None)
    fitting = {t for t, look in under.items() if look.shape == shape}
    for tenant in sorted(own, key=lambda t: (t not in fitting, t)):
        fits = tenant in fitting
        look = under[tenant] if fits else own[tenant]
        if look.blocked:
            agreed.blocked[tenant] = look.blocked
        wishes = group.wishes if fits else {}
        agreed.plan_of[tenant] = _numbered(agreed, group, look.shape, wishes)


def _numbered(agreed: Agreed, group: _Group, shape: str, wishes: Mapping[Column, str]) -> int:
    """The number of the plan that makes those tables, among those that there are, or a new one's.
    The first plan of a schema is that of its files in common."""
    own = [p for p in agreed.plans if p.source_schema == group.schema]
    said = with_wishes(group.policy, wishes)
    kept = json.dumps([[*column, wish] for column, wish in sorted(wishes.items())])
    for plan in own[:1] if wishes is group.wishes else own[1:]:
        if plan.shape == shape:
            place = agreed.plans.index(plan)
            agreed.plans[place] = dataclasses.replace(plan, policy=said, wishes=kept)
            return plan.number
    common = next((p for p in agreed.plans if p.common), None)
    reason = ""
    if common is not None:
        found = differences(json.loads(shape), json.loads(common.shape))
        reason = some(found, 3) if found else "the same tables, of another schema of SQLite's"
    number = max((p.number for p in agreed.plans), default=0) + 1
    agreed.plans.append(PlanRow(number, group.schema, shape, said, kept, common is None, reason))
    return number


def wishes_of(plan: PlanRow) -> dict[Column, str]:
    """The types that the files of a plan wish for."""
    return {(table, column): wish for table, column, wish in json.loads(plan.wishes)}


def _types_of(plan: PlanRow, own: Mapping[str, Looked]) -> dict[Column, str]:
    """What the files have to wish for in order to have the types of a plan that there is."""
    wishes = wishes_of(plan)
    tables = json.loads(plan.shape)["tables"]
    for look in own.values():
        for seen in look.seen.columns:
            table, column = seen.place
            there = tables.get(table, {}).get("columns", {}).get(column, {}).get("type")
            if there is not None and there != seen.type:
                wishes[seen.column] = there
    return wishes


# ------------------------------------------------------------------------- the types in common


def _common_types(
    own: Mapping[str, Looked], policy: str, look_again: LookAgain
) -> dict[Column, str]:
    """The types that the files of a schema have in common, of the columns in which their own plans
    differ."""
    types: dict[Column, Counter[str]] = {}
    for look in own.values():
        for column, there in look.seen.types.items():
            types.setdefault(column, Counter())[there] += 1
    left = {column: sorted(found, key=_rank) for column, found in types.items() if len(found) > 1}
    settled: dict[Column, str] = {}
    while left:
        tried = {column: candidates[0] for column, candidates in left.items()}
        refused = _refused(own, (tried, {**settled, **tried}), policy, look_again)
        for column, candidate in tried.items():
            if column not in refused:
                settled[column] = candidate
                del left[column]
            elif len(left[column]) > 1:
                left[column].pop(0)
            else:  # none that all can have: that of most
                settled[column] = max(types[column], key=lambda t: (types[column][t], t))
                del left[column]
    return settled


def _refused(
    own: Mapping[str, Looked],
    wishes: tuple[Mapping[Column, str], Mapping[Column, str]],
    policy: str,
    look_again: LookAgain,
) -> set[Column]:
    """The columns of the first ``wishes`` that some file does not carry as well as with its own
    type; the second are those and what is settled."""
    asked, all_wishes = wishes
    others = [t for t, look in own.items() if _unlike(look, asked)]
    refused: set[Column] = set()
    for tenant, again in look_again(others, with_wishes(policy, all_wishes)).items():
        unlike = _unlike(own[tenant], asked)
        if isinstance(again, Failed):
            refused |= unlike
            continue
        before, after = own[tenant].seen, again.seen
        worse = {(table, column) for _, table, column in after.troubles - before.troubles}
        worse |= after.unclean - before.unclean
        there = after.types
        refused |= {c for c in asked if there.get(c) != asked[c] or c in worse}
        if after.set_aside > before.set_aside:
            refused |= unlike
    return refused


def _unlike(look: Looked, wishes: Mapping[Column, str]) -> set[Column]:
    """The columns that the file has in other types than are wished for."""
    return {c for c, there in look.seen.types.items() if wishes.get(c, there) != there}


def _worse(after: Seen, before: Seen) -> bool:
    """Whether a plan with wishes carries a file less well than the plan without them."""
    return (
        bool(after.unclean - before.unclean)
        or bool(after.troubles - before.troubles)
        or after.set_aside > before.set_aside
    )


def _rank(type_sql: str) -> tuple[int, tuple[int, ...], str]:
    name, numbers = split_type(type_sql)
    if name in LAST:
        return len(NARROW_FIRST) + 1 + LAST.index(name), (), type_sql
    place = NARROW_FIRST.index(name) if name in NARROW_FIRST else len(NARROW_FIRST)
    # A number is a limit, and a type without one has none.
    return place, numbers or (1 << 30,), type_sql


def with_wishes(policy: str, wishes: Mapping[Column, str]) -> str:
    """The policy (YAML) with those types wished for, beside what it says."""
    if not wishes:
        return policy
    tables: dict[str, Any] = {}
    for (table, column), wish in sorted(wishes.items()):
        tables.setdefault(table, {"columns": {}})["columns"][column] = {"type": wish}
    return to_yaml(override(yaml.safe_load(policy) or {}, {"tables": tables})) + "\n"
