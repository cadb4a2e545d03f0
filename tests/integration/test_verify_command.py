"""``migration-job verify``: the same comparison again, of the source as it is now."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import psycopg
import pytest

from migration_job.certification import Comparison
from migration_job.progress import Reporter
from migration_job.verify.content import Verified
from tests.integration.running import DIFFERS, DONE, FAILED, USAGE, Ended, run

pytestmark = pytest.mark.postgres

SCRIPT = """
CREATE TABLE t(id INTEGER PRIMARY KEY, word TEXT, at DATETIME, n INTEGER);
INSERT INTO t(word, at, n) VALUES ('a', '2024-01-01 00:00:00', 1), ('b', NULL, 2),
    (NULL, '2024-01-01T00:00:00Z', 3), ('', '2024-06-30 23:59:59', 4);
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.db"
    connection = sqlite3.connect(path)
    connection.executescript(SCRIPT)
    connection.close()
    return path


def _migrate(source: Path, dsn: str) -> None:
    ended = run("migrate", source, "--target", dsn, "--report", source.parent / "report")
    assert ended.status == DONE, ended.said
    (table,) = [line.split() for line in ended.said.splitlines() if line.startswith("t ")]
    assert table[:2] == ["t", "4"], "the closing table"


def _verify(source: Path, dsn: str, *options: str) -> tuple[Ended, dict[str, Any]]:
    folder = source.parent / "again"
    ended = run("verify", source, "--target", dsn, "--report", folder, *options)
    return ended, json.loads((folder / "verify.json").read_text())


@pytest.mark.parametrize("options", [(), ("--deep",)])
def test_equal(options: tuple[str, ...], source: Path, postgres: str) -> None:
    _migrate(source, postgres)
    ended, report = _verify(source, postgres, *options)
    assert ended.status == DONE, ended.said
    assert report["outcome"] == "verified"
    assert report["tables"]["t"]["target_rows"] == 4
    assert report["ledger_count"] == 1
    certificate = report["certificate"]
    if not options:
        said, report = _verify(source, postgres, "--json")
        assert json.loads(said.out)["certificate"] == report["certificate"]
        assert "ledger" not in json.loads(said.out)
    with psycopg.connect(postgres) as target:
        row = target.execute(
            "SELECT body FROM migration.certificate WHERE digest = %s", (certificate["digest"],)
        ).fetchone()
    assert row is not None
    assert json.loads(row[0]) == certificate
    assert not (source.parent / "again" / "verify" / "snapshot.db").exists()


def test_a_write_on_the_source_since_is_a_difference(source: Path, postgres: str) -> None:
    _migrate(source, postgres)
    connection = sqlite3.connect(source)
    connection.execute("UPDATE t SET word = 'changed' WHERE id = 2")
    connection.execute("INSERT INTO t(word) VALUES ('more')")
    connection.commit()
    connection.close()
    ended, report = _verify(source, postgres)
    assert ended.status == DIFFERS
    assert report["outcome"] == "failed"
    assert report["certificate"] is None
    places = {(d["kind"], tuple(d["key"] or ()), d["column"]) for d in report["differences"]}
    assert {("value", (2,), "word"), ("missing-row", (5,), None)} <= places
    value = next(d for d in report["differences"] if d["kind"] == "value")
    assert (value["source"], value["target"]) == ("'changed'", "'b'")
    assert report["tables"]["t"]["differences"] == report["difference_count"]
    assert "t.word" in ended.err


def test_a_write_on_the_target_is_a_difference(source: Path, postgres: str) -> None:
    _migrate(source, postgres)
    with psycopg.connect(postgres, autocommit=True) as target:
        target.execute("UPDATE t SET n = 5 WHERE id = 4")
    ended, report = _verify(source, postgres)
    assert ended.status == DIFFERS
    assert [d["column"] for d in report["differences"]] == ["n"]


def test_rows_updated_to_the_same_values_elsewhere_on_the_disk_are_equal(
    source: Path, postgres: str
) -> None:
    """The order in which rows lie on the target's disk proves nothing, either way."""
    _migrate(source, postgres)
    with psycopg.connect(postgres, autocommit=True) as target:
        target.execute("UPDATE t SET n = n")
        target.execute("UPDATE t SET n = n WHERE id = 2")
    ended, report = _verify(source, postgres)
    assert ended.status == DONE, ended.said
    assert report["tables"]["t"]["compared"] == "digest"


def test_a_target_of_no_run(source: Path, postgres: str) -> None:
    ended, report = _verify(source, postgres)
    assert ended.status == USAGE
    assert report["outcome"] == "failed"


def test_a_source_whose_schema_has_changed(source: Path, postgres: str) -> None:
    _migrate(source, postgres)
    connection = sqlite3.connect(source)
    connection.executescript("ALTER TABLE t RENAME COLUMN word TO other")
    connection.close()
    ended, _ = _verify(source, postgres)
    assert ended.status == USAGE
    assert "word" in ended.err


def test_what_preflight_counted_is_not_asked_of_a_later_state(source: Path, postgres: str) -> None:
    _migrate(source, postgres)
    wide = "w" * 100_000
    connection = sqlite3.connect(source)
    connection.execute("UPDATE t SET n = NULL WHERE id = 1")
    connection.commit()
    with psycopg.connect(postgres) as target:
        target.execute("UPDATE t SET n = NULL WHERE id = 1")
    _, report = _verify(source, postgres)
    assert report["tables"]["t"]["compared"] == "digest", "a NULL where there was none"
    connection.execute("UPDATE t SET word = ? WHERE id = 1", (wide,))
    connection.commit()
    connection.close()
    with psycopg.connect(postgres) as target:
        target.execute("UPDATE t SET word = %s WHERE id = 1", (wide,))
    ended, report = _verify(source, postgres)
    assert ended.status == DONE, ended.said
    assert report["tables"]["t"]["compared"] == "typed", "a row too wide for a block"


def _live(command: str, source: Path, dsn: str, *more: str) -> None:
    place = source.parent
    options = ["--target", dsn, "--report", str(place / "report"), "--state", str(place / "state")]
    if command != "migrate":
        told = {"host": "127.0.0.1", "port": 5432, "database": "x", "user": "x", "password": "x"}
        (place / "application.json").write_text(json.dumps(told))
        options += ["--connection", str(place / "connection")]
        options += ["--connect-to", str(place / "application.json")]
    ended = run(command, source, *options, *more)
    assert ended.status == DONE, ended.said


def _write(source: Path, statement: str) -> None:
    with sqlite3.connect(source) as connection:
        connection.execute(statement)
    connection.close()


def test_a_target_that_follows_hands_out_no_numbers_yet(source: Path, postgres: str) -> None:
    _live("migrate", source, postgres, "--live")
    _write(source, "INSERT INTO t(word) VALUES ('later')")
    _live("sync", source, postgres, "--once")
    ended, report = _verify(source, postgres)
    assert ended.status == DONE, ended.said
    assert report["tables"]["t"]["target_rows"] == 5
    _write(source, "INSERT INTO t(word) VALUES ('not followed')")
    ended, _ = _verify(source, postgres)
    assert ended.status == DIFFERS, ended.said


@pytest.mark.parametrize(("rounds", "status"), [(1, DONE), (9, FAILED)])
def test_a_source_that_moves_on_is_compared_anew(
    rounds: int, status: int, source: Path, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _live("migrate", source, postgres, "--live")
    compare, left = Comparison.run, [rounds]

    def meanwhile(self: Comparison, reporter: Reporter) -> Verified:
        if left[0] > 0:
            left[0] -= 1
            _write(source, "INSERT INTO t(word) VALUES ('meanwhile')")
            _live("sync", source, postgres, "--once")
        return compare(self, reporter)

    monkeypatch.setattr(Comparison, "run", meanwhile)
    ended, _ = _verify(source, postgres)
    assert ended.status == status, ended.said
    assert ("was written to" in ended.said) == (status == FAILED)
