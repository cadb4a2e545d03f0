"""A large table of the application's own makes room for its load, and is given back as it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from migration_job.embedded import EmbeddedPostgres
from migration_job.plan.model import TablePlan
from migration_job.stores.postgres import load, room
from tests.conftest import MakeSqlite
from tests.integration.running import DONE, FAILED, Ended, dumped, run

pytestmark = pytest.mark.postgres

SOURCE = """
CREATE TABLE parent (id INTEGER PRIMARY KEY, v TEXT);
INSERT INTO parent VALUES (1, 'a'), (2, 'b');
CREATE TABLE t (id INTEGER PRIMARY KEY, up INTEGER REFERENCES t (id), n INTEGER, v TEXT, doc TEXT);
INSERT INTO t VALUES (1, NULL, 5, 'x', '{"a": 1}'), (2, 1, 6, 'y', '[1]'), (3, 1, NULL, NULL, NULL);
CREATE TABLE child (id INTEGER PRIMARY KEY, parent INTEGER REFERENCES parent (id));
INSERT INTO child VALUES (1, 1), (2, 2);
"""
TARGET = """
CREATE FUNCTION folded(v text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT lower(v)';
CREATE TABLE parent (id integer PRIMARY KEY, v text);
CREATE TABLE t (id integer PRIMARY KEY, up integer REFERENCES t, n integer, v text, doc jsonb,
    CONSTRAINT apart EXCLUDE USING btree (n WITH =));
CREATE TABLE child (id integer PRIMARY KEY, parent integer REFERENCES parent);
CREATE INDEX plain ON t (n);
CREATE INDEX "Odd ""name" ON t USING btree (v COLLATE "C" text_pattern_ops DESC NULLS LAST)
    INCLUDE (n) WITH (fillfactor = 70) WHERE n > 1;
CREATE INDEX lowered ON t (lower(v), (n + 1));
CREATE INDEX hashed ON t USING hash (v);
CREATE INDEX inside ON t USING gin (doc jsonb_path_ops);
CREATE INDEX of_parent ON child (parent);
CREATE UNIQUE INDEX once ON t (v);
CREATE INDEX told ON t (n, v);
COMMENT ON INDEX told IS 'kept';
CREATE INDEX ordered ON t (v, n);
ALTER TABLE t CLUSTER ON ordered;
CREATE INDEX of_function ON t (folded(v));
CREATE INDEX measured ON t (upper(v));
ALTER INDEX measured ALTER COLUMN 1 SET STATISTICS 7;
INSERT INTO parent VALUES (1, 'before');
"""
STAY = [
    *("apart", "child_pkey", "measured", "of_function", "once", "ordered", "parent_pkey"),
    *("t_pkey", "told"),
]
INDEXES = """
SELECT c.relname, c.oid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
 WHERE c.relnamespace = 'public'::regnamespace
"""


@pytest.fixture
def application(postgres: str) -> str:
    with psycopg.connect(postgres) as target:
        target.execute(TARGET)
    return postgres


@pytest.fixture(autouse=True)
def _large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every table is large enough for the trouble."""
    monkeypatch.setattr(load, "SMALL_ROWS", 0)


@pytest.fixture
def dump(postgres_server: EmbeddedPostgres) -> Callable[..., str]:
    """pg_dump's own idea of a database."""

    def of(dsn: str, *options: str) -> str:
        return dumped(postgres_server, dsn, *options)

    return of


def _plan(table: str) -> TablePlan:
    return TablePlan(source=table, target=table, owner="existing", columns=())


def indexes(dsn: str) -> dict[str, int]:
    with psycopg.connect(dsn) as target:
        return dict(target.execute(INDEXES).fetchall())


def frozen(dsn: str, table: str) -> bool:
    """Whether every row is marked frozen, as COPY FREEZE writes them."""
    with psycopg.connect(dsn) as target:
        target.execute("CREATE EXTENSION IF NOT EXISTS pageinspect")
        row = target.execute(
            "SELECT bool_and(t_infomask & 768 = 768) FROM "
            "heap_page_items(get_raw_page(%s, 0)) WHERE lp_len > 0",
            (table,),
        ).fetchone()
        target.rollback()
    return row is not None and bool(row[0])


def migrate(source: Path, dsn: str, folder: Path, *options: str | Path) -> Ended:
    words = ("--schema", "existing", "--target", dsn, "--report", folder)
    return run("migrate", source, *words, *options)


def test_indexes_are_made_anew_from_their_own_definitions(
    make_sqlite: MakeSqlite, application: str, tmp_path: Path, dump: Callable[..., str]
) -> None:
    before, there = dump(application, "--schema-only"), indexes(application)
    ended = migrate(make_sqlite(SOURCE), application, tmp_path / "r")
    assert ended.status == DONE, ended.said
    assert dump(application, "--schema-only") == before
    after = indexes(application)
    assert after.keys() == there.keys()
    assert sorted(name for name in after if after[name] == there[name]) == STAY
    # `parent` is what another table refers to: PostgreSQL would not truncate it.
    assert [frozen(application, name) for name in ("t", "child", "parent")] == [True, True, False]


def test_a_load_that_fails_gives_everything_back(
    make_sqlite: MakeSqlite,
    application: str,
    tmp_path: Path,
    dump: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before, source = dump(application), make_sqlite(SOURCE)
    schema = dump(application, "--schema-only")

    def broken(connection: psycopg.Connection, _room: room.Room) -> None:
        connection.execute("SELECT 1 / 0")

    with monkeypatch.context() as patched:
        patched.setattr(room, "give_back", broken)
        ended = migrate(source, application, tmp_path / "r")
    assert ended.status == FAILED, ended.said
    assert dump(application) == before
    ended = migrate(source, application, tmp_path / "r")
    assert ended.status == DONE, ended.said
    assert dump(application, "--schema-only") == schema


KILLED = """
import os, signal, sys
from migration_job.cli import main
from migration_job.stores.postgres import load, room
load.SMALL_ROWS = 0
room.give_back = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
main()
"""


def test_a_run_that_is_killed_leaves_the_indexes(
    make_sqlite: MakeSqlite, application: str, tmp_path: Path, dump: Callable[..., str]
) -> None:
    before, source = dump(application, "--schema-only"), make_sqlite(SOURCE)
    words = ["migrate", source, "--schema", "existing", "--target", application]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *map(str, words), "--report", str(tmp_path / "r")],
        env={**os.environ, "PYTHONPATH": os.fspath(Path(__file__).resolve().parents[2])},
        capture_output=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert dump(application, "--schema-only") == before
    ended = migrate(source, application, tmp_path / "r")
    assert ended.status == DONE, ended.said
    assert dump(application, "--schema-only") == before
    with psycopg.connect(application) as target:
        assert target.execute("SELECT count(*) FROM t").fetchone() == (3,)


def test_who_does_not_own_the_tables_leaves_their_indexes(
    make_sqlite: MakeSqlite, application: str, tmp_path: Path
) -> None:
    mover = make_conninfo(application, user="room_mover", password="secret of the mover")
    name = conninfo_to_dict(application)["dbname"]
    with psycopg.connect(application, autocommit=True) as target:
        target.execute("DROP ROLE IF EXISTS room_mover")
        target.execute("CREATE ROLE room_mover LOGIN PASSWORD 'secret of the mover'")
        target.execute(f'GRANT CREATE ON DATABASE "{name}" TO room_mover'.encode())
        target.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO room_mover")
        target.execute("GRANT ALL ON SCHEMA public TO room_mover")
    there = indexes(application)
    with psycopg.connect(mover) as session, session.transaction():
        session.execute("DELETE FROM parent")
        for table in ("t", "child", "parent"):
            found = room.make(session, _plan(table))
            assert found == room.Room()
    with psycopg.connect(application, autocommit=True) as target:
        assert indexes(application) == there
        target.execute("DROP OWNED BY room_mover")
        target.execute("DROP ROLE room_mover")


def test_a_table_that_somebody_has_written_to_is_not_truncated(application: str) -> None:
    with psycopg.connect(application) as target, target.transaction():
        assert room.make(target, _plan("parent")) == room.Room()
        assert target.execute("SELECT v FROM parent").fetchall() == [("before",)]
