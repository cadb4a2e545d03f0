"""Pages of a SQLite file that changed places end in a sentence, not in a defect to be reported."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path

import pytest

from migration_job.stores.sqlite.database import check_integrity, reading
from tests.integration.running import USAGE, run
from tests.integration.test_hostile_input import MANY, SEED, made, must_end_well

pytestmark = pytest.mark.postgres

PAGE = 1024


def test_swapped_pages_end_with_a_sentence(tmp_path: Path, postgres: str) -> None:
    chance = random.Random(SEED)
    print(f"MIGRATION_JOB_FUZZ_SEED={SEED}")
    content = made(tmp_path / "intact.db")
    source = tmp_path / "swapped.db"
    for number in range(MANY // 4):
        data = bytearray(content)
        a, b = (n * PAGE for n in chance.sample(range(1, len(data) // PAGE), 2))
        data[a : a + PAGE], data[b : b + PAGE] = data[b : b + PAGE], data[a : a + PAGE]
        source.write_bytes(data)
        ended = run("migrate", source, "--target", postgres, "--report", tmp_path / f"r{number}")
        must_end_well(ended.said, ended.status, number)
        same = {a // PAGE + 1, b // PAGE + 1} == {3, 6}  # two trees with the same content
        assert ended.status or same, f"pages {a // PAGE + 1} and {b // PAGE + 1}: {ended.said}"


@pytest.mark.parametrize("pages", [(4, 5), (5, 15), (6, 7)])
def test_a_swap_that_sqlites_own_check_passes_over_is_damage(
    tmp_path: Path, postgres: str, pages: tuple[int, int]
) -> None:
    """Of all pairs of that file those for which SQLite 3.54 says nothing but of an index of an
    expression. (Of 3 and 6 it says nothing either: the two are the same.)"""
    data = bytearray(made(tmp_path / "intact.db"))
    a, b = ((number - 1) * PAGE for number in pages)
    data[a : a + PAGE], data[b : b + PAGE] = data[b : b + PAGE], data[a : a + PAGE]
    source = tmp_path / "swapped.db"
    source.write_bytes(data)
    ended = run("migrate", source, "--target", postgres, "--report", tmp_path / "report")
    assert ended.status, ended.said


def test_pages_that_nothing_reaches_are_damage(tmp_path: Path, postgres: str) -> None:
    """SQLite's own check says nothing of them where a view's root page comes first in its list."""
    data = bytearray(made(tmp_path / "intact.db"))
    interior = 5  # the type of a table's page that refers to others
    root = next(n for n in range(3, len(data) // PAGE) if data[n * PAGE] == interior)
    first = int.from_bytes(data[root * PAGE + 8 : root * PAGE + 12], "big") - 1
    a, b = root * PAGE, first * PAGE
    data[a : a + PAGE], data[b : b + PAGE] = data[b : b + PAGE], data[a : a + PAGE]
    source = tmp_path / "swapped.db"
    source.write_bytes(data)
    ended = run("migrate", source, "--target", postgres, "--report", tmp_path / "report")
    assert ended.status == USAGE, ended.said
    assert "in no table, in no index and not free" in ended.said


@pytest.mark.parametrize("auto_vacuum", [0, 1, 2])
@pytest.mark.parametrize("page_size", [512, 1024, 4096])
def test_an_intact_file_with_views_has_no_such_pages(
    tmp_path: Path, auto_vacuum: int, page_size: int
) -> None:
    path = tmp_path / "intact.db"
    connection = sqlite3.connect(path)
    connection.executescript(
        f"PRAGMA page_size = {page_size}; PRAGMA auto_vacuum = {auto_vacuum};"
        "CREATE TABLE t(id INTEGER PRIMARY KEY, b BLOB); CREATE VIEW v AS SELECT id FROM t;"
        "CREATE INDEX i ON t(b); CREATE VIRTUAL TABLE f USING fts5(x);"
        "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 400) "
        "INSERT INTO t(b) SELECT randomblob(n * 9) FROM s; INSERT INTO f VALUES ('a b c');"
        "DELETE FROM t WHERE id % 3 = 0;"
    )
    connection.close()
    with reading(path) as reader:
        check_integrity(reader)
