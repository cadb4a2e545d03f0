"""PgBouncer's console: the alias admits nobody until it is opened, and no PAUSE is left behind."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import psycopg
import pytest

from migration_job.embedded import EmbeddedPgBouncer, EmbeddedPostgres
from migration_job.errors import InputError, OperationError
from migration_job.pooler import Alias, Pooler

pytestmark = pytest.mark.postgres


@pytest.fixture
def pooler(
    postgres: str, postgres_server: EmbeddedPostgres, pgbouncer: EmbeddedPgBouncer
) -> Pooler:
    with contextlib.suppress(psycopg.errors.DuplicateObject):
        postgres_server.create_role("app", "secret")
    name = str(psycopg.conninfo.conninfo_to_dict(postgres)["dbname"])
    alias = Alias(name, "127.0.0.1", postgres_server.port, name, pool_size=5)
    return Pooler(pgbouncer.admin_dsn, pgbouncer.alias_path, alias)


@pytest.fixture
def connect(pooler: Pooler, pgbouncer: EmbeddedPgBouncer) -> Callable[[], psycopg.Connection]:
    def make() -> psycopg.Connection:
        return psycopg.connect(
            pgbouncer.dsn(pooler.alias.name, user="app", password="secret"),
            autocommit=True,
            prepare_threshold=None,
        )

    return make


def test_nobody_is_admitted_before_and_after_also_over_a_restart(
    pooler: Pooler, pgbouncer: EmbeddedPgBouncer, connect: Callable[[], psycopg.Connection]
) -> None:
    assert pooler.is_closed()
    with pytest.raises(psycopg.OperationalError):
        connect()
    pooler.open_alias()
    assert pooler.is_open()
    application = connect()
    assert application.execute("SELECT 1").fetchone() == (1,)
    owner = pgbouncer.alias_path.stat().st_uid
    pooler.close_alias()
    assert pgbouncer.alias_path.stat().st_uid == owner
    with pytest.raises(psycopg.Error, match="database removed"):
        application.execute("SELECT 1")
    pgbouncer.restart()
    assert pooler.is_closed()
    with pytest.raises(psycopg.OperationalError):
        connect()


def test_held_queries_go_on_after_resume(
    pooler: Pooler, connect: Callable[[], psycopg.Connection]
) -> None:
    pooler.open_alias()
    old = connect()
    answers: list[object] = []
    with pooler.paused(limit=5):
        assert not pooler.is_open()

        def ask(make: Callable[[], psycopg.Connection]) -> None:
            answers.append(make().execute("SELECT 1").fetchone())

        # A new connection too: a load of old ones would hide what RELOAD does to it.
        asking = [threading.Thread(target=ask, args=(m,)) for m in (lambda: old, connect)]
        for thread in asking:
            thread.start()
        asking[0].join(0.3)
        assert answers == []
    for thread in asking:
        thread.join(10)
    assert answers == [(1,), (1,)]
    assert pooler.is_open()


def test_the_first_query_after_a_resume_is_answered(
    pooler: Pooler, connect: Callable[[], psycopg.Connection]
) -> None:
    """PgBouncer fills a pool up to ``min_pool_size`` while it is paused, cuts that login off, takes
    it for one that failed, and would refuse the first query after the RESUME."""
    pooler.open_alias()
    application = connect()
    least = pooler.least_servers()
    assert least > 0
    for _ in range(4):
        with pooler.paused(limit=5):
            assert pooler.least_servers() == 0
            time.sleep(0.4)  # longer than the third of a second between two looks of PgBouncer's
        assert application.execute("SELECT 1").fetchone() == (1,)
    assert pooler.least_servers() == least


def test_queries_held_when_the_alias_goes_are_told_so(
    pooler: Pooler, connect: Callable[[], psycopg.Connection]
) -> None:
    pooler.open_alias()
    old = connect()
    told: list[str] = []

    def ask() -> None:
        try:
            old.execute("SELECT 1")
        except psycopg.Error as error:
            told.append(str(error))

    with pooler.paused(limit=5):
        asking = threading.Thread(target=ask)
        asking.start()
        asking.join(0.2)
        pooler.close_alias()
        asking.join(10)
    assert told
    assert "database removed" in told[0]
    pooler.open_alias()
    assert connect().execute("SELECT 1").fetchone() == (1,)


def test_pgbouncer_lives_on_when_the_alias_goes_in_the_middle_of_logins(
    pooler: Pooler, pgbouncer: EmbeddedPgBouncer, connect: Callable[[], psycopg.Connection]
) -> None:
    """It forgets those who are logging in when it drops a database, and crashed when they went
    on."""
    pid = pgbouncer.pid
    ended = threading.Event()
    served = [0]

    def come_and_go() -> None:
        while not ended.is_set():
            with contextlib.suppress(psycopg.Error):
                with connect() as application:
                    application.execute("SELECT 1")
                served[0] += 1

    threads = [threading.Thread(target=come_and_go) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(12):
            before = served[0]
            pooler.open_alias()
            _until(lambda before=before: served[0] >= before + 8)  # type: ignore[misc]
            pooler.close_alias(limit=10)
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert pgbouncer.running
    assert pgbouncer.pid == pid
    pooler.open_alias()
    connect().close()


def _until(condition: Callable[[], bool], limit: float = 20.0) -> None:
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.005)


def test_an_open_transaction_ends_the_pause_within_its_limit(
    pooler: Pooler, connect: Callable[[], psycopg.Connection]
) -> None:
    pooler.open_alias()
    application = connect()
    application.execute("BEGIN")
    start = time.monotonic()
    with pytest.raises(OperationError, match="open transactions: 1"):
        pooler.pause(limit=0.4)
    assert time.monotonic() - start < 3
    # Nothing hangs: the transaction goes on, others come in.
    application.execute("SELECT 1")
    assert connect().execute("SELECT 2").fetchone() == (2,)
    application.execute("COMMIT")
    assert pooler.is_open()


def test_a_pause_that_a_dead_process_left_is_ended(
    pooler: Pooler, pgbouncer: EmbeddedPgBouncer, connect: Callable[[], psycopg.Connection]
) -> None:
    pooler.open_alias()
    pooler.pause(limit=5)
    pooler.pause(limit=5)
    pooler.open_alias()
    assert connect().execute("SELECT 1").fetchone() == (1,)


def test_a_console_that_does_not_answer_is_an_error_without_the_password(
    pooler: Pooler, pgbouncer: EmbeddedPgBouncer
) -> None:
    pgbouncer.stop()
    with pytest.raises(OperationError) as caught:
        pooler.version()
    assert pgbouncer.admin_password not in str(caught.value)
    with pytest.raises(OperationError, match="did not take the change"):
        pooler.open_alias(limit=0.3)
    # The file is written all the same, and read when PgBouncer starts.
    pgbouncer.start()
    assert pooler.is_open()


def test_aliases_of_several_runs_share_a_file(
    pooler: Pooler, pgbouncer: EmbeddedPgBouncer, connect: Callable[[], psycopg.Connection]
) -> None:
    """One is opened and closed as often as wanted; the other's clients notice nothing."""
    own = replace(pooler.alias, shared=True)
    one = Pooler(pgbouncer.admin_dsn, pgbouncer.alias_path, own)
    two = Pooler(
        pgbouncer.admin_dsn,
        pgbouncer.alias_path,
        replace(own, name="another", schema='in "it"'),
    )
    assert one.is_closed()
    one.open_alias()
    two.open_alias()
    assert one.is_open()
    application = connect()
    for _ in range(3):
        with psycopg.connect(
            pgbouncer.dsn("another", user="app", password="secret"), prepare_threshold=None
        ) as other:
            assert other.execute("SHOW search_path").fetchone() == ('"in ""it"""',)
        two.close_alias()
        assert two.is_closed()
        assert one.is_open()
        assert application.execute("SELECT 1").fetchone() == (1,)
        with connect() as later:
            assert later.execute("SELECT 1").fetchone() == (1,)
        two.open_alias()
    two.require_path_kept()
    one.close_alias()
    assert pgbouncer.alias_path.read_text() == two.alias.line()


@pytest.mark.parametrize("name", ["with-hyphen.and_dot", "Upper", "9"])
def test_every_alias_can_be_held_and_let_go(
    pooler: Pooler, pgbouncer: EmbeddedPgBouncer, name: str
) -> None:
    own = replace(pooler.alias, name=name, shared=True)
    named = Pooler(pgbouncer.admin_dsn, pgbouncer.alias_path, own)
    named.open_alias()
    with named.paused(limit=5):
        assert named.is_paused()
    assert named.is_open()
    named.reconnect()
    named.close_alias()
    assert named.is_closed()


@pytest.mark.parametrize("name", ["pgbouncer", "", "a b", "x\n[pgbouncer]", "a=b"])
def test_an_alias_that_would_be_something_else_is_refused(name: str) -> None:
    with pytest.raises(InputError):
        Alias(name, "h", 5432, "d")
