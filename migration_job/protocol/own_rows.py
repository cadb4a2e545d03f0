"""Rows that the target alone has (``rows: merge``): told before the switch, and tried on SQLite,
where they go once PostgreSQL serves."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from migration_job.plan.model import TablePlan
from migration_job.plural import either
from migration_job.protocol.reverse_sync import Held, rehearse
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
        if plan.target not in counts:
            continue
        reasons = list(islice(_refused(pair, plan, held), SHOWN + 1))
        if reasons:
            more = "; and more" if len(reasons) > SHOWN else ""
            found[plan.source or ""] = "; ".join(reasons[:SHOWN]) + more
    return found


def _refused(pair: Pair, plan: TablePlan, held: Held) -> Iterator[str]:
    keys = merged.keys(pair.target, plan)
    for start in range(0, len(keys), TRIED):
        piece = keys[start : start + TRIED]
        together = rehearse(pair, plan, piece, held)
        if together and len(piece) > 1:
            # Where SQLite refuses one of them, that names only the first.
            alone = False
            for key in piece:
                for why in rehearse(pair, plan, [key], held):
                    alone = True
                    yield why
            if alone:
                continue
        yield from together


def _counts(pair: Pair, one_way: tuple[str, ...]) -> dict[str, int]:
    named = {t.target for t in pair.plan.tables if t.source in one_way}
    counts = merged.counts(pair.target, pair.plan)
    return {name: count for name, count in counts.items() if name not in named}
