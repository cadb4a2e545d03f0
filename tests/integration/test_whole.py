"""The capture proves that it is whole: lost triggers, replaced files, writes around it.

Whatever was done, the switch refuses with a sentence and SQLite serves, or nothing is missing on
PostgreSQL.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import apsw
import psycopg
import pytest

from migration_job.errors import JobError
from migration_job.protocol.catchup import catch_up
from migration_job.protocol.rollback import rollback
from migration_job.protocol.run_context import Pair, opened
from migration_job.protocol.settings import Endpoints, endpoints
from migration_job.protocol.status import status
from migration_job.protocol.switch import switch
from migration_job.protocol.sync import Sync, read_report
from migration_job.stores.sqlite import capture
from migration_job.stores.sqlite.whole import NotWhole, WrittenAround
from tests.integration.livekit import PLAN, Migration, begin, fresh_source, uid

pytestmark = pytest.mark.postgres

MODES = ("wal", "delete", "truncate", "persist")
TRIGGERS = (
    "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger' AND name LIKE '%_update' "
    "AND tbl_name = 'users'"
)


def started(folder: Path, dsn: str, mode: str) -> Migration:
    """A live migration of a source in this journal mode, of tables that all have a key."""
    source = fresh_source(folder)
    connection = apsw.Connection(str(source))
    connection.execute("DROP TABLE events")
    connection.execute(f"PRAGMA journal_mode = {mode}").fetchall()
    connection.close()
    plan = PLAN.model_copy(
        update={
            "tables": tuple(t for t in PLAN.tables if t.source != "events"),
            "sequences": tuple(s for s in PLAN.sequences if s.table != "events"),
        }
    )
    return begin(source, dsn, plan)


def told_to(migration: Migration, folder: Path) -> Endpoints:
    """What the commands are given, without a pooler."""
    told = folder / "application.json"
    name = str(psycopg.conninfo.conninfo_to_dict(migration.dsn)["dbname"])
    side = {"host": "127.0.0.1", "port": 5432, "database": name, "user": "app"}
    told.write_text(json.dumps(side | {"password": "secret"}))
    return endpoints(
        migration.source,
        migration.dsn,
        connection=folder / "connection",
        connect_to=told,
        console=None,
        alias_file=None,
    )


@pytest.fixture(params=MODES)
def migration(request: pytest.FixtureRequest, tmp_path: Path, postgres: str) -> Migration:
    return started(tmp_path, postgres, request.param)


@pytest.fixture
def ends(migration: Migration, tmp_path: Path) -> Endpoints:
    return told_to(migration, tmp_path)


@pytest.fixture
def pair(migration: Migration) -> Iterator[Pair]:
    writer = migration.writer()
    writer.execute("INSERT INTO users VALUES (?, 'one', 1), (?, 'two', 2)", (uid(1), uid(2)))
    writer.close()
    with opened(migration.source, migration.dsn) as pair:
        catch_up(pair)
        yield pair


def refused(migration: Migration, ends: Endpoints, match: str) -> None:
    """The switch refuses, and SQLite goes on serving."""
    with pytest.raises(JobError, match=match):
        switch(ends)
    with psycopg.connect(migration.dsn) as target:
        assert target.execute("SELECT closed FROM migration.fence").fetchall() == [(True,)]
    writer = migration.writer()
    writer.execute("INSERT OR REPLACE INTO users VALUES (?, 'still', 9)", (uid(99),))
    writer.close()


def copied(source: Path, destination: Path) -> None:
    """By a process of its own: closing the file in this one would drop the locks on it."""
    subprocess.run(["cp", str(source), str(destination)], check=True)


def test_a_trigger_that_was_dropped(migration: Migration, ends: Endpoints, pair: Pair) -> None:
    writer = migration.writer()
    ((name, sql),) = writer.execute(TRIGGERS).fetchall()
    writer.execute(f'DROP TRIGGER "{name}"')
    writer.execute("UPDATE users SET score = 5")
    with pytest.raises(NotWhole, match=rf"{name} on users is missing.*position \d+ of its log"):
        catch_up(pair)
    refused(migration, ends, f"{name} on users is missing")
    # Put back word for word: what was missed meanwhile is still missed.
    writer.execute(str(sql))
    refused(migration, ends, "users is not the same on both sides")
    writer.execute("UPDATE users SET score = score")
    writer.close()
    switch(ends)
    with psycopg.connect(migration.dsn) as target:
        assert target.execute("SELECT DISTINCT score FROM users ORDER BY 1").fetchall() == [
            (5.0,),
            (9.0,),
        ]


def test_a_trigger_that_was_away_between_two_looks(
    migration: Migration, ends: Endpoints, pair: Pair
) -> None:
    writer = migration.writer()
    ((name, sql),) = writer.execute(TRIGGERS).fetchall()
    writer.execute(f'BEGIN; DROP TRIGGER "{name}"; UPDATE users SET score = 5; {sql}; COMMIT')
    writer.close()
    catch_up(pair)  # nothing to be seen, but the cookie has moved
    refused(migration, ends, "users is not the same on both sides")


@pytest.mark.parametrize("again", [False, True])
def test_a_schema_that_was_edited(
    migration: Migration, ends: Endpoints, pair: Pair, again: bool
) -> None:
    """``writable_schema`` moves no cookie."""
    writer = migration.writer()
    name, _ = writer.execute(TRIGGERS).fetchall()[0]
    row = writer.execute("SELECT * FROM sqlite_schema WHERE name = ?", (name,)).fetchall()[0]
    writer.execute("PRAGMA writable_schema = ON")
    writer.execute("DELETE FROM sqlite_schema WHERE name = ?", (name,))
    writer.close()
    writer = migration.writer()
    writer.execute("UPDATE users SET score = 5")
    if again:
        writer.execute("PRAGMA writable_schema = ON")
        writer.execute("INSERT INTO sqlite_schema VALUES (?, ?, ?, ?, ?)", row)
    writer.close()
    refused(migration, ends, "users is not the same" if again else f"{name} on users is missing")


def test_an_update_with_triggers_switched_off(
    migration: Migration, ends: Endpoints, pair: Pair
) -> None:
    writer = migration.writer()
    writer.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
    writer.execute("UPDATE users SET score = 5 WHERE email = 'one'")
    writer.close()
    with pytest.raises(WrittenAround, match="around the change capture"):
        switch(ends)
    refused(migration, ends, "column score")


def test_a_rebuild_in_twelve_steps(migration: Migration, ends: Endpoints, pair: Pair) -> None:
    """The table is recreated with the same text, and has no triggers any more."""
    writer = migration.writer()
    writer.execute("PRAGMA foreign_keys = OFF")
    text = str(writer.execute("SELECT sql FROM sqlite_schema WHERE name = 'notes'").get)
    index = "sqlite_sequence"
    assert writer.execute(f"SELECT count(*) FROM {index}").get is not None
    writer.execute("BEGIN")
    writer.execute(text.replace("notes", "notes_new", 1))
    writer.execute("INSERT INTO notes_new SELECT * FROM notes; DROP TABLE notes")
    writer.execute("ALTER TABLE notes_new RENAME TO notes")
    writer.execute("COMMIT")
    writer.execute("INSERT INTO notes (body) VALUES ('unseen')")
    writer.close()
    with pytest.raises(NotWhole, match="notes"):
        catch_up(pair)
    refused(migration, ends, "notes")


def test_vacuum_is_no_gap(migration: Migration, ends: Endpoints, pair: Pair) -> None:
    writer = migration.writer()
    writer.execute("UPDATE users SET score = 7; VACUUM; ANALYZE; REINDEX")
    writer.close()
    catch_up(pair)
    switch(ends)


@pytest.mark.parametrize("how", ["removed", "renamed", "replaced", "a link"])
def test_a_file_that_is_another(
    migration: Migration, ends: Endpoints, pair: Pair, how: str, tmp_path: Path
) -> None:
    source = migration.source
    backup = tmp_path / "backup.db"
    copied(source, backup)
    if how == "removed":
        source.unlink()
    elif how == "renamed":
        source.rename(tmp_path / "away.db")
    elif how == "replaced":
        backup.replace(source)
    else:
        source.unlink()
        source.symlink_to(backup)
    words = "is gone" if how in ("removed", "renamed") else "another file"
    with pytest.raises(NotWhole, match=words):
        catch_up(pair)


def test_an_older_copy_that_has_reached_the_same_position(
    migration: Migration, ends: Endpoints, pair: Pair, tmp_path: Path
) -> None:
    backup = tmp_path / "backup.db"
    writer = migration.writer()
    writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    copied(migration.source, backup)
    writer.execute("INSERT INTO users VALUES (?, 'lost', 1)", (uid(3),))
    writer.close()
    catch_up(pair)
    pair.close()
    for suffix in ("", "-wal", "-shm", "-journal"):
        migration.source.with_name(migration.source.name + suffix).unlink(missing_ok=True)
    backup.replace(migration.source)
    writer = migration.writer()
    writer.execute("INSERT INTO users VALUES (?, 'other', 1)", (uid(4),))
    writer.close()
    with (
        opened(migration.source, migration.dsn) as second,
        pytest.raises(NotWhole, match="put back to an older state"),
    ):
        catch_up(second)
    refused(migration, ends, "put back to an older state")
    # `pair` is closed by its fixture once more, which does no harm.


@pytest.mark.parametrize("migration", ["wal"], indirect=True)
@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
def test_a_log_that_was_removed_under_the_application(
    migration: Migration, pair: Pair, suffix: str
) -> None:
    writer = migration.writer()
    writer.execute("UPDATE users SET score = 5")
    catch_up(pair)
    migration.source.with_name(migration.source.name + suffix).unlink()
    with pytest.raises(NotWhole, match=f"{suffix} is gone"):
        catch_up(pair)
    writer.close()


# ------------------------------------------------------------------ while PostgreSQL serves


@pytest.fixture
def switched(migration: Migration, ends: Endpoints) -> Iterator[apsw.Connection]:
    """PostgreSQL serves; a connection of an application that has not noticed."""
    writer = migration.writer()
    writer.execute("INSERT INTO users VALUES (?, 'one', 1), (?, 'two', 2)", (uid(1), uid(2)))
    writer.execute("INSERT INTO notes (user_id, body) VALUES (?, 'a'), (?, 'b')", (uid(1), uid(2)))
    switch(ends)
    with psycopg.connect(migration.dsn, autocommit=True) as target:
        target.execute("UPDATE notes SET body = 'c' WHERE body = 'b'")
    yield writer
    writer.close()


def notes(writer: apsw.Connection) -> list[str]:
    return [str(row[0]) for row in writer.execute("SELECT body FROM notes ORDER BY id")]


@pytest.mark.parametrize("by", ["sync", "rollback"])
def test_a_table_dropped_from_the_closed_file(
    switched: apsw.Connection, ends: Endpoints, by: str
) -> None:
    before = switched.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY 2").fetchall()
    switched.execute("PRAGMA foreign_keys = OFF; DROP TABLE notes")
    told: list[str] = []
    if by == "sync":
        Sync(ends, say=told.append).run(once=True)
        assert notes(switched) == ["a", "c"]
        with pytest.raises(apsw.ConstraintError, match="moved to PostgreSQL"):
            switched.execute("INSERT INTO notes (body) VALUES ('never')")
    rollback(ends, say=told.append)
    assert "table notes is missing" in "".join(told)
    assert notes(switched) == ["a", "c"]
    after = switched.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY 2").fetchall()
    assert after == before
    switched.execute("INSERT INTO notes (body) VALUES ('next')")
    assert switched.last_insert_rowid() == 3
    switch(ends)


def test_the_gate_is_closed_again_and_the_file_proved(
    switched: apsw.Connection, ends: Endpoints
) -> None:
    for (name,) in switched.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 'notes'"
    ).fetchall():
        switched.execute(f'DROP TRIGGER "{name}"')
    told: list[str] = []
    Sync(ends, say=told.append).run(once=True)  # nothing was written meanwhile
    assert "is missing" in told[0] or "is missing" in "".join(told)
    with pytest.raises(apsw.ConstraintError, match="moved to PostgreSQL"):
        switched.execute("INSERT INTO notes (body) VALUES ('never')")
    rollback(ends)
    assert notes(switched) == ["a", "c"]


def test_what_sqlite_took_through_an_open_gate_stops_the_way_back(
    switched: apsw.Connection, ends: Endpoints, migration: Migration
) -> None:
    for (name,) in switched.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 'notes'"
    ).fetchall():
        switched.execute(f'DROP TRIGGER "{name}"')
    switched.execute("INSERT INTO notes (body) VALUES ('both sides took writes')")
    with pytest.raises(WrittenAround, match="gate of the closed source was open"):
        Sync(ends).run(once=True)
    told = status(ends.source, dsn=ends.dsn, connection=ends.connection, state=None)
    assert "NOT WHOLE" in told[1]
    with pytest.raises(WrittenAround, match="gate of the closed source was open"):
        rollback(ends)
    with psycopg.connect(migration.dsn, autocommit=True) as target:
        assert target.execute("SELECT closed FROM migration.fence").fetchall() == [(False,)]
    done = rollback(ends, accept_loss=True)
    assert "notes" in done.lost[0]
    assert notes(switched) == ["a", "c"]


def test_an_altered_table_is_told(switched: apsw.Connection, ends: Endpoints) -> None:
    switched.execute("ALTER TABLE notes RENAME COLUMN body TO text")
    with pytest.raises(NotWhole, match=r"not all can be put back: .*table notes"):
        Sync(ends).run(once=True)
    with pytest.raises(JobError, match="table notes"):
        rollback(ends)


@pytest.mark.parametrize("how", ["removed", "an older copy", "one without capture"])
def test_another_file_while_postgresql_serves(
    migration: Migration, ends: Endpoints, how: str, tmp_path: Path
) -> None:
    writer = migration.writer()
    writer.execute("INSERT INTO notes (body) VALUES ('a')")
    writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    backup = tmp_path / "backup.db"
    copied(migration.source, backup)
    writer.close()
    switch(ends)
    told: list[str] = []
    sync = Sync(ends, say=told.append)
    sync.run(once=True)
    for suffix in ("", "-wal", "-shm", "-journal"):
        migration.source.with_name(migration.source.name + suffix).unlink(missing_ok=True)
    if how != "removed":
        backup.replace(migration.source)
    if how == "one without capture":
        with apsw.Connection(str(migration.source)) as connection:
            capture.remove(connection)
    words = {
        "removed": "the source is gone",
        "an older copy": "another file|put back to an older state",
        "one without capture": "another file|not the file that was switched",
    }
    for again in (sync, Sync(ends, say=told.append)):
        with pytest.raises(NotWhole, match=words[how]):
            again.run(once=True)
    report = read_report(ends.state)
    assert report is not None
    assert not report.whole
    lines = status(ends.source, dsn=ends.dsn, connection=ends.connection, state=None)
    assert lines[0].startswith("serves      PostgreSQL, by its open fence; the source")
    with psycopg.connect(migration.dsn, autocommit=True) as target:
        assert target.execute("SELECT closed FROM migration.fence").fetchall() == [(False,)]
    with pytest.raises(JobError):
        rollback(ends)
    with psycopg.connect(migration.dsn, autocommit=True) as target:
        assert target.execute("SELECT closed FROM migration.fence").fetchall() == [(False,)]


def test_a_full_state_directory_stops_nothing(
    migration: Migration, ends: Endpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sentence, once, and it goes on; a report again as soon as there is space."""
    told: list[str] = []
    sync = Sync(ends, say=told.append)
    sync.run(once=True)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("migration_job.protocol.sync.write_durably", full)
        patch.setattr("migration_job.protocol.lock.os.pwrite", full)
        writer = migration.writer()
        writer.execute("INSERT INTO users VALUES (?, 'one', 1)", (uid(1),))
        writer.close()
        sync.run(once=True)
        sync.run(once=True)
    assert len([line for line in told if "No space left" in line]) == 1
    with psycopg.connect(migration.dsn) as target:
        assert target.execute("SELECT email FROM users").fetchall() == [("one",)]
    before = read_report(ends.state)
    sync.run(once=True)
    after = read_report(ends.state)
    assert before is not None
    assert after is not None
    assert after.at > before.at
