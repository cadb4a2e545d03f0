"""Pitfalls 47 to 51: what PgBouncer's PAUSE, RELOAD and RESUME do to clients, on a real PgBouncer.

Loads of new connections are tried as well as old ones: a stall hits new ones alone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from migration_job.embedded import EmbeddedPgBouncer, EmbeddedPostgres, free_port
from migration_job.errors import OperationError
from migration_job.pooler import Alias, Pooler

pytestmark = pytest.mark.postgres

NOTICEABLE = 10.0
"""Seconds; PgBouncer's default of 15 s between two tries to log in to a server is above it, and a
machine under load is below it."""
LIMIT = 60.0


class Application:
    """A pooler with one alias, and clients of it."""

    def __init__(self, bouncer: EmbeddedPgBouncer, server: EmbeddedPostgres, dsn: str) -> None:
        self.bouncer, self.server = bouncer, server
        self.database = str(conninfo_to_dict(dsn)["dbname"])
        self.pooler = self.at(server.port)
        self.pooler.open_alias()

    def at(self, port: int, name: str = "app", pool_size: int | None = None) -> Pooler:
        alias = Alias(name, "127.0.0.1", port, self.database, pool_size)
        return Pooler(self.bouncer.admin_dsn, self.bouncer.alias_path, alias)

    def connect(self, alias: str = "app") -> psycopg.Connection[Any]:
        dsn = self.bouncer.dsn(alias, user=self.server.superuser, password=self.server.password)
        return psycopg.connect(dsn, autocommit=True, prepare_threshold=None, connect_timeout=60)

    def ask(self, alias: str = "app") -> float:
        """One query on a new connection; returns when it was answered."""
        with self.connect(alias) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        return time.monotonic()

    def waiting(self) -> int:
        with psycopg.connect(self.bouncer.admin_dsn, autocommit=True) as console:
            cursor = psycopg.ClientCursor(console)
            cursor.execute("SHOW POOLS")
            assert cursor.description is not None
            names = [c.name for c in cursor.description]
            pools = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        return sum(int(p["cl_waiting"]) for p in pools if p["database"] == "app")

    @contextmanager
    def open_transaction(self) -> Iterator[psycopg.Connection[Any]]:
        with self.connect() as connection:
            connection.execute("BEGIN")
            connection.execute("SELECT 1")
            yield connection
            connection.execute("COMMIT")


@pytest.fixture
def application(
    pgbouncer: EmbeddedPgBouncer, postgres_server: EmbeddedPostgres, postgres: str
) -> Application:
    return Application(pgbouncer, postgres_server, postgres)


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come about within {LIMIT} s")
        time.sleep(0.02)


def test_pitfall_47_new_connections_between_reload_and_resume(application: Application) -> None:
    """The whole sequence of a switch: PAUSE, the alias changed and read, new clients, RESUME."""
    pooler = application.pooler
    changed = application.at(application.server.port, pool_size=10)
    with ThreadPoolExecutor(10) as clients:
        pooler.pause(limit=LIMIT)
        changed._write(changed.alias.line())
        changed._console.run("RELOAD")
        asked = [clients.submit(application.ask) for _ in range(10)]
        until(lambda: application.waiting() > 0, "a client that waits")
        resumed = time.monotonic()
        changed.resume()
        answered = [future.result(timeout=LIMIT) for future in asked]
    assert max(answered) - resumed < NOTICEABLE


def test_pitfall_47_new_connections_after_a_server_that_was_away(application: Application) -> None:
    """``server_login_retry``: after a failed login PgBouncer waits before it tries again."""
    application.at(free_port()).open_alias()
    with ThreadPoolExecutor(5) as clients:
        asked = [clients.submit(application.ask) for _ in range(5)]
        until(lambda: application.waiting() > 0, "a client that waits")
        application.pooler.open_alias()
        back = time.monotonic()
        answered = [future.result(timeout=LIMIT) for future in asked]
    assert max(answered) - back < NOTICEABLE
    assert application.ask() - back < NOTICEABLE


def test_pitfall_48_a_pause_that_fails_leaves_no_pause(application: Application) -> None:
    pooler = application.pooler
    with application.open_transaction():
        with pytest.raises(OperationError, match="could not hold"):
            pooler.pause(limit=0.5)
        # Old transactions go on and new clients are served: nothing hangs for ever.
        application.ask()
        assert pooler.is_open()
    application.ask()
    with pooler.paused(limit=LIMIT):
        assert not pooler.is_open()
    assert pooler.is_open()
    application.ask()


def test_pitfall_48_a_pause_of_somebody_who_died_is_ended(application: Application) -> None:
    pooler = application.pooler
    pooler.pause(limit=LIMIT)
    # Whoever paused is gone. The next one neither fails on the PAUSE nor relies on it.
    pooler.pause(limit=LIMIT)
    pooler.resume()
    application.ask()
    pooler.pause(limit=LIMIT)
    pooler.open_alias()
    application.ask()


def test_pitfall_48_whatever_fails_in_between_resumes(application: Application) -> None:
    pooler = application.pooler
    with pytest.raises(ZeroDivisionError), pooler.paused(limit=LIMIT):
        raise ZeroDivisionError
    assert pooler.is_open()
    application.ask()


def test_pitfall_49_pause_waits_a_bounded_time_and_can_be_tried_again(
    application: Application,
) -> None:
    pooler = application.pooler
    begun = time.monotonic()
    with application.open_transaction():
        with pytest.raises(OperationError) as caught:
            pooler.pause(limit=0.5)
        assert "open transactions: 1" in caught.value.message
        assert time.monotonic() - begun < LIMIT
        assert "SHOW CLIENTS" in caught.value.advice
    pooler.pause(limit=LIMIT)
    pooler.resume()


def test_pitfall_49_pause_lets_short_transactions_end(application: Application) -> None:
    pooler = application.pooler
    ended = threading.Event()

    def transaction() -> None:
        with application.open_transaction() as connection:
            connection.execute("SELECT pg_sleep(0.3)")
        ended.set()

    with ThreadPoolExecutor(1) as client:
        future: Future[None] = client.submit(transaction)
        until(lambda: _active(application) > 0, "an open transaction")
        with pooler.paused(limit=LIMIT):
            assert ended.wait(LIMIT)
        future.result(timeout=LIMIT)


def _active(application: Application) -> int:
    with psycopg.connect(application.server.dsn, autocommit=True) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND state <> 'idle'",
            (application.database,),
        ).fetchone()
    assert row is not None
    return int(row[0])


def test_pitfall_50_queries_are_held_not_failed(application: Application) -> None:
    pooler = application.pooler
    with ThreadPoolExecutor(5) as clients:
        with pooler.paused(limit=LIMIT):
            asked = [clients.submit(application.ask) for _ in range(5)]
            until(lambda: application.waiting() > 0, "a client that waits")
            assert not any(future.done() for future in asked)
        for future in asked:
            future.result(timeout=LIMIT)


def test_pitfall_50_pausing_one_alias_does_not_queue_another(application: Application) -> None:
    other = Alias("other", "127.0.0.1", application.server.port, application.database)
    with application.bouncer.alias_path.open("a") as file:
        file.write(other.line())
    application.pooler._console.run("RELOAD")
    with application.pooler.paused(limit=LIMIT):
        application.ask("other")


def test_pitfall_51_reconnect_ends_cached_plans(application: Application) -> None:
    """After a change of type a server session's cached plan fails until the session is replaced."""
    single = application.at(application.server.port, pool_size=1)
    single.open_alias()
    with psycopg.connect(
        application.server.dsn_for(application.database), autocommit=True
    ) as owner:
        owner.execute("CREATE TABLE t(v integer); INSERT INTO t VALUES (1)")
        with application.connect() as client:
            first = client.execute("SELECT pg_backend_pid()").fetchone()
            client.execute("PREPARE q AS SELECT v FROM t")
            assert client.execute("EXECUTE q").fetchone() == (1,)
            owner.execute("ALTER TABLE t ALTER v TYPE text")
            with pytest.raises(
                psycopg.errors.FeatureNotSupported, match="cached plan must not change"
            ):
                client.execute("EXECUTE q")
            single.reconnect()
            assert client.execute("SELECT pg_backend_pid()").fetchone() != first
            client.execute("PREPARE q AS SELECT v FROM t")
            assert client.execute("EXECUTE q").fetchone() == ("1",)


def test_pitfall_51_prepared_statements_through_transaction_pooling(
    application: Application,
) -> None:
    if application.bouncer.version < (1, 21):
        found = ".".join(map(str, application.bouncer.version))
        pytest.skip(f"PgBouncer {found} is older than 1.21 and tracks no prepared statements")
    dsn = application.bouncer.dsn(
        "app", user=application.server.superuser, password=application.server.password
    )
    with ThreadPoolExecutor(30) as clients:

        def many(number: int) -> list[Any]:
            with psycopg.connect(dsn, autocommit=True, prepare_threshold=0) as connection:
                return [
                    connection.execute("SELECT %s::int + %s::int", (number, i)).fetchone()
                    for i in range(20)
                ]

        sums = list(clients.map(many, range(30)))
    assert sums == [[(number + i,) for i in range(20)] for number in range(30)]
