"""What the source derives from its rows is in step with them after a rollback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.running import DIFFERS, DONE, USAGE, run
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
    assert "the full-text index pf was recreated in" in ended.out
    assert (found(way, "new"), found(way, "changed")) == ([3], [1])
    assert (found(way, "old"), found(way, "going")) == ([], [])
    way.on_sqlite("DELETE FROM post WHERE id = 3; INSERT INTO pf(pf) VALUES ('integrity-check')")
    assert found(way, "new") == []


def test_an_index_that_is_in_step_is_left_alone(tmp_path: Path, postgres: str) -> None:
    way = Way.of(tmp_path, postgres, FTS5)
    way.there()
    way.on_postgres("UPDATE post SET t = t")
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


REPLACED = "INSERT OR REPLACE INTO post VALUES (1, 'third words')"
"""Without recursive_triggers the words of the row that is replaced stay in the index."""


@pytest.mark.parametrize(
    ("script", "damage"),
    [
        (FTS5, REPLACED),
        (FTS5, "UPDATE pf_data SET block = x'00' WHERE id > 10"),
        (FTS5, "UPDATE pf_config SET v = 9"),
        (FTS5.replace("id INTEGER PRIMARY KEY, t", "id INT, t").replace(", content_rowid='id'", ""),
         "UPDATE post SET t = 'other'"),
        (FTS4, REPLACED),
    ],
    ids=["stale", "broken", "format", "by rowid", "fts4"],
)  # fmt: skip
def test_an_index_that_the_application_has_damaged_is_told(
    tmp_path: Path, postgres: str, script: str, damage: str
) -> None:
    way = Way.of(tmp_path, postgres, script)
    sound = run("inspect", way.source)
    assert "does not fit its rows" not in sound.out
    way.on_sqlite(damage)
    inspected = " ".join(run("inspect", way.source).out.split())
    assert "search-index-misfit" in inspected
    assert "the full-text index pf does not fit its rows already" in inspected
    assert 'INSERT INTO "pf"("pf") VALUES (\'rebuild\')' in inspected
    migrated = way.migrate()
    assert migrated.status == DONE, migrated.said
    assert "warning: pf: the full-text index pf does not fit its rows already" in migrated.said
    found = json.loads((way.folder / "report" / "report.json").read_text())["findings"]
    assert [f["table"] for f in found if f["code"] == "search-index-misfit"] == ["pf"]


def test_an_index_that_was_behind_its_table_comes_home_in_step(
    tmp_path: Path, postgres: str
) -> None:
    way = Way.of(tmp_path, postgres, FTS5)
    way.on_sqlite(REPLACED)
    way.there()
    way.on_postgres("INSERT INTO post VALUES (3, 'new words')")
    assert "the full-text index pf was recreated in" in way.back().out
    assert (found(way, "old"), found(way, "third"), found(way, "new")) == ([], [1], [3])


FED = """
CREATE TABLE note (id INTEGER PRIMARY KEY, body TEXT, x REAL, y REAL, shown INT DEFAULT 1);
CREATE VIRTUAL TABLE own USING fts5(body);
CREATE VIRTUAL TABLE bare USING fts5(body, content='');
CREATE VIRTUAL TABLE four USING fts4(body);
CREATE VIRTUAL TABLE place USING rtree(id, x0, x1, y0, y1);
CREATE TABLE trail (n INTEGER PRIMARY KEY, what TEXT);
CREATE TRIGGER note_i AFTER INSERT ON note BEGIN
  INSERT INTO trail(what) VALUES ('insert ' || new.id);
  INSERT INTO own(rowid, body) VALUES (new.id, new.body);
  INSERT INTO bare(rowid, body) VALUES (new.id, new.body);
  INSERT INTO four(docid, body) VALUES (new.id, CASE WHEN new.shown THEN new.body ELSE '' END);
  INSERT INTO place VALUES (new.id, new.x, new.x, new.y, new.y);
END;
CREATE TRIGGER note_d BEFORE DELETE ON note FOR EACH ROW BEGIN
  DELETE FROM own WHERE rowid = old.id;
  INSERT INTO bare(bare, rowid, body) VALUES ('delete', old.id, old.body);
  DELETE FROM four WHERE docid = old.id;
  DELETE FROM place WHERE id = old.id;
END;
CREATE TRIGGER note_u AFTER UPDATE OF body ON note WHEN new.body IS NOT old.body BEGIN
  UPDATE own SET body = new.body WHERE rowid = new.id;
  INSERT INTO bare(bare, rowid, body) VALUES ('delete', old.id, old.body);
  INSERT INTO bare(rowid, body) VALUES (new.id, new.body);
END;
CREATE TRIGGER note_m AFTER UPDATE OF x, y ON note BEGIN
  UPDATE place SET x0 = new.x, x1 = new.x, y0 = new.y, y1 = new.y WHERE id = new.id;
END;
CREATE TRIGGER note_s AFTER UPDATE OF shown, body ON note BEGIN
  UPDATE four SET body = CASE WHEN new.shown THEN new.body ELSE '' END WHERE docid = new.id;
END;
INSERT INTO note VALUES (1, 'old words', 1, 1, 1), (2, 'going', 2, 2, 1), (3, 'staying', 3, 3, 1);
CREATE TABLE other (id INTEGER PRIMARY KEY, n INT);
"""


def matches(way: Way, index: str, word: str) -> list[int]:
    rows = way.on_sqlite(f"SELECT rowid FROM {index} WHERE {index} MATCH '{word}' ORDER BY rowid")
    return [row[0] for row in rows]


def within(way: Way, low: int, high: int) -> list[int]:
    return [r[0] for r in way.on_sqlite(f"SELECT id FROM place WHERE x0 >= {low} AND x1 <= {high}")]


def test_what_triggers_fill_comes_home_in_step(tmp_path: Path, postgres: str) -> None:
    way = Way.of(tmp_path, postgres, FED)
    assert way.migrate().status == DONE
    way.on_sqlite("INSERT INTO note VALUES (4, 'written live', 4, 4, 1)")
    trail = way.on_sqlite("SELECT count(*) FROM trail")
    assert way.command("switch").status == DONE
    way.on_postgres(
        "INSERT INTO note VALUES (5, 'new words', 5, 5, 1); DELETE FROM note WHERE id = 2; "
        "UPDATE note SET body = 'changed', x = 10 WHERE id = 1"
    )
    assert way.command("sync", "--once").status == DONE
    way.on_postgres(
        "UPDATE note SET shown = 0 WHERE id = 3; UPDATE note SET id = 6 WHERE id = 4; "
        "UPDATE note SET body = 'twice' WHERE id = 5"
    )
    ended = way.back()
    for index in ("own", "bare", "four"):
        assert f"full-text index {index} was found in step" in ended.out
        assert (matches(way, index, "old"), matches(way, index, "going")) == ([], [])
        assert matches(way, index, "changed") == [1]
        assert (matches(way, index, "new"), matches(way, index, "twice")) == ([], [5])
        assert matches(way, index, "written") == [6]
    assert "the R-tree place was found in step" in ended.out
    assert (matches(way, "own", "staying"), matches(way, "four", "staying")) == ([3], [])
    assert (within(way, 9, 11), within(way, 0, 2)) == ([1], [])
    assert within(way, 3, 6) == [3, 5, 6]
    assert way.on_sqlite("SELECT count(*) FROM trail") == trail, "no other trigger fires"
    way.on_sqlite(
        "DELETE FROM note WHERE id = 5; UPDATE note SET body = 'later' WHERE id = 6; "
        "INSERT INTO own(own) VALUES ('integrity-check'); "
        "INSERT INTO bare(bare) VALUES ('integrity-check')"
    )
    assert matches(way, "bare", "later") == [6]


def test_a_damaged_index_with_content_of_its_own_is_made_again(
    tmp_path: Path, postgres: str
) -> None:
    """The way back writes through such an index row by row, which its damage would stop."""
    way = Way.of(tmp_path, postgres, FED)
    way.on_sqlite(
        "UPDATE own_data SET block = x'00' WHERE id > 10; "
        "UPDATE four_segdir SET root = x'00', end_block = 0 WHERE level >= 0"
    )
    migrated = way.migrate()
    assert "the full-text index own does not fit its rows already" in migrated.said
    assert "the way back does that where it meets it" in migrated.said
    assert way.command("switch").status == DONE
    way.on_postgres(
        "INSERT INTO note VALUES (5, 'new words', 5, 5, 1); DELETE FROM note WHERE id = 2; "
        "UPDATE note SET body = 'changed' WHERE id = 1"
    )
    way.back()
    for index in ("own", "four"):
        assert [matches(way, index, w) for w in ("old", "going", "new", "changed", "staying")] == [
            *([], [], [5], [1], [3])
        ]


def test_a_damaged_index_that_nothing_recreates_is_told(tmp_path: Path, postgres: str) -> None:
    way = Way.of(tmp_path, postgres, FED)
    way.on_sqlite("UPDATE bare_data SET block = x'00' WHERE id > 10; DELETE FROM place_node")
    migrated = way.migrate()
    assert migrated.status == DONE, migrated.said
    for words in ("the full-text index bare", "the R-tree place"):
        assert f"{words} does not fit its rows already" in migrated.said
    assert "the way back cannot write to it, and would name what is lost" in migrated.said
    assert way.command("switch").status == DONE
    way.on_postgres("UPDATE note SET body = 'changed', x = 10 WHERE id = 1")
    ended = way.command("rollback")
    assert ended.status == DIFFERS, ended.said
    assert "did not follow changes of note" in ended.err
    way.back("--accept-loss")
    assert way.on_sqlite("SELECT body FROM note WHERE id = 1") == [("changed",)]


def test_only_what_was_written_to_is_looked_at(tmp_path: Path, postgres: str) -> None:
    way = Way.of(tmp_path, postgres, FED + FTS5)
    way.there()
    way.on_postgres("INSERT INTO other VALUES (1, 1)")
    ended = way.back()
    assert "in step" not in ended.out
    assert "recreated" not in ended.out


def test_a_trigger_that_cannot_follow_is_told(tmp_path: Path, postgres: str) -> None:
    way = Way.of(tmp_path, postgres, FED)
    way.there()
    way.on_sqlite("DELETE FROM place WHERE id = 3")  # a virtual table's own writes are not fenced
    way.on_sqlite("INSERT INTO place VALUES (9, 9, 9, 9, 9)")
    way.on_postgres("INSERT INTO note VALUES (9, 'clashes', 9, 9, 1)")
    ended = way.command("rollback")
    assert ended.status == DIFFERS, ended.said
    assert "place did not follow changes of note: UNIQUE constraint failed" in ended.err
    ended = way.back("--accept-loss")
    assert way.on_sqlite("SELECT body FROM note WHERE id = 9") == [("clashes",)]


def test_an_index_that_nothing_in_the_file_fills(tmp_path: Path, postgres: str) -> None:
    way = Way.of(tmp_path, postgres, POSTS.partition("CREATE VIRTUAL")[0])
    way.on_sqlite("CREATE VIRTUAL TABLE pf USING fts5(t, content='')")
    assert way.migrate().status == DONE
    ended = way.command("switch")
    assert ended.status == DONE, ended.said
    assert "nothing in the file says what fills the full-text index pf" in ended.out
    way.on_postgres("INSERT INTO post VALUES (3, 'new words')")
    assert "warning: the full-text index pf could not be brought in step" in way.back().out


ALONE = """
CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT);
INSERT INTO t VALUES (1, 'one');
CREATE VIRTUAL TABLE notes USING fts5(title, body, tokenize='porter');
INSERT INTO notes VALUES ('first', 'only here'), ('second', NULL);
INSERT INTO notes(rowid, title, body) VALUES (-5, 'third', 'é');
CREATE VIRTUAL TABLE old USING fts4(x);
INSERT INTO old VALUES ('four');
CREATE VIRTUAL TABLE box USING rtree(id, x0, x1, +label);
INSERT INTO box VALUES (7, 0.5, 1.5, 'seven');
"""


def test_rows_that_stand_nowhere_else_are_carried_as_a_plain_table(
    tmp_path: Path, postgres: str
) -> None:
    way = Way.of(tmp_path, postgres, ALONE)
    live = way.migrate()
    assert live.status == USAGE, live.said
    assert "acknowledge: [virtual-table-rows-left-behind:notes]" in live.err
    ended = run(
        *("migrate", way.source, "--target", postgres, "--report", tmp_path / "report"),
    )
    assert ended.status == DONE, ended.said
    assert way.on_postgres("SELECT title, body FROM notes ORDER BY title") == [
        ("first", "only here"),
        ("second", None),
        ("third", "é"),
    ]
    assert way.on_postgres("SELECT x FROM old") == [("four",)]
    assert way.on_postgres("SELECT id, x0, x1, label FROM box") == [(7, 0.5, 1.5, "seven")]
    again = run("verify", way.source, "--target", postgres, "--report", tmp_path / "again")
    assert again.status == DONE, again.said
    ended = way.command("switch")
    assert ended.status == USAGE, ended.said
    assert "changes to notes, old, box could not come back" in ended.err
    ways = ("--one-way", "notes", "--one-way", "old", "--one-way", "box")
    ended = way.command("switch", *ways)
    assert ended.status == DONE, ended.said
    way.on_postgres("INSERT INTO t VALUES (2, 'two'); DELETE FROM notes")
    assert way.command("rollback").status == DIFFERS
    way.back("--accept-loss")
    assert way.on_sqlite("SELECT a FROM t ORDER BY id") == [("one",), ("two",)]
    assert way.on_sqlite("SELECT title FROM notes WHERE notes MATCH 'only'") == [("first",)]


def test_rows_left_behind_by_name_do_not_stop_a_live_run(tmp_path: Path, postgres: str) -> None:
    way = Way.of(tmp_path, postgres, ALONE)
    policy = tmp_path / "policy.yaml"
    names = ", ".join(f"virtual-table-rows-left-behind:{n}" for n in ("notes", "old", "box"))
    policy.write_text(f"acknowledge: [{names}]")
    assert way.migrate("--policy", policy).status == DONE
    assert way.command("switch").status == DONE
    way.on_postgres("INSERT INTO t VALUES (2, 'two')")
    way.back()
    assert way.on_postgres("SELECT to_regclass('notes')") == [(None,)]
    assert way.on_sqlite("SELECT count(*) FROM notes") == [(3,)]
