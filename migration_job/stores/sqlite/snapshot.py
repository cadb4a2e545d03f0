"""The snapshot: one consistent state of the source, private to the job, and the backup "before".

It is taken in one read transaction, so no writer can slip in between, and everything else (plan,
copy, verification) reads the snapshot, so the application goes on writing meanwhile. Where a
write-ahead log is in use it is copied by SQLite's backup API; the log grows meanwhile by what is
written. A transaction for each step would not do: the API begins anew whenever another connection
has written. Without a log the file is all there is, and while the transaction's lock keeps writers
out of it, it is copied as it is, by the kernel: that keeps every byte, and takes no time where the
file system can share the blocks (XFS, Btrfs).

The source is never written to, which for SQLite takes some care, since a read-only connection may
still create ``-wal`` and ``-shm``, or want to roll a journal back:

* a database in WAL mode that nobody has open is read as immutable, and read again with locks if
  it or its log changed in the meantime;
* a crashed writer's journal or log is replayed in a private copy, not beside the source;
* everything else is an ordinary read-only connection, and it keeps its hands off the log when it
  closes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote as url_quote

import apsw

from migration_job.errors import InputError, OperationError
from migration_job.quoting import compose
from migration_job.stores.sqlite.beside import beside, is_journal, size
from migration_job.stores.sqlite.database import HEADER, equip, open_readonly
from migration_job.stores.sqlite.distrust import distrust

NAME = "snapshot.db"

HASH_BLOCK = 1 << 20

SPACE_MARGIN = 64 << 20
"""Bytes that must stay free beside the snapshot: the report, and room for others to live."""

ATTEMPTS = 3
"""How often an unlocked read is tried before falling back to a locked one."""

WAL_VERSIONS = bytes([2, 2])
"""Bytes 18 and 19 of the header, the file format's versions, of a database in WAL mode."""

HEADER_BYTES = 100

COUNTERS = ((18, 20), (24, 32), (40, 44), (92, 100))
"""Where the header (fileformat2, section 1.3) has its format versions, the change counter and size
in pages, the schema cookie, and who wrote it last."""

LOCK_BYTES = (0x40000000, 512)
"""Where SQLite's locks lie in the file: pending, reserved and the shared range."""

STEP = 32 << 20
"""Bytes copied before progress is told and a signal is heard."""

NO_RANGE = (errno.ENOSYS, errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM)
"""What the kernel answers that cannot copy between these two files by itself."""

Advance = Callable[[int], None]
"""Told how many more bytes of the snapshot are there."""

CACHE_KIB = 8_192
"""Page cache of one reader: enough for a scan, and flat whatever the file's size."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A finished snapshot."""

    source: Path
    path: Path
    bytes: int

    def connect(self) -> apsw.Connection:
        """A read-only connection of the caller's own. The file never changes, so it is opened
        without locks, and any number of threads may each have one."""
        return open_immutable(self.path)

    def digests(self) -> Digests:
        """The file's digests, computed again each time."""
        return digests_of(self.path)


@dataclass(frozen=True, slots=True)
class Digests:
    """SHA-256 twice, in hex: of the file as it is, and of the content alone."""

    file: str
    content: str
    """Without the header's counters and its journal mode, which differ between two copies of one
    state that were made in different ways."""


def open_immutable(path: Path) -> apsw.Connection:
    """A read-only connection to a file that nobody changes; InputError where it is damaged."""
    uri = f"file:{url_quote(os.fspath(path.absolute()))}?mode=ro&immutable=1"
    connection = apsw.Connection(uri, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
    try:
        equip(connection)
        distrust(connection)
        connection.execute(compose("PRAGMA cache_size = -{cache_kib}", cache_kib=CACHE_KIB))
    except (apsw.CorruptError, apsw.NotADBError) as error:
        connection.close()
        raise _damaged(error) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _damaged(error: apsw.Error) -> InputError:
    return InputError(
        f"the source is damaged: {error}",
        advice="restore a backup, or recover what can be read with "
        "`sqlite3 source.db .recover | sqlite3 recovered.db`, and run on that",
    )


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(HASH_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def digests_of(path: Path) -> Digests:
    """Both digests of a database file, in one reading."""
    whole, content = hashlib.sha256(), hashlib.sha256()
    with path.open("rb") as stream:
        header = stream.read(HEADER_BYTES)
        whole.update(header)
        content.update(_without_counters(header))
        while block := stream.read(HASH_BLOCK):
            whole.update(block)
            content.update(block)
    return Digests(whole.hexdigest(), content.hexdigest())


def _without_counters(header: bytes) -> bytes:
    blank = bytearray(header)
    for start, end in COUNTERS:
        blank[start:end] = bytes(len(blank[start:end]))
    return bytes(blank)


def state_sha256(reader: apsw.Connection, folder: Path) -> str:
    """The content's digest (:class:`Digests`) of the state that ``reader`` sees now; needs room for
    one more copy in ``folder`` while it runs. Raises as :func:`take` does."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    copy = folder / "recheck.db"
    try:
        _copy(reader, copy)
        return digests_of(copy).content
    finally:
        copy.unlink(missing_ok=True)


def copy_state(reader: apsw.Connection, folder: Path) -> Path:
    """The state that ``reader`` sees now, as a file of its own in ``folder``, through the
    connection that there is. Raises as :func:`take` does."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    copy = folder / "state.db"
    _copy(reader, copy)
    return copy


@contextmanager
def glance(source: Path) -> Iterator[apsw.Connection | None]:
    """The source itself for a look before anything is copied, where its readers keep no writer
    waiting (it has a write-ahead log); else None. There is no transaction, so that the log does not
    grow for as long as the look takes: two statements may see two states, and what stops a run has
    to be seen again on a copy. Raises OperationError at the end where the look is worth nothing.
    """
    source = source.absolute()
    before = _closed_log_state(source)
    if before is not None:
        with contextlib.closing(open_immutable(source)) as connection:
            yield connection
        if _closed_log_state(source) != before:
            raise OperationError("the source was opened while it was checked")
        return
    if not beside(source, "-wal").exists() or _crashed(source):
        yield None
        return
    with contextlib.closing(_gentle(source)) as connection:
        connection.execute(compose("PRAGMA cache_size = -{cache_kib}", cache_kib=CACHE_KIB))
        yield connection if connection.pragma("journal_mode") == "wal" else None


def take(source: Path, folder: Path, advance: Advance = lambda _: None) -> Snapshot:
    """Copy the present state of ``source`` to ``folder``; an older snapshot there is replaced.

    Call it while this process has no other connection to the source: looking at the file closes
    a descriptor, and that drops the process's POSIX locks on it. Raises InputError for a source
    that cannot be read, OperationError where the disk is full.
    """
    source = source.absolute()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _require_space(source, folder)
    final, partial = folder / NAME, folder / (NAME + ".partial")
    if not any(_copied_undisturbed(source, partial, advance) for _ in range(ATTEMPTS)):
        with _readable(source, folder) as reader:
            if reader.pragma("journal_mode") == "wal" or Path(reader.filename) != source:
                _copy(reader, partial, advance)
            else:
                _copy_locked(source, partial, advance)
    partial.replace(final)
    _fsync_directory(folder)
    return Snapshot(source=source, path=final, bytes=final.stat().st_size)


def make_durable(path: Path) -> None:
    """Have the file's bytes on the disk before it counts as a backup."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
    _fsync_directory(path.parent)


def _fsync_directory(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _require_space(source: Path, folder: Path) -> None:
    needed = SPACE_MARGIN
    for suffix in ("", "-wal"):
        needed += size(beside(source, suffix))
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OperationError(
            f"expected {needed >> 20} MiB free for the snapshot in {folder}, found {free >> 20}",
            advice="free some space or give a --report directory on a larger disk",
        )


def _private(partial: Path) -> None:
    """An empty file that only this user can read."""
    partial.unlink(missing_ok=True)
    os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def _full(partial: Path) -> OperationError:
    return OperationError(
        f"the disk is full while the snapshot is written to {partial.parent}",
        advice="free some space or give a --report directory on a larger disk",
    )


def _copy_file(source: Path, partial: Path, advance: Advance) -> None:
    """The file's bytes, by the kernel's own means."""
    _private(partial)
    with source.open("rb", buffering=0) as old, partial.open("r+b", buffering=0) as new:
        while count := _copy_range(old.fileno(), new.fileno()):
            advance(count)


def _copy_range(old: int, new: int) -> int:
    """Copy some more from where both files stand; how many bytes, 0 at the end."""
    if hasattr(os, "copy_file_range"):
        try:
            return os.copy_file_range(old, new, STEP)
        except OSError as error:
            if error.errno not in NO_RANGE:
                raise
    block = os.read(old, HASH_BLOCK)
    left = memoryview(block)
    while left:
        left = left[os.write(new, left) :]
    return len(block)


def _copy_locked(source: Path, partial: Path, advance: Advance) -> None:
    """The same while a read transaction is open; closing the file afterwards gives up its lock."""
    try:
        _copy_file(source, partial, advance)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _full(partial) from error
        raise InputError(
            f"the source cannot be read: {source}: {error.strerror}",
            advice="check the disk that it is on",
        ) from error


def _copy(reader: apsw.Connection, partial: Path, advance: Advance = lambda _: None) -> None:
    """The state that the reader's transaction sees, by SQLite's backup API."""
    _private(partial)
    writer = apsw.Connection(os.fspath(partial))
    try:
        # The file is worthless until it is complete, so a journal of its own would be too.
        writer.execute("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF")
        distrust(writer)
        page_bytes = int(reader.pragma("page_size"))
        with writer.backup("main", reader, "main") as backup:
            done = 0
            while not backup.done:
                backup.step(STEP // page_bytes)
                before, done = done, backup.page_count - backup.remaining
                advance((done - before) * page_bytes)
    except apsw.FullError as error:
        raise _full(partial) from error
    except (apsw.BusyError, apsw.LockedError) as error:
        raise OperationError(
            "the source is locked by another process",
            advice="another program holds an exclusive lock; end its transaction and run again",
        ) from error
    except (apsw.CorruptError, apsw.NotADBError) as error:
        raise _damaged(error) from error
    finally:
        writer.close()


def _copied_undisturbed(source: Path, partial: Path, advance: Advance) -> bool:
    """Copy a file in WAL mode that nobody has open, without the ``-wal`` and ``-shm`` that a
    reader with locks would leave beside it. False where that is not the case, or ceased to be."""
    try:
        before = _closed_log_state(source)
        if before is None:
            return False
        _copy_file(source, partial, advance)
        return _closed_log_state(source) == before
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _full(partial) from error
        # The way with locks meets the same fault, and explains it.
        return False


def _closed_log_state(source: Path) -> tuple[int, int, int] | None:
    """The file's stamp where it is in WAL mode and nobody has it open, else None."""
    with source.open("rb") as stream:
        header = stream.read(len(HEADER) + 4)
    in_wal_mode = header.startswith(HEADER) and header[18:20] == WAL_VERSIONS
    wal, shm = beside(source, "-wal"), beside(source, "-shm")
    if not in_wal_mode or shm.exists() or size(wal) or _held(source):
        return None
    return _stamp(source)


@contextmanager
def _readable(source: Path, folder: Path) -> Iterator[apsw.Connection]:
    """A connection in a read transaction on the source's present state, by the gentlest way."""
    if source.is_file() and _crashed(source):
        with _recovered(source, folder) as connection:
            yield connection
        return
    connection = _gentle(source)
    try:
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
        yield connection
    finally:
        connection.close()


def _gentle(source: Path) -> apsw.Connection:
    connection = open_readonly(source)
    # Closing as the last connection would otherwise move the log into the file.
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    return connection


def _crashed(source: Path) -> bool:
    """Whether a writer died here: a journal to roll back, or a log that nobody has open. A writer
    that lives leaves none for long: what was left has to be the same at a second look."""
    left = _left(source)
    if left is None or _held(source):
        return False
    return _left(source) == left and not _held(source)


def _left(source: Path) -> tuple[int, int, int] | None:
    """The stamp of what a writer has begun and not ended; None where there is no such thing."""
    journal, wal, shm = (beside(source, s) for s in ("-journal", "-wal", "-shm"))
    begun = [journal] if is_journal(journal) else []
    begun += [wal] if size(wal) and not shm.exists() else []
    try:
        return _stamp(begun[0]) if begun else None
    except FileNotFoundError:
        return None


def _held(source: Path) -> bool:
    """Whether any other process holds one of SQLite's locks on the file; only asks, takes none."""
    start, length = LOCK_BYTES
    if sys.platform == "darwin":
        layout, values = "qqihh", (start, length, 0, fcntl.F_WRLCK, os.SEEK_SET)
        position = 3
    else:
        layout, values = "hhqqi", (fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
        position = 0
    with source.open("rb") as stream:
        answer = fcntl.fcntl(stream.fileno(), fcntl.F_GETLK, struct.pack(layout, *values))
    return bool(struct.unpack(layout, answer)[position] != fcntl.F_UNLCK)


@contextmanager
def _recovered(source: Path, folder: Path) -> Iterator[apsw.Connection]:
    """Replay a crashed writer's journal or log in a private copy of the files."""
    private = folder / "recovery"
    shutil.rmtree(private, ignore_errors=True)
    private.mkdir(mode=0o700)
    files = [f for f in (beside(source, s) for s in ("", "-journal", "-wal")) if f.is_file()]
    try:
        if not _copied_as_they_were(files, private) or _held(source):
            raise OperationError(
                "the source changed while a crashed writer's journal was copied",
                advice="the application was started at this moment: run the command again",
            )
        connection = apsw.Connection(
            os.fspath(private / beside(source, "").name), flags=apsw.SQLITE_OPEN_READWRITE
        )
        try:
            equip(connection)
            distrust(connection)
            connection.execute("BEGIN")
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
            yield connection
        finally:
            connection.close()
    finally:
        shutil.rmtree(private, ignore_errors=True)


def _copied_as_they_were(files: Sequence[Path], folder: Path) -> bool:
    """Copy the files to the folder; whether none of them changed or went meanwhile."""
    try:
        before = [_stamp(f) for f in files]
        for file in files:
            shutil.copyfile(file, folder / file.name)
        return before == [_stamp(f) for f in files]
    except FileNotFoundError:
        return False


def _stamp(file: Path) -> tuple[int, int, int]:
    state = file.stat()
    return state.st_ino, state.st_size, state.st_mtime_ns
