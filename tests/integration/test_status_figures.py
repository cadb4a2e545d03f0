"""Every figure that `status` prints, against the databases; and none that is not here."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from contextlib import closing
from datetime import datetime, timedelta

import psycopg
import pytest

from migration_job.protocol.settle import WINDOW
from migration_job.protocol.switch import switch
from migration_job.protocol.sync import Sync
from tests.integration.test_status import lines
from tests.integration.test_switch import Stage
from tests.integration.test_switch import stage as stage  # the fixture

pytestmark = pytest.mark.postgres

MOMENT = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00")
FIGURE = re.compile(r"(?<![\w./-])\d[\d,]*(?:\.\d+)?")
NAMES_THINGS = ("target", "certificate", "connection", "source")
"""Lines whose figures are parts of names too: ports, digests, paths, generations."""


def figures(line: str) -> list[float]:
    """Those of a line, without its moments."""
    found = FIGURE.findall(MOMENT.sub("", line))
    return [float(figure.replace(",", "")) for figure in found]


def moments(line: str) -> list[datetime]:
    return [datetime.fromisoformat(moment) for moment in MOMENT.findall(line)]


def on_source(stage: Stage, sql: str) -> int:
    with closing(sqlite3.connect(stage.migration.source)) as source:
        (value,) = source.execute(sql).fetchone()
    return int(value)


def on_target(stage: Stage, sql: str) -> int:
    with psycopg.connect(stage.migration.dsn) as target:
        row = target.execute(sql.encode()).fetchone()
    assert row is not None
    return int(row[0])


def without_figures(told: dict[str, str], *names: str) -> None:
    rest = {n: line for n, line in told.items() if n not in (*names, *NAMES_THINGS)}
    assert {n: figures(line) for n, line in rest.items() if figures(line)} == {}
    assert {n: moments(line) for n, line in rest.items() if moments(line)} == {}


def test_while_sqlite_serves(stage: Stage) -> None:
    before = time.monotonic()
    Sync(stage.ends).run(once=True)
    with closing(sqlite3.connect(stage.migration.source)) as source, source:
        source.executemany("INSERT INTO events (what) VALUES (?)", [("late",)] * 1_234)
    written = time.monotonic()
    told = lines(stage)
    behind, oldest = figures(told["sync"])
    last = on_source(stage, "SELECT max(seq) FROM _migration_log")
    applied = on_target(stage, "SELECT position FROM migration.applied")
    assert behind == last - applied == 1_234
    assert "1,234 changes" in told["sync"]
    # "At most": it may say more than the oldest has waited, and never less.
    assert time.monotonic() - written - 0.1 <= oldest <= time.monotonic() - before + 0.1
    assert figures(told["source"])[-1] == last
    assert figures(told["target"])[-1] == applied
    without_figures(told, "sync")


def test_while_postgresql_serves(stage: Stage) -> None:
    switch(stage.ends)
    Sync(stage.ends).run(once=True)
    with psycopg.connect(stage.migration.dsn) as target:
        target.execute("INSERT INTO events (what) SELECT 'there' FROM generate_series(1, 1234)")
    told = lines(stage)
    queued = on_target(stage, "SELECT count(*) FROM migration.reverse_log")
    behind, _ = figures(told["sync"])
    (to_come,) = figures(told["way back"])
    assert behind == to_come == queued == 1_234
    switched = datetime.fromisoformat(told["serves"].removeprefix("PostgreSQL, since "))
    (current, ends) = moments(told["way back"])
    assert switched <= current <= datetime.now(current.tzinfo)
    assert timedelta(0) <= switched + WINDOW - ends < timedelta(minutes=1)
    without_figures(told, "serves", "sync", "way back")


def test_a_figure_that_nobody_brings_up_to_date_is_told_with_its_age(stage: Stage) -> None:
    """A `sync` that is gone knows nothing of now; one that measures nothing says when it did."""
    sync = Sync(stage.ends)
    sync.run(once=True)
    file = stage.ends.state / "sync.json"
    report = json.loads(file.read_text())

    def told_after(*, heartbeat: float, measured: float) -> str:
        def ago(seconds: float) -> str:
            now = datetime.now(datetime.fromisoformat(report["at"]).tzinfo)
            return (now - timedelta(seconds=seconds)).isoformat()

        changed = {"at": ago(heartbeat), "measured_at": ago(measured), "behind": 3}
        file.write_text(json.dumps({**report, **changed}))
        return lines(stage, dsn=None)["sync"]

    gone = told_after(heartbeat=75, measured=75)
    assert re.fullmatch(
        "does not run: last heartbeat 7[5-7] s ago; how far it is is unknown since then", gone
    )
    old = told_after(heartbeat=0, measured=30)
    assert re.fullmatch(
        r"runs \(forward\): 3 changes behind, oldest [\d.]+ s, counted 3[0-2] s ago", old
    )
    fresh = told_after(heartbeat=0, measured=0)
    assert re.fullmatch(r"runs \(forward\): 3 changes behind, oldest [\d.]+ s", fresh)
