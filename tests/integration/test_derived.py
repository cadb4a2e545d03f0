"""What the source derives from its rows is in step with them after a rollback."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.running import DONE
from tests.integration.wholeway import Way

pytestmark = pytest.mark.postgres

POSTS = """
CREATE TABLE post (id INTEGER PRIMARY KEY, t TEXT);
CREATE VIRTUAL TABLE pf USING {module}(t, {content});
CREATE TRIGGER pai AFTER INSERT ON post BEGIN {insert}; END;
CREATE TRIGGER pbd BEFORE DELETE ON post BEGIN {delete}; END;
INSERT INTO post VALUES (1, 'old words'), (2, 'going');
"""

FTS5 = POSTS.format(
    module="fts5",
    content="content='post', content_rowid='id'",
    insert="INSERT INTO pf(rowid, t) VALUES (new.id, new.t)",
    delete="INSERT INTO pf(pf, rowid, t) VALUES ('delete', old.id, old.t)",
)
FTS4 = POSTS.format(
    module="fts4",
    content='content="post"',
    insert="INSERT INTO pf(docid, t) VALUES (new.id, new.t)",
    delete="DELETE FROM pf WHERE docid = old.id",
)


def found(way: Way, word: str) -> list[int]:
    return [row[0] for row in way.on_sqlite(f"SELECT rowid FROM pf WHERE pf MATCH '{word}'")]


@pytest.mark.parametrize("script", [FTS5, FTS4], ids=["fts5", "fts4"])
def test_a_full_text_index_over_a_table(tmp_path: Path, postgres: str, script: str) -> None:
    way = Way.of(tmp_path, postgres, script)
    way.there()
    way.on_postgres(
        "INSERT INTO post VALUES (3, 'new words'); UPDATE post SET t = 'changed' WHERE id = 1; "
        "DELETE FROM post WHERE id = 2"
    )
    ended = way.back()
    assert "the full-text index pf was made anew in" in ended.out
    assert (found(way, "new"), found(way, "changed")) == ([3], [1])
    assert (found(way, "old"), found(way, "going")) == ([], [])
    way.on_sqlite("DELETE FROM post WHERE id = 3; INSERT INTO pf(pf) VALUES ('integrity-check')")
    assert found(way, "new") == []


def test_an_index_that_is_in_step_is_left_alone(tmp_path: Path, postgres: str) -> None:
    way = Way.of(tmp_path, postgres, FTS5 + "CREATE TABLE other (id INTEGER PRIMARY KEY, n INT)")
    way.there()
    way.on_postgres("INSERT INTO other VALUES (1, 1)")
    assert "the full-text index pf was found in step" in way.back().out
    assert found(way, "old") == [1]


def test_an_index_that_only_the_application_can_read(tmp_path: Path, postgres: str) -> None:
    """An index that cannot be looked at is named, and stops nothing."""
    way = Way.of(tmp_path, postgres, FTS5)
    way.on_sqlite(
        "PRAGMA writable_schema = 1; UPDATE sqlite_schema SET sql = replace(sql, "
        "'content_rowid=''id''', 'content_rowid=''id'', tokenize=''of_the_application''') "
        "WHERE name = 'pf'"
    )
    way.there()
    way.on_postgres("INSERT INTO post VALUES (3, 'new words')")
    ended = way.back()
    assert "warning: the full-text index pf could not be brought in step" in ended.out
    assert way.on_sqlite("SELECT t FROM post WHERE id = 3") == [("new words",)]


def test_what_postgresql_does_not_keep_up_is_said_before_the_switch(
    tmp_path: Path, postgres: str
) -> None:
    way = Way.of(tmp_path, postgres, FTS5)
    assert way.migrate().status == DONE
    said = way.command("switch").out
    assert "trigger pai of post, trigger pbd of post, full-text index pf" in said
    assert said.index("not kept up on PostgreSQL") < said.index("decided")


def test_a_full_text_index_where_the_target_is_gone(tmp_path: Path, postgres: str) -> None:
    """What `sync` has brought back already is searched as it is, too."""
    way = Way.of(tmp_path, postgres, FTS5)
    way.there()
    way.on_postgres("INSERT INTO post VALUES (3, 'new words')")
    assert way.command("sync", "--once").status == DONE
    way.dsn = "host=127.0.0.1 port=1 dbname=gone user=gone connect_timeout=1"
    way.back("--accept-loss")
    assert found(way, "new") == [3]
