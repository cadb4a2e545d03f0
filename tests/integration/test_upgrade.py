"""`upgrade`: from PostgreSQL 14 to 18 and back while the application writes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import psycopg
import pytest

from migration_job.embedded import EmbeddedPostgres
from migration_job.errors import ExitStatus, InputError, JobError, OperationError
from migration_job.pooler import Alias
from migration_job.protocol import upgrade as protocol
from migration_job.protocol import upgrade_end
from migration_job.protocol.fault_points import UPGRADE_STEPS
from migration_job.protocol.moved import relocated_alias
from migration_job.protocol.rollback import rollback
from migration_job.protocol.run_context import open_target
from migration_job.protocol.settings import endpoints
from migration_job.protocol.switch import switch
from migration_job.protocol.upgrade_ends import UpgradeEnds, opened
from migration_job.stores.postgres import replication, side
from migration_job.stores.postgres.upgradable import require_content
from tests.integration import upgrading
from tests.integration.livekit import begin, fresh_source
from tests.integration.livestage import until
from tests.integration.test_switch import Stage, syncing
from tests.integration.upgrading import APPLICATION, DATABASE, PASSWORD, Load, Lookup, Pair

pytestmark = pytest.mark.postgres

SEED = int(os.environ.get("UPGRADE_SEED", "20261130"))


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    try:
        with upgrading.pair(tmp_path_factory.mktemp("upgrade")) as found:
            yield found
    except JobError as error:
        pytest.skip(f"no embedded servers of two versions: {error.message}")


def version(dsn: str) -> int:
    with psycopg.connect(dsn, autocommit=True) as session:
        return session.info.server_version // 10000


def test_prepared_refused_and_given_up(servers: Pair) -> None:
    """Killed at each step of the preparation it goes on; rows that differ are found, and the
    application stays where it is; given up, nothing of it is left."""
    print(f"seed {SEED}")
    old, new = (s.dsn_for(DATABASE) for s in (servers.old, servers.new))
    with psycopg.connect(old, autocommit=True) as one, psycopg.connect(new) as other:
        for made, said in (
            ("CREATE UNLOGGED TABLE bad (n integer)", "unlogged table, found public.bad"),
            ("CREATE TABLE bad (doc json)", r"found public.bad.doc \(json\)"),
        ):
            one.execute(made.encode())
            with pytest.raises(InputError, match=said):
                require_content(one, other)
            one.execute("DROP TABLE bad")
        require_content(one, other)
    with opened(servers.ends()) as both:
        replication.require_reach(both.new, both.old)
        replication.require_reach(both.old, both.new)
        for at in (both.new.at, replace(both.old.at, port=1)):
            with pytest.raises(InputError, match="to reach the old server"):
                replication.require_reach(both.new, replace(both.old, at=at))
        with pytest.raises(InputError, match="to reach the new server"):
            replication.require_reach(both.old, replace(both.new, at=both.old.at))
        for server in (both.old, both.new):
            left = server.connection.execute(
                "SELECT slot_name FROM pg_replication_slots UNION ALL "
                "SELECT subname FROM pg_subscription"
            ).fetchall()
            assert left == []
    load = Load(servers.dsn(), SEED + 50)
    with load.running(2, 1):
        for name in UPGRADE_STEPS[: UPGRADE_STEPS.index("upgrade.reverse")]:
            killed(servers, f"after:{name}")
        servers.run("--prepare-only")
        with psycopg.connect(new, autocommit=True) as session:
            session.execute("UPDATE counters SET n = 7 WHERE who = 15 AND part = 'a'")
        program = servers.start()
        assert program.wait(60) == ExitStatus.VERIFICATION_FAILED, program.output
        assert "public.counters" in program.output
        wait_for_writes(load, "a refusal")
        assert servers.serving() == "from"
        killed(servers, "before:upgrade.abandon", "--abandon")
        servers.run("--abandon")
    assert load.failed == []
    assert load.lost(old) == []
    with psycopg.connect(old, autocommit=True) as session:
        assert side.read(session) is None
        left = session.execute("SELECT FROM pg_replication_slots").fetchall()
        assert left == []
        session.execute("TRUNCATE audit, seen")
        session.execute("UPDATE counters SET n = 0")
    program = servers.start()
    assert program.wait(60) == ExitStatus.USAGE
    assert "empty database" in program.output
    servers.empty_new()


def test_to_the_new_server_and_back_under_load(servers: Pair) -> None:
    print(f"seed {SEED}")
    load = Load(servers.dsn(), SEED)
    with load.running(8, 8):
        output = [servers.run()]
        assert version(servers.new.dsn_for(DATABASE)) == upgrading.NEW
        refused = servers.old.dsn_for(DATABASE, user=APPLICATION, password=PASSWORD)
        with pytest.raises(psycopg.OperationalError, match="permission denied"):
            psycopg.connect(refused)
        assert json.loads(servers.run("--status", "--json"))["serves"] == "to"
        with psycopg.connect(servers.new.dsn_for(DATABASE), autocommit=True) as session:
            session.execute(
                "ALTER TABLE counters ADD extra integer; ALTER TABLE counters DROP extra"
            )
        output.append(servers.run("--back"))
        assert servers.serving() == "from"
        output.append(servers.run())
    found = [n for text in output for n in re.findall(r"held for ([\d,]+) ms", text)]
    held = [int(n.replace(",", "")) for n in found]
    print("\n".join(output))
    print(
        f"{len(load.notes)} writes, {load.reads} reads, held {held} ms, "
        f"longest write {load.longest * 1000:.0f} ms"
    )
    assert load.failed == []
    assert len(held) == 3
    assert max(held) < 10_000  # the goal is 500; a loaded machine takes longer
    assert load.lost(servers.new.dsn_for(DATABASE)) == []
    until(lambda: not load.lost(servers.old.dsn_for(DATABASE)), "the way back to have it all")
    with psycopg.connect(servers.new.dsn_for(DATABASE), autocommit=True) as session:
        settings = session.execute(
            "SELECT unnest(setconfig) FROM pg_db_role_setting ORDER BY 1"
        ).fetchall()
        assert settings == [('search_path="$user", public',), ("work_mem=7MB",)]
        extensions = session.execute(
            "SELECT extname, extnamespace::regnamespace::text FROM pg_extension "
            "WHERE extname <> 'plpgsql' ORDER BY 1"
        ).fetchall()
        assert extensions == [("citext", '"Other one"'), ("pg_trgm", "public")]
        assert (session.execute("SELECT n > 0 FROM kept").fetchone() or (0,))[0] is not None


def test_killed_at_every_step(servers: Pair) -> None:
    """Wherever it dies the application is served within seconds, nothing is lost, and the same
    command, run again, brings it to the other side. Both directions in turn."""
    print(f"seed {SEED}")
    with psycopg.connect(servers.dsn(), autocommit=True, prepare_threshold=None) as session:
        session.execute("TRUNCATE audit, seen")  # is followed as well
        session.execute("UPDATE counters SET n = 0")
    load = Load(servers.dsn(), SEED + 100)
    with load.running(3, 2):
        for name in UPGRADE_STEPS[UPGRADE_STEPS.index("upgrade.reverse") :]:
            side = servers.serving()
            options = ["--back"] if side == "to" else []
            killed(servers, f"after:{name}", *options)
            wait_for_writes(load, name)
            servers.run(*options)
            assert servers.serving() != side, name
    assert load.failed == []
    there = servers.server(servers.serving()).dsn_for(DATABASE)
    assert load.lost(there) == []


@pytest.mark.parametrize("durable", [False, True])
def test_a_decision_that_fails_is_what_the_record_says(
    servers: Pair, monkeypatch: pytest.MonkeyPatch, durable: bool
) -> None:
    """The COMMIT of the decision fails: the hold is undone where it was not kept, and the decision
    followed where it was."""
    decide = side.decide

    def fails(*arguments: Any) -> None:
        if durable:
            decide(*arguments)
        raise OperationError("the connection was lost")

    monkeypatch.setattr(side, "decide", fails)
    before = servers.serving()
    move = protocol.upgrade if before == "from" else protocol.back
    said: list[str] = []
    with nullcontext() if durable else pytest.raises(OperationError, match="was lost"):
        move(servers.ends(), said.append)
    assert (servers.serving() != before) == durable
    assert ("the decision is valid" in "".join(said)) == durable
    with psycopg.connect(servers.dsn(), autocommit=True, prepare_threshold=None) as session:
        session.execute("INSERT INTO seen VALUES (1, 'served')")


def killed(servers: Pair, fault: str, *options: str) -> None:
    program = servers.start(*options, fault=fault)
    assert program.wait(120) == -signal.SIGKILL, f"{fault}: {program.output}"


def wait_for_writes(load: Load, after: str) -> None:
    count = len(load.notes)
    until(lambda: len(load.notes) > count + 3 or bool(load.failed), f"writes after {after}")
    assert load.failed == [], after


def test_settled_and_killed_in_it(servers: Pair) -> None:
    if servers.serving() != "to":
        servers.run()
    killed(servers, "before:upgrade.settle", "--settle")
    killed(servers, "after:upgrade.settle", "--settle")
    with psycopg.connect(servers.new.dsn_for(DATABASE), autocommit=True) as session:
        rows = session.execute(
            "SELECT count(*) FROM pg_publication UNION ALL SELECT count(*) FROM pg_subscription "
            "UNION ALL SELECT count(*) FROM pg_replication_slots "
            "UNION ALL SELECT count(*) FROM pg_class WHERE relreplident = 'f'"
        ).fetchall()
        assert rows == [(0,)] * 4
    with psycopg.connect(servers.dsn(), autocommit=True, prepare_threshold=None) as session:
        session.execute("INSERT INTO seen VALUES (1, 'goes on')")
    refused = servers.old.dsn_for(DATABASE, user=APPLICATION, password=PASSWORD)
    with pytest.raises(psycopg.OperationalError, match="permission denied"):
        psycopg.connect(refused)
    program = servers.start("--back")
    assert program.wait(60) == ExitStatus.USAGE
    assert "settled" in program.output


def test_the_way_back_to_sqlite_follows(servers: Pair, tmp_path: Path) -> None:
    """`sync` goes on from the new server by itself, and so does `rollback`."""
    way = replace(
        servers, database="way", state=tmp_path / "connection" / ".state", directory=tmp_path
    )
    dsn = servers.old.create_database("way")
    way.empty_new()
    migration = begin(fresh_source(tmp_path), dsn)
    with psycopg.connect(dsn, autocommit=True) as session:
        session.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO app")
        session.execute("GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO app")
    told = {"host": "127.0.0.1", "port": servers.bouncer.port, "database": "way"}
    told |= {"user": APPLICATION, "password": PASSWORD}
    (tmp_path / "application.json").write_text(json.dumps(told))
    ends = endpoints(
        migration.source,
        dsn,
        connection=tmp_path / "connection",
        connect_to=tmp_path / "application.json",
        console=servers.bouncer.admin_dsn,
        alias_file=servers.bouncer.alias_path,
    )
    servers.lead("")
    switch(ends)
    through = servers.bouncer.dsn("way", user=APPLICATION, password=PASSWORD)

    def write(what: str) -> None:
        with psycopg.connect(through, prepare_threshold=None, connect_timeout=60) as session:
            session.execute("INSERT INTO events (what, n) VALUES (%s, 1)", (what,))

    def at_home() -> list[str]:
        with contextlib.closing(apsw.Connection(str(migration.source))) as db:
            return [str(row[0]) for row in db.execute("SELECT what FROM events ORDER BY rowid")]

    with syncing(Stage(migration, ends, servers.bouncer, tmp_path)):
        write("before")
        way.run()
        write("after")
        until(lambda: at_home() == ["before", "after"], "the new server's rows on SQLite")
    with pytest.raises(InputError, match="an upgrade has left"):
        open_target(dsn)
    write("late")
    rollback(ends)
    assert at_home() == ["before", "after", "late"]


def test_two_databases_of_one_server(servers: Pair, tmp_path: Path) -> None:
    """Each has its own way back: what the second upgrade does leaves the first's alone."""
    both = [
        replace(servers, database=name, directory=tmp_path / name, state=tmp_path / name / "state")
        for name in ("first", "second")
    ]
    for one in both:
        one.directory.mkdir()
        with psycopg.connect(servers.old.create_database(one.database), autocommit=True) as session:
            session.execute("CREATE TABLE t (id integer PRIMARY KEY)")
            session.execute("GRANT ALL ON t TO app")
        one.empty_new()

    def ends(one: Pair) -> UpgradeEnds:
        place = servers.server(one.serving())
        line = f"host='127.0.0.1' port={place.port} dbname='{one.database}'"
        servers.lead(f"{one.database} = {line}\n")
        return one.ends()

    def arrived(one: Pair, server: EmbeddedPostgres, last: int) -> bool:
        with psycopg.connect(server.dsn_for(one.database)) as session:
            found = session.execute("SELECT id FROM t ORDER BY 1").fetchall()
        return [row[0] for row in found] == list(range(1, last + 1))

    def write(one: Pair, number: int) -> None:
        with psycopg.connect(servers.server(one.serving()).dsn_for(one.database)) as session:
            session.execute("INSERT INTO t VALUES (%s)", (number,))

    for one in both:
        write(one, 1)
        assert protocol.upgrade(ends(one), print) is not None
        write(one, 2)
    for one in both:
        until(partial(arrived, one, servers.old, 2), f"the way back of {one.database}")
        assert upgrade_end.standing(ends(one)).follows
    for one in both:
        assert protocol.back(ends(one), print) is not None
        write(one, 3)
    for number, one in enumerate(both):
        until(partial(arrived, one, servers.new, 3), f"{one.database}'s new server to follow")
        upgrade_end.abandon(ends(one), print)
        for server in (servers.old, servers.new):
            with psycopg.connect(server.dsn, autocommit=True) as session:
                rows = session.execute(
                    "SELECT database::text FROM pg_replication_slots WHERE database = ANY (%s)",
                    ([other.database for other in both],),
                ).fetchall()
            followed = [other.database for other in both[number + 1 :]]
            assert [row[0] for row in rows] == (followed if server is servers.old else [])


def test_what_passwords_are_looked_up_in_follows(servers: Pair, tmp_path: Path) -> None:
    with Lookup(servers.old) as bouncer:
        servers.old.create_database("lookup")
        servers.old.create_database("looked")
        mine = replace(
            servers, bouncer=bouncer, database="looked", directory=tmp_path, state=tmp_path / "s"
        )
        mine.empty_new()
        before = f"looked = host='127.0.0.1' port={servers.old.port} dbname='looked'\n"
        mine.lead(before)
        lookup = bouncer.dsn("lookup", user="postgres", password=servers.old.password)
        program = mine.start("--auth-database", "lookup")
        assert program.wait(60) == ExitStatus.USAGE
        assert "expected the database 'lookup'" in program.output
        servers.new.create_database("lookup")
        assert version(lookup) == upgrading.OLD
        mine.run("--auth-database", "lookup")
        assert version(lookup) == upgrading.NEW
        # What else opens the alias leads both there, and what the file says is what it knows.
        here = Alias("looked", "127.0.0.1", servers.old.port, "looked")
        assert relocated_alias(tmp_path / "s", here).line() == bouncer.alias_path.read_text()
        mine.run("--auth-database", "lookup", "--back")
        assert version(lookup) == upgrading.OLD
        assert bouncer.alias_path.read_text() == before
