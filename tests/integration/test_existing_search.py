"""``--schema existing``: what an engine holds for search in its own way, and columns that stay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.running import BLOCKED, DONE, run
from tests.integration.wholeway import Way

pytestmark = pytest.mark.postgres

ENTRIES = """
CREATE TABLE kind (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
INSERT INTO kind VALUES (1, 'page'), (2, 'image');
CREATE TABLE wagtailsearch_indexentry (id INTEGER PRIMARY KEY AUTOINCREMENT,
    object_id VARCHAR(50) NOT NULL, kind_id INTEGER NOT NULL REFERENCES kind (id),
    title TEXT NOT NULL, body TEXT, UNIQUE (kind_id, object_id));
CREATE VIRTUAL TABLE wagtailsearch_indexentry_fts USING fts5(body, title);
CREATE TRIGGER fed AFTER INSERT ON wagtailsearch_indexentry BEGIN
    INSERT INTO wagtailsearch_indexentry_fts (title, body, rowid)
    VALUES (NEW.title, NEW.body, NEW.id); END;
INSERT INTO wagtailsearch_indexentry VALUES (1, '7', 1, 'Amber', 'of amber'), (2, '8', 2, 'x', '');
"""

OF_ENTRIES = """
CREATE TABLE kind (id serial PRIMARY KEY, name text NOT NULL);
CREATE TABLE wagtailsearch_indexentry (id serial PRIMARY KEY, object_id varchar(50) NOT NULL,
    kind_id integer NOT NULL REFERENCES kind DEFERRABLE INITIALLY DEFERRED,
    title tsvector NOT NULL, body tsvector NOT NULL, body_text text NOT NULL,
    UNIQUE (kind_id, object_id));
"""

NOTES = """
CREATE TABLE notes (id INTEGER PRIMARY KEY AUTOINCREMENT, body TEXT NOT NULL,
    search TEXT NOT NULL, local INTEGER NOT NULL);
INSERT INTO notes VALUES (1, 'first', 'first words', 5), (2, 'second', 'second words', 6);
"""

OF_NOTES = "CREATE TABLE notes (id serial PRIMARY KEY, body text NOT NULL, search tsvector {})"

LEFT = "tables: {notes: {columns: {local: {skip: true}}}}"


def findings(way: Way) -> dict[tuple[str, str], dict[str, Any]]:
    report = json.loads((way.folder / "report" / "report.json").read_text())
    return {(one["code"], one["column"] or one["table"]): one for one in report["findings"]}


def made(folder: Path, dsn: str, source: str, target: str) -> Way:
    way = Way.of(folder, dsn, source)
    way.on_postgres(target)
    (folder / "policy.yaml").write_text(LEFT)
    return way


def test_a_known_index_stays_on_each_side_and_its_command_is_named(
    postgres: str, tmp_path: Path
) -> None:
    way = made(tmp_path, postgres, ENTRIES, OF_ENTRIES)
    ended = way.migrate("--schema", "existing")
    assert ended.status == DONE, ended.said
    index = findings(way)["search-table", "wagtailsearch_indexentry"]
    assert index["severity"] == "warning"
    assert index["count"] == 2
    assert "`manage.py update_index`" in index["message"]
    full_text = findings(way)["virtual-table-not-carried", "wagtailsearch_indexentry_fts"]
    assert "`manage.py update_index` makes those anew" in full_text["message"]
    # The application goes on filling it; nothing of it is followed.
    way.on_sqlite(
        "INSERT INTO kind VALUES (3, 'late');"
        "INSERT INTO wagtailsearch_indexentry VALUES (3, '9', 3, 'Birch', 'of birch')"
    )
    assert way.command("switch").status == DONE
    assert way.on_postgres("SELECT id FROM kind ORDER BY id") == [(1,), (2,), (3,)]
    assert way.on_postgres("SELECT count(*) FROM wagtailsearch_indexentry") == [(0,)]
    way.on_postgres(
        "INSERT INTO wagtailsearch_indexentry (object_id, kind_id, title, body, body_text) "
        "VALUES ('7', 1, to_tsvector('Amber'), '', '')"
    )
    way.back()
    assert way.on_sqlite("SELECT count(*) FROM wagtailsearch_indexentry") == [(3,)]
    found = "SELECT title FROM wagtailsearch_indexentry_fts WHERE body MATCH 'birch'"
    assert way.on_sqlite(found) == [("Birch",)]


def test_a_search_column_is_the_target_s_and_new_rows_come_back(
    postgres: str, tmp_path: Path
) -> None:
    way = made(tmp_path, postgres, NOTES, OF_NOTES.format(""))
    policy = ("--policy", tmp_path / "policy.yaml")
    ended = way.migrate("--schema", "existing", *policy)
    assert ended.status == DONE, ended.said
    told = findings(way)
    assert (
        "2 values of the source's are not carried over" in told["search-column", "notes"]["message"]
    )
    for column, value in (("search", "an empty text"), ("local", "0")):
        assert f"come back with {value} there" in told["source-column-unfilled", column]["message"]
    assert way.command("switch", *policy).status == DONE
    way.on_postgres(
        "UPDATE notes SET body = 'changed', search = 'changed' WHERE id = 1;"
        "INSERT INTO notes (body, search) VALUES ('third', 'third')"
    )
    way.back()
    assert way.on_sqlite("SELECT * FROM notes ORDER BY id") == [
        (1, "changed", "first words", 5),
        (2, "second", "second words", 6),
        (3, "third", "", 0),
    ]


def test_one_that_demands_a_value_says_so_first(postgres: str, tmp_path: Path) -> None:
    way = made(tmp_path, postgres, NOTES, OF_NOTES.format("NOT NULL"))
    policy = tmp_path / "policy.yaml"
    look = ("inspect", way.source, "--schema", "existing", "--target", postgres)
    looked = run(*look, "--policy", policy)
    assert looked.status == BLOCKED
    assert "target-column-unfilled" in looked.said
    assert "rows: keep" in looked.said
    way.on_postgres("ALTER TABLE notes ALTER search SET DEFAULT ''")
    ended = way.migrate("--schema", "existing", "--policy", policy)
    assert ended.status == DONE, ended.said
    assert way.on_postgres("SELECT id, search::text FROM notes ORDER BY id") == [(1, ""), (2, "")]


def test_an_index_that_only_the_policy_knows_feeds_no_rows_of_its_own(
    postgres: str, tmp_path: Path
) -> None:
    source = ENTRIES.replace("wagtailsearch_indexentry", "entries")
    way = made(
        tmp_path,
        postgres,
        source,
        OF_ENTRIES.replace("wagtailsearch_index", "").replace("entry", "entries"),
    )
    (tmp_path / "policy.yaml").write_text("tables: {entries: {rows: keep}}")
    ended = way.migrate("--schema", "existing", "--policy", tmp_path / "policy.yaml")
    assert ended.status == DONE, ended.said
    index = findings(way)["virtual-table-not-carried", "entries_fts"]
    assert "which a trigger of entries fills" in index["message"]
