"""One policy out of the settlements that findings propose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from migration_job.plan.findings import to_yaml
from migration_job.plan.model import Finding


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


def suggest(findings: Sequence[Finding], base: dict[str, Any] | None = None) -> str:
    """A policy file that settles every error among the findings, each named in a comment; ``base``
    is a present policy's content, kept whole."""
    errors = [f for f in findings if f.severity == "error" and f.settle]
    data = dict(base or {})
    for finding in errors:
        data = merge(data, yaml.safe_load(finding.settle))
    lines = ["# A policy that lets this migration go through. What each entry settles:", "#"]
    lines += [f"#   {_place(f)}{f.code}: {_one_line(f.message)}" for f in errors]
    lines += [
        "#",
        "# Read it through before using it: widen keeps every value in a wider type, quarantine",
        "# sets rows aside whole, acknowledge accepts what cannot be carried over.",
    ]
    if not errors:
        lines = ["# Nothing stops this migration: no entry is needed."]
    return "\n".join(lines) + "\n" + (to_yaml(data) + "\n" if data else "")


def _place(finding: Finding) -> str:
    if finding.table is None:
        return ""
    return f"{_one_line(finding.table)}{'.' + _one_line(finding.column) if finding.column else ''} "


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
