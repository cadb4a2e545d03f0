"""Whether the receiving server holds what the serving one does, proven before the hold and in it.

A slot tells every change from before the comparison on. A row that was not changed since then must
be the same on both sides when it is compared; one that was changed is compared again after its last
change. So nothing but what was changed in the last instants is left for the hold, whatever the
size; a table without a key, whose rows have no names, is compared as a whole where it was changed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import psycopg

from migration_job.errors import VerificationError
from migration_job.protocol.upgrade_ends import Server
from migration_job.stores.postgres import replication
from migration_job.stores.postgres.decoding import Changes
from migration_job.verify.servers import (
    WHOLE,
    Content,
    Differences,
    Key,
    ServerTable,
    compare,
    still_different,
)

ROUNDS = 30
"""At most, before the hold."""

SHORT_SECONDS = 0.1
"""A round that is as short as this leaves little for the hold."""

AGAIN = "`migration-job upgrade --abandon` and start over with an empty database"

Say = Callable[[str], None]


def differing(table: ServerTable, keys: set[Key]) -> VerificationError:
    """The error for rows that are not the same on both servers."""
    served = "the application is served as before"
    if not table.key:
        return VerificationError(
            f"expected the same rows on both servers, found others in {table.label}, which has no "
            "primary key: the receiving server was written to, or an UPDATE or DELETE met "
            "a row that is equal and not the same (0 and -0, 1.0 and 1.00, citext, jsonb)",
            advice=f"{served}. Give the table a primary key, then {AGAIN}",
        )
    shown = min(repr(key) for key in keys)
    return VerificationError(
        f"expected the same rows on both servers, found {len(keys)} that differ in "
        f"{table.label}, the first {'in the whole table' if keys == {WHOLE} else shown}",
        advice=f"{served}. The receiving server was written to, or its log says what it "
        f"did not apply: {AGAIN}",
    )


@dataclass(slots=True)
class Proof:
    """The comparison of two servers, one of which is written to and followed by the other."""

    source: Server
    target: Server
    tables: list[ServerTable]
    slot: psycopg.Connection
    """A session of its own on the source: the slot lives as long as it does."""
    limit: float
    contents: dict[str, Content] = field(default_factory=dict)
    pending: Differences = field(default_factory=dict)
    looked_at: int = 0
    """Rows that were compared again, since they had been changed."""

    def everything(self) -> None:
        """Compare every row. What differs is compared again in :meth:`rounds`."""
        replication.watch_changes(self.slot)
        self._follow()
        for table in self.tables:
            content, keys = compare(table, self.source.connection, self.target.connection)
            self.contents[table.label] = content
            self._add(table, keys)

    def rounds(self) -> float:
        """Look again at what was changed, until little is left. Gives the seconds of the last
        round, which are about those of the hold. Raises VerificationError."""
        took = 0.0
        before = float("inf")
        for _ in range(ROUNDS):
            replication.shorten(self.slot)
            began = time.monotonic()
            self._round()
            took = time.monotonic() - began
            if took < SHORT_SECONDS or took > 0.8 * before:
                break
            before = took
        return took

    def finally_equal(self) -> int:
        """With the source closed: all that was not yet seen to be equal is compared. Gives how many
        rows that were. Raises VerificationError where one differs."""
        self._follow()
        self._look()
        count = sum(len(keys) for keys in self.pending.values())
        for table, keys in self.pending.items():
            self._require_none(table, self._differing(table, keys))
        self.pending.clear()
        return count

    def _round(self) -> None:
        self._follow()
        touched = self._look()
        wanted, self.pending = self.pending, {}
        different = {table: self._differing(table, keys) for table, keys in wanted.items()}
        self._follow()
        # Changed since: looked at again. Not changed, and applied before: it must be equal.
        for table, keys in self._look().items():
            touched.setdefault(table, set()).update(keys)
        for table, keys in different.items():
            again = touched.get(table, set())
            if WHOLE not in again:
                self._require_none(table, keys - again)
            self._add(table, keys)

    def _differing(self, table: ServerTable, keys: set[Key]) -> set[Key]:
        self.looked_at += len(keys)
        return still_different(table, keys, self.source.connection, self.target.connection)

    def _require_none(self, table: ServerTable, keys: set[Key]) -> None:
        if keys:
            raise differing(table, keys)

    def _follow(self) -> None:
        token = replication.send_marker(self.source.connection)
        replication.await_marker(self.target.connection, token, self.limit)

    def _look(self) -> Differences:
        """What was changed since the last look; it is pending from then on."""
        changes = Changes()
        changes.take(replication.read_changes(self.slot))
        known = {(table.schema, table.name): table for table in self.tables}
        found = {known[n]: keys for n, keys in changes.touched.items() if n in known}
        for table, keys in found.items():
            self._add(table, keys)
        return found

    def _add(self, table: ServerTable, keys: set[Key]) -> None:
        if keys:
            self.pending.setdefault(table, set()).update(keys)
