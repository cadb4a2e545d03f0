"""What the catalogue, the reader and the opening of files promise."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from migration_job.errors import ExitStatus, InputError, OperationError
from migration_job.stores.sqlite.catalogue import MARK, affinity_of, read_catalogue, rowid_name
from migration_job.stores.sqlite.database import check_integrity, open_readonly, reading
from migration_job.stores.sqlite.model import Catalogue
from migration_job.stores.sqlite.reader import ROWID, batches, read_by_keys, read_rows
from migration_job.values import BrokenText
from tests.unit.planning import database


def catalogue_of(path: Path) -> Catalogue:
    with reading(path) as connection:
        return read_catalogue(connection)


def test_columns_as_written(tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db",
        """CREATE TABLE "we ird" ( -- a comment, with ( a parenthesis
            a INTEGER PRIMARY KEY DESC, [b c] VARCHAR(10) COLLATE nocase CHECK ([b c] <> ')'),
            `d` AS (a + 1) STORED, e GENERATED ALWAYS AS (a || ',') VIRTUAL, f TEXT DEFAULT 'x,y',
            CONSTRAINT k CHECK (a > 0))""",
    )
    table = catalogue_of(path).table("WE IRD")
    by_name = {c.name: c for c in table.columns}
    assert list(by_name) == ["a", "b c", "d", "e", "f"]
    assert by_name["b c"].collation.upper() == "NOCASE"
    assert (by_name["d"].generated, by_name["d"].expression) == ("stored", "a + 1")
    assert (by_name["e"].generated, by_name["e"].expression) == ("virtual", "a || ','")
    assert by_name["e"].declared == ""
    assert by_name["f"].default == "'x,y'"
    assert table.checks == ("[b c] <> ')'", "a > 0")


@pytest.mark.parametrize(
    ("definition", "alias"),
    [
        ("id INTEGER PRIMARY KEY", "id"),
        ("id integer primary key autoincrement", "id"),
        ("id INT PRIMARY KEY", None),
        ("id INTEGER PRIMARY KEY DESC", None),
        ("id INTEGER, v, PRIMARY KEY (id DESC)", "id"),
        ("id INTEGER, v, PRIMARY KEY (id, v)", None),
        ("id TEXT PRIMARY KEY", None),
    ],
)
def test_rowid_alias(tmp_path: Path, definition: str, alias: str | None) -> None:
    path = database(tmp_path / "a.db", f"CREATE TABLE t ({definition})")
    assert catalogue_of(path).table("t").rowid_alias == alias


def test_rowid_hidden_by_columns(tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db",
        "CREATE TABLE one(rowid TEXT)",
        "CREATE TABLE all3(rowid, _rowid_, oid)",
        "CREATE TABLE without(k PRIMARY KEY) WITHOUT ROWID",
    )
    catalogue = catalogue_of(path)
    assert rowid_name(catalogue.table("one")) == "_rowid_"
    assert rowid_name(catalogue.table("all3")) is None
    assert rowid_name(catalogue.table("without")) is None


def test_affinity_is_sqlites_own() -> None:
    names = (
        "INTEGER", "INT", "POINT", "TEXT", "NCHAR(3)", "CLOB", "BLOB", "", "REAL", "FLOAT",
        "DOUBLE PRECISION", "CHARINT", "NUMERIC", "DATETIME", "BOOLEAN", "STRING", "JSON", "UUID",
        "DECIMAL(10,5)", "FLOATING POINT",
    )  # fmt: skip
    for name in names:
        memory = apsw.Connection(":memory:")
        memory.execute(f"CREATE TABLE t (a {name}); INSERT INTO t VALUES ('1'), ('1.5'), (2.0)")
        stored = [row[0] for row in memory.execute("SELECT typeof(a) FROM t")]
        expected = {
            "integer": ["integer", "real", "integer"],
            "numeric": ["integer", "real", "integer"],
            "real": ["real", "real", "real"],
            "text": ["text", "text", "text"],
            "blob": ["text", "text", "real"],
        }
        assert stored == expected[affinity_of(name)], name


def test_indexes_and_foreign_keys(tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db",
        "CREATE TABLE p(id TEXT PRIMARY KEY, u UNIQUE)",
        """CREATE TABLE c(a REFERENCES P DEFERRABLE INITIALLY DEFERRED, b, "or d",
            FOREIGN KEY (b) REFERENCES p(U) ON DELETE SET NULL)""",
        "CREATE UNIQUE INDEX i ON c(lower(a) COLLATE nocase DESC, b) WHERE b > 5 AND a <> 'where'",
        'CREATE INDEX "on" ON c("or d")',
    )
    table = catalogue_of(path).table("c")
    index = next(i for i in table.indexes if i.name == "i")
    assert (index.unique, index.where) == (True, "b > 5 AND a <> 'where'")
    assert [(t.column, t.expression, t.descending) for t in index.columns] == [
        (None, "lower(a)", True),
        ("b", None, False),
    ]
    assert index.columns[0].collation.upper() == "NOCASE"
    first, second = table.foreign_keys
    assert (first.columns, first.parent, first.parent_columns) == (("a",), "p", ("id",))
    assert first.deferred
    assert not second.deferred
    assert (second.parent_columns, second.on_delete) == (("u",), "SET NULL")


def test_shadow_tables_and_own_tables_are_no_data(tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db",
        "CREATE TABLE real_one(a)",
        "CREATE VIRTUAL TABLE ft USING fts5(a)",
        "CREATE VIRTUAL TABLE rt USING rtree(id, x0, x1)",
        f"CREATE TABLE _migration_log {MARK} (a)",
        "CREATE TABLE _migration_notes(a)",
        "CREATE TABLE ft_notes(a)",
        "ANALYZE",
    )
    catalogue = catalogue_of(path)
    # An application's table is data, whatever its name begins with.
    assert [t.name for t in catalogue.tables] == ["real_one", "_migration_notes", "ft_notes"]
    kinds = {o.name: o.kind for o in catalogue.others}
    assert kinds["ft"] == kinds["rt"] == "virtual"
    assert kinds["ft_content"] == kinds["rt_node"] == "shadow"


def test_shadow_tables_of_a_module_that_is_not_there(tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db",
        "CREATE TABLE v_chunks(a)",
        "CREATE TABLE v_other(a)",
        "PRAGMA writable_schema = 1",
        "INSERT INTO sqlite_schema VALUES "
        "('table', 'v', 'v', 0, 'CREATE VIRTUAL TABLE v USING vec0(e float[3])')",
    )
    catalogue = catalogue_of(path)
    assert [t.name for t in catalogue.tables] == ["v_other"]


def test_sequence_mark_survives_deleted_rows(tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db",
        "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT)",
        "INSERT INTO t VALUES (41)",
        "DELETE FROM t",
    )
    table = catalogue_of(path).table("t")
    assert (table.autoincrement, table.sequence) == (True, 41)


# -------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le", "UTF-16be"])
def test_values_arrive_as_they_are(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.db"
    values = (None, 1, -(2**63), 1.5, float("inf"), "é😀", "a\x00b", "", b"", b"\x00\xff", "1")
    connection = apsw.Connection(str(path))
    connection.execute(f"PRAGMA encoding = '{encoding}'")
    connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
    for value in values:
        connection.execute("INSERT INTO t(v) VALUES (?)", (value,))
    connection.execute("INSERT INTO t(v) VALUES (CAST(x'ffd8' AS TEXT))")
    connection.close()
    broken = {"UTF-8": BrokenText(b"\xff\xd8"), "UTF-16le": BrokenText(b"\xff\xd8")}
    expected = [*values, broken.get(encoding, "\uffd8")]
    with reading(path) as source:
        catalogue = read_catalogue(source)
        table = catalogue.table("t")
        rows = list(read_rows(source, table, ["v", ROWID], encoding=encoding))
        assert [row[0] for row in rows] == expected
        assert [type(row[0]) for row in rows] == [type(v) for v in expected]
        found = read_by_keys(
            source, table, ["v"], encoding=encoding, key=["v"], keys=[(v,) for v in expected]
        )
        assert sorted(map(repr, found)) == sorted(repr((v,)) for v in expected)


def test_more_columns_than_one_mask_holds(tmp_path: Path) -> None:
    names = [f"c{i}" for i in range(137)]
    values = tuple(str(i) if i % 3 else i for i in range(137))
    path = database(
        tmp_path / "a.db",
        f"CREATE TABLE t({', '.join(names)})",
        (f"INSERT INTO t VALUES ({', '.join('?' * 137)})", values),
    )
    with reading(path) as source:
        table = read_catalogue(source).table("t")
        assert list(read_rows(source, table, names, encoding="UTF-8")) == [values]


def test_batches_are_bounded_by_rows_and_bytes() -> None:
    rows = [(i, "x" * 10) for i in range(10)]
    assert [len(b) for b in batches(rows, max_rows=4)] == [4, 4, 2]
    assert [len(b) for b in batches(rows, max_rows=99, max_bytes=40)] == [2, 2, 2, 2, 2]
    assert [len(b) for b in batches([("x" * 99,), ("y",)], max_bytes=10)] == [1, 1]


# -------------------------------------------------------------------------------- opening


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"SQLite format 3", "not a SQLite database"),
        (b"CREATE TABLE t(a);\n", "dump"),
        (bytes(range(128, 256)) * 32, "ncrypted"),
        (b"SQLite format 3\x00" + b"\x00" * 84, "not a SQLite database"),
    ],
)
def test_what_is_no_database_is_said_so(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        open_readonly(path)
    assert words in str(caught.value)
    assert caught.value.status == ExitStatus.USAGE
    assert path.read_bytes() == content


def test_missing_file_and_directory(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        open_readonly(tmp_path / "no.db")
    with pytest.raises(InputError, match="directory"):
        open_readonly(tmp_path)


def test_damage_is_found(tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db",
        "CREATE TABLE t(a, b UNIQUE)",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) "
        "INSERT INTO t SELECT i, 'value ' || i FROM n",
    )
    content = bytearray(path.read_bytes())
    for offset in range(4096 * 3, 4096 * 6):
        content[offset] = 0xA5
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged"), reading(path) as connection:
        check_integrity(connection)


def test_broken_constraints_are_no_damage(tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db",
        "CREATE TABLE t(a NOT NULL CHECK (a > 0))",
        "PRAGMA ignore_check_constraints = 1",
        "INSERT INTO t VALUES (-1)",
    )
    with reading(path) as connection:
        check_integrity(connection)


def test_a_locked_source_is_said_so(tmp_path: Path) -> None:
    path = database(tmp_path / "a.db", "CREATE TABLE t(a)")
    writer = apsw.Connection(str(path))
    try:
        writer.execute("BEGIN EXCLUSIVE")
        with pytest.raises(OperationError, match="locked"):
            open_readonly(path, patience=0.01)
    finally:
        writer.close()


def test_reading_leaves_nothing_behind(tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db",
        "PRAGMA journal_mode = WAL",
        "CREATE TABLE t(a)",
        "INSERT INTO t VALUES (1)",
    )
    before = path.read_bytes()
    with reading(path) as connection:
        assert connection.execute("SELECT a FROM t").fetchall() == [(1,)]
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.db"]
