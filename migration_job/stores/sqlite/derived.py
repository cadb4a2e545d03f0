"""What the source derives from its rows: full-text indexes over another table.

The way back writes rows without triggers, so that an index which the application's triggers keep
is behind its table afterwards: ``MATCH`` finds old words, and the next DELETE would meet "database
disk image is malformed". So it is looked at, and made anew where it is not in step, before SQLite
opens.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

import apsw

from migration_job.quoting import sqlite_name, sqlite_table
from migration_job.stores.sqlite.model import Catalogue

_OVER_ANOTHER = re.compile(
    r"using\s+(fts[345])\b.*\bcontent\s*=\s*(?:'[^']|\"[^\"]|\[|`|\w)", re.IGNORECASE | re.DOTALL
)
"""A full-text index with external content; ``content=''`` has none."""


@dataclass(frozen=True, slots=True)
class InStep:
    """What was done for one full-text index."""

    name: str
    rebuilt: bool
    seconds: float
    problem: str = ""
    """Why it could be neither checked nor made anew: it may be behind its table."""

    def __str__(self) -> str:
        if self.problem:
            return (
                f"warning: the full-text index {self.name} could not be brought in step with its "
                f"table ({self.problem}): have the application rebuild it before it searches"
            )
        done = "made anew" if self.rebuilt else "found in step"
        return f"the full-text index {self.name} was {done} in {self.seconds:.2f} s"


def full_text(catalogue: Catalogue) -> Iterator[tuple[str, str]]:
    """Name and module of each full-text index over another table or view."""
    for other in catalogue.others:
        found = _OVER_ANOTHER.search(other.sql) if other.kind == "virtual" else None
        if found is not None:
            yield other.name, found[1].lower()


def kept_by_sqlite(catalogue: Catalogue) -> list[str]:
    """For people: what SQLite keeps up and a target of this job's does not by itself."""
    said = [
        f"trigger {other.name} of {other.table}"
        for other in catalogue.others
        if other.kind == "trigger"
    ]
    return said + [f"full-text index {name}" for name, _ in full_text(catalogue)]


def bring_in_step(connection: apsw.Connection, catalogue: Catalogue) -> list[InStep]:
    """Check each full-text index against its table, and make it anew where it differs, inside the
    caller's transaction. Takes time with the tables' sizes."""
    return [_bring(connection, name, module) for name, module in full_text(catalogue)]


def _bring(connection: apsw.Connection, name: str, module: str) -> InStep:
    start = time.monotonic()
    rebuilt = False
    try:
        if not _in_step(connection, name, module):
            _tell(connection, name, "rebuild")
            rebuilt = True
            if not _in_step(connection, name, module):
                return InStep(
                    name, rebuilt, time.monotonic() - start, "made anew, it still differs"
                )
    except apsw.SQLError as error:
        # A tokenizer or a module that only the application has, or content that is gone.
        return InStep(name, rebuilt, time.monotonic() - start, str(error))
    return InStep(name, rebuilt, time.monotonic() - start)


def _in_step(connection: apsw.Connection, name: str, module: str) -> bool:
    try:
        if module == "fts5":
            # 1: against the content too, and not only in itself.
            connection.execute(
                f"INSERT INTO {sqlite_table(name)} ({sqlite_name(name)}, rank) "
                "VALUES ('integrity-check', 1)"
            )
        else:
            _tell(connection, name, "integrity-check")
    except apsw.CorruptError:
        return False
    return True


def _tell(connection: apsw.Connection, name: str, command: str) -> None:
    connection.execute(
        f"INSERT INTO {sqlite_table(name)} ({sqlite_name(name)}) VALUES (?)", (command,)
    )
