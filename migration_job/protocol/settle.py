"""``settle``: after the window the way back is given up and the SQLite file archived.

1. the target's last changes come back, so that the archive is current
2. ``REPORT/archive``: the file without this job's capture, compressed, with a manifest and
   checksum, read back once before it counts
3. ``settled = 1`` on the source: from here on there is no rollback
4. the target loses the way back's triggers, its fence and the rowid columns
5. the file is made read-only; it stays closed to writes, and readable

A settle that is cut off is run again and goes on.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote as url_quote

import apsw
import psycopg

from migration_job.durable import write_durably
from migration_job.errors import InputError, OperationError
from migration_job.protocol.begin import rowid_column
from migration_job.protocol.decision import truthful
from migration_job.protocol.follow import follow_decision
from migration_job.protocol.lock import Lock
from migration_job.protocol.mend import mend, prove_back
from migration_job.protocol.reverse_sync import bring_back
from migration_job.protocol.run_context import Pair, opened
from migration_job.protocol.settings import Endpoints
from migration_job.shell_words import word
from migration_job.stores.postgres import capture as target_capture
from migration_job.stores.postgres import records
from migration_job.stores.postgres.database import Locked, lost
from migration_job.stores.sqlite import capture, derived, fence
from migration_job.stores.sqlite.backup import MANIFEST, Manifest, check
from migration_job.stores.sqlite.distrust import distrust
from migration_job.stores.sqlite.packed import SUFFIX, pack
from migration_job.stores.sqlite.snapshot import make_durable, sha256_of
from migration_job.stores.sqlite.waiting import PatientConnection, allowed, patience

FEW_CHANGES = 200
"""What a round may have brought when the source is a moment behind."""

WINDOW = timedelta(hours=48)
"""How long the way back stays open, as the strategy has it."""

LOCK_SECONDS = 15.0
"""How long each table is asked for; the application's statements never wait that long for it."""

Say = Callable[[str], None]


def settle(
    ends: Endpoints,
    report: Path,
    *,
    window: timedelta = WINDOW,
    force: bool = False,
    lock_limit: float = 600.0,
    say: Say = lambda _: None,
) -> Path:
    """Give up the way back; returns the archive's directory.

    ``lock_limit`` is how long (seconds) each of the source's locks is waited for. Raises
    OperationError before the window is over, unless ``force``d, and where SQLite serves.
    """
    with truthful(ends.source, "settle"), patience(lock_limit):
        return _settle(ends, report, window, force, say)


def _bring_in_step(pair: Pair) -> None:
    """Have the source a moment behind PostgreSQL, whose writers go on: they leave no instant
    without a change. What has to be compared first takes such an instant."""
    enough = 0 if pair.state().doubt is not None else FEW_CHANGES
    while True:
        done = bring_back(pair, lock_limit=allowed())
        if not done.left and done.taken <= enough:
            return


def _settle(ends: Endpoints, report: Path, window: timedelta, force: bool, say: Say) -> Path:
    archive = report / "archive"
    with Lock(ends.state).command("settle"), opened(ends.source, ends.dsn) as pair:
        state = fence.read_state(pair.source)
        if state is None or not state.closed:
            raise OperationError(
                "expected PostgreSQL to serve, found SQLite serving",
                advice="`migration-job switch` comes first",
            )
        if not state.settled:
            _require_window(pair, state.switched_at or "", window, force)
            follow_decision(pair, ends)
            for line in mend(pair):
                say(line)
            _bring_in_step(pair)
            prove_back(pair)
            with fence.writing(pair.source, limit=allowed()):
                for done in derived.bring_in_step(pair.source, pair.catalogue):
                    say(str(done))
            _archive(ends.source, archive, pair.run_id)
            say(f"archived to {archive}, checked by reading it back")
            with fence.writing(pair.source, limit=allowed()):
                fence.change_state(pair.source, settled=1)
        _give_up_way_back(pair)
        records.set_phase(pair.target, "settled")
        say("the way back is given up on PostgreSQL")
    _make_read_only(ends.source)
    say(f"{ends.source} is read-only")
    return archive


def _require_window(pair: Pair, switched_at: str, window: timedelta, force: bool) -> None:
    """Both machines' clocks must say that the window is over: one of them may have jumped."""
    row = pair.target.execute(
        "SELECT extract(epoch FROM clock_timestamp() - opened_at) FROM migration.fence"
    ).fetchone()
    there = timedelta(seconds=float(row[0])) if row is not None and row[0] is not None else window
    here = datetime.now(UTC) - datetime.fromisoformat(switched_at)
    left = window - min(here, there)
    if left > timedelta(0) and not force:
        hours = left.total_seconds() / 3600
        raise OperationError(
            f"expected the window of {window.total_seconds() / 3600:g} h since the switch to be "
            f"over, found {hours:.1f} h left",
            advice="run it again then; --force gives up the way back now",
        )


def _archive(source: Path, folder: Path, run_id: str) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    copy, packed = folder / "archive.db", folder / f"archive.db{SUFFIX}"
    try:
        # Nothing is written through a symbolic link in the place of the copy, nor in the packed's.
        copy.unlink(missing_ok=True)
        _copy_without_capture(source, copy)
        whole, size = sha256_of(copy), copy.stat().st_size
        done = pack(copy, packed)
        make_durable(packed)
        if done.content_sha256 != whole:
            raise OperationError(
                f"the archive {packed} does not read back as it was written",
                advice="check the disk, and run the command again; nothing was given up",
            )
    except (OSError, apsw.FullError) as error:
        raise OperationError(
            f"the archive cannot be written to {folder}: {error}",
            advice="free some space or give another --report; nothing was given up",
        ) from error
    finally:
        copy.unlink(missing_ok=True)
    manifest = Manifest(
        source=str(source.absolute()),
        file=packed.name,
        bytes=done.bytes,
        sha256=done.sha256,
        unpacked_bytes=size,
        unpacked_sha256=whole,
        taken_at=datetime.now(UTC).isoformat(timespec="seconds"),
        sqlite=apsw.sqlite_lib_version(),
        run_id=run_id,
        restore=f"migration-job restore-backup {word(str(folder.absolute()))} DESTINATION",
    )
    text = manifest.model_dump_json(indent=2) + "\n"
    write_durably(folder / MANIFEST, text.encode(), mode=0o600)
    check(folder)


def _copy_without_capture(source: Path, copy: Path) -> None:
    copy.unlink(missing_ok=True)
    uri = f"file:{url_quote(os.fspath(source.absolute()))}?mode=ro"
    reader = PatientConnection(uri, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
    distrust(reader)
    reader.wait_for_locks()
    writer = apsw.Connection(os.fspath(copy))
    distrust(writer)
    try:
        with writer.backup("main", reader, "main") as backup:
            while not backup.done:
                backup.step(-1)
        writer.execute("PRAGMA journal_mode = DELETE")
        with writer:
            capture.remove(writer)
    finally:
        writer.close()
        reader.close()


def _give_up_way_back(pair: Pair) -> None:
    try:
        unwanted = {
            table.target: own
            for table in pair.plan.tables
            if (own := rowid_column(table)) is not None
        }
        target_capture.remove(pair.target, pair.plan, limit=LOCK_SECONDS, columns=unwanted)
    except Locked as error:
        raise OperationError(
            f"a long transaction on the target holds a table for more than {LOCK_SECONDS:g} s",
            advice="run the command again; it continues with what is left",
        ) from error
    except psycopg.Error as error:
        raise lost(error, "giving up the way back") from error


def _make_read_only(source: Path) -> None:
    # Out of WAL mode a file can be read without anything beside it. It needs the file for itself
    # for a moment; where a reader is in the way it stays as it is, which is as good.
    connection = fence.open_source(source) if os.access(source, os.W_OK) else None
    if connection is not None:
        with contextlib.suppress(apsw.BusyError, apsw.LockedError):
            connection.execute("PRAGMA journal_mode = DELETE")
        connection.close()
    try:
        source.chmod(source.stat().st_mode & ~0o222)
    except OSError as error:
        raise InputError(
            f"cannot make {source} read-only: {error.strerror}",
            advice="everything else is settled; take the right to write from it by hand",
        ) from error
