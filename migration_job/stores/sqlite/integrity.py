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

import apsw

from migration_job.quoting import compose
from migration_job.stores.sqlite.database import check_integrity

FULL_BYTES = 64 << 20
"""Up to here everything is checked at once: it takes about a second, beside the copy."""

CACHE_KIB = 65_536
"""The check's page cache: with a scan's small one a third of its time goes into reading the same
pages again."""


def name(*, full: bool) -> str:
    """What is checked, in SQLite's own word for it."""
    return "integrity check" if full else "quick check of the integrity"


def check(connection: apsw.Connection, *, full: bool) -> None:
    """Raises InputError where the file is damaged; ``full`` also looks each row up in each index.

    Values that break the file's own constraints are not damage: preflight reports those.
    """
    connection.execute(compose("PRAGMA cache_size = -{cache_kib}", cache_kib=CACHE_KIB))
    check_integrity(connection, quick=not full)
