"""Capture logs the key of every row that any statement changes, in the application's own SQLite."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path
from typing import Any

import apsw
import pytest

from migration_job.errors import InputError
from migration_job.quoting import sqlite_name
from migration_job.stores.sqlite import capture
from migration_job.stores.sqlite.catalogue import read_catalogue, rowid_name
from migration_job.stores.sqlite.reader import ROWID

SCHEMA = """
CREATE TABLE people (id TEXT PRIMARY KEY, email TEXT UNIQUE, name TEXT COLLATE NOCASE UNIQUE, n);
CREATE TABLE notes (id INTEGER PRIMARY KEY AUTOINCREMENT, slug TEXT UNIQUE,
    person TEXT REFERENCES people(id) ON DELETE CASCADE ON UPDATE CASCADE, parent INTEGER
    REFERENCES notes(id) ON DELETE SET NULL, body TEXT);
CREATE TABLE progress (person TEXT, note INTEGER, score REAL, mark TEXT UNIQUE ON CONFLICT REPLACE,
    PRIMARY KEY (person, note)) WITHOUT ROWID;
CREATE TABLE heap (a, b);
CREATE UNIQUE INDEX heap_partial ON heap(a) WHERE b IS NOT NULL;
CREATE UNIQUE INDEX heap_expression ON heap(lower(b));
CREATE TABLE "odd ""name'" ("k ey" TEXT COLLATE NOCASE PRIMARY KEY, "order" INT,
    twice INT GENERATED ALWAYS AS ("order" * 2) UNIQUE);
CREATE TABLE loose (k PRIMARY KEY, v REAL UNIQUE, w INTEGER);
CREATE UNIQUE INDEX loose_expression ON loose(w = '7', v);
CREATE TRIGGER echo AFTER INSERT ON notes WHEN new.body = 'echo' BEGIN
    INSERT OR REPLACE INTO heap(a, b) VALUES (new.id % 5, 'b' || new.id % 3);
    DELETE FROM progress WHERE note = new.id;
END;
"""
KEYS: dict[str, tuple[str, ...]] = {
    "people": ("id",),
    "notes": ("id",),
    "progress": ("person", "note"),
    "heap": (),
    "odd \"name'": ("k ey",),
    "loose": ("k",),
}


def run_script(path: Path, script: str) -> None:
    connection = sqlite3.connect(path)
    connection.executescript(script)
    connection.close()


def install(path: Path, keys: dict[str, tuple[str, ...]] = KEYS, **options: Any) -> None:
    connection = apsw.Connection(str(path))
    with connection:
        tables = capture.captured_tables(read_catalogue(connection), keys)
        capture.install(connection, tables, run="test", capture="c1", **options)
    connection.close()


class Writer:
    """The application: another SQLite library, its own PRAGMAs."""

    def __init__(self, path: Path, *, recursive: bool = False) -> None:
        self.db = sqlite3.connect(path, isolation_level=None)
        self.db.execute("PRAGMA foreign_keys = ON")
        self.db.execute(f"PRAGMA recursive_triggers = {int(recursive)}")
        self.db.execute("PRAGMA synchronous = OFF")
        self.numbers = dict(self.db.execute("SELECT name, number FROM _migration_tables"))

    def state(self) -> dict[tuple[Any, ...], tuple[Any, ...]]:
        rows = {}
        for name, key in KEYS.items():
            terms = [sqlite_name(c) for c in key] or ["rowid"]
            typed = ", ".join(f"typeof({t}), {t}" for t in terms)
            for row in self.db.execute(f"SELECT {typed}, * FROM {sqlite_name(name)}"):
                rows[(name, *row[: 2 * len(terms)])] = row
        return rows

    def logged(self) -> set[tuple[Any, ...]]:
        found = set()
        for name, key in KEYS.items():
            typed = ", ".join(f"typeof(k{i}), k{i}" for i in range(len(key) or 1))
            found |= {
                (name, *row)
                for row in self.db.execute(
                    f"SELECT {typed} FROM _migration_log WHERE tab = ?", (self.numbers[name],)
                )
            }
        return found


def random_statement(dice: random.Random) -> tuple[str, tuple[Any, ...]]:
    verb = dice.choice(["INSERT", "INSERT OR REPLACE", "INSERT OR IGNORE", "REPLACE"])
    change = dice.choice(["UPDATE", "UPDATE OR REPLACE", "UPDATE OR IGNORE"])
    person, email = f"p{dice.randrange(6)}", f"e{dice.randrange(6)}"
    name = dice.choice(["ann", "Ann", "ANN", "bob", "BOB", "cy", None])
    small, mark = dice.randrange(6), dice.choice(["m1", "m2", "M2", None])
    loose = dice.choice([1, 1.0, "1", b"1", 2.5, None, 7, "7"])
    return dice.choice(
        [
            (f"{verb} INTO people VALUES (?, ?, ?, ?)", (person, email, name, loose)),
            (
                "INSERT INTO people VALUES (?, ?, ?, 1) ON CONFLICT(id) DO UPDATE "
                "SET email = excluded.email, id = excluded.id || 'x'",
                (person, email, name),
            ),
            (f"{change} people SET id = ?, email = ? WHERE id = ?", (email, email, person)),
            (f"{change} people SET name = ? WHERE email = ?", (name, email)),
            ("DELETE FROM people WHERE id >= ?", (f"p{dice.randrange(3, 9)}",)),
            (
                f"{verb} INTO notes(slug, person, parent, body) VALUES (?, ?, ?, ?)",
                (f"s{small}", None, None, dice.choice(["x", "echo"])),
            ),
            (f"{verb} INTO notes VALUES (?, ?, NULL, NULL, 'y')", (small, f"s{small + 1}")),
            (f"{change} notes SET id = ?, slug = ? WHERE id = ?", (small, f"s{small}", small + 1)),
            (f"{change} notes SET rowid = ? WHERE slug = ?", (small, f"s{small}")),
            ("UPDATE notes SET person = (SELECT id FROM people LIMIT 1), parent = ?", (small,)),
            ("DELETE FROM notes WHERE id % 3 = ?", (small % 3,)),
            (f"{verb} INTO progress VALUES (?, ?, ?, ?)", (person, small, small, mark)),
            (f"{change} progress SET mark = ?, note = note + 1 WHERE note = ?", (mark, small)),
            ("DELETE FROM progress", ()),
            (f"{verb} INTO heap VALUES (?, ?)", (small, mark)),
            (f"{verb} INTO heap(rowid, a, b) VALUES (?, ?, ?)", (small, small + 3, email)),
            (f"{change} heap SET rowid = ?, b = ? WHERE a = ?", (small, mark, small)),
            (f'{verb} INTO "odd ""name\'" VALUES (?, ?)', (name or "dan", small)),
            (f'{change} "odd ""name\'" SET "order" = ? WHERE "k ey" = ?', (small, name)),
            (f"{verb} INTO loose VALUES (?, ?, ?)", (loose, small / 2, dice.choice([7, 8, "x"]))),
            (f"{change} loose SET k = ?, v = ? WHERE w = 7", (loose, small)),
            (f"{verb} INTO loose(rowid, k, v, w) VALUES (?, ?, ?, 7)", (small, loose, small + 9)),
            (f"{verb} INTO people(rowid, id, email) VALUES (?, ?, ?)", (small, person, email)),
        ]
    )


@pytest.mark.parametrize("recursive", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_every_changed_key_is_logged(tmp_path: Path, seed: int, recursive: bool) -> None:
    path = tmp_path / "source.db"
    run_script(path, SCHEMA)
    install(path)
    writer = Writer(path, recursive=recursive)
    dice = random.Random(seed)
    print(f"seed {seed}")
    changes = 0
    before = writer.state()
    for _ in range(500):
        statement, values = random_statement(dice)
        writer.db.execute("DELETE FROM _migration_log")
        try:
            writer.db.execute(statement, values)
        except sqlite3.IntegrityError:
            assert writer.logged() == set(), "a statement that failed has logged"
            continue
        after = writer.state()
        changed = {k for k in before.keys() | after.keys() if before.get(k) != after.get(k)}
        assert changed <= writer.logged(), (statement, values, changed - writer.logged())
        changes += len(changed)
        before = after
    assert changes > 200


def test_removal_leaves_the_schema_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "source.db"
    run_script(path, "CREATE TABLE t (id INTEGER PRIMARY KEY, v)")
    query = "SELECT type, name, tbl_name, sql FROM sqlite_schema"
    before = sqlite3.connect(path).execute(query).fetchall()
    install(path, {"t": ("id",)})
    connection = apsw.Connection(str(path))
    assert capture.installed(connection)
    digest = connection.execute("SELECT schema_digest FROM _migration_state").get
    assert capture.schema_digest(connection) == digest
    with connection:
        capture.remove(connection)
    assert not capture.installed(connection)
    assert capture.schema_digest(connection) == digest
    connection.close()
    assert sqlite3.connect(path).execute(query).fetchall() == before


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO {} DEFAULT VALUES",
        "INSERT OR IGNORE INTO {} DEFAULT VALUES",
        "INSERT OR REPLACE INTO {} DEFAULT VALUES",
        "INSERT OR ROLLBACK INTO {} DEFAULT VALUES",
        "UPDATE OR IGNORE {} SET rowid = rowid + 9",
        "DELETE FROM {}",
    ],
)
@pytest.mark.parametrize("table", ["numbered", "named", "unplanned", "bare"])
def test_a_closed_source_refuses_every_write(tmp_path: Path, table: str, statement: str) -> None:
    path = tmp_path / "source.db"
    run_script(
        path,
        "CREATE TABLE numbered (id INTEGER PRIMARY KEY, v UNIQUE);"
        "CREATE TABLE named (id TEXT PRIMARY KEY DEFAULT (hex(randomblob(4))));"
        "CREATE TABLE unplanned (v); CREATE TABLE bare (v);"
        "INSERT INTO numbered DEFAULT VALUES; INSERT INTO named DEFAULT VALUES;"
        "INSERT INTO unplanned DEFAULT VALUES; INSERT INTO bare DEFAULT VALUES;",
    )
    install(path, {"numbered": ("id",), "named": ("id",), "bare": ()}, closed=True)
    db = sqlite3.connect(path)
    with pytest.raises(sqlite3.DatabaseError, match=f"^{capture.MOVED}"):
        db.execute(statement.format(table))
    assert db.execute(f"SELECT count(*) FROM {table}").fetchone() == (1,)


def test_numbers_do_not_come_twice_after_trimming_all_but_the_last(tmp_path: Path) -> None:
    path = tmp_path / "source.db"
    run_script(path, "CREATE TABLE t (id INTEGER PRIMARY KEY, v)")
    install(path, {"t": ("id",)})
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("INSERT INTO t VALUES (1, 1), (2, 2)")
    last = db.execute("SELECT max(seq) FROM _migration_log").fetchone()[0]
    db.execute("DELETE FROM _migration_log WHERE seq < ?", (last,))
    db.execute("INSERT INTO t VALUES (3, 3)")
    assert db.execute("SELECT max(seq) FROM _migration_log").fetchone()[0] == last + 1
    assert not db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'sqlite_sequence'").fetchall()


@pytest.mark.parametrize(
    ("script", "keys", "words"),
    [
        ("CREATE TABLE t (rowid, _rowid_, oid)", {"t": ()}, "hide the rowid"),
        ("CREATE TABLE _migration_log (x)", {}, "_migration_log"),
        ("CREATE TABLE t (a); CREATE INDEX _migration_i ON t (a)", {"t": ()}, "_migration_i"),
    ],
)
def test_what_cannot_be_captured_is_refused(
    tmp_path: Path, script: str, keys: dict[str, tuple[str, ...]], words: str
) -> None:
    path = tmp_path / "source.db"
    run_script(path, script)
    with pytest.raises(InputError, match=words):
        install(path, keys)
    assert not capture.installed(apsw.Connection(str(path)))


def test_a_full_text_index_over_another_table_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "source.db"
    run_script(
        path,
        "CREATE TABLE docs (id INTEGER PRIMARY KEY, body TEXT);"
        "CREATE VIRTUAL TABLE f USING fts5(body, content = 'docs', content_rowid=id);",
    )
    install(path, {"docs": ("id",)})


def test_the_schema_digest_sees_changes_but_not_maintenance(tmp_path: Path) -> None:
    path = tmp_path / "source.db"
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE t (a); CREATE INDEX i ON t (a); INSERT INTO t VALUES (1)")
    digest = capture.schema_digest(connection)
    connection.execute("ANALYZE; VACUUM")
    assert capture.schema_digest(connection) == digest
    connection.execute("ALTER TABLE t ADD COLUMN b")
    assert capture.schema_digest(connection) != digest


def test_rowid_names(tmp_path: Path) -> None:
    connection = apsw.Connection(str(tmp_path / "a.db"))
    connection.execute("CREATE TABLE t (rowid TEXT PRIMARY KEY, v)")
    table = read_catalogue(connection).table("t")
    assert rowid_name(table) == "_rowid_"
    assert ROWID not in {c.name for c in table.columns}


def test_a_virtual_table_of_its_own_rows_cannot_be_followed(tmp_path: Path) -> None:
    path = tmp_path / "source.db"
    run_script(
        path,
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a); CREATE VIRTUAL TABLE f USING fts5(body);"
        "CREATE VIRTUAL TABLE over USING fts5(a, content='t'); "
        "CREATE VIRTUAL TABLE words USING fts5vocab(f, row);"
        "CREATE VIRTUAL TABLE bare USING fts5(a, content='');",
    )
    catalogue = read_catalogue(apsw.Connection(str(path)))
    with pytest.raises(InputError, match="table 'f' is a virtual table"):
        capture.refuse_virtual(catalogue, ())
    capture.refuse_virtual(catalogue, ("f",))
