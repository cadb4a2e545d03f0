"""What is in the way of going back, in words, as ``status`` says it."""

from __future__ import annotations

import psycopg

from migration_job.plan.findings import some
from migration_job.plan.model import Plan
from migration_job.stores.postgres import shape
from migration_job.stores.postgres.capture import unseen
from migration_job.stores.postgres.target_fence import PREPARED_ADVICE, prepared, prepared_words

REFUSES = "`rollback` would refuse: "


def in_the_way(target: psycopg.Connection, plan: Plan, differences: int) -> tuple[str, ...]:
    """A clause for each kind: tables whose writes may have met no trigger, prepared transactions
    that are open, tables that do not come back, and rows that do not, which are so many."""
    found = []
    if tables := unseen(target, plan):
        found.append(
            f"{some(tables)}: triggers of the way back are switched off or dropped, and not all "
            "writes are logged; `sync`, and `rollback` too, puts them back and reads all rows"
        )
    if names := prepared(target):
        found.append(f"{REFUSES}{prepared_words(names)}; {PREPARED_ADVICE}")
    if causes := shape.read_causes(target):
        found.append(f"{REFUSES}changes to {', '.join(causes)} do not come back")
    if differences:
        rows = "1 row does" if differences == 1 else f"{differences:,} rows do"
        found.append(f"{REFUSES}{rows} not come back as on PostgreSQL")
    return tuple(found)
