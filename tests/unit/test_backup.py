"""How a snapshot becomes a backup, and what is left where that does not go to its end."""

from __future__ import annotations

import errno
import os
import random
import shutil
import sqlite3
import threading
from collections import namedtuple
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from migration_job.errors import InputError, OperationError
from migration_job.stores.sqlite import backup, packed, snapshot
from migration_job.stores.sqlite.snapshot import Snapshot

PLAIN = "snapshot.db"
PACKED = "snapshot.db.zst"


@pytest.fixture
def taken(tmp_path: Path) -> Snapshot:
    connection = sqlite3.connect(tmp_path / "source.db")
    connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, word BLOB)")
    bits = random.Random(7)
    connection.executemany("INSERT INTO t(word) VALUES (?)", [(bits.randbytes(900),)] * 3_000)
    connection.commit()
    connection.close()
    return snapshot.take(tmp_path / "source.db", tmp_path / "backup")


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _restored(taken: Snapshot) -> bytes:
    to = taken.path.parent.parent / "restored.db"
    backup.restore(taken.path.parent, to, replace=False)
    return to.read_bytes()


def test_the_compressed_file_takes_the_snapshots_place(
    taken: Snapshot, pool: ThreadPoolExecutor
) -> None:
    content = taken.path.read_bytes()
    kept = backup.Backup(pool, taken, "run")
    plain = kept.sealed()
    assert (plain.file, plain.bytes, plain.sha256) == (PLAIN, len(content), taken.digests().file)
    manifest, told = kept.finish()
    assert told == ""
    assert (manifest.unpacked_bytes, manifest.unpacked_sha256) == (plain.bytes, plain.sha256)
    assert manifest.content_sha256 == plain.content_sha256
    assert manifest.bytes < len(content) / 2
    assert backup.check(taken.path.parent) == manifest
    assert _names(taken.path.parent) == ["manifest.json", PACKED]
    assert _restored(taken) == content


def test_without_room_the_snapshot_stays_the_backup(
    taken: Snapshot, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = taken.path.read_bytes()
    usage = namedtuple("usage", "total used free")
    left = packed.SPACE_MARGIN - 1  # the application may need what is free
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, left))
    manifest, told = backup.Backup(pool, taken, "run").finish()
    assert told == f"the backup stays uncompressed: {os.strerror(errno.ENOSPC)}"
    assert manifest.file == PLAIN
    assert _names(taken.path.parent) == ["manifest.json", PLAIN]
    assert _restored(taken) == content


def test_what_does_not_read_back_is_no_backup(
    taken: Snapshot, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = taken.path.read_bytes()
    fsync = os.fsync
    spoilt: list[Path] = []

    def spoil(descriptor: int) -> None:
        """A disk that writes other bytes of a block than it was given."""
        fsync(descriptor)
        for path in taken.path.parent.glob("*.partial"):
            with path.open("r+b") as stream:
                stream.seek(1_000)
                stream.write(b"other bytes")
            spoilt.append(path)

    monkeypatch.setattr(os, "fsync", spoil)
    kept = backup.Backup(pool, taken, "run")
    with pytest.raises(OperationError, match="does not read back as it was written"):
        kept.finish()
    assert spoilt
    assert _names(taken.path.parent) == ["manifest.json", PLAIN]
    assert _restored(taken) == content


def test_a_run_that_ends_early_leaves_the_snapshot(taken: Snapshot) -> None:
    content = taken.path.read_bytes()
    with ThreadPoolExecutor(1) as pool:
        kept = backup.Backup(pool, taken, "run")
        kept.stop()
    assert _names(taken.path.parent) == ["manifest.json", PLAIN]
    assert _restored(taken) == content


def test_the_next_run_replaces_what_an_earlier_one_compressed(
    taken: Snapshot, pool: ThreadPoolExecutor
) -> None:
    content = taken.path.read_bytes()
    backup.Backup(pool, taken, "first").finish()
    again = snapshot.take(taken.source, taken.path.parent)
    # Cut off before it is sealed: the earlier backup is whole still.
    assert backup.check(taken.path.parent).file == PACKED
    (taken.path.parent / f"{PACKED}.partial").write_text("left by a run that was killed")
    backup.seal(again, "second")
    assert _names(taken.path.parent) == ["manifest.json", PLAIN]
    assert _restored(taken) == content


@pytest.mark.parametrize("damage", [lambda b: b[:-20], lambda b: b[:500] + b"?" + b[501:]])
def test_damage_of_the_compressed_file_is_refused(
    damage: Callable[[bytes], bytes],
    taken: Snapshot,
    pool: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backup.Backup(pool, taken, "run").finish()
    file = taken.path.parent / PACKED
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(InputError, match="SHA-256"):
        _restored(taken)
    # Damaged after the check, in a memory that fails: no database is put in place either.
    monkeypatch.setattr(backup, "check", backup.read_manifest)
    with pytest.raises(OperationError, match="not what was compressed") as refusal:
        _restored(taken)
    assert "free some space" not in str(refusal.value.advice)
    assert _names(taken.path.parent.parent) == ["backup", "source.db"]


def test_packing_stops_when_it_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a" * 10_000)
    stop = threading.Event()
    stop.set()
    with pytest.raises(packed.Stopped):
        packed.pack(tmp_path / "a", tmp_path / "b", stop)
    assert _names(tmp_path) == ["a"]
