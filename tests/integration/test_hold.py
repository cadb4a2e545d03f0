"""Maintenance: who holds the traffic at PgBouncer, until when, and that `sync` opens nothing that
it did not close."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import psycopg
import pytest

from migration_job.connection import read_connection, write_connection
from migration_job.errors import OperationError
from migration_job.pooler import Pooler
from migration_job.protocol import lease
from migration_job.protocol.rollback import rollback
from migration_job.protocol.status import status
from migration_job.protocol.switch import switch
from migration_job.protocol.sync import Sync, read_report
from migration_job.protocol.tokens import Forgotten
from tests.integration.test_switch import Stage, stage, syncing, wait_for  # noqa: F401

pytestmark = pytest.mark.postgres

LOOKS = 2.5
"""Seconds in which `sync` looks at the alias twice."""


def pooler(stage: Stage) -> Pooler:  # noqa: F811
    assert stage.ends.pooler is not None
    return stage.ends.pooler


def console(stage: Stage, *commands: str) -> None:  # noqa: F811
    with psycopg.connect(stage.pooler.admin_dsn, autocommit=True) as session:
        for command in commands:
            psycopg.ClientCursor(session).execute(command.encode())


def hold(stage: Stage, seconds: float, by: str = "anna@db1", wait: float = 5.0) -> list[str]:  # noqa: F811
    said: list[str] = []
    lease.hold(stage.ends, seconds=seconds, reason="a restart", by=by, wait=wait, say=said.append)
    return said


def held(stage: Stage) -> str:  # noqa: F811
    report = read_report(stage.ends.state)
    return "" if report is None else report.held


def shown(stage: Stage) -> str:  # noqa: F811
    lines = status(
        stage.ends.source, dsn=None, connection=stage.ends.connection, state=stage.ends.state
    )
    return next(line for line in lines if line.startswith("held"))


def test_a_pause_of_somebody_elses_is_left_alone_and_named(stage: Stage) -> None:  # noqa: F811
    switch(stage.ends)
    pooler = stage.ends.pooler
    assert pooler is not None
    with syncing(stage):
        console(stage, f"PAUSE {pooler.alias.name}")
        wait_for(lambda: bool(held(stage)), "sync to see it")
        deadline = time.monotonic() + LOOKS
        while time.monotonic() < deadline:
            assert pooler.is_paused()
            time.sleep(0.1)
        assert "something other than this job" in shown(stage)
        with pytest.raises(OperationError, match="paused by something other"):
            rollback(stage.ends)
        lease.resume(stage.ends, say=print)
        assert pooler.is_open()
        wait_for(lambda: not held(stage), "sync to see that it is over")
    rollback(stage.ends)


def test_a_hold_between_the_alias_and_the_connection_stays(stage: Stage) -> None:  # noqa: F811
    """A switch has died when the alias was open and the connection not yet written."""
    switch(stage.ends)
    write_connection(stage.ends.connection, stage.ends.sqlite, stage.ends.sqlite)
    hold(stage, 300)
    assert pooler(stage).is_paused()
    with syncing(stage):
        wait_for(lambda: _names_postgres(stage), "sync to write the connection")
        assert pooler(stage).is_paused()
        lease.resume(stage.ends, say=print)
        assert pooler(stage).is_open()


@pytest.mark.parametrize("how", ["hold", "PAUSE"])
def test_a_target_that_has_forgotten_opens_no_hold_either(
    stage: Stage,  # noqa: F811
    how: str,
) -> None:
    switch(stage.ends)
    if how == "hold":
        hold(stage, 300)
    else:
        console(stage, f"PAUSE {pooler(stage).alias.name}")
    with psycopg.connect(stage.ends.dsn, autocommit=True) as session:
        session.execute("UPDATE migration.pair SET token = '', next_token = ''")
    with pytest.raises(Forgotten):
        Sync(stage.ends).run(once=True)
    assert pooler(stage).is_paused()


def _names_postgres(stage: Stage) -> bool:  # noqa: F811
    named = read_connection(stage.ends.connection)
    return named is not None and named.write == stage.ends.postgres


def test_an_alias_that_somebody_else_has_removed_is_left_alone(stage: Stage) -> None:  # noqa: F811
    switch(stage.ends)
    pooler = stage.ends.pooler
    assert pooler is not None
    with syncing(stage):
        stage.pooler.alias_path.write_text("")
        console(stage, "RELOAD")
        wait_for(lambda: bool(held(stage)), "sync to see it")
        deadline = time.monotonic() + LOOKS
        while time.monotonic() < deadline:
            assert pooler.is_closed()
            time.sleep(0.1)
        lease.resume(stage.ends, say=print)
        assert pooler.is_open()


def test_a_hold_comes_to_its_end_by_sync_which_says_so(stage: Stage) -> None:  # noqa: F811
    switch(stage.ends)
    with syncing(stage), stage.application() as app:
        hold(stage, seconds=4)
        assert "held        by anna@db1 until 20" in shown(stage)
        assert "a restart" in shown(stage)
        start = time.monotonic()
        app.execute("INSERT INTO events (what) VALUES ('held')")
        waited = time.monotonic() - start
        assert 1.5 < waited < 10, waited
        wait_for(lambda: lease.read_lease(stage.ends.state) is None, "the lease's end")
        assert shown(stage).split() == ["held", "no"]
    assert "has ended" in (stage.directory / "sync.log").read_text()


def test_what_sync_last_said_of_a_lease_is_not_told_after_its_end(stage: Stage) -> None:  # noqa: F811
    """Between the lease's end and `sync`'s next report, its last one still names the holder."""
    hold(stage, seconds=600)
    Sync(stage.ends).run(once=True)
    assert "anna@db1" in held(stage)
    lease.resume(stage.ends, say=print)
    assert "anna@db1" in held(stage), "the report is the older one"
    assert shown(stage).split() == ["held", "no"]


def test_resume_ends_a_hold_and_a_second_holder_is_refused(stage: Stage) -> None:  # noqa: F811
    switch(stage.ends)
    with stage.application() as app:
        said = hold(stage, seconds=600)
        assert any("`sync` does not run" in line for line in said)
        with pytest.raises(OperationError, match="anna@db1"):
            hold(stage, seconds=600, by="bert@db2")
        hold(stage, seconds=900)
        Sync(stage.ends).run(once=True)
        assert pooler(stage).is_paused()
        done: list[float] = []
        waiting = threading.Thread(
            target=lambda: done.append(len(app.execute("SELECT 1").fetchall())), daemon=True
        )
        waiting.start()
        lease.resume(stage.ends, say=print)
        waiting.join(10)
        assert done == [1]


def test_switch_and_rollback_leave_a_hold_alone(stage: Stage) -> None:  # noqa: F811
    hold(stage, seconds=600)
    with pytest.raises(OperationError, match="held by anna@db1"):
        switch(stage.ends)
    lease.resume(stage.ends, say=print)
    switch(stage.ends)
    hold(stage, seconds=600)
    with pytest.raises(OperationError, match="held by anna@db1"):
        rollback(stage.ends)
    assert pooler(stage).is_paused()
    lease.resume(stage.ends, say=print)
    rollback(stage.ends)


def test_a_hold_that_cannot_be_had_leaves_nothing_behind(stage: Stage) -> None:  # noqa: F811
    switch(stage.ends)
    with stage.application() as app:
        app.execute("BEGIN")
        app.execute("INSERT INTO events (what) VALUES ('slow')")
        with pytest.raises(OperationError, match="could not hold"):
            hold(stage, seconds=600, wait=0.5)
        app.execute("COMMIT")
    assert lease.read_lease(stage.ends.state) is None
    assert pooler(stage).is_open()


@pytest.mark.parametrize(
    "fault",
    ["after:hold.lease", "before:hold.pause", "in:hold.pause", "after:hold.pause"],
)
def test_a_hold_whose_command_died_comes_to_its_end(stage: Stage, fault: str) -> None:  # noqa: F811
    switch(stage.ends)
    with syncing(stage), stage.application() as app:
        ended = command(stage, "hold", fault, "--reason", "an upgrade", "--minutes", "0.05")
        assert ended in (-9, 0)
        start = time.monotonic()
        app.execute("INSERT INTO events (what) VALUES ('on')")
        assert time.monotonic() - start < 10
        wait_for(lambda: lease.read_lease(stage.ends.state) is None, "the lease's end", 15)
        assert pooler(stage).is_open()


@pytest.mark.parametrize("fault", ["before:resume.open", "after:resume.open", "after:resume.end"])
def test_a_resume_that_died_is_finished_by_the_end(stage: Stage, fault: str) -> None:  # noqa: F811
    switch(stage.ends)
    with syncing(stage):
        hold(stage, seconds=6)
        assert command(stage, "resume", fault) == -9
        wait_for(lambda: served(stage), "the application to be served", 20)
        wait_for(lambda: lease.read_lease(stage.ends.state) is None, "the lease's end", 15)
        assert pooler(stage).is_open()


def served(stage: Stage) -> bool:  # noqa: F811
    """PgBouncer 1.18 may refuse a query right after a RESUME ("server login has been failing")."""
    try:
        with stage.application() as app:
            app.execute("INSERT INTO events (what) VALUES ('on')")
    except psycopg.errors.ProtocolViolation:
        return False
    return True


def command(stage: Stage, name: str, fault: str, *options: str) -> int:  # noqa: F811
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "migration_job", name, str(stage.migration.source)),
            *("--target", stage.migration.dsn, "--report", str(stage.directory / "report")),
            *("--connection", str(stage.ends.connection)),
            *("--connect-to", str(stage.directory / "application.json")),
            *("--pooler", stage.pooler.admin_dsn, "--alias-file", str(stage.pooler.alias_path)),
            *options,
        ],
        env={**os.environ, "MIGRATION_FAULT": fault},
        check=False,
        timeout=60,
    )
    return ended.returncode
