"""One policy out of the resolutions that findings propose, tried until the plan goes through."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from migration_job.plan.findings import to_yaml
from migration_job.plan.model import Finding, Plan
from migration_job.plan.policy import Policy, parse_policy
from migration_job.values import fold

TYPE_SUGGESTED = "type-suggested"

ROUNDS = 8
"""How often a suggested policy is tried and added to."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A policy, and what was seen when it was tried."""

    data: dict[str, Any]
    resolved: tuple[Finding, ...]
    """The errors that it has entries for."""
    remaining: tuple[Finding, ...]
    """The errors of the plan that it leads to."""
    hints: dict[str, Any] = field(default_factory=dict)
    """What would give columns a narrower or truer type: tried, and not needed."""
    hinted: tuple[Finding, ...] = ()
    """The findings that those are for."""
    warnings: tuple[Finding, ...] = ()
    """Those that stay, and that nothing else is offered for: each can be acknowledged."""

    @property
    def verdict(self) -> str:
        """What the trial gave, in a sentence."""
        if not self.remaining:
            if not self.resolved:
                return "Nothing stops this migration: no entry is needed."
            return "The suggested policy was tried, and the plan goes through with it."
        places = ", ".join(dict.fromkeys(f"{_place(f)}{f.code}" for f in self.remaining))
        if not self.resolved:
            return f"No policy resolves what stops this migration: {places}."
        why = "" if any(f.resolution for f in self.remaining) else " that no policy resolves"
        return f"The suggested policy was tried, and what remains{why}: {places}."

    @property
    def text(self) -> str:
        """The policy as a file, what each entry resolves in comments."""
        lines = [f"# {self.verdict}"]
        lines += [f"#   {_place(f)}{f.code}: {_one_line(f.message)}" for f in self.remaining]
        if self.resolved:
            lines += ["#", "# What each entry resolves:", "#"]
            lines += [f"#   {_place(f)}{f.code}: {_one_line(f.message)}" for f in self.resolved]
            lines += [
                "#",
                "# Read it through before using it: widen keeps every value in a wider type, "
                "quarantine",
                "# sets rows aside whole, acknowledge accepts what cannot be carried over.",
            ]
        if self.hinted:
            lines += [
                "#",
                "# Not needed, and tried on every value: lines behind a `#` below keep or",
            ]
            lines += ["# give a truer type. Take the `# ` off those that are right:", "#"]
            lines += [f"#   {_place(f)}{f.code}: {_one_line(f.message)}" for f in self.hinted]
        if self.warnings:
            lines += [
                "#",
                "# Warnings that stay. A line under `acknowledge` says that one is known:",
            ]
            lines += ["#"]
            lines += [f"#   {_place(f)}{f.code}: {_one_line(f.message)}" for f in self.warnings]
        known = list(dict.fromkeys(acknowledgement(f) for f in self.warnings))
        hints = merge(self.hints, {"acknowledge": known}) if known else self.hints
        return "\n".join(lines) + "\n" + _file(self.data, hints)


def acknowledgement(finding: Finding) -> str:
    """The entry of a policy's `acknowledge` that says that a finding is known."""
    place = ".".join(name for name in (finding.table, finding.column) if name is not None)
    return f"{finding.code}:{place}" if place else finding.code


def suggest(
    planned: Callable[[Policy], Plan],
    plan: Plan,
    base: dict[str, Any] | None = None,
    *,
    generous: bool = False,
) -> Suggestion:
    """The policy that resolves the errors of ``plan``, found by trying it: some errors show only
    once others are resolved, and some resolutions turn out not to be enough. ``base`` is the
    content of the policy that led to ``plan``; it is kept but where it is what an error is for.
    ``generous``: what is only suggested of columns' types is taken."""
    data = dict(base or {})
    resolved: list[Finding] = []
    for _ in range(ROUNDS):
        errors = [f for f in plan.blocked if f.resolution]
        types = [f for f in plan.findings if generous and f.code == TYPE_SUGGESTED]
        further = override(data, together([f.resolution for f in errors]))
        further = override(further, together([f.suggest for f in types]))
        if further == data:
            break
        data, resolved = further, _joined(resolved, [*errors, *types])
        plan = planned(parse_policy(to_yaml(data)))
    hinted = that_go_through(
        lambda tried: planned(parse_policy(to_yaml(tried))),
        plan,
        data,
        [f for f in plan.findings if f.suggest],
    )
    hints = together([f.suggest for f in hinted])
    warnings = tuple(_warnings(plan, data, hinted))
    return Suggestion(data, tuple(resolved), plan.blocked, hints, tuple(hinted), warnings)


def _warnings(plan: Plan, data: Mapping[str, Any], hinted: Sequence[Finding]) -> Iterator[Finding]:
    """Those that the policy does not resolve, nor any hint."""
    offered = {(f.table, f.column) for f in hinted if f.column is not None}
    for finding in plan.findings:
        told = finding.severity == "warning" and (finding.table, finding.column) not in offered
        if told and not _entry(data, finding):
            yield finding


def _entry(data: Mapping[str, Any], finding: Finding) -> bool:
    """Whether a policy speaks of the finding already."""
    policy = Policy.model_validate(data)
    if policy.accepts(finding.code, finding.table, finding.column, None):
        return True
    named = finding.table is not None and finding.column is not None
    return named and policy.column(str(finding.table), str(finding.column)).explicit


def that_go_through(
    planned: Callable[[dict[str, Any]], Plan],
    plan: Plan,
    data: dict[str, Any],
    hinted: list[Finding],
) -> list[Finding]:
    """Those of the findings whose suggestions, all taken, add no error to the plan that the policy
    ``data`` gives; those of a table that they add one to are left out."""
    present = {(f.code, f.table, f.column) for f in plan.blocked}
    while hinted:
        policy = merge(data, together([f.suggest for f in hinted]))
        blocked = planned(policy).blocked
        new = [f for f in blocked if (f.code, f.table, f.column) not in present]
        if not new:
            break
        tables = {f.table for f in new}
        kept = [f for f in hinted if f.table not in tables]
        hinted = kept if len(kept) < len(hinted) else []
    return hinted


def together(parts: Sequence[str]) -> dict[str, Any]:
    """The policy of all these lines of YAML."""
    import yaml

    whole: dict[str, Any] = {}
    for part in parts:
        whole = merge(whole, yaml.safe_load(part))
    return whole


def _file(data: dict[str, Any], hints: dict[str, Any]) -> str:
    import yaml

    plain = to_yaml(data) + "\n" if data else ""
    if not hints:
        return plain
    text = "\n".join(_with_hints(data, hints)) + "\n"
    return text if (yaml.safe_load(text) or {}) == data else plain


def _with_hints(data: dict[str, Any], hints: dict[str, Any], depth: int = 0) -> Iterator[str]:
    """The lines of a policy, those that are hints alone as comments at their places."""
    indent = "  " * depth
    keys = [*data, *(key for key in hints if _spelled(data, key) not in data)]
    hint_of = {_spelled(data, key): value for key, value in hints.items()}
    for key in keys:
        own, hint = data.get(key), hint_of.get(key)
        if isinstance(own, dict) and own and isinstance(hint, dict):
            heading = to_yaml({key: {}}).removesuffix(" {}").split("\n")
            yield from (indent + line for line in heading)
            yield from _with_hints(own, hint, depth + 1)
        else:
            mark = "" if key in data else "# "
            lines = to_yaml({key: own if key in data else hint}).split("\n")
            yield from (f"{mark}{indent}{line}" for line in lines)


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
