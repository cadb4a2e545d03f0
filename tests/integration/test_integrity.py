"""What counts as damage: pages and entries, not what another release of SQLite computed."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from migration_job.errors import InputError
from migration_job.stores.sqlite.database import check_integrity


def entry_elsewhere(path: Path, index: str) -> None:
    """Make the index's one entry hold what a release would write that computes another value."""
    connection = apsw.Connection(str(path))
    connection.execute(
        f"CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT); {index}; INSERT INTO t VALUES (1, 'Aa')"
    )
    connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 0)
    connection.pragma("writable_schema", 1)
    # The entry was made by one expression, and is checked by another.
    connection.execute("UPDATE sqlite_schema SET sql = replace(sql, 'upper', 'lower')")
    connection.close()


@pytest.mark.parametrize(
    "index",
    [
        "CREATE INDEX i ON t(upper(v))",
        "CREATE INDEX i ON t(id, upper(v) DESC)",
        'CREATE INDEX "an index" ON t(upper(v)) WHERE v IS NOT NULL',
        'CREATE INDEX "" ON t(upper(v))',
    ],
)
def test_an_expression_that_another_release_computes_otherwise_is_no_damage(
    index: str, tmp_path: Path
) -> None:
    path = tmp_path / "source.db"
    entry_elsewhere(path, index)
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    rows = [str(r[0]) for r in connection.execute("PRAGMA integrity_check")]
    assert any("missing from index" in row for row in rows), rows
    check_integrity(connection)
    connection.close()


def test_an_entry_missing_from_an_index_of_columns_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "source.db"
    connection = apsw.Connection(str(path))
    connection.execute(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT, w TEXT); CREATE INDEX i ON t(v);"
        "INSERT INTO t VALUES (1, 'a', 'b')"
    )
    connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 0)
    connection.pragma("writable_schema", 1)
    connection.execute("UPDATE sqlite_schema SET sql = replace(sql, 't(v)', 't(w)')")
    connection.close()
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    with pytest.raises(InputError, match="missing from index i"):
        check_integrity(connection)
    connection.close()
