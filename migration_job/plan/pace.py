"""How far a plan's look at every row is."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence

import apsw

from migration_job.quoting import compose, sqlite_table
from migration_job.stores.sqlite.catalogue import rowid_name
from migration_job.stores.sqlite.model import Catalogue, SourceTable
from migration_job.stores.sqlite.reader import rowid_bounds

Told = Callable[[int, int], None]
"""Is told how many rows are done, and of how many, as far as is known."""

SMALLEST_ROW = 8
"""Bytes that a row takes in a file at least: rowids that are further apart than a file could hold
rows say nothing of how many there are."""


class Pace:
    """Tells how far the planning is. It meets every row twice, to count its values and to try the
    rules on them: each time the row is half done. Safe to call from several threads.

    How many rows there will be is known of the rowids, before anything has been read; what turns
    out to be otherwise is mended as it is counted.
    """

    def __init__(self, told: Told | None) -> None:
        self._told = told
        self._lock = threading.Lock()
        self._expected: dict[str, int] = {}
        self._rows: Counter[str] = Counter()
        self._to_come = self._tried = 0.0

    def begin(self, connection: apsw.Connection, catalogue: Catalogue) -> None:
        """Find out how many rows there are about."""
        if self._told is None:
            return
        virtual = {table.name for table in catalogue.virtual}
        tables = [table for table in catalogue.tables if table.name not in virtual]
        self._expected = expected_rows(connection, tables)
        self._to_come = float(sum(self._expected.values()))
        self._tell()

    def counted(self, table: SourceTable, rows: int, parts: int) -> None:
        """One of so many parts of a table was looked at, and has so many rows."""
        if self._told is None:
            return
        with self._lock:
            self._rows[table.name] += rows
            self._to_come -= self._expected.get(table.name, 0) / parts
            self._tell()

    def tried(self, table: SourceTable, parts: int) -> None:
        """The rules were tried on one of so many parts of a table."""
        if self._told is None:
            return
        with self._lock:
            self._tried += self._rows[table.name] / parts
            self._tell()

    def _tell(self) -> None:
        counted = self._rows.total()
        if self._told is not None:
            self._told(int(counted + self._tried) // 2, counted + max(round(self._to_come), 0))


def expected_rows(connection: apsw.Connection, tables: Sequence[SourceTable]) -> dict[str, int]:
    """About how many rows each table has, by its name: as many as its rowids leave room for, and
    counted where they say nothing."""
    ((size,),) = connection.execute(
        "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
    ).fetchall()
    most = int(str(size)) // SMALLEST_ROW
    return {table.name: _expected(connection, table, most) for table in tables}


def _expected(connection: apsw.Connection, table: SourceTable, most: int) -> int:
    if rowid_name(table) is not None:
        bounds = rowid_bounds(connection, table)
        if bounds is None:
            return 0
        if bounds[1] - bounds[0] < most:
            return bounds[1] - bounds[0] + 1
    count = compose("SELECT count(*) FROM {table}", table=sqlite_table(table.name))
    ((rows,),) = connection.execute(count).fetchall()
    return int(str(rows))
