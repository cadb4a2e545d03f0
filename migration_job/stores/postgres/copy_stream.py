"""A worker's connections, and one table's COPY into the target."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import apsw
import psycopg

from migration_job.errors import OperationError
from migration_job.stores.postgres import records

BLOCK_BYTES = 128 << 10
"""What one block aims at. Larger ones fit no processor cache, on neither side: a megabyte takes a
twentieth longer."""

PENDING_ENTRIES = 5_000
"""Ledger entries held back before they are written: the table's COPY pauses for them."""


Advance = Callable[[int], None]
"""Called with the rows of each block."""


@dataclass(slots=True)
class Session:
    """One worker's connections: the snapshot and the target."""

    source: apsw.Connection
    target: psycopg.Connection
    stopped: threading.Event = field(default_factory=threading.Event)
    collate: str = ""
    """The collation that columns of text are given; '' for the database's own."""
    spent: list[tuple[str, float]] = field(default_factory=list)
    """Each copy of a table, or of a part of one: the target's name, and the seconds. Several
    sessions may share the list."""

    def close(self) -> None:
        self.source.close()
        self.target.close()

    def cancel(self) -> None:
        self.stopped.set()
        self.source.interrupt()
        # A refused cancellation leaves a statement that ends by itself.
        with suppress(psycopg.Error):
            self.target.cancel_safe(timeout=5.0)


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a table's copy did."""

    rows: int
    quarantined: int
    ledger: int


class TableStream:
    """A table's COPY, which can be paused for the ledger's."""

    def __init__(self, session: Session, statement: str, advance: Advance) -> None:
        self._session = session
        self._statement = statement
        self._advance = advance
        self._copy: psycopg.Copy | None = None
        self._cursor = session.target.cursor()
        self._manager: AbstractContextManager[psycopg.Copy] | None = None
        self._pending: list[records.LedgerEntry] = []
        self.rows = 0
        self.ledger = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end(kind, error, trace)
        if kind is None:
            self._flush()
        self._cursor.close()

    def write(self, data: bytes, rows: int) -> None:
        """Send whole lines, or a piece of one with ``rows`` 0."""
        if self._session.stopped.is_set():
            raise OperationError("the copy was stopped because another part of it failed")
        if self._copy is None:
            self._manager = self._cursor.copy(self._statement)
            self._copy = self._manager.__enter__()
        self._copy.write(data)
        self.rows += rows
        self._advance(rows)

    def note(self, entry: records.LedgerEntry) -> None:
        """Keep a ledger entry for the table's transaction; call it between whole lines."""
        self._pending.append(entry)
        self.ledger += 1
        if len(self._pending) >= PENDING_ENTRIES:
            self._end(None, None, None)
            self._flush()

    def _end(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        manager, self._manager, self._copy = self._manager, None, None
        if manager is not None:
            manager.__exit__(kind, error, trace)

    def _flush(self) -> None:
        if self._pending:
            records.add_ledger(self._session.target, iter(self._pending))
            self._pending = []
