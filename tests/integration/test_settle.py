"""The end of a migration: settle, status at each stage, and the archive that can be restored."""

from __future__ import annotations

import sqlite3
import stat
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from migration_job.errors import OperationError
from migration_job.protocol.rollback import rollback
from migration_job.protocol.settle import settle
from migration_job.protocol.status import status
from migration_job.protocol.switch import switch
from migration_job.protocol.sync import Sync
from migration_job.stores.sqlite import backup
from migration_job.stores.sqlite.capture import MOVED
from tests.integration.test_switch import Stage
from tests.integration.test_switch import stage as stage  # the fixture

pytestmark = pytest.mark.postgres


def lines(stage: Stage) -> dict[str, str]:
    told = status(
        stage.migration.source,
        dsn=stage.migration.dsn,
        connection=stage.ends.connection,
        state=stage.ends.state,
    )
    assert len(told) <= 10
    return {line[:12].strip(): line[12:] for line in told}


def test_settle_waits_for_the_window_and_leaves_an_archive(stage: Stage, tmp_path: Path) -> None:
    report = tmp_path / "report"
    writer = stage.migration.writer()
    writer.execute("INSERT INTO events VALUES ('before', 1)")
    with pytest.raises(OperationError, match="SQLite serving"):
        settle(stage.ends, report)
    switch(stage.ends)
    with psycopg.connect(stage.migration.dsn, autocommit=True) as app:
        app.execute("INSERT INTO events (what, n) VALUES ('after', 2)")
    with pytest.raises(OperationError, match=r"48\.0 h left"):
        settle(stage.ends, report)
    with psycopg.connect(stage.migration.dsn, autocommit=True) as target:
        # This machine's clock has jumped ahead, the server's has not: still refused.
        target.execute("UPDATE migration.fence SET opened_at = opened_at + interval '1 hour'")
    with pytest.raises(OperationError, match="h left"):
        settle(stage.ends, report, window=timedelta(seconds=0.001))
    writer.close()
    archive = settle(stage.ends, report, force=True)
    assert settle(stage.ends, report, force=True) == archive  # run again, it changes nothing

    mode = stage.migration.source.stat().st_mode
    assert not mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH)
    db = sqlite3.connect(stage.migration.source)
    assert db.execute("SELECT what FROM events ORDER BY n").fetchall() == [("before",), ("after",)]
    with pytest.raises(sqlite3.Error, match=MOVED):
        db.execute("INSERT INTO events VALUES ('late', 3)")
    db.close()
    with pytest.raises(OperationError, match="given up"):
        rollback(stage.ends)
    Sync(stage.ends).run()  # ends by itself

    restored = tmp_path / "restored.db"
    backup.restore(archive, restored, replace=False)
    db = sqlite3.connect(restored)
    assert db.execute("SELECT count(*) FROM events").fetchone() == (2,)
    db.execute("INSERT INTO events VALUES ('it takes writes again', 3)")
    names = {row[0] for row in db.execute("SELECT name FROM sqlite_schema")}
    assert not [name for name in names if name.startswith("_migration")]
    db.close()
    with psycopg.connect(stage.migration.dsn, autocommit=True) as app:
        app.execute("INSERT INTO events VALUES ('goes on', 4)")
        columns = app.execute("SELECT * FROM events LIMIT 0").description
        assert columns is not None
        assert [column.name for column in columns] == ["what", "n"]
        assert app.execute("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal").fetchone() == (
            0,
        )


def test_status_says_what_is_and_what_to_do_next(stage: Stage) -> None:
    told = lines(stage)
    assert told["serves"] == "SQLite"
    assert "migration-job sync" in told["next"]
    Sync(stage.ends).run(once=True)
    told = lines(stage)
    assert told["sync"].startswith("runs (forward): 0 changes behind")
    assert "migration-job switch" in told["next"]
    assert "writes to SQLite" in told["connection"]
    switch(stage.ends)
    told = lines(stage)
    assert told["serves"].startswith("PostgreSQL, since 20")
    assert "refuses writes" in told["source"]
    assert "takes writes" in told["target"]
    assert "writes to PostgreSQL" in told["connection"]
    assert "window ends" in told["way back"]
    rollback(stage.ends)
    assert lines(stage)["serves"] == "SQLite"


def test_status_of_a_target_that_is_gone_still_ends_well(stage: Stage) -> None:
    switch(stage.ends)
    told = status(
        stage.migration.source,
        dsn="host=127.0.0.1 port=1 dbname=x user=x password=hunter2 connect_timeout=2",
        connection=stage.ends.connection,
        state=None,
    )
    assert any("cannot connect" in line for line in told)
    assert "accept-loss" in told[-1]
    assert "hunter2" not in "\n".join(told)
