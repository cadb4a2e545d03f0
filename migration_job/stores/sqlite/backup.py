"""The snapshot as a backup: a manifest that says what it is, and the way back from it.

While a run reads the snapshot it is the backup as it is. It is compressed beside that, read back,
and takes the snapshot's place at the end: at every moment the manifest names a file that is whole.
"""

from __future__ import annotations

import errno
import gzip
import os
import shutil
import threading
import time
from concurrent.futures import Executor, Future
from datetime import UTC, datetime
from pathlib import Path

import apsw
from pydantic import BaseModel, ConfigDict, ValidationError

from migration_job.durable import write_durably
from migration_job.errors import InputError, OperationError
from migration_job.shell_words import words
from migration_job.stores.sqlite.distrust import distrust
from migration_job.stores.sqlite.packed import SUFFIX, Packed, pack, unpack
from migration_job.stores.sqlite.snapshot import Snapshot, make_durable, sha256_of

MANIFEST = "manifest.json"

PARTIAL = ".partial"

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)

SIDECARS = ("-wal", "-shm", "-journal")


class Manifest(BaseModel):
    """What a backup is: written beside it as ``manifest.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    """The absolute path that was backed up."""
    file: str
    bytes: int
    sha256: str
    """Of the file."""
    content_sha256: str = ""
    """Of the content without the header's counters: equal for equal states. Left out of an
    archive."""
    unpacked_bytes: int | None = None
    """Of the database, where the file is compressed."""
    unpacked_sha256: str = ""
    """The same of its SHA-256."""
    taken_at: str
    """UTC, ISO 8601."""
    sqlite: str
    """Version of the SQLite library that wrote it."""
    run_id: str
    restore: str
    """The command that puts it back."""


def seal(snapshot: Snapshot, run_id: str) -> Manifest:
    """Make the snapshot durable, checksum it and write its manifest; it is a backup from here."""
    make_durable(snapshot.path)
    folder = snapshot.path.parent
    digests = snapshot.digests()
    manifest = Manifest(
        source=str(snapshot.source),
        file=snapshot.path.name,
        bytes=snapshot.bytes,
        sha256=digests.file,
        content_sha256=digests.content,
        taken_at=datetime.now(UTC).isoformat(timespec="seconds"),
        sqlite=apsw.sqlite_lib_version(),
        run_id=run_id,
        restore=f"migration-job restore-backup {words((str(folder), str(snapshot.source)))}",
    )
    _write_manifest(folder, manifest)
    # What an earlier run had compressed was the backup until now.
    packed = _packed(snapshot.path)
    packed.unlink(missing_ok=True)
    packed.with_name(packed.name + PARTIAL).unlink(missing_ok=True)
    return manifest


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    text = manifest.model_dump_json(indent=2) + "\n"
    write_durably(folder / MANIFEST, text.encode(), mode=0o600)


def _packed(snapshot: Path) -> Path:
    return snapshot.with_name(snapshot.name + SUFFIX)


class Backup:
    """The snapshot on its way to a backup, in a thread beside what reads it."""

    def __init__(self, pool: Executor, taken: Snapshot, run_id: str) -> None:
        self._taken = taken
        self._stop = threading.Event()
        self._sealed: Future[Manifest] = Future()
        self._packed = pool.submit(self._work, run_id)
        self.seconds = 0.0
        """What the compression took, once :meth:`finish` has ended."""

    def sealed(self) -> Manifest:
        """The backup as it is while the snapshot is read; waits for it. Raises what :func:`seal`
        raises."""
        return self._sealed.result()

    def stop(self) -> None:
        """Have an unfinished compression end soon; the snapshot stays the backup."""
        self._stop.set()

    def finish(self) -> tuple[Manifest, str]:
        """Have the compressed file take the place of the snapshot, which nobody reads any more; the
        manifest, and a sentence where the backup stays as it is because there is no room.

        Raises OperationError where the compressed file does not read back.
        """
        manifest = self.sealed()
        snapshot = self._taken.path
        packed = _packed(snapshot)
        partial = packed.with_name(packed.name + PARTIAL)
        try:
            done = self._packed.result()
            if done.content_sha256 != manifest.sha256:
                raise OSError(errno.EIO, f"SHA-256 {done.content_sha256}")
        except OSError as error:
            partial.unlink(missing_ok=True)
            if error.errno in NO_ROOM:
                return manifest, f"the backup stays uncompressed: {error.strerror}"
            raise OperationError(
                f"the compressed backup in {snapshot.parent} does not read back as it was written: "
                f"{error.strerror or error}",
                advice="check the disk and the memory of this machine, and run the command again",
            ) from error
        compressed = manifest.model_copy(
            update={
                "file": packed.name,
                "bytes": done.bytes,
                "sha256": done.sha256,
                "unpacked_bytes": manifest.bytes,
                "unpacked_sha256": manifest.sha256,
            }
        )
        partial.replace(packed)
        make_durable(packed)
        _write_manifest(snapshot.parent, compressed)
        snapshot.unlink()
        return compressed, ""

    def _work(self, run_id: str) -> Packed:
        try:
            manifest = seal(self._taken, run_id)
        except BaseException as error:
            self._sealed.set_exception(error)
            raise
        self._sealed.set_result(manifest)
        began = time.monotonic()
        packed = _packed(self._taken.path)
        done = pack(self._taken.path, packed.with_name(packed.name + PARTIAL), self._stop)
        self.seconds = time.monotonic() - began
        return done


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the backup in ``folder``. Raises InputError where there is none."""
    try:
        return Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except (OSError, ValidationError) as error:
        raise InputError(
            f"expected a backup with its {MANIFEST} in {folder}, found none that can be read",
            advice="give the directory that a run's report names as its backup",
        ) from error


def check(folder: Path) -> Manifest:
    """The manifest, once the backup's bytes are proven to be those it names."""
    manifest = read_manifest(folder)
    file = folder / manifest.file
    try:
        found = sha256_of(file)
    except OSError as error:
        raise InputError(f"the backup's file cannot be read: {file}: {error.strerror}") from error
    if found != manifest.sha256:
        raise InputError(
            f"expected SHA-256 {manifest.sha256} for {file}, found {found}",
            advice="this backup was changed or damaged since it was taken; do not use it",
        )
    return manifest


def restore(folder: Path, destination: Path, *, replace: bool) -> Path | None:
    """Put the backup in ``folder`` at ``destination``; returns where a database that was there
    is kept now.

    A journal or log left beside the destination belongs to the old file and would corrupt the
    new one, so it is moved away together with it. Raises InputError where the backup is not
    intact, where the destination exists and ``replace`` was not asked for, or is in use;
    OperationError where it cannot be written, or is not what was compressed.
    """
    manifest = check(folder)
    destination = destination.absolute()
    old = [p for p in _family(destination) if p.exists()]
    if old and not replace:
        raise InputError(
            f"expected nothing at {destination}, found {', '.join(p.name for p in old)}",
            advice="stop the application and add --replace: the present files are kept beside it",
        )
    partial = destination.with_name(destination.name + ".restoring")
    try:
        _unpack(folder / manifest.file, partial, manifest.unpacked_sha256)
    except OSError as error:
        partial.unlink(missing_ok=True)
        damaged = error.errno == errno.EIO
        raise OperationError(
            f"the backup cannot be restored to {partial}: {error.strerror or error}",
            advice=(
                "check the disk and the memory of this machine, and run the command again"
                if damaged
                else "free some space, or give another place"
            )
            + "; nothing was changed at the destination",
        ) from error
    if destination.exists():
        _require_idle(destination)
        shutil.copymode(destination, partial)
        # An application that runs as another user must be able to open what replaces its file.
        owner = destination.stat()
        if os.geteuid() == 0:
            os.chown(partial, owner.st_uid, owner.st_gid)
    make_durable(partial)
    kept = None
    if old:
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        kept = destination.with_name(f"{destination.name}.before-restore-{stamp}")
        for path in old:
            suffix = path.name[len(destination.name) :]
            path.replace(kept.with_name(kept.name + suffix))
    partial.replace(destination)
    make_durable(destination)
    return kept


def _unpack(file: Path, to: Path, sha256: str = "") -> None:
    """Copy what the backup's file holds, be it compressed, and see that it is what ``sha256`` says.
    What is in the copy's place, a symbolic link above all, goes: nothing is written through it."""
    to.unlink(missing_ok=True)
    with to.open("xb") as stream:
        if file.suffix == SUFFIX:
            found = unpack(file, stream)
            if sha256 and found != sha256:
                raise OSError(errno.EIO, f"expected SHA-256 {sha256}, found {found}")
            return
        # Until its archives were compressed by Zstandard, `settle` took gzip.
        with gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb") as packed:
            shutil.copyfileobj(packed, stream, 1 << 20)


def _family(path: Path) -> list[Path]:
    return [path, *(path.with_name(path.name + suffix) for suffix in SIDECARS)]


def _require_idle(path: Path) -> None:
    try:
        connection = apsw.Connection(os.fspath(path), flags=apsw.SQLITE_OPEN_READWRITE)
    except apsw.Error:
        return  # no database that anyone could be using
    try:
        distrust(connection)
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("BEGIN EXCLUSIVE; ROLLBACK")
    except (apsw.BusyError, apsw.LockedError) as error:
        raise InputError(
            f"expected {path} to be idle, found it open in another program",
            advice="stop the application first",
        ) from error
    except apsw.Error:
        return  # damaged: nothing to protect
    finally:
        connection.close()
