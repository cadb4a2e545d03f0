"""The plan as data: for every table and column, the target type and the rule that gets there.

Nothing here reads a database. The catalogue fills the ``Source*`` classes, the planner makes a
:class:`Plan` of them, and the copier, the verifiers, the live phases and the report read it.
A plan serialises to JSON and back without loss; its digest names it in the certificate.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from migration_job.plan.rules import Rule
from migration_job.values import fold

Affinity = Literal["integer", "text", "blob", "real", "numeric"]
"""SQLite's five column affinities (https://sqlite.org/datatype3.html#determination_of_column_affinity)."""

Severity = Literal["error", "warning", "note"]
"""``error`` stops the run (exit 3) until the policy settles it; ``warning`` is shown and kept in
the report; ``note`` says what was decided."""

Action = Literal["widen", "map", "quarantine", "block"]


class Data(BaseModel):
    """Immutable, and refuses fields it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# ------------------------------------------------------------------------------- the source


class SourceColumn(Data):
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


class SourceIndexColumn(Data):
    """One term of an index: a column's name, or an expression's SQL."""

    column: str | None
    expression: str | None
    descending: bool
    collation: str


class SourceIndex(Data):
    name: str
    unique: bool
    origin: Literal["c", "u", "pk"]
    """``PRAGMA index_list``: CREATE INDEX, UNIQUE constraint, PRIMARY KEY."""
    columns: tuple[SourceIndexColumn, ...]
    where: str | None
    sql: str | None


class SourceForeignKey(Data):
    columns: tuple[str, ...]
    parent: str
    parent_columns: tuple[str, ...]
    """Resolved: the parent's primary key where the declaration names none."""
    on_update: str
    on_delete: str
    deferred: bool


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
    sequence: int | None
    """The high-water mark in ``sqlite_sequence``."""

    @cached_property
    def rowid_name(self) -> str | None:
        """The first of SQLite's names of the rowid that no column hides; None where all are."""
        # Every column of a wide table asks.
        names = {fold(column.name) for column in self.columns}
        return next((n for n in ("rowid", "_rowid_", "oid") if n not in names), None)


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

    def table(self, name: str) -> SourceTable:
        """The table of that name (names ignore ASCII case); KeyError where there is none."""
        return self._by_name[fold(name)]

    @cached_property
    def _by_name(self) -> dict[str, SourceTable]:
        # Thousands of tables ask for one another: looking through all of them would be quadratic.
        return {fold(table.name): table for table in self.tables}


# --------------------------------------------------------------------------------- the plan


class ColumnPlan(Data):
    """What becomes of one column."""

    source: str | None
    """The source column; None for a column that exists on the target alone."""
    target: str
    type: str
    """PostgreSQL's type as SQL, e.g. ``varchar(500)``, ``timestamp with time zone``."""
    rule: Rule
    not_null: bool = False
    default: str | None = None
    """PostgreSQL's default expression, or None."""
    generated: str | None = None
    """PostgreSQL's expression of a generated column, which is recreated, not copied."""
    identity: bool = False
    """``GENERATED BY DEFAULT AS IDENTITY``."""
    sequence: str | None = None
    """The name of the identity's sequence, where another table has the one that PostgreSQL would
    choose."""
    clean: bool = True
    """Preflight: every value meets the rule's fast condition, so SQLite's own expression converts
    the column and no row of it has a ledger entry."""
    reason: str = ""
    """Why this type, in a few words for ``inspect``."""


class UniquePlan(Data):
    name: str
    columns: tuple[str, ...]


class CheckPlan(Data):
    name: str
    expression: str


class ForeignKeyPlan(Data):
    name: str
    columns: tuple[str, ...]
    parent: str
    """Target table name."""
    parent_columns: tuple[str, ...]
    on_update: str
    on_delete: str
    initially_deferred: bool = False
    validated: bool = True
    """False where acknowledged orphans make it ``NOT VALID``."""


class IndexPlan(Data):
    name: str
    unique: bool
    terms: tuple[str, ...]
    """PostgreSQL SQL of each term, quoted, with ``DESC`` and opclass as needed."""
    where: str | None = None
    method: str = "btree"


class Reason(Data):
    """Why rows were set aside, in words for each of them."""

    column: str | None = None
    """The source's column whose value is at fault, where it is one column's."""
    text: str


class TablePlan(Data):
    """What becomes of one table. All constraint members name target columns."""

    source: str | None
    """None for a table that exists on the target alone (a profile's)."""
    target: str
    columns: tuple[ColumnPlan, ...]
    primary_key: tuple[str, ...] = ()
    primary_key_name: str | None = None
    """Where another table has the name that PostgreSQL would choose."""
    uniques: tuple[UniquePlan, ...] = ()
    checks: tuple[CheckPlan, ...] = ()
    foreign_keys: tuple[ForeignKeyPlan, ...] = ()
    indexes: tuple[IndexPlan, ...] = ()
    key: tuple[str, ...] = ()
    """Source columns that identify a row on both sides: unique and without NULL in every row and
    carried exactly by their rules or a bijective map; () where only the rowid does."""
    rows: int = 0
    """Rows counted by preflight in the snapshot."""
    quarantine: tuple[str, ...] = ()
    """SQLite predicates (over the source table, aliased ``t``) whose rows go to quarantine."""
    reasons: tuple[Reason, ...] = ()
    """For each of them, why its rows do."""
    without_rowid: bool = False

    @property
    def set_aside(self) -> tuple[tuple[str, Reason], ...]:
        """Each predicate of ``quarantine`` with its reason; a plan of an earlier release, which
        had none, tells the predicate itself."""
        reasons = self.reasons or tuple(Reason(text=p) for p in self.quarantine)
        return tuple(zip(self.quarantine, reasons, strict=True))

    @property
    def copied(self) -> tuple[ColumnPlan, ...]:
        """The columns whose values come from the source, in target order."""
        return tuple(c for c in self.columns if c.source is not None and c.generated is None)


class SequencePlan(Data):
    table: str
    column: str
    last_value: int
    """The next value handed out is ``last_value + 1``: the larger of max(id) and the source's
    ``sqlite_sequence``; 0 where the table is empty and has never been written."""


class ViewPlan(Data):
    source: str
    target: str
    query: str
    """The PostgreSQL SELECT."""


class Finding(Data):
    """Something an operator should know before the run, with the YAML that settles it."""

    code: str
    """Stable, kebab-case, e.g. ``text-in-integer``; documented in the reference."""
    severity: Severity
    table: str | None = None
    column: str | None = None
    message: str
    count: int = 0
    keys: tuple[str, ...] = ()
    """The first few keys, displayed."""
    settle: str = ""
    """The lines of YAML that settle it, or ''."""


class Plan(Data):
    profile: str
    encoding: str
    tables: tuple[TablePlan, ...]
    sequences: tuple[SequencePlan, ...] = ()
    views: tuple[ViewPlan, ...] = ()
    extensions: tuple[str, ...] = ()
    after_load: tuple[str, ...] = ()
    """A profile's own statements (full-text index and the like), run after constraints."""
    findings: tuple[Finding, ...] = Field(default=(), repr=False)

    @property
    def blocked(self) -> tuple[Finding, ...]:
        return tuple(f for f in self.findings if f.severity == "error")

    def table(self, source: str) -> TablePlan:
        """The plan of a source table; KeyError where it has none."""
        return self._by_source[fold(source)]

    @cached_property
    def _by_source(self) -> dict[str, TablePlan]:
        return {fold(table.source): table for table in self.tables if table.source is not None}

    def digest(self) -> str:
        """SHA-256 of the plan without its findings and row counts: equal plans, equal digests."""
        content = self.model_dump_json(
            exclude={"findings": True, "tables": {"__all__": {"rows", "columns"}}}
        ) + "".join(
            c.model_dump_json(exclude={"clean", "reason"}) for t in self.tables for c in t.columns
        )
        return hashlib.sha256(content.encode()).hexdigest()
