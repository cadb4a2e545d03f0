"""A SQLite schema as data.

Nothing here reads a database: the catalogue fills these classes, and everybody else reads them.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal, TypeVar, cast, dataclass_transform

from pydantic import BaseModel, ConfigDict
from pydantic.dataclasses import dataclass

from migration_job.values import fold

Affinity = Literal["integer", "text", "blob", "real", "numeric"]
"""SQLite's five column affinities (https://sqlite.org/datatype3.html#determination_of_column_affinity)."""

ROWID_NAMES = ("rowid", "_rowid_", "oid")
"""What SQLite calls a row's number where no column has the name."""


class Data(BaseModel):
    """Immutable, and refuses fields it does not know."""

    model_config = ConfigDict(defer_build=True, frozen=True, extra="forbid")


_Kind = TypeVar("_Kind")


@dataclass_transform(frozen_default=True, kw_only_default=True)
def compact(kind: type[_Kind]) -> type[_Kind]:
    """What :class:`Data` promises, for what there are tens of thousands of: a model keeps a
    dictionary and a set for each of its objects, ten times as many bytes as these."""
    config = ConfigDict(extra="forbid")
    made: Any = dataclass(frozen=True, slots=True, kw_only=True, config=config)(kind)
    return cast(type[_Kind], made)


@compact
class SourceColumn:
    """One column, as ``PRAGMA table_xinfo`` and the table's SQL tell it."""

    name: str
    declared: str
    """The declared type as written, '' where there is none."""
    affinity: Affinity
    not_null: bool
    default: str | None
    """The default's SQL text, or None."""
    primary_key: int
    """1-based position in the primary key, 0 outside it."""
    generated: Literal["", "virtual", "stored"]
    expression: str | None = None
    """A generated column's expression."""
    collation: str = "BINARY"

    @property
    def demanded(self) -> int | str | bytes | None:
        """The emptiest value that a row has to have here if nobody gives it one; None where it
        need not have any."""
        if not self.not_null or self.default is not None or self.generated or self.primary_key:
            return None
        emptiest: dict[str, str | bytes] = {"text": "", "blob": b""}
        return emptiest.get(self.affinity, 0)


@compact
class SourceIndexColumn:
    """One term of an index: a column's name, or an expression's SQL."""

    column: str | None
    expression: str | None
    descending: bool
    collation: str


@compact
class SourceIndex:
    name: str
    unique: bool
    origin: Literal["c", "u", "pk"]
    """``PRAGMA index_list``: CREATE INDEX, UNIQUE constraint, PRIMARY KEY."""
    columns: tuple[SourceIndexColumn, ...]
    where: str | None
    sql: str | None
    constraint: str | None = None
    """The name that the table's SQL gives the constraint behind it."""


@compact
class SourceForeignKey:
    columns: tuple[str, ...]
    parent: str
    parent_columns: tuple[str, ...]
    """Resolved: the parent's primary key where the declaration names none."""
    on_update: str
    on_delete: str
    deferred: bool
    constraint: str | None = None
    """The name that the table's SQL gives it."""


class ConflictClause(Data):
    """An ON CONFLICT clause of a constraint."""

    constraint: str
    """As people would name it, e.g. ``UNIQUE (a, b)``, with its name where it has one."""
    kind: Literal["primary key", "unique", "not null", "check", "foreign key"]
    action: str


class SourceTable(Data):
    name: str
    sql: str
    columns: tuple[SourceColumn, ...]
    primary_key: tuple[str, ...]
    """Columns in key order; () where none is declared."""
    rowid_alias: str | None
    """The INTEGER PRIMARY KEY column that is the rowid."""
    autoincrement: bool
    without_rowid: bool
    strict: bool
    indexes: tuple[SourceIndex, ...]
    foreign_keys: tuple[SourceForeignKey, ...]
    checks: tuple[str, ...]
    check_names: tuple[str | None, ...] = ()
    """For each of them the name that the SQL gives it; () where it gives none."""
    primary_key_name: str | None = None
    conflicts: tuple[ConflictClause, ...] = ()
    sequence: int | None
    """The high-water mark in ``sqlite_sequence``."""
    where: str | None = None
    """A predicate over the table aliased ``t``: only the rows that meet it are carried; None: all.
    It is of the policy, not of the file."""

    @cached_property
    def rowid_name(self) -> str | None:
        """The first of SQLite's names of the rowid that no column hides; None where all are."""
        # Every column of a wide table asks.
        names = {fold(column.name) for column in self.columns}
        return next((n for n in ROWID_NAMES if n not in names), None)


class SourceObject(Data):
    """A view, a trigger or a virtual table: its name, its SQL, the table it hangs on."""

    kind: Literal["view", "trigger", "virtual", "shadow"]
    name: str
    table: str
    sql: str


class Catalogue(Data):
    """The whole schema of a SQLite file, without the tables of SQLite's own and this job's own."""

    encoding: Literal["UTF-8", "UTF-16le", "UTF-16be"]
    schema_version: int
    application_id: int
    user_version: int
    page_size: int
    journal_mode: str
    tables: tuple[SourceTable, ...]
    others: tuple[SourceObject, ...]
    virtual: tuple[SourceTable, ...] = ()
    """The virtual tables, as tables, whose rows stand nowhere else and can be read. Nothing can
    follow their changes."""

    def with_tables(self, tables: tuple[SourceTable, ...]) -> Catalogue:
        """The same with other tables."""
        made = self.model_copy(update={"tables": tables})
        made.__dict__.pop("_by_name", None)  # a copy takes along what was cached
        return made

    def table(self, name: str) -> SourceTable:
        """The table of that name (names ignore ASCII case); KeyError where there is none."""
        return self._by_name[fold(name)]

    @cached_property
    def _by_name(self) -> dict[str, SourceTable]:
        # Thousands of tables ask for one another: looking through all of them would be quadratic.
        return {fold(table.name): table for table in (*self.virtual, *self.tables)}
