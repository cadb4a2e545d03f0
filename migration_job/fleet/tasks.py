"""What a worker process is asked for, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from migration_job.errors import JobError
from migration_job.log_format import printable
from migration_job.plan.policy import Types
from migration_job.plan.tenants import TenantColumn


@dataclass(frozen=True, slots=True)
class Look:
    """Plan a file without writing anything."""

    tenant: str
    path: Path
    schema: str
    """Of the tables on the target."""
    policy: str
    """YAML."""
    profile: str
    types: Types | None
    whole: bool = False
    """Whether the plan itself is wanted too."""


@dataclass(frozen=True, slots=True)
class Shared:
    """Tables that all files share."""

    column: TenantColumn
    schema: str
    """Of the file's own tables, until its rows are there."""


@dataclass(frozen=True, slots=True)
class Move:
    """Bring a file to ``verified`` at its place."""

    tenant: str
    path: Path
    server: str
    """The connection string of the ledger's database."""
    dsn: str
    """Of the file's own place."""
    database: str | None
    """To be made on the server first; None: the ledger's own."""
    report: Path
    policy: Path
    profile: str
    types: Types | None
    shape: str
    """That the file's plan has to have (:func:`migration_job.plan.shape.shape_text`)."""
    certificate: str | None
    """Of an earlier run, of a file that has not changed since."""
    shared: Shared | None = None
    """The tables of all tenants that the rows go to in the end."""
    state: Path | None = None
    """The tenant's state directory where its application goes on meanwhile; None where it stands
    still."""


Task = Look | Move


Column = tuple[str, str]
"""Source table and column."""


@dataclass(frozen=True, slots=True)
class ColumnSeen:
    """What a plan makes of a column."""

    column: Column
    type: str
    place: tuple[str, str]
    """Table and column on the target."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a plan says of each column, to be compared with another plan of the same file."""

    columns: tuple[ColumnSeen, ...]
    unclean: frozenset[Column]
    """Columns of which some value needs more than the rule's ordinary way."""
    troubles: frozenset[tuple[str, str, str]]
    """Code, table and column of each finding that is more than a note."""
    set_aside: int
    """Conditions by which rows go to quarantine."""

    @property
    def types(self) -> dict[Column, str]:
        """The type of each column."""
        return {seen.column: seen.type for seen in self.columns}


@dataclass(frozen=True, slots=True)
class Looked:
    """The plan of a file."""

    schema: str
    """Digest of the source's schema, however its SQL is laid out."""
    shape: str
    """Text of the plan's shape."""
    seen: Seen
    blocked: str
    """The findings that stop it, in words; '' where none does."""
    rows: int
    plan: str = ""
    """JSON, where it was wanted."""
    digest: str = ""
    """Of the plan."""


@dataclass(frozen=True, slots=True)
class Moved:
    """A file that is verified."""

    certificate: str
    body: str
    """JSON."""
    message: str
    again: bool
    """Whether this run did it; else an earlier one's certificate still holds."""
    exceptions: tuple[str, ...] = ()
    """In what it is not as in the source (:func:`migration_job.report.exceptions.exceptions`)."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A file that is not."""

    status: int
    """The exit status that `migrate` would have ended with."""
    message: str

    @classmethod
    def by(cls, error: JobError) -> Failed:
        """In the error's own words."""
        return cls(int(error.status), str(error))


Answer = Looked | Moved | Failed


def plain(text: str) -> str:
    """A message as PostgreSQL can hold it."""
    return printable(text.encode("utf-8", "backslashreplace").decode(), lines=True)
