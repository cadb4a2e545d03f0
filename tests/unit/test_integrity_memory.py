"""The page cache of the integrity check, which works beside a plan that takes memory too."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from migration_job.stores.sqlite import integrity


@pytest.mark.parametrize(
    ("full", "tables", "bytes_each", "expected"),
    [
        pytest.param(True, 1, 30 << 20, integrity.MOST_CACHE, id="one large table"),
        pytest.param(True, 200, 50_000, integrity.LEAST_CACHE, id="many small ones"),
        pytest.param(False, 1, 30 << 20, integrity.LEAST_CACHE, id="each page once"),
    ],
)
def test_the_cache_is_as_large_as_the_tables_ask_for(
    tmp_path: Path, full: bool, tables: int, bytes_each: int, expected: int
) -> None:
    connection = apsw.Connection(str(tmp_path / "s.db"))
    connection.execute("PRAGMA synchronous = OFF; BEGIN")
    for number in range(tables):
        connection.execute(f"CREATE TABLE t{number} (v BLOB)")
        connection.execute(f"INSERT INTO t{number} VALUES (zeroblob({bytes_each}))")
    connection.execute("COMMIT")
    integrity.check(connection, full=full)
    assert connection.execute("PRAGMA cache_size").fetchall() == [(-(expected >> 10),)]
    connection.close()
