"""How often the job waits for PostgreSQL's answer: where that is far, nothing else takes as long.

A forwarder counts, so that no clock is needed: see :mod:`benchmarks.distant`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from benchmarks.distant import Distance
from migration_job.protocol.catchup import catch_up
from migration_job.protocol.run_context import opened
from migration_job.protocol.settings import endpoints
from migration_job.protocol.switch import switch
from tests.integration.livekit import Migration, begin, fresh_source, uid

pytestmark = pytest.mark.postgres

OPENING = 26
"""Three logins of four round trips each, and twice as many again in all."""

ROUND, IDLE, FENCE = 5, 1, 6


@pytest.fixture
def distance(postgres: str) -> Iterator[Distance]:
    with Distance(int(str(conninfo_to_dict(postgres)["port"])), 0) as made:
        yield made


@pytest.fixture
def migration(tmp_path: Path, postgres: str, distance: Distance) -> Migration:
    near = begin(fresh_source(tmp_path), postgres)
    return Migration(near.source, make_conninfo(postgres, host="127.0.0.1", port=distance.port))


def write(migration: Migration, number: int) -> None:
    """To every table: rows that come, rows that change and rows that go, one that others refer to
    among them, and texts that COPY would escape."""
    writer = migration.writer()
    with writer:
        for user in (number, number + 1):
            row = (uid(user), f"{user}\t\\@example.org\n", 0.1)
            writer.execute("INSERT INTO users VALUES (?, ?, ?)", row)
        writer.execute("INSERT INTO notes (user_id, body) VALUES (?, ?)", (uid(number), r"\N"))
        writer.execute("INSERT INTO notes (user_id, body) VALUES (?, NULL)", (uid(number + 1),))
        writer.execute("INSERT INTO progress VALUES (?, 1, '')", (uid(number),))
        writer.execute("INSERT INTO events VALUES ('\r', ?)", (number,))
        writer.execute("UPDATE events SET n = n + 1")
        writer.execute("DELETE FROM notes WHERE user_id = ?", (uid(number),))
        writer.execute("DELETE FROM users WHERE id = ?", (uid(number),))
    writer.close()


def contents(migration: Migration) -> tuple[list[object], list[object]]:
    writer = migration.writer()
    queries = {
        "SELECT id, email, score FROM users ORDER BY id": "id::text",
        "SELECT id, user_id, body FROM notes ORDER BY id": "user_id::text",
        "SELECT user_id, note_id, state FROM progress ORDER BY 1, 2": "user_id::text",
        "SELECT what, n FROM events ORDER BY 2": "",
    }
    here: list[object] = [list(writer.execute(query)) for query in queries]
    writer.close()
    with psycopg.connect(migration.dsn) as target:
        there: list[object] = [
            target.execute(query.replace(cast.removesuffix("::text"), cast, 1).encode()).fetchall()
            for query, cast in queries.items()
        ]
    return here, there


def test_a_round_waits_as_often_for_all_tables_as_for_one(
    migration: Migration, distance: Distance
) -> None:
    before = distance.turns
    with opened(migration.source, migration.dsn) as pair:
        assert distance.turns - before <= OPENING
        for round_ in range(2):
            write(migration, 10 * round_)
            before = distance.turns
            assert catch_up(pair).behind == 0
            assert distance.turns - before <= ROUND
            before = distance.turns
            assert catch_up(pair).keys == 0
            assert distance.turns - before <= IDLE
    here, there = contents(migration)
    assert here == there


def test_a_fence_is_six_round_trips(
    migration: Migration, distance: Distance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[int] = []

    @contextlib.contextmanager
    def step(name: str) -> Iterator[None]:
        if name == "switch.fence":
            write(migration, 10)
        before = distance.turns
        yield
        if name in ("switch.drain", "switch.decide"):
            held.append(distance.turns - before)

    monkeypatch.setattr("migration_job.protocol.switch.step", step)
    told = tmp_path / "application.json"
    told.write_text(json.dumps({"host": "h", "database": "d", "user": "u", "password": "p"}))
    ends = endpoints(
        migration.source,
        migration.dsn,
        connection=tmp_path / "connection",
        connect_to=told,
        console=None,
        alias_file=None,
    )
    write(migration, 0)
    switch(ends, budget=10.0)
    assert len(held) == 2
    assert sum(held) <= FENCE
    here, there = contents(migration)
    assert here == there
