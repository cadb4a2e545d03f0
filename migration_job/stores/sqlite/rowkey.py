"""What names a row of a source table in the ledger, the quarantine and every message."""

from __future__ import annotations

from migration_job.stores.sqlite.catalogue import rowid_name
from migration_job.stores.sqlite.model import SourceTable
from migration_job.stores.sqlite.reader import ROWID


def key_columns(planned: tuple[str, ...], table: SourceTable) -> tuple[str, ...]:
    """The key that is planned; the rowid where there is none; the whole row where the rowid cannot
    be read either (columns named rowid, oid and _rowid_ hide it)."""
    if planned:
        return planned
    if rowid_name(table) is not None:
        return (ROWID,)
    return tuple(c.name for c in table.columns if not c.generated)
