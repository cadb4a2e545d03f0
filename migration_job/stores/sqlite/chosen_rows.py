"""The rows of a table that are carried: all of them, or those that a predicate chooses.

What reads rows names a table by :func:`rows_of` or :func:`scan_of`, so that nobody can forget the
predicate. SQLite flattens the subquery, and the table's own b-tree and indexes serve as before.
"""

from __future__ import annotations

from migration_job.quoting import compose, sqlite_expression, sqlite_table
from migration_job.stores.sqlite.model import Catalogue, SourceTable


def rows_of(table: SourceTable) -> str:
    """What stands after FROM, before an alias: the table, or its chosen rows with their rowid."""
    if table.where is None:
        return sqlite_table(table.name)
    rowid = None if table.without_rowid or table.rowid_alias else table.rowid_name
    return compose(
        "(SELECT {rowid}* FROM {table} AS t WHERE ({where}))",
        rowid=f"t.{rowid} AS {rowid}, " if rowid else "",
        table=sqlite_table(table.name),
        where=sqlite_expression(table.where),
    )


def scan_of(table: SourceTable, alias: str = "t") -> str:
    """The same with an alias, read in the order of the table's own b-tree."""
    rows = f"{rows_of(table)} AS {alias}"
    return f"{rows} NOT INDEXED" if table.where is None else rows


def with_rows(catalogue: Catalogue, chosen: dict[str, str]) -> Catalogue:
    """The catalogue with the predicates, by the tables' names as the source spells them."""
    if not chosen:
        return catalogue
    tables = tuple(
        table.model_copy(update={"where": chosen[table.name]}) if table.name in chosen else table
        for table in catalogue.tables
    )
    return catalogue.with_tables(tables)
