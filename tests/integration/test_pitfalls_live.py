"""Pitfalls 40, 43 and 45: what goes wrong while an application goes on writing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest

from migration_job.errors import OperationError
from migration_job.protocol.catchup import catch_up_fully
from migration_job.protocol.run_context import opened
from migration_job.protocol.sequences import raise_target_sequences
from tests.integration.livekit import Migration, begin, fresh_source, uid

pytestmark = pytest.mark.postgres


@pytest.fixture
def migration(tmp_path: Path, postgres: str) -> Migration:
    return begin(fresh_source(tmp_path), postgres)


def rows(migration: Migration, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(migration.dsn, autocommit=True) as target:
        return target.execute(query.encode()).fetchall()


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT OR REPLACE INTO users VALUES (:new, 'taken@example.org', 2)",
        "REPLACE INTO users VALUES (:new, 'taken@example.org', 2)",
        "UPDATE OR REPLACE users SET email = 'taken@example.org' WHERE id = :other",
        "INSERT OR REPLACE INTO users SELECT :new, email, 2 FROM users WHERE id = :old",
    ],
)
def test_pitfall_40_a_row_replaced_through_another_unique_key(
    statement: str, migration: Migration
) -> None:
    """The row that goes has another key than the one that comes, and no DELETE trigger fires."""
    writer = migration.writer()
    assert writer.pragma("recursive_triggers") == 0
    writer.execute(
        "INSERT INTO users VALUES (?, 'taken@example.org', 1), (?, 'free@example.org', 1)",
        (uid(1), uid(2)),
    )
    with opened(migration.source, migration.dsn) as pair:
        catch_up_fully(pair, enough=0, limit=60.0)
        named = {"new": uid(3), "other": uid(2), "old": uid(1)}
        writer.execute(statement, {k: v for k, v in named.items() if f":{k}" in statement})
        catch_up_fully(pair, enough=0, limit=60.0)
    left = writer.execute("SELECT id, email FROM users ORDER BY id").fetchall()
    assert uid(1) not in {row[0] for row in left}
    assert rows(migration, "SELECT id::text, email FROM users ORDER BY id") == left
    writer.close()


@pytest.mark.parametrize(
    ("statements", "expected"),
    [
        ("INSERT INTO notes (body) VALUES ('a'), ('b'), ('c')", 4),
        ("INSERT INTO notes (body) VALUES ('a'); DELETE FROM notes", 2),
        ("INSERT INTO notes (id, body) VALUES (900, 'a'); DELETE FROM notes WHERE id = 900", 901),
    ],
)
def test_pitfall_43_sequences_follow_what_was_captured(
    statements: str, expected: int, migration: Migration
) -> None:
    writer = migration.writer()
    writer.execute(statements)
    with opened(migration.source, migration.dsn) as pair:
        catch_up_fully(pair, enough=0, limit=60.0)
        raise_target_sequences(pair)
    writer.close()
    # The fence takes no row yet; this is the number that the first one will get.
    following = "SELECT nextval(pg_get_serial_sequence('public.notes', 'id'))"
    assert rows(migration, following) == [(expected,)]


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE users ADD COLUMN phone TEXT",
        "ALTER TABLE notes RENAME COLUMN body TO content",
        "CREATE TABLE more(id INTEGER PRIMARY KEY)",
        "CREATE UNIQUE INDEX one_body ON notes(body)",
        "DROP TABLE progress",
    ],
)
def test_pitfall_45_a_schema_that_changes_meanwhile_is_noticed(
    change: str, migration: Migration
) -> None:
    writer = migration.writer()
    with opened(migration.source, migration.dsn) as pair:
        writer.execute("INSERT INTO notes (body) VALUES ('before')")
        catch_up_fully(pair, enough=0, limit=60.0)
        writer.execute(change)
        with pytest.raises(OperationError, match="schema has changed"):
            catch_up_fully(pair, enough=0, limit=60.0)
    writer.close()
    # What had arrived is there; nothing was guessed.
    assert rows(migration, "SELECT body FROM notes") == [("before",)]
