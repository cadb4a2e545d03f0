"""Change capture on the source: triggers that log each changed row's key in the writer's own
transaction, and the fence that refuses writes once the data has moved.

What is promised
    Whatever statement changes a row, its key before and after is in the log when the writer's
    transaction commits. More keys than necessary may be logged, never fewer: the log says which
    rows to look at, not what happened to them, so a key too many costs one comparison.

How
    ``INSERT OR REPLACE`` (and ``UPDATE OR REPLACE``, and ``ON CONFLICT REPLACE`` in a table)
    removes rows without firing their DELETE triggers while ``PRAGMA recursive_triggers`` is off,
    which is the default and the application's choice. So BEFORE triggers look up, through every
    unique index, the rows that the new one would replace. Cascades fire the child's own triggers.

    The triggers keep to SQL that old releases of SQLite know, beyond what the application's own
    indexes need: they run inside the application's library, not this job's.

Cost
    Three or four triggers a table; measured by ``benchmarks/``. No AUTOINCREMENT: it would create
    ``sqlite_sequence``, which can never be dropped again. The log's numbers still never come twice,
    because its last row is never deleted.

Identity
    Each row of the log has a token, 8 random bytes that SQLite chooses in the writer's own
    transaction. The target keeps that of the last row that it has applied, so that a file which was
    put back to an older state, and written to since, is told from the one that was followed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import apsw

from migration_job.errors import InputError, OperationError
from migration_job.quoting import (
    compose,
    joined,
    sqlite_expression,
    sqlite_name,
    sqlite_table,
    sqlite_text,
)
from migration_job.stores.sqlite.catalogue import MARK, OWN_PREFIX, rowid_name
from migration_job.stores.sqlite.model import Catalogue, SourceIndex, SourceIndexColumn, SourceTable
from migration_job.stores.sqlite.reader import ROWID
from migration_job.stores.sqlite.virtual import COMPUTED, derived_from, module_of
from migration_job.stores.sqlite.whole import record_objects
from migration_job.values import fold

LOG = f"{OWN_PREFIX}log"
STATE = f"{OWN_PREFIX}state"
TABLES = f"{OWN_PREFIX}tables"

MOVED = "moved to PostgreSQL"
"""How the error of a refused write begins."""

_SIMPLE_AFFINITIES = ("integer", "text", "numeric")
"""Under these, equal values of a BINARY column are the same value in the same storage class."""


@dataclass(frozen=True, slots=True)
class CapturedTable:
    """One table whose changes are logged, and the columns of the logged key (``ROWID`` for the
    rowid)."""

    number: int
    table: SourceTable
    key: tuple[str, ...]


# ------------------------------------------------------------------------------ installing


def captured_tables(
    catalogue: Catalogue, keys: Mapping[str, tuple[str, ...]]
) -> list[CapturedTable]:
    """What is to be captured: every table, by the key that ``keys`` has for its folded name.
    Raises InputError, with the reason, for a table that cannot be."""
    found = []
    for number, table in enumerate(catalogue.tables, start=1):
        planned = keys.get(fold(table.name))
        key = () if planned is None else _logged_key(table, planned)
        if ROWID in key and rowid_name(table) is None:
            raise InputError(
                f"table {table.name!r} has no key that identifies its rows, and its columns hide "
                "the rowid under all of SQLite's names for it",
                advice="give the table a primary key, or migrate without --live",
            )
        found.append(CapturedTable(number, table, key))
    return found


def _logged_key(table: SourceTable, key: tuple[str, ...]) -> tuple[str, ...]:
    """The plan's key; the rowid where the plan has none, or names it (``rowid`` is a column of no
    table unless it is declared)."""
    names = {fold(column.name) for column in table.columns}
    return tuple(c if fold(c) in names else ROWID for c in key) or (ROWID,)


def install(  # noqa: PLR0913 - fields of the capture's state, named
    connection: apsw.Connection,
    tables: Sequence[CapturedTable],
    *,
    run: str,
    capture: str,
    closed: bool = False,
    offline: bool = False,
    token: str = "",
) -> None:
    """Create the log, the state and the triggers, inside the caller's transaction.

    ``run`` is the run that they belong to, ``capture`` names this installation. With ``closed`` the
    source refuses writes from the transaction's commit on; with ``offline`` it is taken out by
    a rollback. ``token`` is the state's first (``capture`` where it is not given): see
    :mod:`migration_job.protocol.whole`. Raises InputError where the application has something of
    the same name.
    """
    _refuse_clash(connection)
    _make_tables(connection, max((len(t.key) for t in tables), default=1))
    for table in tables:
        connection.execute(
            compose("INSERT INTO {tables} VALUES (?, ?, ?)", tables=sqlite_name(TABLES)),
            (table.number, table.table.name, json.dumps([key_name(table, c) for c in table.key])),
        )
        for statement in triggers(table):
            connection.execute(statement)
    # A first row, so that there is a last one that trimming leaves alone.
    connection.execute(compose("INSERT INTO {log} (seq, tab) VALUES (1, 0)", log=sqlite_name(LOG)))
    connection.execute(
        compose(
            "INSERT INTO {state} (one, run, capture, plain, closed, reads_moved, "
            "settled, schema_digest, token) VALUES (1, ?, ?, ?, ?, 0, 0, ?, ?)",
            state=sqlite_name(STATE),
        ),
        (run, capture, int(offline), int(closed), schema_digest(connection), token or capture),
    )
    record_objects(connection)
    connection.execute(
        compose("UPDATE {state} SET schema_version = ?", state=sqlite_name(STATE)),
        (connection.pragma("schema_version"),),
    )


def _make_tables(connection: apsw.Connection, width: int) -> None:
    """The log, with ``width`` columns for keys, the list of tables and the state."""
    columns = "".join(f", k{i}" for i in range(width))
    connection.execute(
        compose(
            "CREATE TABLE {log} {mark} (seq INTEGER PRIMARY KEY, tab INTEGER{columns}, "
            "token DEFAULT (randomblob(8)))",
            log=sqlite_name(LOG),
            mark=MARK,
            columns=columns,
        )
    )
    connection.execute(
        compose(
            "CREATE TABLE {tables} {mark} (number INTEGER PRIMARY KEY, name TEXT, key TEXT)",
            tables=sqlite_name(TABLES),
            mark=MARK,
        )
    )
    connection.execute(
        compose(
            "CREATE TABLE {state} {mark} (one INTEGER PRIMARY KEY CHECK (one = 1), "
            "run TEXT, capture TEXT, plain INTEGER NOT NULL, closed INTEGER NOT NULL, "
            "reads_moved INTEGER NOT NULL, settled INTEGER NOT NULL, schema_version INTEGER, "
            "schema_digest TEXT, certificate TEXT, one_way TEXT, switched_at TEXT, "
            "back_at TEXT, back_position TEXT, token TEXT NOT NULL, doubt TEXT)",
            state=sqlite_name(STATE),
            mark=MARK,
        )
    )


def remove(connection: apsw.Connection) -> None:
    """Drop everything that :func:`install` created, inside the caller's transaction; the schema is
    then as it was before. Nothing happens where nothing is installed."""
    own = list(
        connection.execute(
            "SELECT type, name FROM main.sqlite_schema "
            "WHERE name LIKE ? ESCAPE '\\' AND type IN ('trigger', 'table') AND instr(sql, ?) "
            "ORDER BY type DESC",
            (OWN_PREFIX.replace("_", "\\_") + "%", MARK),
        )
    )
    for kind, name in own:
        connection.execute(f"DROP {kind} {sqlite_table(str(name))}")


def installed(connection: apsw.Connection) -> bool:
    """Whether capture is installed on the source."""
    return bool(
        connection.execute(
            "SELECT 1 FROM main.sqlite_schema WHERE name = ? AND instr(sql, ?)", (STATE, MARK)
        ).fetchall()
    )


def keys(connection: apsw.Connection) -> dict[str, list[str]]:
    """The key that is logged for each table; empty for a table that is only fenced."""
    return {
        str(name): json.loads(str(key))
        for name, key in connection.execute(
            compose("SELECT name, key FROM {tables}", tables=sqlite_name(TABLES))
        )
    }


def key_name(captured: CapturedTable, column: str) -> str:
    """The column's name; the rowid's for ``ROWID``."""
    return (rowid_name(captured.table) or column) if column == ROWID else column


def schema_digest(connection: apsw.Connection) -> str:
    """SHA-256 of the application's own schema: changes when the application changes it, not by
    VACUUM, ANALYZE or this job."""
    digest = hashlib.sha256()
    for kind, name, sql in connection.execute(
        "SELECT type, name, sql FROM main.sqlite_schema WHERE sql IS NOT NULL "
        "AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND NOT instr(sql, ?) ORDER BY type, name",
        (MARK,),
    ):
        digest.update(f"{kind}\x00{name}\x00{sql}\x00".encode())
    return digest.hexdigest()


def refuse_virtual(catalogue: Catalogue, left_behind: Collection[str]) -> None:
    """Raises InputError for a virtual table whose changes nothing can follow, unless it is one of
    those ``left_behind``."""
    for other in catalogue.others:
        if other.kind == "virtual" and not (
            other.name in left_behind
            or module_of(other.sql) in COMPUTED
            or derived_from(catalogue, other)
        ):
            raise InputError(
                f"table {other.name!r} is a virtual table: SQLite fires no triggers for it, so its "
                "changes cannot be captured",
                advice="stop the application and migrate without --live, or leave its rows behind "
                f"by the policy (acknowledge: [virtual-table-rows-left-behind:{other.name}]); a "
                "full-text index over a table, and what a table's triggers fill, are allowed",
            )


def refuse_unreadable(connection: apsw.Connection, tables: Iterable[CapturedTable]) -> None:
    """Raises InputError for a table whose changes could not be read: it is in the order of a
    collation, or has a generated column by a function, that only the application has."""
    for captured in tables:
        name = captured.table.name
        try:
            connection.execute(
                compose("SELECT * FROM {name} LIMIT 0", name=sqlite_table(name))
            ).fetchall()
        except apsw.SQLError as error:
            raise InputError(
                f"the changes of table {name!r} cannot be followed: to read a row takes a "
                f"collation or a function that only the application has ({error})",
                advice="stop the application and migrate without --live",
            ) from None


def _refuse_clash(connection: apsw.Connection) -> None:
    clash = connection.execute(
        "SELECT name FROM main.sqlite_schema WHERE name LIKE ? ESCAPE '\\'",
        (OWN_PREFIX.replace("_", "\\_") + "%",),
    ).fetchall()
    if clash:
        names = ", ".join(str(row[0]) for row in clash[:3])
        raise InputError(
            f"expected no names that begin with {OWN_PREFIX!r} on the source, found {names}",
            advice="an earlier capture is removed by `migration-job release`; anything else of "
            "that name has to be renamed first",
        )


# -------------------------------------------------------------------------------- triggers


def triggers(captured: CapturedTable) -> Iterator[str]:
    """The CREATE TRIGGER statements of one table; only the fence's where it has no key to log."""
    table, number = captured.table, captured.number
    fence = compose(
        "SELECT RAISE(ABORT, {message}) FROM {state} WHERE closed;",
        message=sqlite_text(MOVED + ": this file takes no more writes"),
        state=sqlite_name(STATE),
    )
    if not captured.key:
        for event in ("INSERT", "UPDATE", "DELETE"):
            yield _trigger(table, number, event.lower(), f"BEFORE {event}", [fence])
        return
    new, old = _log_values(captured, "NEW"), _log_values(captured, "OLD")
    replaced_by_insert = list(_replaced(captured, for_update=False))
    if _known_before_insert(captured):
        yield _trigger(table, number, "insert", "BEFORE INSERT", [fence, *replaced_by_insert, new])
    else:
        # An INTEGER PRIMARY KEY that is left to SQLite is not known before the row is in.
        yield _trigger(table, number, "insert", "AFTER INSERT", [fence, new])
        if replaced_by_insert:
            yield _trigger(table, number, "replace", "BEFORE INSERT", replaced_by_insert)
    changed = _log_values(captured, "NEW", where=_key_changed(captured))
    replaced = list(_replaced(captured, for_update=True))
    yield _trigger(table, number, "update", "BEFORE UPDATE", [fence, *replaced, old, changed])
    yield _trigger(table, number, "delete", "BEFORE DELETE", [fence, old])


def _trigger(
    table: SourceTable, number: int, name: str, event: str, statements: Iterable[str]
) -> str:
    return compose(
        "CREATE TRIGGER {trigger} {event} ON {table} BEGIN {mark}\n  {body}\nEND",
        trigger=sqlite_name(f"{OWN_PREFIX}{number}_{name}"),
        event=event,
        table=sqlite_name(table.name),
        mark=MARK,
        body=joined("\n  ", statements),
    )


def _reference(captured: CapturedTable, column: str, prefix: str) -> str:
    if column == ROWID:
        name = rowid_name(captured.table)
        if name is None:
            raise OperationError(f"table {captured.table.name!r} has no readable rowid")
        return f"{prefix}.{name}"
    return f"{prefix}.{sqlite_name(column)}"


def _log_values(captured: CapturedTable, prefix: str, *, where: str = "") -> str:
    columns = "".join(f", k{i}" for i in range(len(captured.key)))
    values = "".join(f", {_reference(captured, c, prefix)}" for c in captured.key)
    condition = f" WHERE {where}" if where else ""
    return compose(
        "INSERT INTO {log}(tab{columns}) SELECT {number}{values}{condition};",
        log=sqlite_name(LOG),
        columns=columns,
        number=captured.number,
        values=values,
        condition=condition,
    )


def _key_changed(captured: CapturedTable) -> str:
    """An SQL condition, true wherever NEW's key may not be the very value of OLD's."""
    terms = []
    for column in captured.key:
        new, old = _reference(captured, column, "NEW"), _reference(captured, column, "OLD")
        terms.append(f"{new} IS NOT {old} COLLATE BINARY")
        if not _simple(captured.table, column):
            terms.append(f"typeof({new}) <> typeof({old})")
    return " OR ".join(terms)


def _known_before_insert(captured: CapturedTable) -> bool:
    alias = captured.table.rowid_alias
    return not any(c == ROWID or (alias and fold(c) == fold(alias)) for c in captured.key)


def _simple(table: SourceTable, column: str) -> bool:
    """Whether equality in the column under BINARY means the same value and storage class."""
    if column == ROWID:
        return True
    found = next(c for c in table.columns if fold(c.name) == fold(column))
    return found.affinity in _SIMPLE_AFFINITIES and found.collation.upper() == "BINARY"


def _replaced(captured: CapturedTable, *, for_update: bool) -> Iterator[str]:
    """A statement for each unique index that logs the rows which stand in the new row's way."""
    table = captured.table
    columns = "".join(f", k{i}" for i in range(len(captured.key)))
    keys = "".join(f", {_reference(captured, c, sqlite_name(table.name))}" for c in captured.key)
    for conditions, changed in _conflicts(captured):
        where = " AND ".join(f"({c})" for c in conditions)
        if for_update:
            # What does not depend on the table is tested before it is opened.
            where = f"{f'({changed}) AND ' if changed else ''}{where}"
            where += f" AND NOT ({_is_old_row(captured)})"
        yield (
            compose(
                "INSERT INTO {log}(tab{columns}) SELECT {number}{keys} FROM {table} WHERE {where};",
                log=sqlite_name(LOG),
                columns=columns,
                number=captured.number,
                keys=keys,
                table=sqlite_name(table.name),
                where=where,
            )
        )


def _is_old_row(captured: CapturedTable) -> str:
    return " AND ".join(
        f"{_reference(captured, c, sqlite_name(captured.table.name))} "
        f"IS {_reference(captured, c, 'OLD')} COLLATE BINARY"
        for c in captured.key
    )


def _conflicts(captured: CapturedTable) -> Iterator[tuple[list[str], str]]:
    """For each way in which another row can be in NEW's way: conditions on that row, and, where it
    can be said, the condition under which an UPDATE can have put NEW there at all."""
    table = captured.table
    rowid = rowid_name(table)
    keyed_by_rowid = ROWID in captured.key or [fold(c) for c in captured.key] == [
        fold(table.rowid_alias or "")
    ]
    if rowid is not None and not keyed_by_rowid:
        # The rowid's own uniqueness has no index. (NEW's is -1 where SQLite is to choose it.)
        yield [f"{sqlite_name(table.name)}.{rowid} = NEW.{rowid}"], f"NEW.{rowid} <> OLD.{rowid}"
    for index in table.indexes:
        if not index.unique or any(t.expression == "rowid" for t in index.columns):
            continue
        if _same_row_same_key(captured, index):
            continue
        conditions = [_equals_new(table, term) for term in index.columns]
        if index.where is not None:
            conditions.append(sqlite_expression(index.where))
        yield conditions, _changed(index)


def _changed(index: SourceIndex) -> str:
    """The condition under which an UPDATE changes what the index is over; '' where it cannot be
    said."""
    names = [sqlite_name(term.column) for term in index.columns if term.column is not None]
    if index.where is not None or len(names) < len(index.columns):
        return ""
    return " OR ".join(f"NEW.{name} IS NOT OLD.{name} COLLATE BINARY" for name in names)


def _same_row_same_key(captured: CapturedTable, index: SourceIndex) -> bool:
    """Whether a row that conflicts in this index has the very key of the new row, which is logged
    anyway."""
    named = {fold(t.column) for t in index.columns if t.column is not None}
    return (
        all(t.column is not None and t.collation.upper() == "BINARY" for t in index.columns)
        and {fold(c) for c in captured.key} <= named
        and all(_simple(captured.table, c) for c in captured.key)
    )


def _equals_new(table: SourceTable, term: SourceIndexColumn) -> str:
    collation = term.collation
    if term.column is not None:
        name = sqlite_name(term.column)
        return f"{sqlite_name(table.name)}.{name} = NEW.{name} COLLATE {sqlite_name(collation)}"
    # The expression over the new row. The empty SELECT in front gives NEW's values the columns'
    # own affinities and collations, which a bare NEW.x in a FROM clause does not have.
    names = [sqlite_name(c.name) for c in table.columns]
    row = compose(
        "SELECT {names} FROM {table} WHERE 0 UNION ALL SELECT {new_names}",
        names=", ".join(names),
        table=sqlite_name(table.name),
        new_names=", ".join(f"NEW.{name}" for name in names),
    )
    return compose(
        "({expression}) = (SELECT {expression} FROM ({row}) AS {table}) COLLATE {collation}",
        expression=sqlite_expression(term.expression or ""),
        row=row,
        table=sqlite_name(table.name),
        collation=sqlite_name(collation),
    )
