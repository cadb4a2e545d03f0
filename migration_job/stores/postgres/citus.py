"""Citus: what does not hold there is refused by name, before anything is done.

On distributed and reference tables the triggers of the way back and the fence would run on workers
that have no schema ``migration``: every write of the application's would fail. Distribution sets
identity sequences back, local tables lose keys that others refer to, and no fence closes over
shards. A database that merely has the extension, and distributes nothing, is an ordinary one.
"""

from __future__ import annotations

import psycopg

from migration_job.errors import InputError
from migration_job.plural import counted

FEATURE = "citus"
"""What a policy enables."""

ADVICE = (
    "leave `citus` out of the policy's `enable`, and have the tables in a database in which Citus "
    "distributes nothing; distribute them after `migration-job settle`, when no way back rests on "
    "triggers any more"
)


def version(connection: psycopg.Connection) -> str:
    """The extension's version; '' where it is not there."""
    row = connection.execute(
        "SELECT extversion FROM pg_extension WHERE extname = 'citus'"
    ).fetchone()
    return "" if row is None else str(row[0])


def distributed(connection: psycopg.Connection) -> list[str]:
    """The tables that Citus has distributed, reference tables among them."""
    known = connection.execute("SELECT to_regclass('pg_dist_partition') IS NOT NULL").fetchone()
    if known is None or not known[0]:
        return []
    rows = connection.execute(
        "SELECT logicalrelid::regclass::text FROM pg_dist_partition ORDER BY 1"
    )
    return [str(row[0]) for row in rows]


def refuse(connection: psycopg.Connection, *, enabled: bool) -> None:
    """Raises InputError where tables are distributed, or are to be (``enabled``), with nothing
    changed on either side."""
    found = version(connection)
    if not found:
        return
    there = distributed(connection)
    if there:
        what = f"{counted(len(there), 'table')} of it distributed: {', '.join(there[:3])}"
    elif enabled:
        what = "a policy that distributes tables (`enable: [citus]`)"
    else:
        return
    raise InputError(
        f"expected a target whose tables stay whole, found Citus {found} and {what}: neither the "
        "fence nor the way back holds on distributed tables",
        advice=f"{ADVICE}. Nothing was changed",
    )
