"""What names a row of a source table in the ledger, the quarantine and every message."""

from __future__ import annotations

from migration_job.plan.model import SourceTable, TablePlan
from migration_job.source.catalogue import rowid_name
from migration_job.source.reader import ROWID


def key_columns(plan: TablePlan, table: SourceTable) -> tuple[str, ...]:
    """The plan's key; the rowid where the plan has none; the whole row where the rowid cannot be
    read either (columns named rowid, oid and _rowid_ hide it)."""
    if plan.key:
        return plan.key
    if rowid_name(table) is not None:
        return (ROWID,)
    return tuple(c.name for c in table.columns if not c.generated)
