"""What a run did, as data: the content of ``report.json``, which ``report.html`` shows.

The names are a contract with the programs that read the file; the command reference documents them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from migration_job.plan.model import Finding

Outcome = Literal["verified", "blocked", "failed"]
Command = Literal["migrate", "verify"]

STEMS: Mapping[str, str] = {"migrate": "report", "verify": "verify"}
"""What the files of each command's report are called, but for their endings: one directory may
serve both."""

SHOWN_ENTRIES = 50_000
"""Ledger, quarantine and differences are listed up to this many entries each; the counts are
complete, and ``migration.ledger`` and ``migration.quarantine`` on the target hold everything."""


class Part(BaseModel):
    """A part of the report; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


_Sealed = TypeVar("_Sealed", bound=Part)


def sealed(part: _Sealed) -> _Sealed:
    """The same with its ``digest``: the SHA-256 of its JSON without it."""
    body = part.model_dump_json(exclude={"digest"})
    return part.model_copy(update={"digest": hashlib.sha256(body.encode()).hexdigest()})


class TableReport(Part):
    """One table of the source, by its source name."""

    target: str = ""
    """The name of the table on the target."""
    source_rows: int = 0
    target_rows: int | None = None
    """Those of the source's; None where the run ended before they were counted."""
    own_rows: int = 0
    """Rows that the target alone has and that stay beside them (``rows: merge``)."""
    quarantined_rows: int = 0
    ledger_entries: int = 0
    differences: int = 0
    compared: Literal["", "digest", "typed"] = ""
    """How its content was proven: by digests of all rows, or value by value."""
    digest: str = ""
    """SHA-256 of its rows on the target, as the certificate has it."""
    target_bytes: int | None = None
    """Of the table on the target without its indexes; None where nobody asked."""
    copy_seconds: float | None = None
    """Of copying its rows, added up over the sessions that did so side by side; None where this run
    did not copy it."""


class LedgerItem(Part):
    """One value that was not carried over bit for bit."""

    table: str
    key: list[Any]
    """The row's key, in the JSON form of :func:`migration_job.values.to_json`."""
    column: str
    rule: str
    before: Any
    after: str | None


class QuarantineItem(Part):
    """One row that was kept out of its table."""

    table: str
    key: list[Any]
    column: str | None = None
    reason: str
    row: dict[str, Any]


class Difference(Part):
    """One thing on the target that is not as it must be."""

    kind: str
    """``value``, ``missing-row``, ``extra-row``, ``count``, ``constraint`` and the like."""
    table: str
    key: list[Any] | None = None
    column: str | None = None
    source: str | None = None
    """What is expected, shown as an SQLite literal or a sentence."""
    target: str | None = None
    """What is there."""
    message: str


class TableCertificate(Part):
    """What was proven of one table's content."""

    rows: int
    quarantined: int
    compared: Literal["digest", "typed"]
    digest: str
    """SHA-256 over the digests of its blocks, in order."""


class Certificate(Part):
    """What verification proved; :func:`sealed`."""

    run_id: str
    job_version: str
    plan_digest: str
    source: str
    snapshot_sha256: str
    """Of the snapshot's content, as the backup's manifest has it (``content_sha256``)."""
    position: int | None
    """The position in the source's change log up to which this holds; None without capture."""
    tables: dict[str, TableCertificate]
    ledger_count: int
    ledger_digest: str
    quarantine_count: int
    quarantine_digest: str
    relations: dict[str, int]
    """How many of each kind of relation were checked and found right."""
    checks: dict[str, str] = Field(default_factory=dict)
    """Application checks and performance: name to result."""
    deep: bool
    target_version: str
    durable: bool
    """Whether the server has ``fsync`` on, so that what is committed survives a power cut."""
    began_at: str
    issued_at: str
    digest: str = ""


class Step(Part):
    """One step of a command; its name is one of ``protocol/fault_points.py``."""

    name: str
    at_ms: float
    """From the command's beginning to the step's."""
    took_ms: float
    failed: bool = False


class Move(Part):
    """One `switch` or `rollback` that held the application or tried to: an entry of
    ``moves.json``."""

    command: Literal["switch", "rollback"]
    run_id: str
    began_at: str
    outcome: Literal["done", "failed"]
    message: str = ""
    held_ms: float | None = None
    """As the command said it; None where it did not come to its end."""
    steps: list[Step] = Field(default_factory=list)


class Report(Part):
    """The content of ``report.json``, or of ``verify.json``."""

    outcome: Outcome
    phase: str
    """The last phase that was reached (design.md names them)."""
    command: Command = "migrate"
    """The command whose report it is."""
    stopped_in: str = ""
    """The part of the run, a name of ``seconds``, that an error ended; '' where none did, and for
    an error before, between or after them."""
    message: str = ""
    """The last words: what was done, or what went wrong and what to do next."""
    exit_status: int = 0
    run_id: str = ""
    source: str = ""
    target: str = ""
    """Where the target is; never a password."""
    profile: str = ""
    job_version: str = ""
    began_at: str = ""
    ended_at: str = ""
    tables: dict[str, TableReport] = Field(default_factory=dict)
    ledger: list[LedgerItem] = Field(default_factory=list)
    ledger_count: int = 0
    quarantine: list[QuarantineItem] = Field(default_factory=list)
    quarantine_count: int = 0
    differences: list[Difference] = Field(default_factory=list)
    difference_count: int = 0
    findings: list[Finding] = Field(default_factory=list)
    exceptions: list[str] = Field(default_factory=list)
    """What a verified run did not carry as the source's schema says it, in clauses."""
    seconds: dict[str, float] = Field(default_factory=dict)
    """Of each phase; they follow one another."""
    beside_seconds: dict[str, float] = Field(default_factory=dict)
    """Of what ran beside them."""
    certificate: Certificate | None = None
    backup: dict[str, Any] | None = None
    """The backup's manifest."""
    tuning: dict[str, str] = Field(default_factory=dict)
    """The target's settings that matter for speed and durability."""
    checks: list[dict[str, Any]] = Field(default_factory=list)
    performance: dict[str, Any] | None = None
