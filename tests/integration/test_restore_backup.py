"""The backup "from before": what it holds, and the way back by one command."""

from __future__ import annotations

import gzip
import hashlib
import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from migration_job.stores.sqlite.backup import _unpack
from migration_job.stores.sqlite.packed import pack
from tests.integration.running import DONE, USAGE, run

pytestmark = pytest.mark.postgres


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "data" / "source.db"
    path.parent.mkdir()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, word TEXT)")
    connection.executemany("INSERT INTO t(word) VALUES (?)", [(f"w{i}",) for i in range(500)])
    connection.commit()
    connection.close()
    return path


@pytest.fixture
def backup(source: Path, tmp_path: Path, postgres: str) -> Path:
    ended = run("migrate", source, "--target", postgres, "--report", tmp_path / "report")
    assert ended.status == DONE, ended.said
    return tmp_path / "report" / "backup"


def _rows(path: Path) -> list[tuple[int, str]]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute("SELECT id, word FROM t ORDER BY id").fetchall()
    finally:
        connection.close()


def test_the_manifest_names_what_is_there(backup: Path, source: Path) -> None:
    manifest = json.loads((backup / "manifest.json").read_text())
    content = (backup / manifest["file"]).read_bytes()
    assert manifest["sha256"] == hashlib.sha256(content).hexdigest()
    assert manifest["bytes"] == len(content)
    assert manifest["file"] == "snapshot.db.zst"
    assert sorted(p.name for p in backup.iterdir()) == ["manifest.json", "snapshot.db.zst"]
    assert len(content) < manifest["unpacked_bytes"]
    assert manifest["source"] == str(source)
    assert "restore-backup" in manifest["restore"]
    assert (backup / manifest["file"]).stat().st_mode & 0o077 == 0


def test_restored_into_an_empty_place(backup: Path, source: Path, tmp_path: Path) -> None:
    ended = run("restore-backup", backup, tmp_path / "restored.db")
    assert ended.status == DONE, ended.said
    assert _rows(tmp_path / "restored.db") == _rows(source)


def test_an_existing_database_is_not_overwritten_unasked(backup: Path, source: Path) -> None:
    connection = sqlite3.connect(source)
    connection.execute("INSERT INTO t(word) VALUES ('since')")
    connection.commit()
    connection.close()
    before = source.read_bytes()
    ended = run("restore-backup", backup, source)
    assert ended.status == USAGE
    assert source.read_bytes() == before
    ended = run("restore-backup", backup, source, "--replace")
    assert ended.status == DONE, ended.said
    assert len(_rows(source)) == 500
    kept = list(source.parent.glob("source.db.before-restore-*"))
    assert len([k for k in kept if not k.name.endswith(("-wal", "-shm"))]) == 1
    assert len(_rows(kept[0])) == 501


def test_a_log_left_beside_the_old_database_does_not_reach_the_new_one(
    backup: Path, source: Path
) -> None:
    # A writer that dies leaves a log with a change in it.
    subprocess.run(
        [
            sys.executable,
            "-c",
            "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1]);"
            "c.execute(\"UPDATE t SET word = 'late'\"); c.commit(); os._exit(0)",
            str(source),
        ],
        check=True,
    )
    assert source.with_name("source.db-wal").stat().st_size > 0
    ended = run("restore-backup", backup, source, "--replace")
    assert ended.status == DONE, ended.said
    assert all(word != "late" for _, word in _rows(source))


def test_a_database_in_use_is_not_replaced(backup: Path, source: Path) -> None:
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]);"
            "c.execute('SELECT * FROM t').fetchone(); print('open', flush=True); sys.stdin.read()",
            str(source),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        ended = run("restore-backup", backup, source, "--replace")
    finally:
        holder.communicate("")
    assert ended.status == USAGE
    assert "open in another program" in ended.err


def test_a_backup_that_was_changed_is_refused(backup: Path, tmp_path: Path) -> None:
    file = backup / "snapshot.db.zst"
    content = bytearray(file.read_bytes())
    content[1000] ^= 1
    file.write_bytes(content)
    ended = run("restore-backup", backup, tmp_path / "restored.db")
    assert ended.status == USAGE
    assert "SHA-256" in ended.err
    assert not (tmp_path / "restored.db").exists()


def test_no_backup_there(tmp_path: Path) -> None:
    assert run("restore-backup", tmp_path, tmp_path / "restored.db").status == USAGE


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_nothing_is_written_through_a_link(suffix: str, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    plain = tmp_path / "plain.db"
    plain.write_bytes(b"the backup")
    copy = tmp_path / f"packed.db{suffix}"
    if suffix == ".zst":
        pack(plain, copy)
    else:
        copy.write_bytes(gzip.compress(b"the backup") if suffix else b"the backup")
    (tmp_path / "a.db.restoring").symlink_to(victim)
    _unpack(copy, tmp_path / "a.db.restoring")
    assert victim.read_text() == "untouched"
    assert (tmp_path / "a.db.restoring").read_bytes() == b"the backup"
    assert not (tmp_path / "a.db.restoring").is_symlink()
