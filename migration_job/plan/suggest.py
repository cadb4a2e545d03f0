"""One policy out of the settlements that findings propose, tried until the plan goes through."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from migration_job.plan.findings import to_yaml
from migration_job.plan.model import Finding, Plan
from migration_job.plan.policy import Policy, parse_policy
from migration_job.values import fold

ROUNDS = 8
"""How often a suggested policy is tried and added to."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A policy, and what was seen when it was tried."""

    data: dict[str, Any]
    settled: tuple[Finding, ...]
    """The errors that it has entries for."""
    remaining: tuple[Finding, ...]
    """The errors of the plan that it leads to."""

    @property
    def verdict(self) -> str:
        """What the trial gave, in a sentence."""
        if not self.remaining:
            if not self.settled:
                return "Nothing stops this migration: no entry is needed."
            return "The suggested policy was tried, and the plan goes through with it."
        places = ", ".join(dict.fromkeys(f"{_place(f)}{f.code}" for f in self.remaining))
        if not self.settled:
            return f"No policy settles what stops this migration: {places}."
        why = "" if any(f.settle for f in self.remaining) else " that no policy settles"
        return f"The suggested policy was tried, and what remains{why}: {places}."

    @property
    def text(self) -> str:
        """The policy as a file, what each entry settles in comments."""
        lines = [f"# {self.verdict}"]
        lines += [f"#   {_place(f)}{f.code}: {_one_line(f.message)}" for f in self.remaining]
        if self.settled:
            lines += ["#", "# What each entry settles:", "#"]
            lines += [f"#   {_place(f)}{f.code}: {_one_line(f.message)}" for f in self.settled]
            lines += [
                "#",
                "# Read it through before using it: widen keeps every value in a wider type, "
                "quarantine",
                "# sets rows aside whole, acknowledge accepts what cannot be carried over.",
            ]
        return "\n".join(lines) + "\n" + (to_yaml(self.data) + "\n" if self.data else "")


def suggest(
    planned: Callable[[Policy], Plan], plan: Plan, base: dict[str, Any] | None = None
) -> Suggestion:
    """The policy that settles the errors of ``plan``, found by trying it: some errors show only
    once others are settled, and some settlements turn out not to be enough. ``base`` is the
    content of the policy that led to ``plan``; it is kept but where it is what an error is for."""
    data = dict(base or {})
    settled: list[Finding] = []
    for _ in range(ROUNDS):
        errors = [f for f in plan.blocked if f.settle]
        wanted: dict[str, Any] = {}
        for finding in errors:
            wanted = merge(wanted, yaml.safe_load(finding.settle))
        further = override(data, wanted)
        if further == data:
            break
        data, settled = further, _joined(settled, errors)
        plan = planned(parse_policy(to_yaml(data)))
    return Suggestion(data, tuple(settled), plan.blocked)


def merge(base: dict[str, Any], addition: dict[str, Any]) -> dict[str, Any]:
    """Both, key by key; lists are joined without repetition; where both give a value for one
    place, the base keeps its own."""
    merged = dict(base)
    for key, value in addition.items():
        own = merged.get(key)
        if isinstance(own, dict) and isinstance(value, dict):
            merged[key] = merge(own, value)
        elif isinstance(own, list) and isinstance(value, list):
            merged[key] = own + [item for item in value if item not in own]
        elif key not in merged or own is None:
            merged[key] = value
    return merged


def override(base: dict[str, Any], addition: dict[str, Any]) -> dict[str, Any]:
    """As :func:`merge`, but that the addition's values win. A table or column whose name the base
    spells in other letters is one."""
    merged = dict(base)
    for name, value in addition.items():
        key = _spelled(merged, name) if isinstance(value, dict) else name
        own = merged.get(key)
        if isinstance(own, dict) and isinstance(value, dict):
            merged[key] = override(own, value)
        elif isinstance(own, list) and isinstance(value, list):
            merged[key] = own + [item for item in value if item not in own]
        else:
            merged[key] = value
    return merged


def _spelled(names: Mapping[Any, Any], name: Any) -> Any:
    if name in names:
        return name
    same = (n for n in names if isinstance(n, str) and fold(n) == fold(str(name)))
    return next(same, name)


def _joined(earlier: list[Finding], later: Sequence[Finding]) -> list[Finding]:
    """All of them; of a column's findings of one code the later, which the entry is for."""
    columns = {(f.code, f.table, f.column) for f in later if f.column is not None}
    kept = [f for f in earlier if (f.code, f.table, f.column) not in columns and f not in later]
    return [*kept, *later]


def _place(finding: Finding) -> str:
    if finding.table is None:
        return ""
    return f"{_one_line(finding.table)}{'.' + _one_line(finding.column) if finding.column else ''} "


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
