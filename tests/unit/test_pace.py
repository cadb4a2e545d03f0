"""How far a plan is: by rows, of which it knows about how many there are before it looks."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from migration_job.plan.planner import make_plan
from migration_job.plan.planner import side_by_side as side
from migration_job.stores.sqlite.catalogue import read_catalogue

Heard = list[tuple[int, int]]


def heard(path: Path, script: str, *, readers: int = 1) -> Heard:
    """What a plan of the script's tables tells, one after another."""
    first = apsw.Connection(str(path))
    first.execute(script)
    others = [apsw.Connection(str(path)) for _ in range(readers - 1)]
    told: Heard = []
    make_plan(
        first, read_catalogue(first), others=others, told=lambda done, of: told.append((done, of))
    )
    for connection in (first, *others):
        connection.close()
    return told


SERIES = "WITH RECURSIVE s(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM s LIMIT 1000)"


def rows(table: str, ids: str) -> str:
    return f"INSERT INTO {table} {SERIES} SELECT {ids}, 'v' || value FROM s"


TABLE = "CREATE TABLE {name} (id INTEGER PRIMARY KEY, v VARCHAR(10));"


def test_every_row_is_counted_once_and_of_as_many(tmp_path: Path) -> None:
    script = TABLE.format(name="a") + rows("a", "value") + ";" + TABLE.format(name="b")
    told = heard(tmp_path / "s.db", script)
    assert told[0] == (0, 1_000)
    assert told[-1] == (1_000, 1_000)
    assert all(done <= of for done, of in told)
    assert sorted(told) == told


@pytest.mark.parametrize(
    ("ids", "first"),
    [
        pytest.param("value * 2", 1_999, id="gaps: about"),
        pytest.param("value * 1000000007", 1_000, id="wide apart: counted"),
        pytest.param("-value", 1_000, id="below zero"),
    ],
)
def test_rowids_with_gaps_are_mended_by_the_count(tmp_path: Path, ids: str, first: int) -> None:
    told = heard(tmp_path / "s.db", TABLE.format(name="a") + rows("a", ids))
    assert told[0] == (0, first)
    assert told[-1] == (1_000, 1_000)


def test_a_table_without_rowid_is_counted(tmp_path: Path) -> None:
    script = "CREATE TABLE a (id INTEGER, v TEXT, PRIMARY KEY (id, v)) WITHOUT ROWID;"
    assert heard(tmp_path / "s.db", script + rows("a", "value"))[0] == (0, 1_000)


def test_parts_of_a_large_table_are_told_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("migration_job.plan.observe.CELLS_AT_ONCE", 200)
    told = heard(tmp_path / "s.db", TABLE.format(name="a") + rows("a", "value"), readers=2)
    assert len(told) == 1 + 2 * 2 * side.PARTS_PER_READER
    assert told[-1] == (1_000, 1_000)
    assert all(done <= of for done, of in told)
