"""The digest on data that is hard for it: it says equal only of what is, and leaves the rest to
the typed comparison."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from migration_job.certification import Comparison
from migration_job.progress import Reporter
from migration_job.stores.postgres import records
from migration_job.stores.sqlite import snapshot
from migration_job.stores.sqlite.catalogue import read_catalogue
from tests.integration.running import DIFFERS, DONE, run

pytestmark = pytest.mark.postgres


def _make(
    path: Path, encoding: str, script: str, rows: Callable[[sqlite3.Connection], None]
) -> None:
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA encoding = '{encoding}'")
    connection.executescript(script)
    rows(connection)
    connection.commit()
    connection.close()


def _marks(connection: sqlite3.Connection) -> None:
    words = ["a\x1d1b", "\x1d0", "\x1d", None, "\x1d2", "plain", ""]
    connection.executemany("INSERT INTO t(word, n) VALUES (?, ?)", [(w, 1) for w in words * 50])


def _plain(connection: sqlite3.Connection) -> None:
    connection.executemany(
        "INSERT INTO t(word, n) VALUES (?, ?)",
        [(f"wörd {i}\n\\\t", i / 3 if i % 5 else None) for i in range(3_000)],
    )


def _wide(connection: sqlite3.Connection) -> None:
    connection.executemany(
        "INSERT INTO t(word, n) VALUES (?, ?)",
        [("x" * (i * 9_973 % 200_000), i) for i in range(60)],
    )


def _odd(connection: sqlite3.Connection) -> None:
    connection.executemany(
        "INSERT INTO t(word, n) VALUES (?, ?)",
        [(f"w{i}" if i % 50 else i, i / 7) for i in range(1_000)],
    )


def _with_nulls(connection: sqlite3.Connection) -> None:
    connection.executemany(
        "INSERT INTO t(word, n) VALUES (?, ?)",
        [(None if i % 7 == 3 else f"w{i}", i) for i in range(500)],
    )


def _plain_texts(connection: sqlite3.Connection) -> None:
    connection.executemany(
        "INSERT INTO t(word, n) VALUES (?, ?)", [(f"w{i}", f"n{i}") for i in range(500)]
    )


TABLE = "CREATE TABLE t(id INTEGER PRIMARY KEY, word TEXT, n REAL);"
SPARSE = TABLE + "INSERT INTO t(id) VALUES (-9223372036854775808), (-5), (9223372036854775000);"
LOOSE = "CREATE TABLE t(word, n REAL);"
WITHOUT = "CREATE TABLE t(word TEXT PRIMARY KEY, n REAL) WITHOUT ROWID;"
HIDDEN = "CREATE TABLE t(rowid TEXT, oid TEXT, _rowid_ TEXT, word TEXT, n REAL);"


@pytest.mark.parametrize(
    ("name", "encoding", "script", "rows", "compared"),
    [
        ("plain", "UTF-8", TABLE, _plain, "digest"),
        ("UTF-16", "UTF-16le", TABLE, _plain, "digest"),
        ("UTF-16 the other way", "UTF-16be", TABLE, _plain, "digest"),
        ("sparse rowids", "UTF-8", SPARSE, _plain, "digest"),
        ("without a key", "UTF-8", LOOSE, _plain, "digest"),
        ("WITHOUT ROWID", "UTF-8", WITHOUT, _plain, "digest"),
        ("no name for the rowid", "UTF-8", HIDDEN, _plain, "digest"),
        ("the digest's own marks in the data", "UTF-8", TABLE, _marks, "typed"),
        ("large rows", "UTF-8", TABLE, _wide, "typed"),
        ("rows that a rule has changed", "UTF-8", LOOSE, _odd, None),
    ],
)
def test_equal_is_found_equal_and_a_change_is_found(  # noqa: PLR0913 - fixtures and parameters
    name: str,
    encoding: str,
    script: str,
    rows: Callable[[sqlite3.Connection], None],
    compared: str | None,
    tmp_path: Path,
    postgres: str,
) -> None:
    source = tmp_path / "source.db"
    _make(source, encoding, script, rows)
    ended = run("migrate", source, "--target", postgres, "--report", tmp_path / "report")
    assert ended.status == DONE, ended.said
    report = _report(tmp_path / "report")
    if compared is not None:
        assert report["tables"]["t"]["compared"] == compared
    for change in (
        "UPDATE t SET n = n + 1e-9 WHERE ctid = (SELECT max(ctid) FROM t WHERE n IS NOT NULL)",
        "UPDATE t SET word = word || 'x' WHERE ctid = (SELECT min(ctid) FROM t WHERE word <> '')",
        "DELETE FROM t WHERE ctid = (SELECT max(ctid) FROM t)",
    ):
        with psycopg.connect(postgres) as target:
            target.execute("CREATE TEMP TABLE before AS SELECT * FROM t")
            assert target.execute(change.encode()).rowcount == 1
            target.commit()
            ended = run("verify", source, "--target", postgres, "--report", tmp_path / "again")
            assert ended.status == DIFFERS, (change, ended.said)
            assert _report(tmp_path / "again", "verify.json")["difference_count"] in (1, 2)
            target.execute("DELETE FROM t")
            target.execute("INSERT INTO t SELECT * FROM before")
            target.execute("DROP TABLE before")
            target.commit()
    ended = run("verify", source, "--target", postgres, "--report", tmp_path / "again")
    assert ended.status == DONE, ended.said


def test_a_text_that_is_spelled_as_null_is_not_taken_for_one(tmp_path: Path, postgres: str) -> None:
    """Both sides' blocks are equal byte by byte here, and so is the number of rows."""
    source = tmp_path / "source.db"
    _make(
        source,
        "UTF-8",
        TABLE,
        _with_nulls,
    )
    assert run("migrate", source, "--target", postgres, "--report", tmp_path / "r").status == DONE
    with psycopg.connect(postgres) as target:
        target.execute("CREATE TEMP TABLE before AS SELECT * FROM t ORDER BY ctid")
        target.execute("TRUNCATE t")
        target.execute(r"INSERT INTO t SELECT id, coalesce(word, E'\x1d0'), n FROM before")
    ended = run("verify", source, "--target", postgres, "--report", tmp_path / "again")
    assert ended.status == DIFFERS, ended.said
    assert _report(tmp_path / "again", "verify.json")["difference_count"] == 71


def test_a_text_that_holds_two_fields_is_not_taken_for_both(tmp_path: Path, postgres: str) -> None:
    """A NULL where the source has none leaves its field out, so here too all bytes are equal, to
    a verification by the very plan of the copy."""
    source = tmp_path / "source.db"
    script = "CREATE TABLE t(id INTEGER PRIMARY KEY, word TEXT, n TEXT);"
    _make(source, "UTF-8", script, _plain_texts)
    assert run("migrate", source, "--target", postgres, "--report", tmp_path / "r").status == DONE
    with psycopg.connect(postgres) as target:
        target.execute("CREATE TEMP TABLE before AS SELECT * FROM t ORDER BY ctid")
        target.execute("TRUNCATE t")
        target.execute(r"INSERT INTO t SELECT id, word || E'\x1d1' || n, NULL FROM before")
        target.commit()
        done = records.read_run(target)
    assert done is not None
    taken = snapshot.take(source, tmp_path / "snapshot")
    reader = taken.connect()
    catalogue = read_catalogue(reader)
    reader.close()
    quiet = Reporter(quiet=True)
    found = Comparison(done.plan, catalogue, taken, postgres, jobs=2).run(quiet)
    assert found.difference_count == 1_000


UNITS = {
    "s": "1700000000 + n * 7", "ms": "1700000000000 + n * 7", "us": "1700000000000000 + n * 7",
    "ns": "(1700000000000000 + n * 7) * 1000", "apple": "694224000 + n * 0.25",
    "filetime": "133170048000000000 + n * 70", "ticks": "638081280000000000 + n * 70",
    "excel": "44927 + (n * 7) / 86400.0", "julian": "(212600000000000 + n * 7) / 86400000.0",
}  # fmt: skip


def test_numbers_that_count_time(tmp_path: Path, postgres: str) -> None:
    """The digest reads them by itself: equal is found equal, and a change of each is found."""
    source, policy = tmp_path / "source.db", tmp_path / "policy.yaml"

    def fill(connection: sqlite3.Connection) -> None:
        series = "WITH RECURSIVE s(n) AS (VALUES(-3) UNION ALL SELECT n + 1 FROM s WHERE n < 300)"
        connection.execute(f"INSERT INTO t {series} SELECT n, {', '.join(UNITS.values())} FROM s")

    columns = ", ".join(f"{unit} NUMERIC" for unit in UNITS)
    _make(source, "UTF-8", f"CREATE TABLE t(id INTEGER PRIMARY KEY, {columns});", fill)
    parts = {unit: {"epoch": unit, "type": "timestamptz"} for unit in UNITS}
    policy.write_text(json.dumps({"tables": {"t": {"columns": parts}}}))
    report = tmp_path / "report"
    ended = run("migrate", source, "--target", postgres, "--report", report, "--policy", policy)
    assert ended.status == DONE, ended.said
    table = _report(report)["tables"]["t"]
    assert table["compared"] == "digest"
    assert not _report(report)["ledger"]
    with psycopg.connect(postgres, autocommit=True) as target:
        for number, unit in enumerate(UNITS):
            change = f"UPDATE t SET {unit} = {unit} + interval '1 millisecond' WHERE id = {number}"
            assert target.execute(change.encode()).rowcount == 1
    ended = run("verify", source, "--target", postgres, "--report", tmp_path / "again")
    assert ended.status == DIFFERS, ended.said
    assert _report(tmp_path / "again", "verify.json")["difference_count"] == len(UNITS)


def _report(folder: Path, name: str = "report.json") -> dict[str, Any]:
    report: dict[str, Any] = json.loads((folder / name).read_text())
    return report
