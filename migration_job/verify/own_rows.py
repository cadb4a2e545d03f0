"""Rows that the target alone has, and that stay beside the source's (``rows: merge``)."""

from __future__ import annotations

from migration_job.plan.model import TablePlan
from migration_job.plural import counted, either
from migration_job.quoting import compose, postgres_name, postgres_text
from migration_job.verify.connections import Differences, Sides, columns_of_key, target_name


def compare(sides: Sides, plan: TablePlan) -> tuple[int, Differences]:
    """How many such rows a table has, each of which must be what it was before the load."""
    keys = [postgres_name(c.target) for c in columns_of_key(plan)]
    found = Differences(str(plan.source))
    count, changed = sides.rows_of(
        compose(
            """
SELECT count(*), count(*) FILTER (WHERE ((t.*) *= r.whole) IS NOT TRUE)
FROM migration.merged AS m
JOIN migration.replaced AS k ON k.number = m.number
CROSS JOIN LATERAL (SELECT k.target_row::{table} AS whole) AS r
LEFT JOIN ONLY {table} AS t ON {same}
WHERE m.tab = {name} AND k.tab = {name}
""",
            table=target_name(plan),
            same=" AND ".join(f"t.{key} = (r.whole).{key}" for key in keys),
            name=postgres_text(plan.target),
        ),
        (),
    )[0]
    if changed:
        found.add(
            "own-row",
            f"{changed} of the {counted(count, 'row')} of {plan.target} that the target alone has "
            f"{either(changed, 'is not what it was', 'are not what they were')} before the load",
        )
    return int(count), found
