"""Performance checks: what is measured, and what stops the switch."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path

import apsw
import psycopg
import pytest

from migration_job.embedded import EmbeddedPgBouncer, EmbeddedPostgres
from migration_job.errors import InputError
from migration_job.verify.checks import Check
from migration_job.verify.performance import Budget, Load, measure, parse_budget
from migration_job.verify.performance import _overloaded as overloaded

SMALL = Budget(pool=3, seconds=0.3, repeats=2, load_p95_ms=60_000, collapse=0.001, floor_ms=5_000)
"""Nothing about this machine's speed can fail it."""


def check(sqlite: str, postgresql: str | None = None, name: str = "one") -> Check:
    return Check(name, sqlite, postgresql or sqlite, ordered=False)


@pytest.fixture
def source(tmp_path: Path) -> Iterator[apsw.Connection]:
    connection = apsw.Connection(str(tmp_path / "source.db"))
    connection.execute("CREATE TABLE t(v INT); INSERT INTO t VALUES (1), (2), (3)")
    yield connection
    connection.close()


@pytest.fixture
def target(postgres: str) -> str:
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("CREATE TABLE t(v INT); INSERT INTO t VALUES (1), (2), (3)")
    return postgres


def test_measures_both_sides_and_three_loads(source: apsw.Connection, target: str) -> None:
    checks = [check("SELECT v FROM t"), check("SELECT count(*) FROM t", name="two")]
    said: list[str] = []
    found = measure(checks, source, target, SMALL, through_pooler=False, progress=said.append)
    assert found.passed, found.failures
    assert [q.name for q in found.queries] == ["one", "two"]
    assert all(0 < q.source_ms < math.inf and 0 < q.target_ms < math.inf for q in found.queries)
    assert [load.users for load in found.loads] == [3, 6, 30]
    assert all(load.requests and not load.errors for load in found.loads)
    assert all(0 < load.p50_ms <= load.p95_ms for load in found.loads)
    assert len(said) == 3


def test_more_users_than_connections_pass_through_the_pooler(
    source: apsw.Connection,
    target: str,
    pgbouncer: EmbeddedPgBouncer,
    postgres_server: EmbeddedPostgres,
) -> None:
    database = psycopg.conninfo.conninfo_to_dict(target)["dbname"]
    pgbouncer.alias_path.write_text(pgbouncer.alias_line("measured", str(database)))
    with psycopg.connect(pgbouncer.admin_dsn, autocommit=True) as console:
        psycopg.ClientCursor(console).execute("RELOAD")
    dsn = pgbouncer.dsn(
        "measured", user=postgres_server.superuser, password=postgres_server.password
    )
    budget = Budget(pool=20, seconds=0.3, repeats=1, load_p95_ms=60_000, collapse=0.001)
    found = measure([check("SELECT v FROM t")], source, dsn, budget, through_pooler=True)
    assert found.passed, found.failures
    # The server alone takes 100 connections.
    assert [load.users for load in found.loads] == [20, 40, 200]
    assert found.not_measured == ()


def test_without_a_pooler_a_load_that_cannot_fit_is_left_out_and_named(
    source: apsw.Connection, target: str
) -> None:
    budget = Budget(pool=20, seconds=0.2, repeats=1, load_p95_ms=60_000, collapse=0.001)
    found = measure([check("SELECT v FROM t")], source, target, budget, through_pooler=False)
    assert found.passed, found.failures
    assert [load.users for load in found.loads] == [20, 40]
    assert len(found.not_measured) == 1
    assert "200 users" in found.not_measured[0]


def test_a_slower_query_stops_the_switch(source: apsw.Connection, target: str) -> None:
    slow = check("SELECT v FROM t", "SELECT v FROM t, pg_sleep(0.2)", name="slow")
    budget = Budget(pool=1, seconds=0.1, repeats=1, floor_ms=100, load_p95_ms=60_000)
    found = measure([slow], source, target, budget, through_pooler=False)
    assert any(
        f.startswith("query slow: expected at most 100 ms") and "on SQLite" in f
        for f in found.failures
    )


def test_a_query_that_was_as_slow_before_does_not(source: apsw.Connection, target: str) -> None:
    def nap(*_: apsw.SQLiteValue) -> int:
        time.sleep(0.15)
        return 1

    source.create_scalar_function("nap", nap, 0)
    slow = check("SELECT nap()", "SELECT 1 FROM pg_sleep(0.2)")
    budget = Budget(pool=1, seconds=0.1, repeats=1, floor_ms=1, slowdown=100, load_p95_ms=60_000)
    found = measure([slow], source, target, budget, through_pooler=False)
    assert not any(f.startswith("query") for f in found.failures)


def test_an_error_stops_the_switch(source: apsw.Connection, target: str) -> None:
    broken = check("SELECT v FROM t", "SELECT missing FROM t", name="broken")
    found = measure([broken], source, target, SMALL, through_pooler=False)
    assert 'query broken: column "missing" does not exist' in found.failures
    assert any(f.startswith("3 users: 3 errors: column") for f in found.failures)


def test_nothing_can_be_written(source: apsw.Connection, target: str) -> None:
    writing = check("SELECT 1", "SELECT nextval('s')", name="writing")
    with psycopg.connect(target, autocommit=True) as connection:
        connection.execute("CREATE SEQUENCE s")
    found = measure([writing], source, target, SMALL, through_pooler=False)
    assert "query writing: cannot execute nextval() in a read-only transaction" in found.failures


def load(users: int, requests: int, p95_ms: float = 10.0, errors: int = 0) -> Load:
    return Load(users, requests, 1.0, 5.0, p95_ms, errors, ("gone (1 time)",) if errors else ())


def test_the_loads_verdict() -> None:
    budget = Budget(load_p95_ms=100, collapse=0.5)
    assert overloaded([load(20, 1000), load(40, 900), load(200, 600)], budget) == []
    assert overloaded([load(20, 1000), load(200, 400)], budget) == [
        "200 users: expected at least 0.5 of the 1,000 requests/s of 20 users, found 400"
    ]
    assert overloaded([load(20, 1000, p95_ms=101)], budget) == [
        "20 users: expected 95 of 100 requests within 100 ms, found 101 ms"
    ]
    assert overloaded([load(20, 1000, errors=1)], budget) == ["20 users: 1 error: gone (1 time)"]
    assert overloaded([load(20, 0, p95_ms=math.inf)], budget)


def test_a_budget_is_read() -> None:
    assert parse_budget("") == Budget()
    read = parse_budget("slowdown=2.5, pool=7,seconds=1")
    assert (read.slowdown, read.pool, read.seconds) == (2.5, 7, 1.0)
    assert read.floor_ms == Budget().floor_ms
    assert isinstance(read.pool, int)


@pytest.mark.parametrize(
    "text", ["speed=1", "pool", "pool=", "pool=0", "pool=-1", "pool=2.5", "seconds=nan", "pool=inf"]
)
def test_a_wrong_budget_is_refused(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_budget(text)
    assert "performance budget" in caught.value.message
