"""One table filled by several sessions, part by part, and compared by its key."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from migration_job.stores.postgres import load
from tests.integration import independent_compare
from tests.integration.running import DIFFERS, DONE, run

pytestmark = pytest.mark.postgres

SEED = 20_261_127

Row = tuple[Any, ...]


def _dense(_: random.Random) -> Iterable[Row]:
    return ((n, f"wörd {n}\n\\\t", n / 7 if n % 5 else None) for n in range(1, 3_001))


def _sparse(rng: random.Random) -> Iterable[Row]:
    bounds = [-(1 << 63), (1 << 63) - 1]
    rowids = {*bounds, *(rng.randrange(*bounds) for _ in range(1_000))}
    return ((n, f"w{n}", 0.5) for n in sorted(rowids))


def _all_at_one_end(_: random.Random) -> Iterable[Row]:
    return ((n, None, float(n)) for n in [1, *range(10_000_000, 10_001_000)])


def _wide(_: random.Random) -> Iterable[Row]:
    return ((n, "x" * (n * 9_973 % 200_000), 1.0) for n in range(1, 61))


def _few(_: random.Random) -> Iterable[Row]:
    return [(5, "one", 1.0), (9, "two", 2.0)]


ROWS = [_dense, _sparse, _all_at_one_end, _wide, _few]


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "PART_VALUES", 1)


def _source(path: Path, rows: Iterable[Row], kind: str = "REAL") -> None:
    connection = sqlite3.connect(path)
    connection.execute(f"CREATE TABLE t(id INTEGER PRIMARY KEY, word TEXT, n {kind})")
    connection.execute("CREATE INDEX t_word ON t(n)")
    connection.execute("CREATE TABLE other(a TEXT)")
    connection.execute("INSERT INTO other VALUES ('x')")
    connection.executemany("INSERT INTO t VALUES (?, ?, ?)", rows)
    connection.commit()
    connection.close()


def _migrate(source: Path, dsn: str, report: Path, *more: str | Path) -> dict[str, Any]:
    ended = run("migrate", source, "--target", dsn, "--report", report, "--jobs", "4", *more)
    assert ended.status == DONE, ended.said
    with psycopg.connect(dsn) as target:
        steps = [r[0] for r in target.execute("SELECT step FROM migration.progress").fetchall()]
    assert sum(step.startswith("rows, part ") for step in steps) > 1
    read, records = independent_compare.read_target(dsn), independent_compare.read_records(dsn)
    assert independent_compare.compare(independent_compare.read_source(source), read, records) == []
    found: dict[str, Any] = json.loads((report / "report.json").read_text())
    return found


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("rows", ROWS)
def test_all_rows_arrive_once_and_are_compared_by_digest(
    rows: Any, tmp_path: Path, postgres: str
) -> None:
    rng = random.Random(SEED)
    print(f"seed {SEED}")
    source = tmp_path / "source.db"
    _source(source, rows(rng))
    report = _migrate(source, postgres, tmp_path / "report")
    if rows is not _wide:
        assert report["tables"]["t"]["compared"] == "digest"
    with psycopg.connect(postgres) as target:
        indexes = target.execute(
            "SELECT indexname FROM pg_indexes WHERE tablename = 't' AND schemaname = 'public'"
        )
        assert {r[0] for r in indexes} == {"t_pkey", "t_word"}


@pytest.mark.usefixtures("small_parts")
def test_what_rules_change_and_what_is_set_aside_is_kept_once(
    tmp_path: Path, postgres: str
) -> None:
    source = tmp_path / "source.db"
    odd = (
        (
            n,
            f"w{n}",
            f"much {n}" if n % 100 == 0 else f"2024-01-02{'T' if n % 9 == 0 else ' '}03:04",
        )
        for n in range(1, 1_001)
    )
    _source(source, odd, "DATETIME")
    policy = tmp_path / "policy.yaml"
    policy.write_text("tables: {t: {columns: {n: {action: quarantine}}}}\n")
    report = _migrate(source, postgres, tmp_path / "report", "--policy", policy)
    assert report["quarantine_count"] == 10
    assert report["tables"]["t"]["target_rows"] == 990
    assert report["ledger_count"] > 0


def test_rows_in_another_order_are_compared_by_their_key(tmp_path: Path, postgres: str) -> None:
    """An update moves a row; the table is still compared as text, and a change is still found."""
    source = tmp_path / "source.db"
    _source(source, _dense(random.Random(SEED)))
    ended = run("migrate", source, "--target", postgres, "--report", tmp_path / "report")
    assert ended.status == DONE, ended.said

    def verify() -> tuple[int, str]:
        ended = run("verify", source, "--target", postgres, "--report", tmp_path / "again")
        report = json.loads((tmp_path / "again" / "verify.json").read_text())
        return ended.status, report["tables"]["t"]["compared"]

    with psycopg.connect(postgres, autocommit=True) as target:
        target.execute("UPDATE t SET word = word WHERE id % 3 = 0")
        assert verify() == (DONE, "digest")
        target.execute("UPDATE t SET word = word || 'x' WHERE id = 3000")
        assert verify()[0] == DIFFERS
        target.execute("UPDATE t SET word = left(word, -1) WHERE id = 3000")
        target.execute("INSERT INTO t SELECT 3001, word, n FROM t WHERE id = 3000")
        assert verify()[0] == DIFFERS
        target.execute("DELETE FROM t WHERE id IN (1, 3001)")
        assert verify()[0] == DIFFERS
