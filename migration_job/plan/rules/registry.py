"""Every rule there is: the modules of this package, found by themselves."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import MappingProxyType

from migration_job.plan.rules.base import RuleBase, TargetType, known_kinds

for _path in sorted(Path(__file__).parent.glob("*.py")):
    if _path.stem not in ("__init__", Path(__file__).stem):
        import_module(f"{__package__}.{_path.stem}")

RULES: tuple[type[RuleBase], ...] = tuple(known_kinds().values())
"""The class of each kind of rule."""

TARGETS: Mapping[str, TargetType] = MappingProxyType(
    {target.name: target for rule in RULES for target in rule.types}
)
"""The types that rules lead to, by their names."""

OWNERS: Mapping[str, type[RuleBase]] = MappingProxyType(
    {target.name: rule for rule in RULES for target in rule.types}
)
"""By a type's name the rule that grants a wish for it."""

_NAMES = {word: t.name for t in TARGETS.values() for word in (t.name, *t.words)}

ALLOWED = ", ".join(form for t in TARGETS.values() for form in t.forms or (t.name,))
"""The types that a policy may ask for, as an error names them."""


def target_named(word: str) -> TargetType | None:
    """The type of that name or other name, in lower case and without numbers; None where no rule
    leads to it."""
    name = _NAMES.get(word)
    return None if name is None else TARGETS[name]


def base_of(type_sql: str) -> str:
    """A type without length, precision or scale."""
    return re.sub(r"\([^)]*\)", "", type_sql).strip()


def declared_as(name: str) -> type[RuleBase] | None:
    """The rule that a declared type asks for by its name (upper case, without numbers); None where
    its affinity says what it is."""
    first = name.split(" ")[0]
    for rule in RULES:
        if first in rule.declared_first or name in rule.declared:
            return rule
    return None
