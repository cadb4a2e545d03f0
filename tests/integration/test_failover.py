"""A target that forgets: a standby that was behind is promoted. Nothing that either side has
acknowledged may be taken for there when it is not, nor overwritten by an older state unsaid."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import apsw
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from migration_job.connection import read_connection
from migration_job.errors import InputError, JobError, OperationError
from migration_job.protocol import identity, memory
from migration_job.protocol.rollback import rollback
from migration_job.protocol.run_context import opened
from migration_job.protocol.settings import Endpoints, endpoints
from migration_job.protocol.switch import move_reads, switch
from migration_job.protocol.sync import Sync
from migration_job.protocol.tokens import Forgotten
from migration_job.stores.postgres import target_fence
from migration_job.stores.postgres.database import connect
from migration_job.stores.postgres.suitability import Accepted, Check, examine
from tests.integration.livekit import Migration, begin, fresh_source
from tests.integration.replica import Replicated
from tests.integration.test_catchup import both_sides

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(120)]


class Cluster:
    """A migration whose target is a primary with a standby."""

    def __init__(self, servers: Replicated, directory: Path) -> None:
        self.servers = servers
        with psycopg.connect(servers.primary.dsn, autocommit=True) as session:
            session.execute("CREATE DATABASE app TEMPLATE template0")
            session.execute("CREATE ROLE app LOGIN PASSWORD 'secret'")
        self.dsn = servers.dsn_for("app")
        self.migration: Migration = begin(fresh_source(directory), self.dsn)
        with psycopg.connect(self.dsn, autocommit=True) as session:
            session.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO app")
            session.execute("GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO app")
        told = directory / "application.json"
        told.write_text(
            json.dumps(
                {
                    "host": "127.0.0.1",
                    "port": servers.primary.port,
                    "database": "app",
                    "user": "app",
                    "password": "secret",
                }
            )
        )
        self.ends: Endpoints = endpoints(
            self.migration.source,
            self.dsn,
            connection=directory / "connection",
            connect_to=told,
            console=None,
            alias_file=None,
        )
        # Most of these tests are about what a failover loses.
        self.ends = replace(self.ends, asynchronous=True)
        self.said: list[str] = []

    def write_source(self, *notes: str) -> None:
        writer = self.migration.writer()
        with writer:
            for body in notes:
                writer.execute("INSERT INTO notes (body) VALUES (?)", (body,))
        writer.close()

    def write_target(self, *notes: str) -> None:
        """As the application, whose writes pass the fence and are logged."""
        with psycopg.connect(self.dsn, autocommit=True) as session:
            for body in notes:
                session.execute("INSERT INTO notes (body) VALUES (%s)", (body,))

    def sync(self) -> None:
        Sync(self.ends, say=self.said.append).run(once=True)

    def source_notes(self) -> list[str]:
        connection = apsw.Connection(str(self.migration.source))
        found = [str(row[0]) for row in connection.execute("SELECT body FROM notes ORDER BY id")]
        connection.close()
        return found

    def target_notes(self) -> list[str]:
        with psycopg.connect(self.dsn, autocommit=True) as session:
            return [str(row[0]) for row in session.execute("SELECT body FROM notes ORDER BY id")]

    def fence_closed(self) -> bool:
        with psycopg.connect(self.dsn, autocommit=True) as session:
            return target_fence.is_closed(session)

    def listed(self) -> list[tuple[str, object, str]]:
        """What the file of a stop says: table, key, side."""
        told = json.loads((self.ends.state / memory.FILE).read_text())
        return [(row["table"], row["key"], row["only"]) for row in told["rows"]]

    def same(self) -> bool:
        source, target = both_sides(self.migration)
        return source == target


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    try:
        servers = Replicated().__enter__()
    except JobError as error:
        pytest.skip(f"no embedded servers: {error.message}")
    try:
        yield Cluster(servers, tmp_path)
    finally:
        servers.__exit__(None, None, None)


def test_a_target_that_lacks_the_switch_is_brought_up_again(cluster: Cluster) -> None:
    cluster.write_source("one", "two")
    cluster.sync()
    cluster.servers.cut_off()
    cluster.write_source(*(f"late {n}" for n in range(230)))
    switch(cluster.ends)
    assert not cluster.fence_closed()

    cluster.servers.fail_over()
    assert cluster.fence_closed()
    assert len(cluster.target_notes()) == 2
    cluster.sync()

    # All that SQLite had acknowledged is there before PostgreSQL takes a write.
    assert not cluster.fence_closed()
    assert len(cluster.target_notes()) == 232
    assert any("brought up again" in line for line in cluster.said)
    assert any("on timeline 1 at the switch, now on timeline 2" in line for line in cluster.said)
    cluster.write_target("new")
    cluster.sync()
    assert cluster.source_notes() == cluster.target_notes()
    assert cluster.source_notes()[-1] == "new"
    assert cluster.same()
    named = read_connection(cluster.ends.connection)
    assert named is not None
    assert named.write.engine == "postgresql"


def test_what_came_back_is_brought_up_again_too(cluster: Cluster) -> None:
    """SQLite has rows of PostgreSQL's that the new leader, cut off before the switch, never had."""
    cluster.write_source("one")
    cluster.sync()
    cluster.servers.cut_off()
    switch(cluster.ends)
    cluster.write_target("from postgresql", "and another")
    cluster.sync()
    assert cluster.source_notes() == ["one", "from postgresql", "and another"]

    cluster.servers.fail_over()
    cluster.sync()
    assert cluster.target_notes() == ["one", "from postgresql", "and another"]
    # Numbers that are taken are not given out again.
    cluster.write_target("next")
    cluster.sync()
    assert cluster.source_notes() == cluster.target_notes()
    assert cluster.same()


def test_the_way_back_never_writes_an_older_state(cluster: Cluster) -> None:
    """The target served, forgot, and serves again: new rows have taken the missing ones' ids."""
    cluster.write_source("one")
    switch(cluster.ends)
    cluster.write_target("two")
    cluster.sync()
    cluster.servers.cut_off()
    cluster.write_target("three", "four")
    cluster.sync()
    before = cluster.source_notes()
    assert before == ["one", "two", "three", "four"]

    cluster.servers.fail_over()
    with psycopg.connect(cluster.dsn, autocommit=True) as session:
        session.execute("INSERT INTO notes (id, body) VALUES (3, 'another third')")
        session.execute("INSERT INTO users (id, email) VALUES (%s, 'new@x')", (uuid.UUID(int=7),))
    with pytest.raises(Forgotten, match=r"forgotten.* timeline 1 at the switch, now on timeline 2"):
        cluster.sync()

    assert cluster.source_notes() == before
    assert sorted(cluster.listed(), key=str) == [
        ("notes", [3], "differs"),
        ("notes", [4], "sqlite"),
        ("users", [str(uuid.UUID(int=7))], "postgresql"),
    ]
    # Nor does a rollback, unless it is told that those rows may go.
    with pytest.raises(Forgotten):
        rollback(cluster.ends)
    assert cluster.source_notes() == before
    done = rollback(cluster.ends, accept_loss=True, say=cluster.said.append)
    assert done.lost
    assert cluster.source_notes() == before
    assert cluster.fence_closed()
    cluster.write_source("five")
    assert cluster.source_notes() == [*before, "five"]


def test_a_failover_that_loses_nothing_goes_on(cluster: Cluster) -> None:
    cluster.servers.synchronous()
    cluster.write_source("one")
    switch(cluster.ends)
    cluster.write_target("two")
    cluster.sync()
    cluster.write_target("three")
    cluster.servers.fail_over()
    with psycopg.connect(cluster.servers.standby.dsn, autocommit=True) as session:
        session.execute("ALTER SYSTEM SET synchronous_standby_names = ''")
        session.execute("SELECT pg_reload_conf()")
    cluster.sync()
    assert cluster.source_notes() == ["one", "two", "three"]
    assert not cluster.said
    rollback(cluster.ends)
    assert cluster.source_notes() == ["one", "two", "three"]
    assert cluster.fence_closed()


def test_what_nothing_relies_on_is_said_to_be_lost_too(cluster: Cluster) -> None:
    """Acknowledged by PostgreSQL alone and lost before a round brought it back: no token tells."""
    cluster.write_source("one")
    switch(cluster.ends)
    cluster.write_target("two")
    cluster.sync()
    cluster.servers.cut_off()
    cluster.write_target("three")
    cluster.servers.fail_over()
    cluster.sync()
    assert cluster.source_notes() == cluster.target_notes() == ["one", "two"]
    told = [line for line in cluster.said if "followed asynchronously serves now" in line]
    assert len(told) == 1
    with opened(cluster.migration.source, cluster.dsn) as pair:
        assert f"took after {pair.state().back_at} " in told[0]
    # Once.
    cluster.sync()
    assert len([line for line in cluster.said if "asynchronously" in line]) == 1


def test_a_rollback_that_the_target_forgets_leaves_one_side_open(cluster: Cluster) -> None:
    cluster.write_source("one")
    switch(cluster.ends)
    cluster.write_target("two")
    cluster.sync()
    cluster.servers.cut_off()
    cluster.write_target("three")
    rollback(cluster.ends)
    cluster.write_source("four")

    cluster.servers.fail_over()
    assert not cluster.fence_closed()
    with pytest.raises(Forgotten):
        cluster.sync()
    assert cluster.fence_closed()
    assert cluster.source_notes() == ["one", "two", "three", "four"]
    assert ("notes", [3], "sqlite") in cluster.listed()
    # Nor is it switched to again.
    with pytest.raises(Forgotten):
        switch(cluster.ends)
    assert cluster.source_notes() == ["one", "two", "three", "four"]
    # Going back is done already, and says so.
    assert rollback(cluster.ends).lost == ()


def test_a_log_that_no_longer_reaches_back_stops_it(cluster: Cluster) -> None:
    cluster.write_source("one")
    cluster.sync()
    cluster.servers.cut_off()
    cluster.write_source("two", "three")
    switch(cluster.ends)
    source = apsw.Connection(str(cluster.migration.source))
    source.execute("DELETE FROM _migration_log WHERE seq < (SELECT max(seq) FROM _migration_log)")
    source.close()
    cluster.servers.fail_over()
    with pytest.raises(Forgotten):
        cluster.sync()
    assert cluster.fence_closed()
    assert cluster.source_notes() == ["one", "two", "three"]
    assert sorted(cluster.listed(), key=str) == [
        ("notes", [2], "sqlite"),
        ("notes", [3], "sqlite"),
    ]


def test_a_commit_that_no_standby_has_is_not_taken_for_one(cluster: Cluster) -> None:
    """PostgreSQL calls a commit done whose wait for the standby was cancelled."""
    cluster.servers.synchronous()
    cluster.servers.point_standby_at("")
    with psycopg.connect(cluster.dsn, autocommit=True) as session:
        own = session.info.backend_pid
        canceller = threading.Thread(target=_cancel_the_wait, args=(cluster.dsn, own))
        canceller.start()
        with pytest.raises(OperationError, match="standby"):
            target_fence.open_fence(session)
        canceller.join()


def _standbys(cluster: Cluster, *, accepted: bool = False) -> Check:
    with connect(cluster.dsn) as session:
        checks = examine(
            session,
            source_bytes=1,
            connections=1,
            live=True,
            accepted=Accepted(asynchronous=accepted),
        )
    return next(check for check in checks if check.name == "standbys")


def test_an_asynchronous_cluster_is_refused_unless_accepted(cluster: Cluster) -> None:
    cluster.write_source("one")
    careful = replace(cluster.ends, asynchronous=False)
    assert _standbys(cluster).verdict == "refused"
    assert _standbys(cluster, accepted=True).verdict == "warning"
    with pytest.raises(InputError, match="asynchronously") as refusal:
        switch(careful)
    assert "--accept-asynchronous" in str(refusal.value.advice)
    assert cluster.fence_closed()
    cluster.write_source("two")

    switch(cluster.ends, say=cluster.said.append)
    assert any("accepted: a failover" in line for line in cluster.said)
    assert cluster.target_notes() == ["one", "two"]


def test_reads_move_to_an_asynchronous_cluster_with_a_warning(cluster: Cluster) -> None:
    """Nothing can be lost yet; but after a failover reads see an older state until they are taken
    back, and they are."""
    cluster.write_source("one")
    careful = replace(cluster.ends, asynchronous=False)
    move_reads(careful, say=cluster.said.append)
    assert any("follow asynchronously" in line for line in cluster.said)
    cluster.servers.cut_off()
    cluster.write_source("two")
    cluster.sync()
    cluster.servers.fail_over()
    assert cluster.target_notes() == ["one"]
    cluster.sync()
    assert cluster.target_notes() == cluster.source_notes() == ["one", "two"]


def test_a_synchronous_cluster_is_switched_to_without_a_word(cluster: Cluster) -> None:
    cluster.servers.synchronous()
    cluster.write_source("one")
    found = _standbys(cluster)
    assert (found.verdict, "commits wait for standby" in found.found) == ("ok", True)
    switch(replace(cluster.ends, asynchronous=False), say=cluster.said.append)
    assert not any("asynchron" in line for line in cluster.said)


def test_the_server_on_record_is_told_from_others(cluster: Cluster, tmp_path: Path) -> None:
    """A role without rights may ask, and what is not on record is not told."""
    plain = make_conninfo(cluster.dsn, user="app", password="secret")
    with psycopg.connect(plain, autocommit=True) as session:
        assert identity.change(session, tmp_path) == ""
        identity.note(session, tmp_path)
        assert "no standby was promoted" in identity.change(session, tmp_path)
        record = tmp_path / identity.FILE
        record.write_text(json.dumps(json.loads(record.read_text()) | {"system": "1"}))
        assert "another server" in identity.change(session, tmp_path)


def test_commits_that_do_not_wait_are_asynchronous_too(cluster: Cluster) -> None:
    cluster.servers.synchronous()
    with psycopg.connect(cluster.servers.primary.dsn, autocommit=True) as session:
        session.execute("ALTER DATABASE app SET synchronous_commit = local")
    assert "synchronous_commit is local" in _standbys(cluster).found
    with pytest.raises(InputError, match="synchronous_commit is local"):
        switch(replace(cluster.ends, asynchronous=False))


def _cancel_the_wait(dsn: str, backend: int) -> None:
    with psycopg.connect(dsn, autocommit=True) as session:
        waits = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND wait_event = 'SyncRep'"
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if session.execute(waits, (backend,)).fetchone() == (1,):
                session.execute("SELECT pg_cancel_backend(%s)", (backend,))
                return
            time.sleep(0.02)
