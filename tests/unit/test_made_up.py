"""Writes made up from a schema: no value is new, and both sides take them."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from example_app import replay
from example_app.databases import prepare_requests
from example_app.following import Follower
from example_app.journal import Written, compare_requests, compare_sqlite
from example_app.store import Store, sqlite_side
from migration_job.demo.made_up import changes, touches
from migration_job.plan.model import Plan
from migration_job.stores.sqlite.catalogue import read_catalogue
from tests.unit.planning import plan_of

LIMIT_SECONDS = 60.0

SCHEMA = """
CREATE TABLE parent (id INTEGER PRIMARY KEY, name TEXT UNIQUE, colour TEXT);
CREATE TABLE child (
  id INTEGER PRIMARY KEY, parent INTEGER REFERENCES parent(id), note TEXT,
  low INTEGER, high INTEGER, CHECK (low <= high)
);
CREATE TABLE pair (a TEXT, b TEXT, c TEXT, PRIMARY KEY (a, b)) WITHOUT ROWID;
CREATE TABLE "what?" (a TEXT);
CREATE TABLE empty (a TEXT);
INSERT INTO parent VALUES (1, 'one', 'red'), (2, 'two', 'blue');
INSERT INTO child VALUES (1, 1, 'x', 1, 2), (2, 2, 'y', 5, 9);
INSERT INTO pair VALUES ('a', 'b', 'c'), ('a', 'c', 'd');
INSERT INTO "what?" VALUES ('never');
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(SCHEMA)
    return path


def contents(file: Path) -> dict[str, list[tuple[object, ...]]]:
    with closing(sqlite3.connect(file)) as connection:
        return {
            name: connection.execute(f'SELECT * FROM "{name}"').fetchall()
            for name in ("parent", "child", "pair", "what?")
        }


def test_touches_change_nothing_and_leave_no_table_with_rows_out(file: Path) -> None:
    with closing(apsw.Connection(str(file))) as connection:
        made = touches(connection, read_catalogue(connection))
        assert [(c.what, c.rows) for c in made] == [
            ("touch parent", 2),
            ("touch child", 2),
            ("touch pair", 2),
        ]
        before = contents(file)
        for change in made:
            connection.execute(change.sqlite, ("1",))
            assert connection.changes() == 1
    assert contents(file) == before


def test_values_are_moved_only_where_they_mean_nothing_else(file: Path) -> None:
    with closing(apsw.Connection(str(file))) as connection:
        catalogue = read_catalogue(connection)
        plan: Plan = plan_of(file)
        made = {change.what: change for change in changes(catalogue, plan)}
        assert {what for what in made if not what.startswith("touch")} == {
            "change parent.colour",
            "change child.note",
            "change pair.c",
            "add a row to child",
        }
        seen = {value for rows in contents(file).values() for row in rows for value in row}
        for change in made.values():
            count = change.sqlite.count("?")
            assert change.postgresql.count("?") == count
            connection.execute(change.sqlite, ("1",) * count)
            assert connection.changes() == 1
    after = contents(file)
    assert len(after["child"]) == 3
    assert {v for rows in after.values() for row in rows for v in row} - seen == {3}


def test_what_the_schema_refuses_is_left_out_and_no_failure(file: Path, tmp_path: Path) -> None:
    prepare_requests(file)
    wanted = tmp_path / "changes.json"
    good = {
        "what": "good",
        "sqlite": "UPDATE parent SET colour = 'x' WHERE id = CAST(? AS INTEGER)",
    }
    bad = {"what": "bad", "sqlite": "UPDATE parent SET name = 'one' WHERE CAST(? AS INTEGER) >= 0"}
    wanted.write_text(json.dumps([{**one, "postgresql": "", "rows": 2} for one in (good, bad)]))
    store = Store(Follower(None, sqlite_side(file)))
    running = replay.Replay(store, file, wanted, tmp_path / "journal")
    running.start(2, 200.0)
    until = time.monotonic() + LIMIT_SECONDS
    while running.so_far()["sides"].get("sqlite", 0) < 20:
        assert time.monotonic() < until, running.so_far()
        time.sleep(0.01)
    met = running.stop()
    store.close()
    assert met["failures"] == []
    assert list(met["refused"]) == ["bad"]
    assert "UNIQUE" in met["refused"]["bad"]
    compared = compare_sqlite(tmp_path / "journal", file, compare_requests)
    assert compared.acknowledged == met["sides"]["sqlite"]
    assert compared.problems == []


def test_a_write_that_is_not_there_is_a_problem(file: Path, tmp_path: Path) -> None:
    prepare_requests(file)
    written = Written({"r1": {"kind": "touch parent"}}, {"r1"})
    with closing(sqlite3.connect(file)) as connection:
        found = compare_requests(written, lambda sql: connection.execute(sql).fetchall())
    assert found.problems == ["touch parent request r1 is there 0 times"]
