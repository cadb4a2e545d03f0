"""Whether a source is whole: how much is looked at, and when.

``PRAGMA integrity_check`` looks every row up in every index, which takes a quarter of the time of
the whole migration. What is carried over are the tables: indexes are rebuilt on the target, and
rows are copied and compared in the order of the tables' own b-trees. So for an offline ``migrate``
of a large source every page of every b-tree is checked, and that every index has as many entries as
its table has rows (``quick_check``). That each entry is the right one as well is checked where
something rests on it: with capture, which finds rows by index; and before any switch, since the way
back writes to the source by index.
"""

from __future__ import annotations

from collections.abc import Callable

import apsw

from migration_job.quoting import compose
from migration_job.stores.sqlite.database import check_integrity
from migration_job.stores.sqlite.search_indexes import Misfit, misfits

FULL_BYTES = 64 << 20
"""Up to here everything is checked at once: it takes about a second, beside the copy."""

LEAST_CACHE, MOST_CACHE = 8 << 20, 64 << 20
"""The full check's page cache: with a scan's small one a third of its time goes into reading the
same pages again. It reads one table with its indexes after another, so that no more is of use than
a large one's pages: with thousands of tables, whose plan takes memory too, each is small. The quick
check reads each page once and has the least."""

TABLES_AT_ONCE = 8
"""Times the average table, since some are larger."""


def name(*, full: bool) -> str:
    """What is checked, in SQLite's own word for it."""
    return "integrity check" if full else "quick check of the integrity"


def check(
    connection: apsw.Connection, *, full: bool, again: Callable[[], apsw.Connection] | None = None
) -> tuple[Misfit, ...]:
    """Raises InputError where the file is damaged; ``full`` also looks each row up in each index.

    Values that break the file's own constraints are not damage: preflight reports those. Where
    ``again`` opens one more connection to the same state, the search indexes are returned that do
    not fit their rows, which is no damage either; a full check finds all of them.
    """
    cache = (_cache(connection) if full else LEAST_CACHE) >> 10
    connection.execute(compose("PRAGMA cache_size = -{cache}", cache=cache))
    told = check_integrity(connection, quick=not full)
    if again is None or not (full or told):
        return ()
    return misfits(connection, again if full else None, told=told)


def _cache(connection: apsw.Connection) -> int:
    """Bytes of page cache for the full check of this file."""
    try:
        ((size, tables),) = connection.execute(
            "SELECT page_count * page_size, "
            "(SELECT count(*) FROM sqlite_schema WHERE type = 'table') "
            "FROM pragma_page_count, pragma_page_size"
        ).fetchall()
    except apsw.Error:
        return LEAST_CACHE  # the check says what is wrong
    average = int(str(size)) // max(int(str(tables)), 1)
    return min(max(average * TABLES_AT_ONCE, LEAST_CACHE), MOST_CACHE)
