"""A schema of PostgreSQL's that is there already, as data: what a load into it has to know.

Nothing here reads a database: :mod:`migration_job.stores.postgres.target` fills these classes.
"""

from __future__ import annotations

from functools import cached_property
from typing import Literal

from migration_job.plan.model import ForeignKeyPlan
from migration_job.stores.sqlite.model import Data


class TargetColumn(Data):
    """A column as it is."""

    name: str
    type: str
    """As ``format_type`` names it, e.g. ``character varying(20)``."""
    base: str
    """The type behind a domain; else ``type``."""
    labels: tuple[str, ...] = ()
    """An enum's, in its order; of an array of an enum those of its elements."""
    element: str | None = None
    """The type of an array's elements, behind a domain."""
    not_null: bool = False
    default: str | None = None
    generated: str | None = None
    """The expression that PostgreSQL computes the column by."""
    identity: Literal["", "a", "d"] = ""
    """GENERATED ALWAYS or BY DEFAULT AS IDENTITY."""
    sequences: tuple[str, ...] = ()
    """The sequences that fill it, quoted and qualified: its own, and those its default names."""

    @property
    def filled(self) -> bool:
        """Whether a row that leaves the column out is taken all the same."""
        has = self.default is not None or self.generated is not None or bool(self.identity)
        return has or not self.not_null


class TargetKey(Data):
    """Columns of which no two rows agree: a primary key, a UNIQUE constraint or index."""

    name: str
    columns: tuple[str, ...]
    primary: bool = False


class TargetCheck(Data):
    """What every row that is written has to meet."""

    name: str
    expression: str
    """As PostgreSQL prints it."""
    columns: tuple[str, ...]
    of_domain: bool = False


class TargetDemand(Data):
    """What an index of the target's demands of all rows together, which only it can judge: by an
    expression, a condition, an operator or an equality of its own."""

    name: str
    what: Literal["unique index", "exclusion constraint"]
    definition: str
    """As PostgreSQL prints it, behind the name and the table."""
    columns: tuple[str, ...]
    """Those that it reads."""


class TargetTable(Data):
    """A table, or what stands where one should."""

    name: str
    kind: Literal["table", "partitioned table", "view", "materialized view", "foreign table"]
    columns: tuple[TargetColumn, ...]
    keys: tuple[TargetKey, ...] = ()
    checks: tuple[TargetCheck, ...] = ()
    """Its own and those of its columns' domains."""
    demands: tuple[TargetDemand, ...] = ()
    foreign_keys: tuple[ForeignKeyPlan, ...] = ()
    """To tables of any schema."""
    triggers: tuple[str, ...] = ()
    """The application's own, by name."""
    always: tuple[str, ...] = ()
    """Those of them that act in every session, also while rows are loaded."""
    rules: tuple[str, ...] = ()
    """Rewrite rules that act in every session."""
    unlogged: bool = False
    heirs: bool = False
    """Whether it is a partition, or is inherited from, or inherits."""
    forced_rls: bool = False
    """Whether row-level security holds for its owner too."""
    rows: int = 0
    """Rows that are there."""

    def column(self, name: str) -> TargetColumn | None:
        """The column of exactly that name."""
        return next((c for c in self.columns if c.name == name), None)

    @property
    def primary_key(self) -> tuple[str, ...]:
        """The columns of the primary key; () without one."""
        return next((k.columns for k in self.keys if k.primary), ())


class OutsideTable(Data):
    """A table of another schema, with its keys that refer to tables of this one."""

    schema_name: str
    name: str
    foreign_keys: tuple[ForeignKeyPlan, ...]


class TargetSchema(Data):
    """A whole schema, without what belongs to extensions and to this job."""

    name: str
    tables: tuple[TargetTable, ...]
    outside: tuple[OutsideTable, ...] = ()
    versions: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """By the name of a table in which migrations keep book, the versions that it names."""

    def table(self, name: str) -> TargetTable | None:
        """The table of exactly that name."""
        return self._by_name.get(name)

    @cached_property
    def _by_name(self) -> dict[str, TargetTable]:
        return {table.name: table for table in self.tables}
