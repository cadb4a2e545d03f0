"""How rows are told apart and shown to people, and the parts that a table is read in."""

from __future__ import annotations

from collections.abc import Sequence

from migration_job.stores.sqlite.catalogue import rowid_name
from migration_job.stores.sqlite.model import SourceTable
from migration_job.stores.sqlite.reader import ROWID, column_sql
from migration_job.values import SourceValue, display


def identity_columns(table: SourceTable) -> tuple[str, ...]:
    """What tells the rows of a table apart on the source: the rowid, else the primary key, else
    (all three names of the rowid hidden) the whole row."""
    if rowid_name(table) is not None:
        return (ROWID,)
    return table.primary_key or tuple(c.name for c in table.columns if not c.generated)


def shown_columns(table: SourceTable) -> tuple[str, ...]:
    """What names a row to people: the primary key, else the rowid, else the whole row."""
    return table.primary_key or identity_columns(table)


def show_key(columns: Sequence[str], values: Sequence[SourceValue]) -> str:
    """A key for people, e.g. ``user_id='x', case_id=4``."""
    return ", ".join(
        f"{'rowid' if name == ROWID else name}={display(value, 40)}"
        for name, value in zip(columns, values, strict=True)
    )


Span = tuple[int, int] | None
"""The first and last rowid of a part of a table; None: the whole of it."""

Bounds = tuple[int, int] | None
"""The lowest and the highest rowid of a table; None without rows, or without a name for it."""


def within(table: SourceTable, span: tuple[int, int]) -> str:
    """The predicate of a part's rows over the table aliased ``t``."""
    return f"{column_sql(table, ROWID)} BETWEEN {span[0]} AND {span[1]}"
