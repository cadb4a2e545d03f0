"""PostgreSQL serves, and people alter its tables: nobody waits for the job, and nothing is lost.

Quick here; ``SERVING_DDL_SECONDS=60`` does it for a minute.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from migration_job.protocol import reverse_sync
from migration_job.protocol.reverse_sync import bring_back, differences
from migration_job.protocol.rollback import rollback
from migration_job.protocol.run_context import Pair, opened
from migration_job.protocol.settings import Endpoints, endpoints
from migration_job.protocol.settle import settle
from migration_job.protocol.switch import switch
from migration_job.protocol.sync import Sync, read_report
from migration_job.stores.postgres.database import Locked
from tests.helpers import report_of
from tests.integration.livekit import Migration, begin, fresh_source
from tests.integration.test_catchup import both_sides

pytestmark = pytest.mark.postgres

SECONDS = float(os.environ.get("SERVING_DDL_SECONDS", "6"))

LONGEST_WAIT = 1.0
"""What a writer waits at most, in seconds, whatever is altered."""

ALTERATIONS = (
    "ALTER TABLE notes ADD COLUMN added{n} integer",
    "ALTER TABLE notes ALTER COLUMN body SET STATISTICS {small}",
    "ALTER TABLE notes SET (fillfactor = {small})",
    "ALTER TABLE notes ADD CONSTRAINT short{n} CHECK (length(body) < 10000)",
    "REINDEX TABLE notes",
    "VACUUM FULL notes",
    "VACUUM FULL migration.reverse_log",
    "TRUNCATE events",
    "CLUSTER notes USING notes_by_user",
    "REINDEX TABLE events",
    "VACUUM FULL events",
)


@dataclass
class Serving:
    """A migration that was switched: PostgreSQL serves."""

    migration: Migration
    ends: Endpoints
    directory: Path

    def execute(self, *statements: str) -> None:
        """As the tables' owner, each in a transaction of its own."""
        with psycopg.connect(self.migration.dsn, autocommit=True) as session:
            for statement in statements:
                session.execute(statement.encode())

    @contextlib.contextmanager
    def pair(self) -> Iterator[Pair]:
        with opened(self.migration.source, self.migration.dsn) as pair:
            yield pair

    def come_back(self) -> None:
        """Sync until there is nothing left, and compare the sides."""
        Sync(self.ends).run(once=True)
        source, target = both_sides(self.migration)
        assert source == target


@pytest.fixture
def serving(tmp_path: Path, postgres: str) -> Serving:
    return switched(tmp_path, postgres)


def switched(tmp_path: Path, postgres: str) -> Serving:
    migration = begin(fresh_source(tmp_path), postgres)
    told = tmp_path / "application.json"
    told.write_text(json.dumps({"host": "h", "database": "d", "user": "u", "password": "p"}))
    ends = endpoints(
        migration.source,
        postgres,
        connection=tmp_path / "connection",
        connect_to=told,
        console=None,
        alias_file=None,
    )
    writer = migration.writer()
    writer.execute("INSERT INTO notes (body) VALUES ('first'), ('second')")
    writer.execute("INSERT INTO events VALUES ('a', 1), ('b', 2)")
    writer.close()
    switch(ends)
    return Serving(migration, ends, tmp_path)


def count_source(serving: Serving, query: str) -> int:
    writer = serving.migration.writer()
    try:
        return int(writer.execute(query).get)
    finally:
        writer.close()


class Writers:
    """Applications that write all the time, and how long each write took."""

    def __init__(self, dsn: str, count: int) -> None:
        self._stop = threading.Event()
        self.longest = 0.0
        self.written = 0
        self.errors: list[str] = []
        self._threads = [
            threading.Thread(target=self._write, args=(dsn, number), daemon=True)
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def _write(self, dsn: str, number: int) -> None:
        with psycopg.connect(dsn, autocommit=True, prepare_threshold=None) as session:
            for turn in itertools.count():
                if self._stop.is_set():
                    return
                start = time.monotonic()
                try:
                    session.execute(
                        "INSERT INTO notes (body) VALUES (%s)", (f"{number}-{turn} " + "x" * 50,)
                    )
                    session.execute("UPDATE notes SET body = 'u' WHERE id = %s", (turn // 2,))
                    session.execute("INSERT INTO events (what, n) VALUES ('e', %s)", (turn,))
                except psycopg.Error as error:
                    self.errors.append(str(error))
                took = time.monotonic() - start
                self.longest = max(self.longest, took)
                self.written += 1
                self._stop.wait(0.005)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive(), "a writer hangs"


@contextlib.contextmanager
def syncing(serving: Serving) -> Iterator[list[str]]:
    said: list[str] = []
    stop = threading.Event()
    thread = threading.Thread(
        target=Sync(serving.ends, say=said.append).run, args=(stop.is_set,), daemon=True
    )
    thread.start()
    try:
        yield said
    finally:
        stop.set()
        thread.join(30)
        assert not thread.is_alive(), "sync hangs"
        print("\n".join(said))


@pytest.mark.timeout(SECONDS + 120)
def test_altered_under_load_nobody_waits_and_everything_comes_back(serving: Serving) -> None:
    done, deadline = 0, time.monotonic() + SECONDS
    with syncing(serving), psycopg.connect(serving.migration.dsn, autocommit=True) as owner:
        # A hang is to fail here, not to stand still.
        owner.execute("SET statement_timeout TO '10s'")
        writers = Writers(serving.migration.dsn, 3)
        try:
            while time.monotonic() < deadline:
                alteration = ALTERATIONS[done % len(ALTERATIONS)]
                owner.execute(alteration.format(n=done, small=done % 90 + 10).encode())
                done += 1
        finally:
            writers.stop()
        report = read_report(serving.ends.state)
    print(f"{done} alterations, {writers.written} writes, longest {writers.longest * 1000:.0f} ms")
    print(report)
    assert writers.errors == []
    assert done > len(ALTERATIONS)
    assert writers.longest < LONGEST_WAIT
    assert report is not None
    assert report.rounds > SECONDS
    serving.come_back()
    rollback(serving.ends)
    source, target = both_sides(serving.migration)
    assert source == target


def test_a_table_that_is_rewritten_under_a_round_loses_no_row(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rewritten table is empty for a snapshot from before: the round must not believe it."""
    serving.execute("UPDATE notes SET body = 'changed'")
    taken = reverse_sync._queue

    def rewritten(*arguments: object) -> object:
        monkeypatch.undo()
        found = taken(*arguments)  # type: ignore[arg-type]
        serving.execute("ALTER TABLE notes ALTER COLUMN body TYPE text USING body || '!'")
        return found

    monkeypatch.setattr(reverse_sync, "_queue", rewritten)
    with serving.pair() as pair:
        bring_back(pair)
    assert count_source(serving, "SELECT count(*) FROM notes WHERE body LIKE 'changed%'") == 2


def test_a_round_holds_no_lock_between_its_statements(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While SQLite is written, and while rows are compared, a table can be altered at once."""
    serving.execute("UPDATE notes SET body = 'changed'", "TRUNCATE events")
    altered: list[str] = []

    def altering(name: str) -> Callable[..., object]:
        real = getattr(reverse_sync, name)

        def act(*arguments: object, **more: object) -> object:
            with psycopg.connect(serving.migration.dsn, autocommit=True) as owner:
                owner.execute("SET lock_timeout TO '100ms'")
                for table in ("notes", "events", "migration.reverse_log", "migration.ledger"):
                    with owner.transaction():
                        owner.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE".encode())
            altered.append(name)
            return real(*arguments, **more)

        return act

    for name in ("new_token", "apply_back", "differing_keys", "_note"):
        monkeypatch.setattr(reverse_sync, name, altering(name))
    with serving.pair() as pair:
        bring_back(pair)
    assert altered == ["new_token", "apply_back", "differing_keys", "differing_keys", "_note"]
    serving.come_back()


def test_a_round_gives_up_where_a_table_is_locked_and_goes_on_after(serving: Serving) -> None:
    serving.execute("UPDATE notes SET body = 'changed'")
    with serving.pair() as pair:
        with psycopg.connect(serving.migration.dsn) as other:
            other.execute("LOCK TABLE notes IN ACCESS EXCLUSIVE MODE")
            start = time.monotonic()
            with pytest.raises(Locked, match="locked"):
                bring_back(pair)
            assert time.monotonic() - start < 5
        bring_back(pair)
    assert count_source(serving, "SELECT count(*) FROM notes WHERE body = 'changed'") == 2


def test_the_other_tables_come_back_while_one_is_locked(serving: Serving) -> None:
    serving.come_back()
    with serving.pair() as pair:
        before = pair.state().back_at
        serving.execute(
            "UPDATE notes SET body = 'changed'", "INSERT INTO events (what) VALUES ('c')"
        )
        with psycopg.connect(serving.migration.dsn) as other:
            other.execute("LOCK TABLE notes IN ACCESS EXCLUSIVE MODE")
            done = bring_back(pair)
            assert (done.taken, done.left) == (1, True)
            # The file is not yet as PostgreSQL was at any moment, and does not say so.
            assert pair.state().back_at == before
            with pytest.raises(Locked, match="locked"):
                bring_back(pair)
        assert count_source(serving, "SELECT count(*) FROM events WHERE what = 'c'") == 1
        assert bring_back(pair).taken == 2
        assert pair.state().back_at != before
    serving.come_back()


def test_a_table_that_is_altered_all_the_time_is_held_for_a_round(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look at the queue is followed by a change of the table that the look was made for."""
    serving.execute("UPDATE notes SET body = 'changed'")
    taken, turn, errors = reverse_sync._queue, itertools.count(), []

    def altered(*arguments: object) -> object:
        found = taken(*arguments)  # type: ignore[arg-type]
        with psycopg.connect(serving.migration.dsn, autocommit=True) as owner:
            owner.execute("SET lock_timeout TO '100ms'")
            try:
                owner.execute(f"ALTER TABLE notes ADD COLUMN more{next(turn)} integer".encode())
                owner.execute("VACUUM FULL notes")
            except psycopg.errors.LockNotAvailable as error:
                errors.append(error)
        return found

    monkeypatch.setattr(reverse_sync, "_queue", altered)
    with serving.pair() as pair:
        while bring_back(pair).left:
            pass
    assert len(errors) == 1
    monkeypatch.undo()
    serving.come_back()


def test_sync_says_what_it_waits_for_and_keeps_its_sessions(serving: Serving) -> None:
    with syncing(serving) as said, psycopg.connect(serving.migration.dsn) as other:
        other.execute("LOCK TABLE notes IN ACCESS EXCLUSIVE MODE")
        other.execute("UPDATE notes SET body = 'changed'")
        serving.execute("INSERT INTO events (what) VALUES ('c')")
        other.execute("INSERT INTO migration.reverse_log (tab, key) VALUES (2, '{1}')")
        serving.execute("INSERT INTO migration.reverse_log (tab, key) VALUES (2, '{2}')")
        deadline = time.monotonic() + 20
        while not any("locked" in line for line in said):
            assert time.monotonic() < deadline, said
            time.sleep(0.05)
        other.commit()
        while report_of(serving.ends.state).problem:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    serving.come_back()


def test_settle_takes_one_table_at_a_time_and_never_for_long(serving: Serving) -> None:
    """A long transaction has one table: the writers of the others go on, and so do its own."""
    writers = Writers(serving.migration.dsn, 2)
    try:
        with psycopg.connect(serving.migration.dsn) as other:
            other.execute("SELECT count(*) FROM progress")
            threading.Timer(2.0, other.rollback).start()
            settle(serving.ends, serving.directory / "report", force=True)
            other.rollback()
    finally:
        writers.stop()
    assert writers.errors == []
    assert writers.longest < LONGEST_WAIT
    left = "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'migration\\_job\\_%'"
    with psycopg.connect(serving.migration.dsn) as session:
        assert session.execute(left.encode()).fetchone() == (0,)


def test_a_whole_table_is_read_in_pieces(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reverse_sync, "PAGES", 1)
    serving.execute(
        "TRUNCATE events",
        "INSERT INTO events (what, n) SELECT repeat('x', 500), n FROM generate_series(1, 200) n",
    )
    with serving.pair() as pair:
        bring_back(pair)
        assert differences(pair) == []
    assert count_source(serving, "SELECT count(*) FROM events") == 200
    serving.come_back()
