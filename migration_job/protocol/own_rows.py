"""Rows that the target alone has (``rows: merge``): told before the switch, and tried on SQLite,
where they go once PostgreSQL serves."""

from __future__ import annotations

from migration_job.plan.model import TablePlan
from migration_job.plural import either
from migration_job.protocol.reverse_sync import Held, TextKey, rehearse
from migration_job.protocol.run_context import Pair
from migration_job.stores.postgres import merged

TRIED = 200
"""Rows that are tried at a time, with the source's writers held."""

SHOWN = 3


def told(pair: Pair, one_way: tuple[str, ...]) -> str:
    """Which rows go to SQLite once PostgreSQL serves, '' where none do."""
    found = _counts(pair, one_way)
    if not found:
        return ""
    verb = either(sum(found.values()), "goes", "go")
    return (
        f"{merged.told(found)}, which the target alone has, {verb} to SQLite once PostgreSQL serves"
    )


def refused(pair: Pair, one_way: tuple[str, ...], held: Held) -> dict[str, str]:
    """By table, which of these rows SQLite could not hold as they are, and why. Nothing is written:
    each is tried in a transaction of ``held``, which rolls it back."""
    found: dict[str, str] = {}
    counts = _counts(pair, one_way)
    for _, plan in merged.merging(pair.plan):
        if plan.target in counts and (reasons := _refused(pair, plan, held)):
            more = len(reasons) - SHOWN
            rest = f"; and {more:,} more" if more > 0 else ""
            found[plan.source or ""] = "; ".join(reasons[:SHOWN]) + rest
    return found


def _refused(pair: Pair, plan: TablePlan, held: Held) -> list[str]:
    keys = merged.keys(pair.target, plan)
    found: list[str] = []
    for start in range(0, len(keys), TRIED):
        found += _tried(pair, plan, keys[start : start + TRIED], held)
    return found


def _tried(pair: Pair, plan: TablePlan, keys: list[TextKey], held: Held) -> list[str]:
    """Where SQLite refuses one of them, each by itself: a refusal names only the first."""
    found = rehearse(pair, plan, keys, held)
    if not found or len(keys) == 1:
        return found
    return [why for key in keys for why in rehearse(pair, plan, [key], held)] or found


def _counts(pair: Pair, one_way: tuple[str, ...]) -> dict[str, int]:
    named = {t.target for t in pair.plan.tables if t.source in one_way}
    counts = merged.counts(pair.target, pair.plan)
    return {name: count for name, count in counts.items() if name not in named}
