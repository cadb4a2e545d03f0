"""What counts as damage: pages and entries, not what another release of SQLite computed."""

from __future__ import annotations

import json
from pathlib import Path

import apsw
import pytest

from migration_job.errors import InputError
from migration_job.stores.sqlite import integrity
from migration_job.stores.sqlite.database import check_integrity
from tests.integration.running import USAGE, run


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


@pytest.mark.parametrize("full", [True, False])
def test_it_is_called_what_it_is(tmp_path: Path, full: bool) -> None:
    """`quick_check` looks no row up in an index, and nobody shall think that it did."""
    path = tmp_path / "source.db"
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT); CREATE INDEX i ON t(v)")
    asked: list[str] = []
    connection.trace_v2(apsw.SQLITE_TRACE_STMT, lambda told: asked.append(str(told["sql"])))
    integrity.check(connection, full=full)
    checks = {sql.partition("(")[0] for sql in asked if "_check" in sql}
    assert checks == {"PRAGMA integrity_check" if full else "PRAGMA quick_check"}
    assert ("quick" in integrity.name(full=full)) is not full
    connection.close()


def test_the_report_names_the_check_that_was_made(tmp_path: Path, postgres: str) -> None:
    path = tmp_path / "source.db"
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB)")
    connection.execute("INSERT INTO t VALUES (1, zeroblob(?))", (integrity.FULL_BYTES,))
    connection.close()

    def checked(number: int, *more: str) -> list[str]:
        report = tmp_path / f"report{number}"
        schema = ["--schema-name", f"s{number}"]
        done = run("migrate", path, "--target", postgres, "--report", report, *schema, *more)
        assert done.status == 0, done.said
        told = json.loads((report / "report.json").read_text())
        return [name for name in told["beside_seconds"] if "integrity" in name]

    assert checked(1) == ["quick check of the integrity"]
    assert checked(2, "--deep") == ["integrity check"]


@pytest.mark.parametrize(
    "place", ["t(id /*m*/", "t(v) /*m*/", "id > 0 /*m*/", "SELECT v /*m*/", "BEGIN /*m*/", "m_name"]
)
def test_a_schema_that_is_no_text_is_said_so(tmp_path: Path, place: str) -> None:
    """Whatever statement or name holds the bytes, and whichever look at the schema meets them."""
    path = tmp_path / "source.db"
    connection = apsw.Connection(str(path))
    connection.execute(
        "CREATE TABLE t(id /*m*/ INTEGER PRIMARY KEY, v TEXT); CREATE INDEX i ON t(v) /*m*/;"
        "CREATE INDEX j ON t(v) WHERE id > 0 /*m*/; CREATE VIEW w AS SELECT v /*m*/ FROM t;"
        "CREATE TRIGGER g AFTER INSERT ON t BEGIN /*m*/ SELECT 1; END;"
        "CREATE TABLE m_name(a UNIQUE)"
    )
    connection.close()
    content = path.read_bytes()
    assert place.encode() in content
    path.write_bytes(content.replace(place.encode(), place.replace("m", "\xcc").encode("latin-1")))
    ended = run("inspect", path)
    assert ended.status == USAGE, ended.said
    assert "the source's schema cannot be read" in ended.said
    assert "unforeseen" not in ended.said


def test_a_table_of_sequences_that_is_none_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "source.db"
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT)")
    connection.close()
    content = path.read_bytes()
    path.write_bytes(content.replace(b"sqlite_sequence(name,", b"sqlite_sequence(game,"))
    ended = run("inspect", path)
    assert ended.status == USAGE, ended.said
    assert "sqlite_sequence cannot be read: no such column: name" in ended.said
