"""States onto the source: the way back's other end.

The connection fires no triggers and no foreign keys
(:func:`migration_job.stores.sqlite.fence.open_source`), so the fence does not stop it, cascades do
not run, and nothing it writes is logged as a change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import apsw

from migration_job.quoting import compose, sqlite_name, sqlite_table
from migration_job.stores.sqlite.capture import LOG
from migration_job.stores.sqlite.catalogue import rowid_name
from migration_job.stores.sqlite.feeding import Feeding
from migration_job.stores.sqlite.model import SourceTable
from migration_job.stores.sqlite.reader import KEYS_PER_QUERY, bindable, column_sql, keys_condition
from migration_job.values import BrokenText, SourceValue, fold, key_text

Row = tuple[SourceValue, ...]


@dataclass(slots=True)
class RowsBack:
    """What a batch holds for one table of the source."""

    table: SourceTable
    key: tuple[str, ...]
    columns: tuple[str, ...]
    """The columns that the target has; the key is among them."""
    keys: list[Row]
    rows: list[Row]
    """The rows that are there now, in the order of ``columns``."""


def apply_back(
    connection: apsw.Connection,
    batch: Sequence[RowsBack],
    feeding: Feeding,
    then: Callable[[], None] | None = None,
) -> list[tuple[SourceTable, str]]:
    """Apply a batch inside the caller's transaction; returns the tables whose changes something
    that the application's triggers fill could not follow, and why.

    A row that was there keeps its rowid and its columns that the target does not have, so that only
    what was changed is changed; a new one has the emptiest value where SQLite demands one of
    them. CHECKs are not looked at. Raises apsw.ConstraintError where rows stand in each other's or
    in others' way, with a note that names the row. ``then`` is called once all rows are there,
    before what is derived from them follows.
    """
    # Where PostgreSQL has a CHECK of the source's, it has looked; where one could not be carried,
    # PostgreSQL was let take the row, and a row is not given up for it.
    connection.pragma("ignore_check_constraints", 1)
    try:
        for rows in batch:
            feeding.before(rows.table, rows.key, rows.keys)
        kept = [(rows, _take_out(connection, rows)) for rows in batch]
        for rows, old in kept:
            _put_in(connection, rows, old)
        if then is not None:
            then()
        told = [(r.table, feeding.after(r.table, r.key, r.keys)) for r in batch]
        return [(table, why) for table, why in told if why]
    finally:
        connection.pragma("ignore_check_constraints", 0)


def log_keys(connection: apsw.Connection, number: int, keys: Sequence[Row]) -> None:
    """Log these keys of table ``number`` as the triggers would have, in the caller's transaction:
    this connection fires none. So the log names every row that has changed on the source, whoever
    changed it, and a target that has forgotten can be brought up again from it."""
    for key in keys:
        columns = "".join(f", k{i}" for i in range(len(key)))
        places = "".join(
            ", CAST(? AS TEXT)" if isinstance(value, BrokenText) else ", ?" for value in key
        )
        connection.execute(
            compose(
                "INSERT INTO {log} (tab{columns}) VALUES (?{places})",
                log=sqlite_name(LOG),
                columns=columns,
                places=places,
            ),
            (number, *(bindable(value) for value in key)),
        )


def unwritable(connection: apsw.Connection, table: SourceTable) -> str:
    """Why this job cannot write rows of the table, '' where it can: its indexes, CHECKs or
    generated columns may call what only the application has. Nothing is written."""
    columns = [sqlite_name(c.name) for c in table.columns if not c.generated]
    places = ", ".join("NULL" for _ in columns)
    name = sqlite_table(table.name)
    # Preparing them tells it. What they print is not read: in a file in UTF-16 it holds the
    # schema's literals in UTF-16, which is no text for apsw.
    try:
        connection.execute(
            compose(
                "EXPLAIN INSERT OR ABORT INTO {name} ({columns}) VALUES ({places})",
                name=name,
                columns=", ".join(columns),
                places=places,
            )
        ).close()
        connection.execute(compose("EXPLAIN DELETE FROM {name} AS t WHERE 1", name=name)).close()
    except (apsw.BusyError, apsw.LockedError):
        raise  # that says nothing of the table
    except apsw.Error as error:
        return str(error)
    return ""


def set_sequence(connection: apsw.Connection, table: str, value: int) -> None:
    """Raise an AUTOINCREMENT table's high-water mark to ``value``, never lower it."""
    connection.execute(
        "UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = ?", (value, table)
    )
    if connection.changes() == 0 and value > 0:
        connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table, value))


def _hidden(rows: RowsBack) -> list[str]:
    """SQL of what a row has that the target does not: its rowid where that is no column, and
    columns that were not carried."""
    names = {fold(name) for name in rows.columns}
    hidden = []
    rowid = rowid_name(rows.table)
    if rowid is not None and rows.table.rowid_alias is None and fold(rowid) not in names:
        hidden.append(rowid)
    hidden += [
        sqlite_name(c.name)
        for c in rows.table.columns
        if not c.generated and fold(c.name) not in names
    ]
    return hidden


def _take_out(connection: apsw.Connection, rows: RowsBack) -> dict[str, tuple[object, ...]]:
    """Delete the touched rows; what they had beside the target's columns, by ``key_text``."""
    table = sqlite_table(rows.table.name)
    hidden = _hidden(rows)
    old: dict[str, tuple[object, ...]] = {}
    for keys in _pieces(rows.keys, max(KEYS_PER_QUERY // max(len(rows.key), 1), 1)):
        where, parameters = keys_condition(rows.table, rows.key, keys)
        values = tuple(bindable(value) for value in parameters)
        if hidden:
            key_terms = [column_sql(rows.table, c) for c in rows.key]
            query = compose(
                "SELECT {terms} FROM {table} AS t WHERE {where}",
                terms=", ".join([*key_terms, *hidden]),
                table=table,
                where=where,
            )
            for row in connection.execute(query, values):
                old[key_text(row[: len(key_terms)])] = row[len(key_terms) :]
        connection.execute(
            compose("DELETE FROM {table} AS t WHERE {where}", table=table, where=where), values
        )
    return old


def _put_in(
    connection: apsw.Connection, rows: RowsBack, old: dict[str, tuple[object, ...]]
) -> None:
    generated = {fold(c.name) for c in rows.table.columns if c.generated}
    # What the source computes itself cannot be inserted; the comparison looks at it all the same.
    own = [i for i, c in enumerate(rows.columns) if fold(c) not in generated]
    columns = [sqlite_name(rows.columns[i]) for i in own]
    hidden = _hidden(rows)
    every = [*columns, *hidden]
    place = [rows.columns.index(c) for c in rows.key]
    # A new row has nothing in a column that was not carried, and SQLite may demand something.
    names = {fold(name) for name in rows.columns}
    demanded = {
        sqlite_name(c.name): c.demanded
        for c in rows.table.columns
        if fold(c.name) not in names and c.demanded is not None
    }
    fresh = [*columns, *demanded]
    bare, full = _insert(rows, fresh), _insert(rows, every)
    found = [(old.get(key_text([row[i] for i in place])), row) for row in rows.rows]
    # Rows that were there come first: SQLite might give a new row the rowid that one of them had.
    for before, row in sorted(found, key=lambda pair: pair[0] is None):
        statement = bare if before is None else full
        values = [row[i] for i in own]
        broken = frozenset(i for i, v in enumerate(values) if isinstance(v, BrokenText))
        if broken:
            statement = _insert(rows, fresh if before is None else every, broken)
        rest = demanded.values() if before is None else before
        try:
            connection.execute(statement, (*(bindable(v) for v in values), *rest))
        except apsw.ConstraintError as error:
            key = key_text([row[i] for i in place])
            error.add_note(f"row {key} of table {rows.table.name}")
            raise


def _insert(rows: RowsBack, columns: Sequence[str], broken: frozenset[int] = frozenset()) -> str:
    places = ", ".join("CAST(? AS TEXT)" if i in broken else "?" for i in range(len(columns)))
    # OR ABORT: a table's own ON CONFLICT REPLACE would remove rows that the target still has.
    return compose(
        "INSERT OR ABORT INTO {table} ({columns}) VALUES ({places})",
        table=sqlite_table(rows.table.name),
        columns=", ".join(columns),
        places=places,
    )


def _pieces(keys: Sequence[Row], size: int) -> Iterable[Sequence[Row]]:
    for start in range(0, len(keys), size):
        yield keys[start : start + size]
