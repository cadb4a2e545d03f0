"""What reading a log has worked out and keeps: of the source's, and of the target's way back."""

from __future__ import annotations

from dataclasses import dataclass, field

from migration_job.plan.model import TablePlan
from migration_job.stores.sqlite.feeding import Feeding


@dataclass(frozen=True, slots=True)
class LogStatements:
    """The statements of one table over the touched keys, ``k``; None where it has to go row by
    row."""

    keys: str
    """Each touched key's values, then its texts on the target, or NULL where SQL has none."""
    lines: str | None
    """COPY lines of the ordinary rows, as blobs."""
    others: str
    """The keys of the rows that are there and not ordinary."""
    proof: str | None
    """The ordinary rows as the proof compares them: a line of what PostgreSQL prints as SQLite
    does, then the raw values of the other columns."""
    nameless: str | None
    """Keys with a NULL that a row has; None where no row can have such a key."""


@dataclass(slots=True)
class SourceLog:
    """Of the source's log, for one plan and one connection."""

    statements: dict[str, LogStatements] = field(default_factory=dict)
    """SQL by source table, composed once."""
    touched_width: int = 0
    """Key columns of the temporary table of touched keys; 0 before there is one."""


@dataclass(slots=True)
class BackLog:
    """Of the way back."""

    schema_seen: str | None = None
    """The digest of the target's schema that is on record there; None before it was asked for."""
    one_way: dict[str, str] | None = None
    """The target's tables whose changes do not come back since their schema was changed, and why;
    None before it was asked for."""
    restless: dict[str, TablePlan] = field(default_factory=dict)
    """The target's tables that were altered under the last rounds of the way back."""
    feeding: Feeding | None = None
    """What keeps the source's derived tables in step; None before a row came back."""
