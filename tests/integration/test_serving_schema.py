"""The application migrates its schema while PostgreSQL serves: SQLite gets what it means, or the
table is one-way, said so, and a rollback refuses for it by name."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from migration_job.errors import OperationError, VerificationError
from migration_job.protocol.rollback import rollback
from migration_job.protocol.status import status
from migration_job.protocol.switch import switch
from migration_job.protocol.sync import Sync, read_report
from migration_job.stores.sqlite.catalogue import read_catalogue
from tests.integration.test_serving_ddl import Serving, Writers, switched, syncing

pytestmark = pytest.mark.postgres


@pytest.fixture
def serving(tmp_path: Path, postgres: str) -> Serving:
    return switched(tmp_path, postgres)


@contextlib.contextmanager
def in_use(serving: Serving) -> Iterator[list[str]]:
    """``sync`` runs and writers write; at the end everything has come back."""
    with syncing(serving) as said:
        writers = Writers(serving.migration.dsn, 2)
        try:
            yield said
            written, deadline = writers.written, time.monotonic() + 30
            while writers.written < written + 20:
                assert time.monotonic() < deadline
                time.sleep(0.02)
        finally:
            writers.stop()
        assert writers.errors == []


def source_rows(serving: Serving, query: str) -> list[tuple[object, ...]]:
    writer = serving.migration.writer()
    try:
        return writer.execute(query).fetchall()
    finally:
        writer.close()


def target_rows(serving: Serving, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(serving.migration.dsn) as session:
        return session.execute(query.encode()).fetchall()


def go_back(serving: Serving) -> None:
    Sync(serving.ends).run(once=True)
    rollback(serving.ends)


def told_one_way(serving: Serving) -> list[str]:
    report = read_report(serving.ends.state)
    return [] if report is None else report.one_way


def lines(serving: Serving) -> str:
    return "\n".join(
        status(serving.migration.source, dsn=serving.migration.dsn, connection=None, state=None)
    )


ADDED: dict[str, tuple[str, str, object]] = {
    "small": ("smallint", "-7", -7),
    "whole": ("integer", "42", 42),
    "large": ("bigint", "9007199254740993", 9007199254740993),
    "float": ("double precision", "0.1", 0.1),
    "money": ("numeric(10,2)", "12.50", 12.5),
    "flag": ("boolean", "true", 1),
    "words": ("text", "'it''s 100% \\ {x}'", "it's 100% \\ {x}"),
    "short": ("varchar(20)", "'abc'", "abc"),
    "raw": ("bytea", "'\\x00ff'", b"\x00\xff"),
    "ident": ("uuid", "'3430B28F-c298-4294-ab74-d146c13db605'", None),
    "doc": ("json", """'{"a": 1}'""", '{"a": 1}'),
    "docb": ("jsonb", """'{"a": 1}'""", None),
    "day": ("date", "'2026-01-31'", "2026-01-31"),
    "clock": ("time", "'13:45:00'", "13:45:00"),
    "moment": ("timestamp with time zone", "'2026-01-31 12:00:00+00'", "2026-01-31 12:00:00"),
}


@pytest.mark.parametrize("filled", ["default", "not null default", "update"])
def test_an_added_column_of_each_type_is_added_on_sqlite(serving: Serving, filled: str) -> None:
    more = {"default": "DEFAULT", "not null default": "NOT NULL DEFAULT"}
    for name, (kind, value, _) in ADDED.items():
        default = f"{more[filled]} {value}" if filled in more else ""
        serving.execute(f'ALTER TABLE notes ADD COLUMN "{name}" {kind} {default}')
    if filled == "update":
        terms = ", ".join(f'"{name}" = {value}' for name, (_, value, _) in ADDED.items())
        serving.execute(f"UPDATE notes SET {terms}")
    serving.execute("INSERT INTO notes (body) VALUES ('later')")
    go_back(serving)
    names = ", ".join(f'"{name}"' for name in ADDED)
    rows = source_rows(serving, f"SELECT {names} FROM notes ORDER BY id")
    assert len(rows) == 3
    for row in rows[:2] if filled == "update" else rows:
        for held, (name, (_, _, expected)) in zip(row, ADDED.items(), strict=True):
            assert held is not None, name
            assert expected is None or held == expected, name
    if filled == "update":
        assert set(rows[2]) == {None}
    # The application works with the new column on SQLite, and goes on to PostgreSQL with it.
    writer = serving.migration.writer()
    writer.execute("UPDATE notes SET whole = 77 WHERE id = 1")
    writer.execute("INSERT INTO notes (body, whole, flag) VALUES ('again', 5, 0)")
    writer.close()
    switch(serving.ends)
    assert target_rows(serving, "SELECT whole FROM notes WHERE id = 1") == [(77,)]
    again = target_rows(serving, "SELECT whole, flag, raw FROM notes WHERE body = 'again'")
    assert again[0][:2] == (5, False)
    rollback(serving.ends)


def test_columns_are_added_and_filled_while_writers_write(serving: Serving) -> None:
    with in_use(serving) as said:
        serving.execute(
            "ALTER TABLE notes ADD COLUMN rank integer NOT NULL DEFAULT 3",
            "ALTER TABLE notes ADD COLUMN at timestamp with time zone DEFAULT now()",
            "ALTER TABLE notes ADD COLUMN shout text",
            "UPDATE notes SET shout = upper(body), rank = id % 5",
            "ALTER TABLE notes ALTER COLUMN shout SET DEFAULT 'new'",
            "ALTER TABLE events ADD COLUMN why text DEFAULT gen_random_uuid()::text",
        )
    assert any("notes.rank was added on SQLite" in line for line in said)
    go_back(serving)
    for columns, table, key in (
        ("id, body, rank, shout", "notes", "id"),
        ("what, n, why", "events", "why"),
    ):
        query = f"SELECT {columns} FROM {table} ORDER BY {key}"
        assert source_rows(serving, query) == target_rows(serving, query)
    assert source_rows(serving, "SELECT count(*) FROM notes WHERE at IS NULL") == [(0,)]


def test_truncate_and_updates_of_a_new_column_come_back(serving: Serving) -> None:
    serving.execute("ALTER TABLE events ADD COLUMN why text")
    Sync(serving.ends).run(once=True)
    serving.execute("UPDATE events SET why = what")
    Sync(serving.ends).run(once=True)
    assert source_rows(serving, "SELECT why FROM events ORDER BY 1") == [("a",), ("b",)]
    serving.execute("TRUNCATE events", "INSERT INTO events (what, why) VALUES ('z', 'y')")
    go_back(serving)
    assert source_rows(serving, "SELECT what, why FROM events") == [("z", "y")]


RETYPED = {
    "wider": ("events", "n", "ALTER TABLE events ALTER COLUMN n TYPE numeric"),
    "narrower": ("events", "n", "ALTER TABLE events ALTER COLUMN n TYPE integer"),
    "shortened": ("progress", "state", "ALTER TABLE progress ALTER state TYPE text"),
    "limited": ("notes", "body", "ALTER TABLE notes ALTER body TYPE varchar(200)"),
    "computed": ("notes", "body", "ALTER TABLE notes ALTER body TYPE text USING body || '!'"),
    "words": ("events", "n", "ALTER TABLE events ALTER n TYPE text USING 'no. ' || n"),
    "spelled": ("events", "n", "ALTER TABLE events ALTER n TYPE text USING n::text"),
}


@pytest.mark.parametrize("case", RETYPED)
def test_another_type_has_all_rows_come_back(serving: Serving, case: str) -> None:
    table, column, statement = RETYPED[case]
    serving.execute("INSERT INTO progress VALUES (gen_random_uuid(), 1, 'x')")
    with in_use(serving):
        serving.execute(statement) if case != "words" else None
    if case == "words":
        # Afterwards the application writes numbers no more.
        serving.execute(statement, "INSERT INTO events VALUES ('q', 'many')")
    go_back(serving)
    query = f"SELECT CAST({column} AS text) FROM {table} ORDER BY 1"
    here, there = source_rows(serving, query), target_rows(serving, query)
    assert sorted(map(str, here)) == sorted(map(str, there))
    assert here


ONE_WAY = {
    "drop column": (
        ["ALTER TABLE notes DROP COLUMN body"],
        ["ALTER TABLE notes ADD COLUMN body text"],
        "notes",
        "column body was dropped",
    ),
    "rename column": (
        ["ALTER TABLE notes RENAME body TO content"],
        ["ALTER TABLE notes RENAME content TO body"],
        "notes",
        "column body was renamed to content",
    ),
    "rename key": (
        ["ALTER TABLE notes RENAME id TO nr"],
        ["ALTER TABLE notes RENAME nr TO id"],
        "notes",
        "column id was renamed to nr",
    ),
    "rename table": (
        ["ALTER TABLE notes RENAME TO remarks"],
        ["ALTER TABLE remarks RENAME TO notes"],
        "notes",
        "renamed to remarks",
    ),
    "drop table": (
        ["DROP TABLE notes"],
        ["CREATE TABLE notes (id bigint PRIMARY KEY, user_id uuid, body text)"],
        "notes",
        "it was dropped",
    ),
    "new table": (
        ["CREATE TABLE tags (id bigint PRIMARY KEY, tag text)"],
        ["DROP TABLE tags"],
        "tags",
        "created on PostgreSQL",
    ),
    "another key": (
        [
            "ALTER TABLE notes DROP CONSTRAINT notes_pkey",
            "ALTER TABLE notes ADD PRIMARY KEY (id, body)",
        ],
        [
            "ALTER TABLE notes DROP CONSTRAINT notes_pkey",
            "ALTER TABLE notes ADD PRIMARY KEY (id)",
        ],
        "notes",
        "key (id) is gone",
    ),
    "a type without a rule": (
        ["ALTER TABLE notes ADD COLUMN span point DEFAULT '(1,2)'"],
        ["ALTER TABLE notes DROP COLUMN span"],
        "notes",
        "new column span is point",
    ),
    "a type that the source's cannot hold": (
        ["ALTER TABLE notes ALTER body TYPE double precision USING length(body)"],
        ["ALTER TABLE notes ALTER body TYPE text USING body::text"],
        "notes",
        "column body is double precision now, was text",
    ),
    "partitioned": (
        [
            "DROP TABLE notes",
            "CREATE TABLE notes (id bigint PRIMARY KEY, user_id uuid, body text) "
            "PARTITION BY HASH (id)",
            "CREATE TABLE notes_all PARTITION OF notes FOR VALUES WITH (MODULUS 1, REMAINDER 0)",
        ],
        ["DROP TABLE notes", "CREATE TABLE notes (id bigint PRIMARY KEY, user_id uuid, body text)"],
        "notes",
        "it is partitioned",
    ),
    "an array": (
        ["ALTER TABLE notes ALTER body TYPE text[] USING ARRAY[body]"],
        ["ALTER TABLE notes ALTER body TYPE text USING body[1]"],
        "notes",
        "column body is text[] now, was text",
    ),
}


@pytest.mark.parametrize("case", ONE_WAY)
def test_what_cannot_be_carried_is_one_way_and_a_rollback_refuses(
    serving: Serving, case: str
) -> None:
    statements, _, table, cause = ONE_WAY[case]
    with syncing(serving) as said:
        deadline = time.monotonic() + 30
        serving.execute(
            *statements,
            "INSERT INTO users (id, email) VALUES (gen_random_uuid(), 'late@example.org')",
        )
        while not any(cause in line for line in said):
            assert time.monotonic() < deadline, said
            time.sleep(0.05)
        # The rest goes on, and so do writers of the altered table.
        serving.execute("INSERT INTO events VALUES ('rest', 9)")
        if case == "rename key":
            serving.execute("INSERT INTO notes (body) VALUES ('still taken')")
        while source_rows(serving, "SELECT count(*) FROM events WHERE what = 'rest'") != [(1,)]:
            assert time.monotonic() < deadline, said
            time.sleep(0.05)
        while not any(cause in one for one in told_one_way(serving)):
            assert time.monotonic() < deadline, said
            time.sleep(0.05)
    assert f"changes to table {table} do not come back" in lines(serving)
    assert cause in lines(serving)
    with pytest.raises(VerificationError, match=f"changes to table {table} do not come back"):
        rollback(serving.ends)
    with pytest.raises(VerificationError, match="do not come back"):
        rollback(serving.ends, one_way=("users",))
    done = rollback(serving.ends, one_way=(table.upper(),))
    assert any(cause in line for line in done.lost)
    rest = source_rows(serving, "SELECT count(*) FROM users WHERE email = 'late@example.org'")
    assert rest == [(1,)]


@pytest.mark.parametrize("case", ONE_WAY)
def test_what_is_undone_comes_back_again(serving: Serving, case: str) -> None:
    statements, undo, _, cause = ONE_WAY[case]
    serving.execute(*statements)
    Sync(serving.ends).run(once=True)
    assert cause in lines(serving)
    serving.execute(*undo)
    Sync(serving.ends).run(once=True)
    assert cause not in lines(serving)
    serving.execute(
        "INSERT INTO notes (id, body) VALUES (700, '7')", "UPDATE notes SET body = '8' WHERE id = 1"
    )
    go_back(serving)
    query = "SELECT id, body FROM notes ORDER BY id"
    assert source_rows(serving, query) == target_rows(serving, query)


def test_another_unique_key_may_go_and_only_a_row_that_sqlite_refuses_stops(
    serving: Serving,
) -> None:
    """Migrations replace a UNIQUE by a wider one: rows are known by the primary key all the same.

    SQLite's own stays, and names the row that it does not take.
    """
    names = target_rows(
        serving,
        "SELECT conname FROM pg_constraint WHERE conrelid = 'users'::regclass AND contype = 'u'",
    )
    assert len(names) == 1
    serving.execute(
        f'ALTER TABLE users DROP CONSTRAINT "{names[0][0]}"',
        "INSERT INTO users (id, email) VALUES (gen_random_uuid(), 'later@example.org')",
    )
    Sync(serving.ends).run(once=True)
    assert told_one_way(serving) == []
    found = "SELECT count(*) FROM users WHERE email = 'later@example.org'"
    assert source_rows(serving, found) == [(1,)]
    serving.execute("INSERT INTO users (id, email) VALUES (gen_random_uuid(), 'later@example.org')")
    with pytest.raises(OperationError, match=r"the source refuses .*users\.email"):
        rollback(serving.ends)
    serving.execute(
        "DELETE FROM users WHERE ctid = (SELECT max(ctid) FROM users "
        "WHERE email = 'later@example.org')"
    )
    go_back(serving)
    assert source_rows(serving, found) == [(1,)]


def test_cut_off_after_sqlite_has_the_column_it_is_done_again(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    from migration_job.protocol import evolve

    serving.execute("ALTER TABLE notes ADD COLUMN rank integer NOT NULL DEFAULT 3")

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(evolve, "_record", dies)
    with serving.pair() as pair, pytest.raises(KeyboardInterrupt):
        evolve.follow_schema(pair)
    monkeypatch.undo()
    go_back(serving)
    assert source_rows(serving, "SELECT id, rank FROM notes ORDER BY id") == [(1, 3), (2, 3)]
    writer = serving.migration.writer()
    columns = {c.name: c for c in read_catalogue(writer).table("notes").columns}
    writer.close()
    assert (columns["rank"].declared, columns["rank"].not_null) == ("INTEGER", True)


def test_what_changes_no_shape_reads_no_table_again(serving: Serving) -> None:
    Sync(serving.ends).run(once=True)
    serving.execute(
        "VACUUM FULL notes",
        "CREATE INDEX later ON notes (body)",
        "CLUSTER notes USING notes_by_user",
        "ALTER TABLE notes ADD CONSTRAINT short CHECK (length(body) < 1000)",
        "ALTER TABLE notes ADD COLUMN words tsvector "
        "GENERATED ALWAYS AS (to_tsvector('english', body)) STORED",
    )
    said: list[str] = []
    serving.execute("UPDATE notes SET body = 'x' WHERE id = 1")
    Sync(serving.ends, say=said.append).run(once=True)
    assert said == []
    report = json.loads((serving.ends.state / "sync.json").read_text())
    assert report["one_way"] == []
