"""Every standby of a synchronous target is lost: no commit of the job waits for it without end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from migration_job.connection import read_connection
from migration_job.deadline import expect_within
from migration_job.errors import JobError
from migration_job.protocol.rollback import rollback
from migration_job.protocol.run_context import opened
from migration_job.protocol.switch import move_reads, switch
from migration_job.stores.postgres import database, session
from migration_job.stores.postgres.session import Unconfirmed
from tests.integration.replica import Replicated
from tests.integration.test_failover import Cluster

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(180)]

LIMIT = 1.0
"""What a commit may wait here."""

SOON = 20.0
"""In which a command ends that may wait for a few of them, on a loaded machine."""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    try:
        servers = Replicated().__enter__()
    except JobError as error:
        pytest.skip(f"no embedded servers: {error.message}")
    monkeypatch.setattr(session, "COMMIT_SECONDS", LIMIT)
    try:
        made = Cluster(servers, tmp_path)
        servers.synchronous()
        yield made
    finally:
        expect_within(0)
        servers.__exit__(None, None, None)


def refused(action: Callable[[], object]) -> str:
    """The sentence with which the action ends, soon."""
    start = time.monotonic()
    with pytest.raises(Unconfirmed) as told:
        action()
    assert time.monotonic() - start < SOON
    assert "synchronous_standby_names" in str(told.value.message)
    assert told.value.advice
    return str(told.value.message)


def test_nothing_waits_for_ever_and_sqlite_serves(cluster: Cluster) -> None:
    cluster.write_source("one")
    cluster.servers.standby.kill()
    for action in (
        lambda: switch(cluster.ends),
        lambda: move_reads(cluster.ends),
        lambda: cluster.sync(),
        lambda: switch(cluster.ends),
    ):
        assert "this server only" in refused(action)
        cluster.write_source("more")
        assert cluster.fence_closed()
    connection = read_connection(cluster.ends.connection)
    assert connection is None or connection.write.engine == "sqlite"
    with opened(cluster.migration.source, cluster.dsn) as pair:
        assert not pair.state().closed
        assert not pair.state().reads_moved

    cluster.servers.standby.start()
    switch(cluster.ends)
    assert len(cluster.target_notes()) == 5


def test_the_way_back_ends_with_postgresql_serving(cluster: Cluster) -> None:
    cluster.write_source("one")
    switch(cluster.ends)
    cluster.write_target("two")
    cluster.servers.standby.kill()
    refused(cluster.sync)
    refused(lambda: rollback(cluster.ends))
    assert not cluster.fence_closed()
    cluster.servers.standby.start()
    cluster.sync()
    rollback(cluster.ends)
    assert cluster.source_notes() == ["one", "two"]
    assert cluster.fence_closed()


def test_the_records_of_a_copy_do_not_wait_either(cluster: Cluster) -> None:
    cluster.servers.standby.kill()
    with database.connect(cluster.dsn) as target:
        refused(lambda: target.execute("CREATE TABLE there (n integer)"))
        # It stands on the server, which said so too.
        assert target.execute("SELECT count(*) FROM there").fetchone() == (0,)
        with pytest.raises(Unconfirmed), target.transaction():
            target.execute("INSERT INTO there VALUES (1)")
        assert target.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


def test_a_long_statement_is_not_taken_for_a_wait(cluster: Cluster) -> None:
    with database.connect(cluster.dsn) as target:
        assert target.execute("SELECT 1 FROM pg_sleep(3)").fetchone() == (1,)
        with psycopg.connect(cluster.dsn) as other:
            other.execute("LOCK TABLE migration.certificate")
            threading.Timer(3.0, other.rollback).start()
            target.execute("DELETE FROM migration.certificate WHERE digest = ''")


def test_the_bound_is_part_of_the_time_in_which_others_wait(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "COMMIT_SECONDS", 100.0)
    cluster.servers.standby.kill()
    with database.connect(cluster.dsn) as target:
        expect_within(3.0)
        start = time.monotonic()
        with pytest.raises(Unconfirmed):
            target.execute("CREATE TABLE there (n integer)")
        assert time.monotonic() - start < 3.0
