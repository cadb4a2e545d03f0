"""Catch-up of captured changes against one SQLite writer at full speed."""

from __future__ import annotations

from benchmarks.results import Goal

GOAL = Goal(sense="at least", bound=2)
CHANGES = 40_000
SOURCE_ROWS = 100_000
