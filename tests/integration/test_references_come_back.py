"""Keys that the source spells otherwise than most of their column: what PostgreSQL's new rows refer
to them by comes home in that very spelling, or SQLite would not find the parent."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.running import DONE, run
from tests.integration.wholeway import Way

pytestmark = pytest.mark.postgres

MOST = [f"{n}{n}112233-4455-6677-8899-aabbccddeeff" for n in range(3)]
ODD, ODDER = "AA112233-4455-6677-8899-AABBCCDDEEFF", "bb112233445566778899aabbccddeeff"

SOURCE = f"""
CREATE TABLE node (id UUID PRIMARY KEY, n int, above UUID REFERENCES node);
CREATE TABLE child (id INTEGER PRIMARY KEY, node UUID REFERENCES node, at DATETIME,
    said text, FOREIGN KEY (at) REFERENCES moment (at));
CREATE TABLE moment (at DATETIME UNIQUE, n INTEGER PRIMARY KEY);
CREATE VIRTUAL TABLE search USING fts5(node, content='child', content_rowid='id');
CREATE TRIGGER added AFTER INSERT ON child BEGIN
    INSERT INTO search (rowid, node) VALUES (new.id, new.node); END;
CREATE TRIGGER gone AFTER DELETE ON child BEGIN
    INSERT INTO search (search, rowid, node) VALUES ('delete', old.id, old.node); END;
CREATE TRIGGER altered AFTER UPDATE ON child BEGIN
    INSERT INTO search (search, rowid, node) VALUES ('delete', old.id, old.node);
    INSERT INTO search (rowid, node) VALUES (new.id, new.node); END;
INSERT INTO node VALUES ('{MOST[0]}', 1, NULL), ('{MOST[1]}', 2, '{MOST[0]}'),
    ('{MOST[2]}', 3, NULL), ('{ODD}', 4, NULL), ('{ODDER}', 5, '{ODD}');
INSERT INTO moment VALUES ('2026-01-02 03:04:05', 1), ('2026-01-02 03:04:06', 2),
    ('2026-01-02T03:04:07Z', 3);
INSERT INTO child VALUES (1, '{MOST[0]}', '2026-01-02 03:04:05', 'x'), (2, '{ODD}', NULL, 'y');
"""


def test_new_references_to_odd_keys(postgres: str, tmp_path: Path) -> None:
    way = Way.of(tmp_path, postgres, SOURCE)
    moved = way.migrate()
    assert moved.status == DONE, moved.said
    for _ in range(2):  # the second time the source's own rows are spelled so, too
        switched = way.command("switch")
        assert switched.status == DONE, switched.said
        way.on_postgres(
            f"""
            INSERT INTO child SELECT max(c.id) + 1, '{ODD}', '2026-01-02 03:04:07+00', 'z'
                FROM child c;
            INSERT INTO child SELECT max(id) + 1, '{ODDER}', '2026-01-02 03:04:06+00', 'z'
                FROM child;
            UPDATE child SET node = '{ODDER}' WHERE id = 1;
            UPDATE child SET said = 'another' WHERE id = 2;
            UPDATE node SET above = '{ODDER}' WHERE n = 3;
            UPDATE node SET n = n WHERE n = 4;
            """
        )
        way.back()
        assert way.on_sqlite("PRAGMA foreign_key_check") == []
        way.on_sqlite("INSERT INTO search (search, rank) VALUES ('integrity-check', 1)")
    assert way.on_sqlite("SELECT id, node, at, said FROM child") == [
        (1, ODDER, "2026-01-02 03:04:05", "x"),
        (2, ODD, None, "another"),
        *(
            (3 + n, *row, "z")
            for n, row in enumerate(
                [(ODD, "2026-01-02T03:04:07Z"), (ODDER, "2026-01-02 03:04:06")] * 2
            )
        ),
    ]
    assert way.on_sqlite("SELECT above FROM node WHERE n IN (3, 5) ORDER BY n") == [
        (ODDER,),
        (ODD,),
    ]
    verified = run("verify", way.source, "--target", postgres, "--report", tmp_path / "again")
    assert verified.status == DONE, verified.said


def test_a_key_that_has_moved_on_is_not_taken_for_the_old_one(
    postgres: str, tmp_path: Path
) -> None:
    """The row that was spelled oddly has another key by then, and a new row has its old one."""
    way = Way.of(tmp_path, postgres, SOURCE)
    moved = way.migrate()
    assert moved.status == DONE, moved.said
    switched = way.command("switch")
    assert switched.status == DONE, switched.said
    way.on_postgres(
        f"""
        DELETE FROM child WHERE id = 2;
        UPDATE node SET above = NULL WHERE n = 5;
        UPDATE node SET id = 'cc112233-4455-6677-8899-aabbccddeeff' WHERE n = 4;
        INSERT INTO node VALUES ('{ODD}', 6, NULL);
        INSERT INTO child VALUES (7, '{ODD}', NULL, 'new'),
            (8, 'cc112233-4455-6677-8899-aabbccddeeff', NULL, 'old');
        """
    )
    way.back()
    assert way.on_sqlite("PRAGMA foreign_key_check") == []
    assert way.on_sqlite(
        "SELECT c.said, n.n, n.id FROM child c JOIN node n ON n.id = c.node WHERE c.id > 5"
    ) == [("new", 6, ODD.lower()), ("old", 4, "cc112233-4455-6677-8899-aabbccddeeff")]
