"""The source's own state: who serves, and the lock under which that is decided.

``closed`` in ``_migration_state`` is the decision in both directions: 0, SQLite serves; 1,
PostgreSQL does. It changes only in a transaction of this job's, and that commit is the moment.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote as url_quote

import apsw

from migration_job.errors import InputError, OperationError
from migration_job.quoting import compose, sqlite_name
from migration_job.stores.sqlite import holders
from migration_job.stores.sqlite.beside import beside
from migration_job.stores.sqlite.capture import LOG, STATE, installed
from migration_job.stores.sqlite.database import add_functions, explained, require_database
from migration_job.stores.sqlite.distrust import distrust
from migration_job.stores.sqlite.waiting import POLL_SECONDS, PatientConnection, waiting


class LockedError(OperationError):
    """The source's lock was not to be had in time; nothing was changed, and it can be tried
    again."""


@dataclass(frozen=True, slots=True)
class SourceState:
    """The row of ``_migration_state``."""

    run: str
    capture: str
    """One installation of capture; positions in the log count within it."""
    offline: bool
    """Installed by the switch after an offline ``migrate``, and gone again after a rollback."""
    closed: bool
    reads_moved: bool
    settled: bool
    schema_version: int
    schema_digest: str
    certificate: str | None
    one_way: tuple[str, ...]
    """Tables whose changes on the target do not come back."""
    switched_at: str | None
    back_at: str | None
    """The target's clock at the snapshot up to which the source holds its changes."""
    back_position: str | None
    """The target's WAL position at that snapshot."""
    token: str
    """Newly chosen by each of the job's own transactions that bring rows or take a decision; the
    target knows it too, so that an older copy of the file is told from this one."""
    doubt: str | None
    """Why the capture may have missed something, until the content has been proved equal."""


def open_source(path: Path) -> apsw.Connection:
    """The job's own writing connection: no triggers and no foreign-key actions fire for what it
    writes, and its commits survive a power cut. It waits for locks for as long as the process may
    (:func:`migration_job.stores.sqlite.waiting.patience`). Raises InputError where the file is no
    database, OperationError where it is locked all the while."""
    require_database(path)
    uri = f"file:{url_quote(os.fspath(path.absolute()))}?mode=rw"
    try:
        connection = PatientConnection(uri, flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_URI)
        try:
            # The schema is the application's, or whoever's made the file.
            distrust(connection)
            _equip(connection)
        except BaseException:
            connection.close()  # its handlers know it, so that nothing else ever does
            raise
    except (apsw.BusyError, apsw.LockedError, apsw.NotADBError, apsw.CorruptError) as error:
        raise explained(path, error) from error
    except apsw.Error as error:
        raise InputError(
            f"the source cannot be opened for writing: {path}: {error}",
            advice="the job needs the right to write the file and its directory, as the "
            "application does",
        ) from error
    return connection


def _equip(connection: PatientConnection) -> None:
    add_functions(connection)
    connection.wait_for_locks()
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_FKEY, 0)
    connection.pragma("synchronous", "EXTRA")
    connection.pragma("temp_store", "MEMORY")
    connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()


def read_state(connection: apsw.Connection) -> SourceState | None:
    """The state, or None where no capture is installed."""
    if not installed(connection):
        return None
    row = connection.execute(
        compose(
            "SELECT run, capture, plain, closed, reads_moved, settled, schema_version, "
            "schema_digest, certificate, one_way, switched_at, back_at, back_position, "
            "token, doubt FROM {state}",
            state=sqlite_name(STATE),
        )
    ).fetchone()
    if row is None:
        raise OperationError(
            f"expected one row in {STATE} on the source, found none",
            advice="something else has written there; restore the file from its backup",
        )
    return SourceState(
        run=str(row[0]),
        capture=str(row[1]),
        offline=bool(row[2]),
        closed=bool(row[3]),
        reads_moved=bool(row[4]),
        settled=bool(row[5]),
        schema_version=int(row[6]),
        schema_digest=str(row[7]),
        certificate=row[8],
        one_way=tuple(json.loads(row[9] or "[]")),
        switched_at=row[10],
        back_at=row[11],
        back_position=row[12],
        token=str(row[13]),
        doubt=row[14],
    )


def change_state(connection: apsw.Connection, **values: str | int | None) -> None:
    """Change columns of the state, inside the caller's transaction."""
    terms = ", ".join(f"{sqlite_name(name)} = ?" for name in values)
    connection.execute(
        compose("UPDATE {state} SET {terms}", state=sqlite_name(STATE), terms=terms),
        tuple(values.values()),
    )


@contextlib.contextmanager
def writing(connection: apsw.Connection, *, limit: float) -> Iterator[None]:
    """One write transaction; other writers wait in their busy timeout meanwhile.

    The lock is asked for until ``limit`` seconds are over, and so is the commit, which readers may
    hold up where the file is not in WAL mode. Everything is rolled back where the block raises.
    Raises LockedError where the lock is not to be had.
    """
    hold_writers(connection, limit=limit)
    try:
        yield
        commit(connection, limit=limit)
    except BaseException:
        give_up(connection)
        raise


def hold_writers(connection: apsw.Connection, *, limit: float) -> None:
    """``BEGIN IMMEDIATE``, asked for until ``limit`` seconds are over. Raises LockedError."""
    _until(connection, limit, "BEGIN IMMEDIATE", "the source's write lock")


def commit(connection: apsw.Connection, *, limit: float) -> None:
    """Commit, durably; where readers hold it up, asked for until ``limit`` seconds are over. Raises
    LockedError with the transaction still open. After any other error it is not known whether the
    transaction is durable: only the file, reread, says so."""
    _until(connection, limit, "COMMIT", "the end of reading on the source")


def give_up(connection: apsw.Connection) -> None:
    """Roll back where a transaction is open. For an error that is on its way: where the rollback
    fails too, the connection's end does it."""
    if connection.in_transaction:
        with contextlib.suppress(apsw.Error):
            connection.execute("ROLLBACK")


def _until(connection: apsw.Connection, limit: float, statement: str, what: str) -> None:
    deadline = time.monotonic() + limit
    while True:
        try:
            with waiting(connection, max(deadline - time.monotonic(), 0)):
                connection.execute(statement)
            return
        except apsw.BusyError as error:
            if time.monotonic() > deadline:
                raise LockedError(
                    f"expected {what} within {limit:.3g} s, found the source locked by another "
                    f"program all that time{holders.in_words(Path(connection.filename))}",
                    advice="the application is served as before; end its long transaction and "
                    "run the command again",
                ) from error
        time.sleep(POLL_SECONDS)


def last_position(connection: apsw.Connection) -> int:
    """The last position in the log: everything committed up to now is at or before it."""
    row = connection.execute(compose("SELECT max(seq) FROM {log}", log=sqlite_name(LOG))).fetchone()
    return 0 if row is None or row[0] is None else int(row[0])


def token_at(connection: apsw.Connection, position: int) -> str | None:
    """The token of the log's row at this position, as hex; None where there is no such row."""
    row = connection.execute(
        compose("SELECT hex(token) FROM {log} WHERE seq = ?", log=sqlite_name(LOG)), (position,)
    ).fetchone()
    return None if row is None else str(row[0])


def trim(connection: apsw.Connection, position: int, *, rows: int) -> int:
    """Delete up to ``rows`` of the log that the target has applied durably (``position``), never
    its last row, in the caller's transaction; returns how many."""
    log = sqlite_name(LOG)
    connection.execute(
        compose(
            "DELETE FROM {log} WHERE seq IN (SELECT seq FROM {log} WHERE seq < ? "
            "AND seq < (SELECT max(seq) FROM {log}) ORDER BY seq LIMIT ?)",
            log=log,
        ),
        (position, rows),
    )
    return connection.changes()


def make_durable(path: Path) -> None:
    """Bring what is committed to the disk, so that the target never holds what the source could
    still lose in a power cut (the application may run with ``synchronous = NORMAL``)."""
    # Only the log: a descriptor of ours on the database file itself would, when it is closed, drop
    # the locks that SQLite holds on it in this process.
    try:
        descriptor = os.open(beside(path, "-wal"), os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
