"""The snapshot: one state, however it was copied, and its digests."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import apsw
import pytest

from migration_job.errors import InputError, OperationError
from migration_job.stores.sqlite import integrity, snapshot
from migration_job.stores.sqlite.database import open_readonly


def _make(path: Path, mode: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA journal_mode = {mode}")
    connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, word TEXT)")
    connection.execute("CREATE INDEX t_word ON t(word)")
    connection.executemany("INSERT INTO t(word) VALUES (?)", [(f"w{i}",) for i in range(2_000)])
    connection.commit()
    return connection


@pytest.mark.parametrize("mode", ["DELETE", "WAL", "PERSIST", "TRUNCATE", "MEMORY"])
def test_every_way_of_copying_gives_the_same_content(mode: str, tmp_path: Path) -> None:
    source = tmp_path / "source.db"
    application = _make(source, mode)
    at_work = snapshot.take(source, tmp_path / "at work").digests()
    application.close()
    at_rest = snapshot.take(source, tmp_path / "at rest").digests()
    reader = open_readonly(source)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM t").fetchall()
    held = snapshot.state_sha256(reader, tmp_path / "held")
    reader.close()
    assert at_work.content == at_rest.content == held
    for name in ("at work", "at rest"):
        copy = snapshot.open_immutable(tmp_path / name / "snapshot.db")
        assert copy.execute("SELECT count(*), max(word) FROM t").fetchone() == (2_000, "w999")
        copy.close()


def test_a_file_at_rest_is_copied_byte_for_byte(tmp_path: Path) -> None:
    source = tmp_path / "source.db"
    _make(source, "WAL").close()
    taken = snapshot.take(source, tmp_path / "out")
    assert taken.path.read_bytes() == source.read_bytes()
    assert [p.name for p in sorted(tmp_path.glob("source.db*"))] == ["source.db"]


def test_another_state_has_another_digest(tmp_path: Path) -> None:
    source = tmp_path / "source.db"
    _make(source, "DELETE").close()
    before = snapshot.take(source, tmp_path / "out").digests()
    connection = sqlite3.connect(source)
    connection.execute("UPDATE t SET word = 'W5' WHERE id = 6")
    connection.commit()
    connection.close()
    assert snapshot.take(source, tmp_path / "out").digests().content != before.content


def test_a_transaction_that_is_open_is_not_in_it(tmp_path: Path) -> None:
    for mode in ("DELETE", "WAL"):
        source = tmp_path / f"{mode}.db"
        application = _make(source, mode)
        application.execute("UPDATE t SET word = 'uncommitted'")
        taken = snapshot.take(source, tmp_path / "out")
        application.rollback()
        application.close()
        copy = taken.connect()
        assert copy.execute("SELECT count(*) FROM t WHERE word = 'uncommitted'").get == 0
        copy.close()


def test_too_little_room_is_said_before_anything_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source.db"
    _make(source, "DELETE").close()
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 1_000))
    with pytest.raises(OperationError, match="MiB free"):
        snapshot.take(source, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def _with_index_of_another_table(path: Path) -> None:
    """Give ``t`` an index with as many entries as it has rows, all of them wrong."""
    _make(path, "DELETE").close()
    connection = sqlite3.connect(path)
    connection.executescript(
        "CREATE TABLE other(word); INSERT INTO other SELECT 'x' || id FROM t;"
        "CREATE INDEX wrong ON other(word);"
    )
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute(
        "UPDATE sqlite_schema SET tbl_name = 't', sql = 'CREATE INDEX wrong ON t(word)' "
        "WHERE name = 'wrong'"
    )
    connection.execute("DELETE FROM sqlite_schema WHERE name = 'other'")
    connection.commit()
    connection.close()


def _without_entries(path: Path) -> None:
    """Give ``t`` an index that lacks every row."""
    _with_index_of_another_table(path)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute("CREATE TABLE bare(word)")
    connection.execute("CREATE INDEX lacks ON bare(word)")
    connection.execute(
        "UPDATE sqlite_schema SET tbl_name = 't', sql = 'CREATE INDEX lacks ON t(word)' "
        "WHERE name = 'lacks'"
    )
    connection.commit()
    connection.close()


def _overwritten(path: Path) -> None:
    _make(path, "DELETE").close()
    content = bytearray(path.read_bytes())
    content[4096 * 5 : 4096 * 5 + 100] = b"\xff" * 100
    path.write_bytes(content)


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("damage", [_without_entries, _overwritten])
def test_damage_is_seen_at_any_size(
    damage: Callable[[Path], None], full: bool, tmp_path: Path
) -> None:
    path = tmp_path / "source.db"
    damage(path)
    connection = snapshot.open_immutable(path)
    with pytest.raises(InputError, match="damaged"):
        integrity.check(connection, full=full)
    connection.close()


def test_entries_that_are_wrong_are_seen_by_the_full_check(tmp_path: Path) -> None:
    path = tmp_path / "source.db"
    _with_index_of_another_table(path)
    connection = snapshot.open_immutable(path)
    with pytest.raises(InputError, match="missing from index wrong"):
        integrity.check(connection, full=True)
    connection.close()


def test_a_sound_database_of_every_kind_is_sound(tmp_path: Path) -> None:
    path = tmp_path / "source.db"
    connection = apsw.Connection(str(path))
    connection.execute(
        """
        CREATE TABLE "a b"(x TEXT PRIMARY KEY, y UNIQUE);
        CREATE TABLE w(x TEXT, y INT, PRIMARY KEY (x, y)) WITHOUT ROWID;
        CREATE INDEX part ON w(y) WHERE y > 1;
        CREATE INDEX expr ON w(lower(x));
        CREATE TABLE empty(a UNIQUE);
        CREATE VIRTUAL TABLE f USING fts5(words);
        INSERT INTO "a b" VALUES ('1', 1), (NULL, 2), (NULL, NULL), ('4', NULL);
        INSERT INTO w VALUES ('a', 1), ('a', 2);
        INSERT INTO f VALUES ('some words');
        """
    )
    connection.close()
    reader = snapshot.open_immutable(path)
    integrity.check(reader, full=False)
    integrity.check(reader, full=True)
    reader.close()


def test_a_damaged_schema_is_a_sentence(tmp_path: Path) -> None:
    source = tmp_path / "source.db"
    made = sqlite3.connect(source)
    for number in range(100):
        made.execute(f"CREATE TABLE t{number} (i INTEGER, {', '.join(f'c{n}' for n in range(30))})")
    made.close()
    content = bytearray(source.read_bytes())
    # The schema is on more than one page: its first names the others.
    content[100:4096] = b"\xff" * 3996
    source.write_bytes(content)
    with pytest.raises(InputError, match="the source is damaged"):
        snapshot.open_immutable(source)


def _files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("source.db*"))


def test_a_source_with_a_log_is_looked_at_in_place(tmp_path: Path) -> None:
    source = tmp_path / "source.db"
    application = _make(source, "WAL")
    with snapshot.glance(source) as connection:
        assert connection is not None
        assert connection.execute("SELECT count(*) FROM t").get == 2_000
        # No transaction is held: the log can begin anew while the look goes on.
        application.execute("DELETE FROM t WHERE id = 1")
        application.commit()
        assert connection.execute("SELECT count(*) FROM t").get == 1_999
        assert application.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() == (0, 0, 0)
    application.close()
    assert _files(tmp_path) == ["source.db"]
    with snapshot.glance(source) as connection:
        assert connection is not None
        assert connection.execute("SELECT count(*) FROM t").get == 1_999
    assert _files(tmp_path) == ["source.db"]


def test_a_look_is_worth_nothing_once_somebody_opens_the_file(tmp_path: Path) -> None:
    source = tmp_path / "source.db"
    _make(source, "WAL").close()
    with ExitStack() as stack:
        assert stack.enter_context(snapshot.glance(source)) is not None
        application = sqlite3.connect(source)
        application.execute("DELETE FROM t WHERE id = 1")
        application.commit()
        with pytest.raises(OperationError, match="was opened while it was checked"):
            stack.close()
    application.close()


@pytest.mark.parametrize("mode", ["DELETE", "MEMORY", "crashed"])
def test_where_readers_are_in_the_way_there_is_no_look_in_place(mode: str, tmp_path: Path) -> None:
    source = tmp_path / "source.db"
    application = _make(source, "WAL" if mode == "crashed" else mode)
    if mode == "crashed":
        log = (tmp_path / "source.db-wal").read_bytes()
        application.close()
        (tmp_path / "source.db-wal").write_bytes(log)
    with snapshot.glance(source) as connection:
        assert connection is None
    application.close()


@pytest.mark.parametrize("mode", ["DELETE", "WAL", "at rest"])
def test_progress_is_told_of_every_byte(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "STEP", 16_384)
    source = tmp_path / "source.db"
    application = _make(source, "DELETE" if mode == "DELETE" else "WAL")
    if mode == "at rest":
        application.close()
    told: list[int] = []
    taken = snapshot.take(source, tmp_path / "out", told.append)
    assert sum(told) == taken.bytes
    assert len(told) > 3
    application.close()


def test_a_writer_between_two_steps_is_not_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "STEP", 16_384)
    source = tmp_path / "source.db"
    application = _make(source, "WAL")
    before = snapshot.take(source, tmp_path / "before").digests().content
    steps = 0

    def write(_: int) -> None:
        nonlocal steps
        steps += 1
        application.execute("UPDATE t SET word = word || '!'")
        application.commit()

    taken = snapshot.take(source, tmp_path / "out", write)
    assert taken.digests().content == before
    assert 3 < steps < 20, "begun anew after each write"
    application.close()


def test_a_kernel_that_cannot_copy_a_range_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EXDEV, "another file system")

    monkeypatch.setattr(os, "copy_file_range", refuse, raising=False)
    source = tmp_path / "source.db"
    _make(source, "DELETE").close()
    taken = snapshot.take(source, tmp_path / "out")
    assert taken.path.read_bytes() == source.read_bytes()


def test_the_log_of_a_writer_that_died_is_found_behind_a_link(tmp_path: Path) -> None:
    """SQLite has it beside what the link leads to."""
    for name in ("work", "left", "linked"):
        (tmp_path / name).mkdir()
    with closing(sqlite3.connect(tmp_path / "work" / "a.db")) as writer:
        writer.execute("PRAGMA journal_mode = wal")
        writer.execute("CREATE TABLE t (x)")
        writer.commit()
        writer.execute("PRAGMA wal_checkpoint(truncate)")
        writer.execute("INSERT INTO t VALUES ('in the log')")
        writer.commit()
        for suffix in ("", "-wal"):
            shutil.copy(tmp_path / "work" / f"a.db{suffix}", tmp_path / "left" / f"a.db{suffix}")
    link = tmp_path / "linked" / "other.db"
    link.symlink_to(tmp_path / "left" / "a.db")
    taken = snapshot.take(link, tmp_path / "out")
    with closing(taken.connect()) as copy:
        assert copy.execute("SELECT x FROM t").fetchall() == [("in the log",)]


WRITER = """
import sqlite3, sys
source = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
source.execute(f"PRAGMA journal_mode = {sys.argv[2]}")
source.execute("PRAGMA synchronous = OFF")
n = 0
while True:
    source.execute("INSERT INTO t (word) VALUES ('x')")
    n += 1
    if n == 20:
        print("writes", flush=True)
"""


@pytest.mark.parametrize("mode", ["delete", "truncate", "persist"])
def test_a_journal_that_comes_and_goes_is_no_crash(mode: str, tmp_path: Path) -> None:
    """Of a writer in another process that commits as fast as it can."""
    source = tmp_path / "busy.db"
    with closing(apsw.Connection(str(source))) as made:
        made.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, word TEXT)")
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(source), mode], stdout=subprocess.PIPE, text=True
    )
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "writes\n"
        for _ in range(3_000):
            assert not snapshot._crashed(source)
        taken = snapshot.take(source, tmp_path / "taken")
        with closing(taken.connect()) as connection:
            assert connection.pragma("integrity_check") == "ok"
        assert writer.poll() is None
    finally:
        writer.kill()
        writer.wait()
        assert writer.stdout is not None
        writer.stdout.close()
