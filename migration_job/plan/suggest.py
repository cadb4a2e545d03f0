"""One policy out of the resolutions that findings propose, tried until the plan goes through."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from migration_job.plan.findings import to_yaml
from migration_job.plan.model import Finding, Plan
from migration_job.plan.policy import Policy, parse_policy
from migration_job.plan.retyped import RETYPED
from migration_job.values import fold

TYPE_SUGGESTED = "type-suggested"

KNOWN = "acknowledge"
"""The list of a policy that says which findings are known."""

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
    instead: tuple[Finding, ...] = ()
    """The warnings that those would end: each can be acknowledged instead."""
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
        """The policy as a file, what each entry resolves in comments. Prose is behind `##`, what is
        offered behind `# `: without that it is YAML, whichever lines are taken."""
        prose = [self.verdict, *map(_told, self.remaining)]
        if self.resolved:
            prose += ["", "What each entry resolves:", ""]
            prose += map(_told, self.resolved)
            prose += [
                "",
                "Read it through before using it: widen keeps every value in a wider type, "
                "quarantine",
                "sets rows aside whole, acknowledge accepts what cannot be carried over.",
            ]
        lines = _behind_two(prose)
        offered = self.hints.get("tables")
        if offered:
            told = [
                "Not needed: these lines keep a type or give a truer one, and were tried on every"
            ]
            told += ["value. Take the `# ` off those that are right:", ""]
            if self.instead:
                told = [
                    "Either take the `# ` off these lines, or off some of them. They keep a type or"
                ]
                told += ["give a truer one, and were tried on every value:", ""]
            told += [_told(f) for f in self.hinted if f.code != RETYPED]
            lines += ["", *_behind_two(told)]
        if not (offered or self.data):
            return "\n".join([*lines, *self._known()]) + "\n"
        return "\n".join(lines) + "\n" + self._file()

    def _file(self) -> str:
        """The policy's lines, with what is offered at its places as comments."""
        import yaml

        hints = {name: hint for name, hint in self.hints.items() if name != KNOWN}
        own = {name: value for name, value in self.data.items() if name != KNOWN}
        lines = [*_with_hints(own, hints), *self._known()]
        text = "\n".join(lines) + "\n"
        plain = to_yaml(self.data) + "\n" if self.data else ""
        return text if (yaml.safe_load(text) or {}) == self.data else plain

    def _known(self) -> list[str]:
        """The list of what is known: the policy's own, and what could be added."""
        own = list(self.data.get(KNOWN) or ())
        instead = _not_in(own, map(acknowledgement, self.instead))
        others = _not_in([*own, *instead], map(acknowledgement, self.warnings))
        if not (own or instead or others):
            return []
        head = [f"{KNOWN}:", *_items(own)] if own else [f"# {KNOWN}:"]
        lines = [""]
        if instead:
            told = [
                "Or take it off these: they leave all as it is, and say that this is known:",
                "",
                *map(_told, self.instead),
            ]
            lines += [*_behind_two(told), *head, *_offered(instead)]
            head = []
        if others:
            told = ["Warnings that stay in any case. A line says that one is known, below the word"]
            told += [f"`{KNOWN}:`, without its `# `:", "", *map(_told, self.warnings)]
            lines += [*_behind_two(told), *head, *_offered(others)]
            head = []
        return lines + head


def _told(finding: Finding) -> str:
    return f"  {_place(finding)}{finding.code}: {_one_line(finding.message)}"


def _behind_two(prose: Iterable[str]) -> list[str]:
    return [f"## {line}".rstrip() for line in prose]


def _offered(entries: list[str]) -> list[str]:
    return [f"# {line}" for line in _items(entries)]


def _items(entries: Sequence[str]) -> list[str]:
    """The lines of the list, without its name."""
    return to_yaml({KNOWN: list(entries)}).split("\n")[1:] if entries else []


def _not_in(own: Sequence[str], entries: Iterable[str]) -> list[str]:
    return [entry for entry in dict.fromkeys(entries) if entry not in own]


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
    instead, warnings = _acknowledgeable(planned, plan, data, hinted)
    return Suggestion(
        data, tuple(resolved), plan.blocked, hints, tuple(hinted), tuple(instead), tuple(warnings)
    )


def _acknowledgeable(
    planned: Callable[[Policy], Plan],
    plan: Plan,
    data: dict[str, Any],
    hinted: Sequence[Finding],
) -> tuple[list[Finding], list[Finding]]:
    """The warnings that the policy says nothing of: those that the hints would end, and those that
    stay."""
    warnings = list(_warnings(plan, data))
    types = {k: v for k, v in together([f.suggest for f in hinted]).items() if k != KNOWN}
    if not types or not warnings:
        return [], warnings
    further = override(data, types)
    taken = planned(parse_policy(to_yaml(further)))
    left = {(f.code, f.table, f.column) for f in _warnings(taken, further)}
    instead = [f for f in warnings if (f.code, f.table, f.column) not in left]
    return instead, [f for f in warnings if f not in instead]


def _warnings(plan: Plan, data: Mapping[str, Any]) -> Iterator[Finding]:
    """Those that the policy does not resolve."""
    for finding in plan.findings:
        if finding.severity == "warning" and not _entry(data, finding):
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
