"""The decision's own row, written in both directions inside a transaction of the source."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime

import apsw

from migration_job.source import fence


@dataclass(frozen=True, slots=True)
class Switched:
    """How a switch went."""

    held_ms: float
    """How long writers of the source waited at most; 0 where it was switched before."""
    position: int
    """The last position in the source's log that the certificate covers."""
    certificate: str


def take_decision(source: apsw.Connection, certificate: str, one_way: tuple[str, ...]) -> None:
    """Close the source, in the caller's transaction; its commit is the decision that PostgreSQL
    serves."""
    fence.change_state(
        source,
        closed=1,
        reads_moved=0,
        certificate=certificate,
        one_way=json.dumps(one_way),
        switched_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        back_at=None,
        back_position=None,
    )


def take_back(source: apsw.Connection, *, reads_moved: bool = False) -> None:
    """Open the source, in the caller's transaction; its commit is the decision that SQLite
    serves."""
    fence.change_state(
        source, closed=0, reads_moved=int(reads_moved), certificate=None, switched_at=None
    )
