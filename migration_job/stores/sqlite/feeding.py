"""Virtual tables that the application's own triggers fill are kept in step by the way back.

The way back fires no triggers of the file's: the fence would stop it, and an audit trail would name
writes twice. But what a trigger writes to a full-text index or an R-tree nobody else can write:
such an index often keeps nothing that it could be recreated from. So the statements of those
triggers that write to such a table, and only they, are repeated as temporary triggers of the job's
connection, over temporary tables that hold a changed row as it was and as it is. A row that is new
fires what an INSERT fires, a row that is gone what a DELETE does, any other what an UPDATE does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import apsw

from migration_job.quoting import as_written, compose, sqlite_name, sqlite_table
from migration_job.stores.sqlite.catalogue import OWN_PREFIX, rowid_name
from migration_job.stores.sqlite.model import Catalogue, SourceTable
from migration_job.stores.sqlite.reader import KEYS_PER_QUERY, bindable, keys_condition
from migration_job.stores.sqlite.virtual import derived, feeders, rebuild
from migration_job.values import SourceValue, fold

Key = tuple[SourceValue, ...]
EVENTS = ("INSERT", "UPDATE", "DELETE")

_OF_ITS_OWN = (apsw.SQLError, apsw.ConstraintError, apsw.CorruptError, apsw.MismatchError)
"""What a trigger or a virtual table may say of a row; all else is the file's, or the disk's."""


@dataclass(frozen=True, slots=True)
class _Fed:
    """A table whose rows are repeated elsewhere, and the temporary tables of its number."""

    table: SourceTable
    number: int
    names: tuple[str, ...]
    """Of the virtual tables, as people know them."""
    own: tuple[str, ...]
    """Those of them that have content of their own, and can be made again from it."""

    def place(self, what: str) -> str:
        return f"temp.{sqlite_name(f'{OWN_PREFIX}{self.number}_{what}')}"

    @property
    def columns(self) -> list[str]:
        """SQL names, the rowid first where it is no column and has a name."""
        rowid = rowid_name(self.table)
        own = [sqlite_name(c.name) for c in self.table.columns]
        if rowid is None or self.table.rowid_alias is not None:
            return own
        return [rowid, *own]


class Feeding:
    """What keeps such tables in step on one connection. Made outside any transaction; nothing of it
    is in the file."""

    def __init__(self, connection: apsw.Connection, catalogue: Catalogue) -> None:
        self._connection = connection
        self._fed: dict[str, _Fed] = {}
        fed = [each for each in derived(catalogue) if each.fed]
        for number, table in enumerate(catalogue.tables, start=1):
            here = [each for each in fed if fold(table.name) in each.bases]
            if here:
                names = tuple(each.name for each in here)
                full_text = [each for each in here if each.module.startswith("fts")]
                own = tuple(each.name for each in full_text if each.content is None)
                self._fed[table.name] = _Fed(table, number, names, own)
                self._make(self._fed[table.name], catalogue)

    def before(self, table: SourceTable, key: Sequence[str], keys: Sequence[Key]) -> None:
        """Note the rows of these keys as they are before they are written."""
        self._note(table, key, keys, "old")

    def after(self, table: SourceTable, key: Sequence[str], keys: Sequence[Key]) -> str:
        """Have the triggers see what became of the rows that :meth:`before` has noted, inside the
        caller's transaction; '' where all went well, else which tables did not follow, and why."""
        fed = self._fed.get(table.name)
        if fed is None:
            return ""
        self._note(table, key, keys, "new")
        try:
            try:
                self._fire(fed, key)
            except (apsw.CorruptError, apsw.SQLError):
                if not fed.own:
                    raise
                # It did not fit its rows before, which the plan's finding has told. What it keeps
                # of them is whole, and the index is made again from that.
                with self._connection:
                    for name in fed.own:
                        rebuild(self._connection, name)
                    self._fire(fed, key)
        except _OF_ITS_OWN as error:
            return f"{', '.join(fed.names)} did not follow changes of {table.name}: {error}"
        return ""

    def _fire(self, fed: _Fed, key: Sequence[str]) -> None:
        with self._connection:
            for statement in _events(fed, key):
                self._connection.execute(statement)

    def _note(self, table: SourceTable, key: Sequence[str], keys: Sequence[Key], what: str) -> None:
        fed = self._fed.get(table.name)
        if fed is None:
            return
        columns = ", ".join(fed.columns)
        self._connection.execute(compose("DELETE FROM {place}", place=fed.place(what)))
        size = max(KEYS_PER_QUERY // max(len(key), 1), 1)
        for some in (keys[i : i + size] for i in range(0, len(keys), size)):
            where, parameters = keys_condition(table, key, some)
            self._connection.execute(
                compose(
                    "INSERT OR IGNORE INTO {place} ({columns}) SELECT {columns} "
                    "FROM {table} AS t WHERE {where}",
                    place=fed.place(what),
                    columns=columns,
                    table=sqlite_table(table.name),
                    where=where,
                ),
                tuple(bindable(value) for value in parameters),
            )

    def _make(self, fed: _Fed, catalogue: Catalogue) -> None:
        definitions = ", ".join(_definition(fed.table, c.name) for c in fed.table.columns)
        for what in ("old", "new", *EVENTS):
            self._connection.execute(compose("DROP TABLE IF EXISTS {place}", place=fed.place(what)))
            self._connection.execute(
                compose(
                    "CREATE TABLE {place} ({definitions})",
                    place=fed.place(what),
                    definitions=definitions,
                )
            )
        for statement in _triggers(fed, catalogue):
            self._connection.execute(statement)


def _definition(table: SourceTable, column: str) -> str:
    """A column that stores the values as they are, and finds them equal as the table's does."""
    own = next(c for c in table.columns if c.name == column)
    name = sqlite_name(column)
    if column == table.rowid_alias:
        return f"{name} INTEGER PRIMARY KEY"
    affinity = {"blob": ""}.get(own.affinity, own.affinity)
    return f"{name} {affinity} COLLATE {sqlite_name(own.collation)}"


def _triggers(fed: _Fed, catalogue: Catalogue) -> Iterator[str]:
    names = {fold(name) for name in fed.names}
    seen: set[tuple[str, str, str, tuple[tuple[str, str], ...]]] = set()
    for virtual in fed.names:
        for table, text in feeders(catalogue, virtual):
            own = (text.event, text.columns, text.when, text.statements)
            if fold(table) != fold(fed.table.name) or own in seen:
                continue
            seen.add(own)
            kept = "; ".join(sql for target, sql in text.statements if target in names)
            on = fed.place(text.event).removeprefix("temp.")
            name = sqlite_name(f"{OWN_PREFIX}{fed.number}_trigger_{len(seen)}")
            of = f" OF {text.columns}" if text.columns else ""
            yield (
                compose(
                    "CREATE TEMP TRIGGER {name} AFTER {event}{of} ON {on} {when} BEGIN {kept}; END",
                    name=name,
                    event=text.event,
                    of=of,
                    on=on,
                    when=as_written(text.when),
                    kept=as_written(kept),
                )
            )


def _events(fed: _Fed, key: Sequence[str]) -> Iterable[str]:
    """Statements on the temporary tables that fire what the rows' fates fire."""
    columns = ", ".join(fed.columns)
    names = _key_names(fed, key)
    old, new = fed.place("old"), fed.place("new")
    same = " AND ".join(f"o.{name} IS n.{name}" for name in names)
    unchanged = " AND ".join(f"o.{name} IS n.{name}" for name in fed.columns)
    return [
        *(compose("DELETE FROM {place}", place=fed.place(event)) for event in ("INSERT", "UPDATE")),
        compose(
            "INSERT INTO {place} ({columns}) SELECT {columns} FROM {old} AS o "
            "WHERE NOT EXISTS (SELECT 1 FROM {new} AS n WHERE {same})",
            place=fed.place("DELETE"),
            columns=columns,
            old=old,
            new=new,
            same=same,
        ),
        compose("DELETE FROM {place}", place=fed.place("DELETE")),
        compose(
            "INSERT INTO {place} ({columns}) SELECT {columns} FROM {old} AS o "
            "WHERE EXISTS (SELECT 1 FROM {new} AS n WHERE {same} AND NOT ({unchanged}))",
            place=fed.place("UPDATE"),
            columns=columns,
            old=old,
            new=new,
            same=same,
            unchanged=unchanged,
        ),
        compose(
            "UPDATE {place} AS o SET ({columns}) = (SELECT {columns} FROM {new} AS n WHERE {same})",
            place=fed.place("UPDATE"),
            columns=columns,
            new=new,
            same=same,
        ),
        compose(
            "INSERT INTO {place} ({columns}) SELECT {columns} FROM {new} AS n "
            "WHERE NOT EXISTS (SELECT 1 FROM {old} AS o WHERE {same})",
            place=fed.place("INSERT"),
            columns=columns,
            new=new,
            old=old,
            same=same,
        ),
    ]


def _key_names(fed: _Fed, key: Sequence[str]) -> list[str]:
    known = {fold(c.name): sqlite_name(c.name) for c in fed.table.columns}
    return [known.get(fold(name), name) for name in key]
