"""What a SQLite file holds: tables, columns, keys, indexes, and what hangs on them.

The PRAGMAs tell most of it; CHECKs, collations, AUTOINCREMENT and expressions stand only in the
SQL text (``sqltext``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import apsw

from migration_job.quoting import compose, sqlite_name
from migration_job.stores.sqlite.constraints import ConstraintKind, ConstraintText, constraints_of
from migration_job.stores.sqlite.database import unreadable_schema
from migration_job.stores.sqlite.model import (
    Affinity,
    Catalogue,
    ConflictClause,
    SourceColumn,
    SourceForeignKey,
    SourceIndex,
    SourceIndexColumn,
    SourceObject,
    SourceTable,
)
from migration_job.stores.sqlite.sqltext import parse_index, parse_table, tokenize
from migration_job.stores.sqlite.virtual import COMPUTED, derived_from, module_of
from migration_job.values import fold

OWN_PREFIX = "_migration_"
"""How the names of this job's tables and triggers on the source begin."""

MARK = "/* migration-job */"
"""Stands in the SQL of each of them; what lacks it is the application's, whatever its name."""

SHADOW_SUFFIXES: dict[str, tuple[str, ...]] = {
    "fts1": ("_content", "_term"),
    "fts2": ("_content", "_segments", "_segdir"),
    "fts3": ("_content", "_segments", "_segdir", "_docsize", "_stat"),
    "fts4": ("_content", "_segments", "_segdir", "_docsize", "_stat"),
    "fts5": ("_data", "_idx", "_content", "_docsize", "_config"),
    "rtree": ("_node", "_parent", "_rowid"),
    "rtree_i32": ("_node", "_parent", "_rowid"),
    "geopoly": ("_node", "_parent", "_rowid"),
    "spellfix1": ("_vocab",),
    "vec0": ("_chunks", "_rowids", "_info", "_auxiliary", "_vector_chunks", "_metadata"),
}
"""The shadow tables of modules, for files whose module this SQLite does not have: it then cannot
tell a shadow table from an ordinary one."""


def read_catalogue(connection: apsw.Connection) -> Catalogue:
    """The whole schema, read in the connection's present transaction. Raises InputError where the
    schema cannot be read."""
    listed = _listed(connection)
    statements = _statements(connection)
    virtual = {s.name: _module(s.sql) for s in statements if s.kind == "table" and s.is_virtual}
    sequences = _sequences(connection)
    indexes = {s.name: s.sql for s in statements if s.kind == "index"}
    tables: list[SourceTable] = []
    others: list[SourceObject] = []
    for statement in statements:
        entry = listed.get(statement.name, _Listed())
        other = _other(statement, entry, virtual)
        if other is not None:
            others.append(other)
        elif statement.kind == "table":
            sequence = sequences.get(statement.name)
            tables.append(_table(connection, statement, entry, sequence, indexes))
    by_name = {fold(table.name): table for table in tables}
    resolved = [_with_parent_keys(table, by_name) for table in tables]
    catalogue = Catalogue(
        encoding=str(_pragma(connection, "encoding")),  # type: ignore[arg-type]
        schema_version=int(_pragma(connection, "schema_version")),
        application_id=int(_pragma(connection, "application_id")),
        user_version=int(_pragma(connection, "user_version")),
        page_size=int(_pragma(connection, "page_size")),
        journal_mode=str(_pragma(connection, "journal_mode")),
        tables=tuple(resolved),
        others=tuple(others),
    )
    alone = tuple(
        _table(connection, statement, _Listed(), None, {})
        for statement in statements
        if statement.name in virtual and _stands_alone(connection, catalogue, statement.name)
    )
    return catalogue.model_copy(update={"virtual": alone}) if alone else catalogue


def _stands_alone(connection: apsw.Connection, catalogue: Catalogue, name: str) -> bool:
    """Whether a virtual table has rows that this SQLite can read and that exist nowhere else."""
    other = next((o for o in catalogue.others if o.kind == "virtual" and o.name == name), None)
    if other is None or module_of(other.sql) in COMPUTED or derived_from(catalogue, other):
        return False
    try:
        row = connection.execute(
            compose("SELECT rowid FROM main.{name} LIMIT 1", name=sqlite_name(name))
        ).fetchone()
    except apsw.Error:
        return False
    return row is not None


def affinity_of(declared: str, *, strict: bool = False) -> Affinity:
    """The affinity of a declared type (https://sqlite.org/datatype3.html, section 3.1)."""
    upper = declared.upper()
    if strict and upper == "ANY":
        return "blob"
    if "INT" in upper:
        return "integer"
    if any(word in upper for word in ("CHAR", "CLOB", "TEXT")):
        return "text"
    if "BLOB" in upper or not upper:
        return "blob"
    if any(word in upper for word in ("REAL", "FLOA", "DOUB")):
        return "real"
    return "numeric"


def rowid_name(table: SourceTable) -> str | None:
    """A quoted name by which the table's rowid can be read: the alias column, or the first of
    SQLite's three names that no column hides; None where there is no rowid or all are hidden."""
    if table.without_rowid:
        return None
    if table.rowid_alias is not None:
        return sqlite_name(table.rowid_alias)
    return table.rowid_name


def _rows(connection: apsw.Connection, sql: str) -> list[tuple[Any, ...]]:
    try:
        return list(connection.execute(sql))
    except (apsw.Error, UnicodeDecodeError) as error:
        raise unreadable_schema(error) from error


def _pragma(connection: apsw.Connection, name: str) -> Any:
    return _rows(connection, compose("PRAGMA main.{name}", name=name))[0][0]


@dataclass(frozen=True, slots=True)
class _Statement:
    """A row of the schema's table that has SQL."""

    kind: str
    name: str
    table: str
    sql: str

    @property
    def is_virtual(self) -> bool:
        return _is_virtual(self.sql)


@dataclass(frozen=True, slots=True)
class _Listed:
    """What SQLite says of a table's kind."""

    kind: str = "table"
    without_rowid: bool = False
    strict: bool = False


def _statements(connection: apsw.Connection) -> list[_Statement]:
    """What made the application's tables, indexes, views and triggers, in the schema's own order:
    the order of creation, which dependants follow."""
    rows = _rows(
        connection,
        "SELECT type, name, tbl_name, sql FROM main.sqlite_schema "
        "WHERE sql IS NOT NULL ORDER BY rowid",
    )
    found = (_Statement(*map(str, row)) for row in rows)
    return [
        s
        for s in found
        if not _of_sqlite(s.name) and not _of_sqlite(s.table) and not _own(s.name, s.sql)
    ]


def _listed(connection: apsw.Connection) -> dict[str, _Listed]:
    return {
        str(name): _Listed(str(kind), bool(without), bool(strict))
        for schema, name, kind, _, without, strict in _rows(connection, "PRAGMA main.table_list")
        if schema == "main"
    }


def _other(
    statement: _Statement, listed: _Listed, virtual: Mapping[str, str]
) -> SourceObject | None:
    """A view, a trigger, a virtual table or what belongs to one; None for all else."""
    name, sql = statement.name, statement.sql
    if statement.kind in ("view", "trigger"):
        kind: Any = statement.kind
        return SourceObject(kind=kind, name=name, table=statement.table, sql=sql)
    if statement.kind != "table":
        return None
    if name in virtual:
        return SourceObject(kind="virtual", name=name, table=name, sql=sql)
    owner = _shadow_of(name, virtual)
    if listed.kind == "shadow" or owner is not None:
        return SourceObject(kind="shadow", name=name, table=owner or _prefix(name), sql=sql)
    return None


def _of_sqlite(name: str) -> bool:
    return fold(name).startswith("sqlite_")


def _own(name: str, sql: str) -> bool:
    return fold(name).startswith(OWN_PREFIX) and MARK in sql


def _is_virtual(sql: str) -> bool:
    head = sql[:200]
    if "VIRTUAL" not in head.upper():
        return False
    tokens = tokenize(head)
    return len(tokens) > 1 and tokens[1].is_word("VIRTUAL")


def _module(sql: str) -> str:
    tokens = tokenize(sql)
    using = next((i for i, t in enumerate(tokens) if t.is_word("USING")), None)
    return tokens[using + 1].name.lower() if using is not None and using + 1 < len(tokens) else ""


def _shadow_of(name: str, virtual: Mapping[str, str]) -> str | None:
    for owner, module in virtual.items():
        for suffix in SHADOW_SUFFIXES.get(module, ()):
            whole = fold(owner) + suffix
            lowered = fold(name)
            numbered = module == "vec0" and lowered.startswith(whole)
            if lowered == whole or numbered:
                return owner
    return None


def _prefix(name: str) -> str:
    return name.rpartition("_")[0]


def _sequences(connection: apsw.Connection) -> dict[str, int]:
    if not _rows(connection, "SELECT 1 FROM main.sqlite_schema WHERE name = 'sqlite_sequence'"):
        return {}
    # The application may write anything here; SQLite itself takes only integers for a mark.
    return {
        str(name): int(mark)
        for name, mark in _rows(
            connection,
            "SELECT name, max(seq) FROM sqlite_sequence "
            "WHERE typeof(seq) = 'integer' AND typeof(name) = 'text' GROUP BY name",
        )
    }


def _table(
    connection: apsw.Connection,
    statement: _Statement,
    listed: _Listed,
    sequence: int | None,
    index_sql: Mapping[str, str],
) -> SourceTable:
    name = statement.name
    # What a virtual table's text says is its module's matter.
    text = parse_table("" if statement.is_virtual else statement.sql)
    constraints = [c for column, item in text.items for c in constraints_of(item, column=column)]
    written = {fold(c.name): c for c in text.columns}
    columns = list(_columns(connection, name, written, strict=listed.strict))
    primary = tuple(c.name for c in sorted(columns, key=lambda c: c.primary_key) if c.primary_key)
    indexes = _named_indexes(_indexes(connection, name, index_sql), constraints)
    return SourceTable(
        name=name,
        sql=statement.sql,
        columns=tuple(columns),
        primary_key=primary,
        rowid_alias=None if listed.without_rowid else _alias(columns, primary, indexes),
        autoincrement=any(c.autoincrement for c in text.columns),
        without_rowid=listed.without_rowid,
        strict=listed.strict,
        indexes=indexes,
        foreign_keys=_named_keys(
            _foreign_keys(connection, name, text.deferred, written), constraints
        ),
        checks=text.checks,
        check_names=_names(constraints, "check", len(text.checks)),
        primary_key_name=next((c.name for c in constraints if c.kind == "primary key"), None),
        conflicts=tuple(_conflicts(constraints, columns)),
        sequence=sequence,
    )


def _columns(
    connection: apsw.Connection, table: str, written: Mapping[str, Any], *, strict: bool
) -> Iterator[SourceColumn]:
    """The table's columns; ``written`` is what its SQL says of each, by its folded name."""
    for _, column, declared, not_null, default, position, hidden in _rows(
        connection, compose("PRAGMA main.table_xinfo({table})", table=sqlite_name(table))
    ):
        if hidden == 1:
            continue  # of a virtual table: a way to ask it, no value of a row's
        own = written.get(fold(str(column)))
        kind = _without_generated(str(declared or ""))
        yield SourceColumn(
            name=str(column),
            declared=kind,
            affinity=affinity_of(kind, strict=strict),
            not_null=bool(not_null),
            default=None if default is None else str(default),
            primary_key=int(position),
            generated={2: "virtual", 3: "stored"}.get(int(hidden), ""),  # type: ignore[arg-type]
            expression=own.expression if own is not None and hidden in (2, 3) else None,
            collation=own.collation if own is not None else "BINARY",
        )


def _alias(
    columns: Sequence[SourceColumn], primary: Sequence[str], indexes: Sequence[SourceIndex]
) -> str | None:
    """The column that is the rowid, of a table that has one."""
    if len(primary) != 1:
        return None
    key = next(c for c in columns if c.name == primary[0])
    # INTEGER PRIMARY KEY DESC is no alias: it has an index of its own like any other key.
    if key.declared.upper() == "INTEGER" and all(i.origin != "pk" for i in indexes):
        return key.name
    return None


def _names(
    constraints: Sequence[ConstraintText], kind: ConstraintKind, count: int
) -> tuple[str | None, ...]:
    """The names of the ``count`` constraints of a kind, in their order; () without any."""
    names = [c.name for c in constraints if c.kind == kind]
    return tuple(names) if len(names) == count and any(names) else ()


def _named_indexes(
    indexes: Sequence[SourceIndex], constraints: Sequence[ConstraintText]
) -> tuple[SourceIndex, ...]:
    """SQLite has one index for UNIQUE constraints over the same columns: the first name counts."""
    names: dict[tuple[str, ...], str] = {}
    for constraint in constraints:
        if constraint.kind == "unique" and constraint.name is not None:
            names.setdefault(constraint.columns, constraint.name)
    found = []
    for index in indexes:
        columns = tuple(fold(c.column or "") for c in index.columns)
        name = names.get(columns) if index.origin == "u" else None
        found.append(replace(index, constraint=name) if name else index)
    return tuple(found)


def _named_keys(
    keys: Sequence[SourceForeignKey], constraints: Sequence[ConstraintText]
) -> tuple[SourceForeignKey, ...]:
    names = _names(constraints, "foreign key", len(keys))
    if not names:
        return tuple(keys)
    return tuple(
        replace(key, constraint=name) if name else key
        for key, name in zip(keys, names, strict=True)
    )


def _conflicts(
    constraints: Sequence[ConstraintText], columns: Sequence[SourceColumn]
) -> Iterator[ConflictClause]:
    spelled = {fold(c.name): c.name for c in columns}
    for constraint in constraints:
        if constraint.conflict in ("", "ABORT"):
            continue
        over = ", ".join(spelled.get(c, c) for c in constraint.columns)
        named = f"{constraint.name}: " if constraint.name is not None else ""
        yield ConflictClause(
            constraint=named + constraint.kind.upper() + (f" ({over})" if over else ""),
            kind=constraint.kind,
            action=constraint.conflict,
        )


def _without_generated(declared: str) -> str:
    """SQLite counts ``GENERATED ALWAYS`` as part of a type that precedes it."""
    if "generated" not in declared.lower():
        return declared
    words = declared.split()
    upper = [w.upper() for w in words]
    if upper[-2:] == ["GENERATED", "ALWAYS"]:
        return " ".join(words[:-2])
    return declared


def _indexes(
    connection: apsw.Connection, table: str, statements: Mapping[str, str]
) -> tuple[SourceIndex, ...]:
    """The table's indexes; ``statements`` are those that made the indexes of all tables."""
    found: list[SourceIndex] = []
    for _, name, unique, origin, partial in _rows(
        connection, compose("PRAGMA main.index_list({table})", table=sqlite_name(table))
    ):
        if _of_sqlite(str(name)) and origin == "c":
            continue
        sql = statements.get(str(name))
        described = _rows(
            connection, compose("PRAGMA main.index_xinfo({name})", name=sqlite_name(str(name)))
        )
        # cid -1 is the rowid, -2 an expression: the text alone says which, as it does a condition.
        told = partial or any(cid == -2 for _, cid, *_ in described)
        text = parse_index(sql) if sql is not None and told else None
        terms: list[SourceIndexColumn] = []
        for position, cid, column, descending, collation, is_key in described:
            if not is_key:
                continue
            expression = text.terms[position] if text is not None and cid == -2 else None
            terms.append(
                SourceIndexColumn(
                    column=None if column is None else str(column),
                    expression="rowid" if cid == -1 else expression,
                    descending=bool(descending),
                    collation=str(collation),
                )
            )
        found.append(
            SourceIndex(
                name=str(name),
                unique=bool(unique),
                origin=origin,
                columns=tuple(terms),
                where=text.where if text is not None else None,
                sql=sql,
            )
        )
    # index_list goes from the newest to the oldest.
    return tuple(reversed(found))


def _foreign_keys(
    connection: apsw.Connection,
    table: str,
    deferred: Sequence[frozenset[str]],
    written: dict[str, Any],
) -> tuple[SourceForeignKey, ...]:
    grouped: dict[int, list[tuple[Any, ...]]] = {}
    for row in _rows(
        connection, compose("PRAGMA main.foreign_key_list({table})", table=sqlite_name(table))
    ):
        grouped.setdefault(int(row[0]), []).append(row)
    keys: list[SourceForeignKey] = []
    for number in sorted(grouped, reverse=True):  # the list goes from the last to the first
        rows = sorted(grouped[number], key=lambda row: int(row[1]))
        columns = tuple(str(row[3]) for row in rows)
        single = written.get(fold(columns[0])) if len(columns) == 1 else None
        keys.append(
            SourceForeignKey(
                columns=columns,
                parent=str(rows[0][2]),
                parent_columns=tuple("" if row[4] is None else str(row[4]) for row in rows),
                on_update=str(rows[0][5]),
                on_delete=str(rows[0][6]),
                deferred=frozenset(fold(c) for c in columns) in deferred
                or (single is not None and single.deferred),
            )
        )
    return tuple(keys)


def _with_parent_keys(table: SourceTable, parents: Mapping[str, SourceTable]) -> SourceTable:
    """Foreign keys that name no parent columns mean the parent's primary key; names are given the
    parent's own spelling. ``parents`` are all tables by their folded names."""
    keys: list[SourceForeignKey] = []
    for key in table.foreign_keys:
        parent = parents.get(fold(key.parent))
        columns = key.parent_columns
        if parent is not None:
            spelled = {fold(c.name): c.name for c in parent.columns}
            columns = (
                parent.primary_key
                if not any(columns)
                else tuple(spelled.get(fold(c), c) for c in columns)
            )
        keys.append(
            replace(
                key,
                parent=parent.name if parent is not None else key.parent,
                parent_columns=tuple(c for c in columns if c),
            )
        )
    return table.model_copy(update={"foreign_keys": tuple(keys)}) if keys else table
