"""Imports run one way; verification shares nothing with the copier, nor its two ways with each
other."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

VERIFY = Path(__file__).resolve().parents[2] / "migration_job" / "verify"


def _imports(file: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found |= {node.module} | {f"{node.module}.{name.name}" for name in node.names}
    return found


def _reaches(start: str, seen: set[str] | None = None) -> set[str]:
    """Everything that a module of ``verify`` imports, through others of that room too."""
    seen = set() if seen is None else seen
    for name in _imports(VERIFY / f"{start}.py"):
        if name in seen:
            continue
        seen.add(name)
        head, _, module = name.partition("migration_job.verify.")
        if not head and (VERIFY / f"{module}.py").exists():
            _reaches(module, seen)
    return seen


@pytest.mark.parametrize("module", sorted(p.stem for p in VERIFY.glob("*.py")))
def test_nothing_of_the_copier_or_the_rules(module: str) -> None:
    for name in _reaches(module):
        assert not name.startswith("migration_job.target"), name
        assert not name.startswith("migration_job.plan.rules"), name
        assert not name.startswith("migration_job.live"), name
        if name.startswith("migration_job.plan."):
            assert name.startswith("migration_job.plan.model"), name


def test_the_two_ways_do_not_meet() -> None:
    assert not any(
        "verify.typed" in name or "verify.meaning" in name for name in _reaches("digest")
    )
    assert not any("verify.digest" in name for name in _reaches("typed"))


ABOVE = {
    "source": ("plan", "target", "verify", "report", "live", "run", "commands"),
    "plan": ("target", "verify", "report", "live", "run", "commands"),
    "target": ("verify", "report", "live", "run", "commands"),
    "verify": ("target", "live", "run", "commands"),
    "live": ("commands",),
}
"""What each room of the job must not import (docs/design.md, the rooms)."""


@pytest.mark.parametrize("room", ABOVE)
def test_no_room_imports_from_above(room: str) -> None:
    for file in (VERIFY.parent / room).rglob("*.py"):
        for name in _imports(file):
            assert not any(
                f"{name}.".startswith(f"migration_job.{above}.") for above in ABOVE[room]
            ), f"{file.name} imports {name}"
