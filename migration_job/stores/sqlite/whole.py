"""Whether the source is still the one that was captured: the file, and all of the job's own objects
in it.

What is promised
    :meth:`OpenFile.require` tells a file that was removed, renamed away or replaced, and a
    write-ahead log that was, as long as this process has the file open: SQLite itself would go on
    with the inode that nobody else can reach.
    :func:`own_gaps` tells every trigger and table of the capture that is missing, was changed or is
    not this job's, by the text that was recorded when the capture was installed.
    :func:`application_changes` says the same of the application's own schema.

What cannot be seen so is a trigger that was taken away and put back, word for word, between two
looks: see :mod:`migration_job.protocol.content`.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from pathlib import Path

import apsw

from migration_job.errors import ExitStatus, OperationError, VerificationError
from migration_job.quoting import compose, sqlite_name, sqlite_text
from migration_job.stores.sqlite.beside import beside
from migration_job.stores.sqlite.catalogue import MARK, OWN_PREFIX

OBJECTS = f"{OWN_PREFIX}objects"
"""The schema as it was when the capture was installed, the capture's own objects included."""

SIDECARS = ("-wal", "-shm")

SHOWN = 3


class NotWhole(OperationError):
    """The source is not the one that was captured, or not all of the capture is on it: nothing that
    is read from it proves anything any more."""


class WrittenAround(NotWhole, VerificationError):
    """The content differs though all that was captured has been carried over."""

    status = ExitStatus.VERIFICATION_FAILED


@dataclass(frozen=True, slots=True)
class SchemaObject:
    """One row of SQLite's schema table."""

    kind: str
    """``table``, ``index``, ``trigger`` or ``view``."""
    name: str
    table: str
    sql: str


@dataclass(slots=True)
class OpenFile:
    """The file that a connection has open, as its path named it then."""

    path: Path
    connection: apsw.Connection
    inode: tuple[int, int]
    beside: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Device and inode of the sidecars, as they were first seen."""

    @classmethod
    def of(cls, path: Path, connection: apsw.Connection) -> OpenFile:
        """Of a connection that has just been opened. Raises NotWhole where the file has been
        replaced meanwhile."""
        inode = _inode(path)
        if inode is None:
            raise gone(path)
        opened = cls(path, connection, inode)
        opened.require()
        return opened

    def require(self) -> None:
        """Raises NotWhole where the path does not name this file any more, or the files beside it
        are others than those that the connection works with."""
        found = _inode(self.path)
        if found is None:
            raise gone(self.path)
        if found != self.inode or self._has_moved():
            raise NotWhole(
                f"another file is at {self.path} than the one that was opened: it was replaced, "
                "by a restored backup for instance",
                advice=START_OVER,
            )
        for suffix in SIDECARS:
            file = beside(self.path, suffix)
            now, before = _inode(file), self.beside.get(suffix)
            if before is None and now is not None:
                self.beside[suffix] = now
            elif before is not None and now != before:
                word = "is gone" if now is None else "was replaced"
                raise NotWhole(
                    f"{file.name} {word} while the database was open: what the application "
                    "commits goes where no other process reads it",
                    advice="stop the application at once, and copy what it still has open "
                    "(/proc/PID/fd) before it ends; " + START_OVER,
                )

    def _has_moved(self) -> bool:
        moved = ctypes.c_int(0)
        known = self.connection.file_control(
            "main", apsw.SQLITE_FCNTL_HAS_MOVED, ctypes.addressof(moved)
        )
        return bool(known) and moved.value != 0


START_OVER = (
    "nothing more is copied. Where this file is the right one and SQLite serves, run "
    "`migration-job release` and `migration-job migrate --live` to start over from it; else put "
    "the right file back"
)


def gone(path: Path) -> NotWhole:
    """The error for a source whose path names nothing."""
    return NotWhole(
        f"the source is gone: there is no file at {path}; it was removed or renamed",
        advice="put the file back (a process that has it open still holds its content: "
        "/proc/PID/fd), then ask again",
    )


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


# ------------------------------------------------------------------------------ the schema


_OWN = (
    f"(name LIKE {sqlite_text(OWN_PREFIX.replace('_', '!_') + '%')} ESCAPE '!' OR tbl_name LIKE "
    + (f"{sqlite_text(OWN_PREFIX.replace('_', '!_') + '%')} ESCAPE '!')")
)
_APPLICATIONS = (
    "sql IS NOT NULL AND name NOT LIKE 'sqlite!_%' ESCAPE '!' "
    f"AND NOT instr(sql, {sqlite_text(MARK)}) AND NOT {_OWN}"
)
_COLUMNS = "type, name, tbl_name, coalesce(sql, '')"


def record_objects(connection: apsw.Connection) -> None:
    """Record the schema as it is, in the transaction that installs the capture and as its last
    step."""
    connection.execute(
        compose(
            "CREATE TABLE {objects} {mark} (type TEXT, name TEXT, tbl_name TEXT, sql TEXT)",
            objects=sqlite_name(OBJECTS),
            mark=MARK,
        )
    )
    connection.execute(
        compose(
            "INSERT INTO {objects} SELECT {columns} FROM main.sqlite_schema "
            "WHERE {own} OR {applications}",
            objects=sqlite_name(OBJECTS),
            columns=_COLUMNS,
            own=_OWN,
            applications=_APPLICATIONS,
        )
    )


def record_again(connection: apsw.Connection, table: str) -> None:
    """Record one of the application's tables as it is now, in the transaction that altered it."""
    connection.execute(
        compose(
            "UPDATE {objects} SET sql = (SELECT sql FROM main.sqlite_schema AS s "
            "WHERE s.type = 'table' AND s.name = {objects}.name) "
            "WHERE type = 'table' AND name = ?",
            objects=sqlite_name(OBJECTS),
        ),
        (table,),
    )


def own_gaps(connection: apsw.Connection) -> list[str]:
    """What is not as it was of the capture's own objects, in words; empty where it is whole."""
    return _differences(connection, _OWN)


def application_changes(connection: apsw.Connection) -> list[str]:
    """The same for the application's objects."""
    return _differences(connection, _APPLICATIONS)


def recorded(connection: apsw.Connection) -> list[SchemaObject]:
    """The schema as it was recorded, tables first."""
    return [
        SchemaObject(*(str(value) for value in row))
        for row in connection.execute(
            compose(
                "SELECT type, name, tbl_name, sql FROM {objects} ORDER BY CASE type "
                "WHEN 'table' THEN 0 WHEN 'index' THEN 1 WHEN 'view' THEN 2 ELSE 3 END, rowid",
                objects=sqlite_name(OBJECTS),
            )
        )
    ]


def present(connection: apsw.Connection) -> dict[str, SchemaObject]:
    """The schema as it is, by name."""
    found = (
        SchemaObject(*(str(value) for value in row))
        for row in connection.execute(
            compose("SELECT {columns} FROM main.sqlite_schema", columns=_COLUMNS)
        )
    )
    return {one.name: one for one in found}


def _differences(connection: apsw.Connection, condition: str) -> list[str]:
    here = compose(
        "SELECT {columns} FROM main.sqlite_schema WHERE {condition}",
        columns=_COLUMNS,
        condition=condition,
    )
    was = compose(
        "SELECT type, name, tbl_name, sql FROM {objects} WHERE {condition}",
        objects=sqlite_name(OBJECTS),
        condition=condition,
    )
    lacking = connection.execute(f"{was} EXCEPT {here}").fetchall()
    extra = connection.execute(f"{here} EXCEPT {was}").fetchall()
    if not lacking and not extra:
        return []
    names = {str(row[1]) for row in extra}
    missing = {str(row[1]) for row in lacking}
    found = []
    for kind, name, table, _ in lacking:
        word = "is not as it was made" if str(name) in names else "is missing"
        on = "" if kind == "table" else f" on {table}"
        found.append(f"{kind} {name}{on} {word}")
    found += [f"{kind} {name} was added" for kind, name, _, _ in extra if str(name) not in missing]
    return found


def shown(gaps: list[str]) -> str:
    """The first few for a sentence."""
    more = f" and {len(gaps) - SHOWN} more" if len(gaps) > SHOWN else ""
    return ", ".join(gaps[:SHOWN]) + more
