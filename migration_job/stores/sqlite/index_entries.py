"""Whether partial indexes and those of expressions have as many entries as they should.

``PRAGMA integrity_check`` of SQLite 3.54 does not count the entries of these (3.40 did), and what
it finds missing from them may be another release's spelling of a value. But a table's page in the
place of another's, or of an index's, takes rows away that only such a count misses.
"""

from __future__ import annotations

from collections.abc import Iterator

import apsw

from migration_job.errors import InputError
from migration_job.plural import counted, either
from migration_job.quoting import compose, sqlite_expression, sqlite_name
from migration_job.stores.sqlite.sqltext import parse_index


def miscounted(connection: apsw.Connection, indexes: set[str]) -> Iterator[str]:
    """For each of ``indexes`` whose entries are not as many as its table's rows that belong in it,
    a sentence as SQLite's own. One whose condition only the application can evaluate is passed
    over."""
    there = connection.execute(
        "SELECT name, tbl_name, sql FROM main.sqlite_schema WHERE type = 'index' AND sql <> ''"
    ).fetchall()
    for name, table, sql in there:
        if name in indexes:
            found = _look_at(connection, str(name), str(table), str(sql))
            if found:
                yield found


def _look_at(connection: apsw.Connection, name: str, table: str, sql: str) -> str:
    """What is wrong with one; '' where nothing is, or where it cannot be told."""
    try:
        rows = _rows(connection, table, parse_index(sql).where)
        entries = _entries(connection, name)
    except apsw.CorruptError as error:
        return f"index {name}: {error}"
    except (apsw.SQLError, InputError, StopIteration):
        return ""
    if rows == entries:
        return ""
    return (
        f"wrong # of entries in index {name}: {entries} for "
        f"{counted(rows, 'row')} of {table} that {either(rows, 'belongs', 'belong')} in it"
    )


def _rows(connection: apsw.Connection, table: str, where: str | None) -> int:
    condition = "TRUE" if where is None else where
    found = connection.execute(
        compose(
            "SELECT count(*) FROM main.{table} NOT INDEXED WHERE {condition}",
            table=sqlite_name(table),
            condition=sqlite_expression(condition),
        )
    ).get
    return int(found)


def _entries(connection: apsw.Connection, index: str) -> int:
    """Every page of an index has entries, those inside it as well."""
    found = connection.execute("SELECT sum(ncell) FROM dbstat WHERE name = ?", (index,)).get
    return int(found or 0)
