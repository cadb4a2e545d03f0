"""Search indexes, full-text or R-trees, that do not fit their rows before this job writes at all.

SQLite keeps no such index right by itself: an INSERT OR REPLACE without ``recursive_triggers``
leaves the replaced row's words, and whoever writes to the shadow tables breaks more. No row of a
table is lost by it. But searches find what is gone, and a later write through the index may end
with "database disk image is malformed" - the application's, or the way back's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

import apsw

from migration_job.quoting import as_written, compose, sqlite_name, sqlite_table
from migration_job.stores.sqlite.catalogue import read_catalogue, rowid_name
from migration_job.stores.sqlite.model import Catalogue
from migration_job.stores.sqlite.virtual import (
    SEARCH_INDEX,
    Derived,
    arguments_of,
    derived,
    module_of,
)
from migration_job.values import fold

_SHADOWS = ("data", "idx", "docsize", "config")


@dataclass(frozen=True, slots=True)
class Misfit:
    """A search index that does not fit its rows."""

    name: str
    module: str
    says: str
    """SQLite's own word for it."""


def misfits(
    connection: apsw.Connection, again: Callable[[], apsw.Connection] | None, *, told: bool
) -> tuple[Misfit, ...]:
    """The search indexes of the file that do not fit. ``told``: ``integrity_check`` has spoken of
    one. ``again`` opens one more connection to the same state, on which temporary tables are made
    to compare an index with another table; that takes the time of a rebuild. None: not compared."""
    catalogue = read_catalogue(connection)
    found = dict(_as_checked(connection, catalogue)) if told else {}
    if again is None:
        return tuple(found.values())
    for each in derived(catalogue):
        if each.module == "fts5" and each.content and each.name not in found:
            says = _against_content(again, catalogue, each)
            if says:
                found[each.name] = Misfit(each.name, each.module, says)
    return tuple(found.values())


def _as_checked(connection: apsw.Connection, catalogue: Catalogue) -> Iterator[tuple[str, Misfit]]:
    """Each virtual table of which SQLite's own check says something."""
    for other in catalogue.others:
        if other.kind != "virtual":
            continue
        check = compose("PRAGMA main.integrity_check({name})", name=sqlite_name(other.name))
        try:
            says = [str(row[0]) for row in connection.execute(check)]
        except (apsw.CorruptError, apsw.SQLError) as error:
            says = [str(error)]
        said = next((line for line in says if line.startswith(SEARCH_INDEX)), "")
        if said:
            yield other.name, Misfit(other.name, module_of(other.sql), said.splitlines()[0])


def _against_content(
    again: Callable[[], apsw.Connection], catalogue: Catalogue, each: Derived
) -> str:
    """What FTS5 says of an index against the rows of its table; '' where it fits, or where that
    cannot be told here (a tokenizer of the application's, no room for temporary tables).

    FTS5 answers writers only. So the index is copied into temporary tables, where it is an index
    over a temporary view of the same rows.
    """
    with closing(again()) as connection:
        try:
            # Of this connection alone, to which nobody else speaks: its temporary tables are those
            # of an index, which nobody may write to otherwise.
            connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 0)
            for statement in _copied(connection, catalogue, each):
                connection.execute(statement)
        except apsw.Error:
            return ""
        try:
            connection.execute(
                compose(
                    "INSERT INTO {table} ({column}, rank) VALUES ('integrity-check', 1)",
                    table=sqlite_table(each.name, "temp"),
                    column=sqlite_name(each.name),
                )
            )
        except apsw.CorruptError as error:
            return str(error)
        except apsw.Error:
            return ""
    return ""


def _copied(connection: apsw.Connection, catalogue: Catalogue, each: Derived) -> Iterator[str]:
    """Statements that make the temporary view, the temporary index, and its tables' rows."""
    sql = next(o.sql for o in catalogue.others if o.kind == "virtual" and o.name == each.name)
    content = str(each.content)
    table = next((t for t in catalogue.tables if fold(t.name) == fold(content)), None)
    hidden = table is None or any(fold(c.name) == "rowid" for c in table.columns)
    rowid = None if table is None or hidden else rowid_name(table)
    yield compose(
        "CREATE TEMP VIEW {view} AS SELECT {columns} FROM {table}",
        view=sqlite_name(content),
        columns="*" if rowid is None else f"{rowid} AS rowid, *",
        table=sqlite_table(content),
    )
    yield compose(
        "CREATE VIRTUAL TABLE {table} USING fts5({arguments})",
        table=sqlite_table(each.name, "temp"),
        arguments=as_written(arguments_of(sql)),
    )
    for shadow in _SHADOWS:
        name = f"{each.name}_{shadow}"
        if not connection.execute(
            "SELECT 1 FROM temp.sqlite_schema WHERE name = ?", (name,)
        ).fetchall():
            continue  # an index without sizes has no such table
        place = sqlite_table(name, "temp")
        yield compose("DELETE FROM {place}", place=place)
        yield compose(
            "INSERT INTO {place} SELECT * FROM {table}", place=place, table=sqlite_table(name)
        )
    # The module reads its tables anew, and not what it keeps of the empty index.
    yield "PRAGMA writable_schema = RESET"
