"""Catch-up of captured changes against one SQLite writer at full speed."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from random import Random

import apsw

from benchmarks.lab import Lab, run_timed
from benchmarks.project import ENVIRONMENT
from benchmarks.results import Goal, Sample, Section, ratio
from migration_job.protocol.catchup import catch_up_fully
from migration_job.protocol.run_context import opened

GOAL = Goal(sense="at least", bound=2)
CHANGES = 40_000
SOURCE_ROWS = 100_000
LIMIT = 600.0

ATTEMPT = (
    "INSERT INTO quiz_attempts (case_id, correct, time_spent_ms, user_id) "
    "VALUES (?, 1, ?, (SELECT user_id FROM user_case_progress WHERE rowid = ?))"
)
PROGRESS = (
    "INSERT OR REPLACE INTO user_case_progress (user_id, case_id, ease_factor, interval_days, "
    "repetitions, next_review, last_reviewed) SELECT user_id, case_id, 2.5, ?, repetitions, "
    "next_review, last_reviewed FROM user_case_progress WHERE rowid = ?"
)


def measure(lab: Lab) -> Section:
    """The writer first, alone, then the catch-up with all that it has left behind."""
    written: list[float] = []
    caught: list[float] = []
    for number in range(lab.runs):
        folder = Path(tempfile.mkdtemp(prefix="bench-live-"))
        try:
            source = folder / "source.db"
            shutil.copyfile(lab.radcase(SOURCE_ROWS), source)
            dsn = lab.database()
            _begin(source, dsn, folder)
            written.append(CHANGES / _write(source, Random(lab.seed + number)))
            start = time.perf_counter()
            with opened(source, dsn) as pair:
                catch_up_fully(pair, enough=0, limit=LIMIT)
            caught.append(CHANGES / (time.perf_counter() - start))
        finally:
            shutil.rmtree(folder)
    row = ratio(
        "catch-up of captured changes",
        "one SQLite writer at full speed",
        Sample(label="catch-up", values=tuple(caught), unit="changes/s"),
        Sample(label="the writer, captured", values=tuple(written), unit="changes/s"),
        GOAL,
    )
    return Section(
        key="catchup",
        title="Catch-up",
        rows=(row,),
        text=f"{CHANGES:,} changes, half of them inserts into quiz_attempts and half INSERT OR "
        "REPLACE of progress, each in a transaction of its own, in WAL mode with synchronous = "
        "NORMAL, as the application commits; the writer pays for the capture. Catch-up includes "
        "opening both databases and the comparison of every row that it touched.",
    )


def _begin(source: Path, dsn: str, folder: Path) -> None:
    """``migrate --live``: from here on the source logs what changes."""
    run_timed(
        [
            *(sys.executable, "-m", "migration_job", "migrate", os.fspath(source), "--live"),
            *("--state", os.fspath(folder / "state"), "--report", os.fspath(folder / "report")),
            *("--target", dsn),
        ],
        env=ENVIRONMENT,
    )


def _write(source: Path, random: Random) -> float:
    """Seconds for the changes."""
    connection = apsw.Connection(os.fspath(source), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        connection.execute("PRAGMA synchronous = NORMAL; PRAGMA busy_timeout = 5000").fetchall()
        cases = [row[0] for row in connection.execute("SELECT id FROM cases")]
        rowids = [row[0] for row in connection.execute("SELECT rowid FROM user_case_progress")]
        start = time.perf_counter()
        for _ in range(CHANGES // 2):
            place = random.randrange(len(rowids))
            user = rowids[place]
            values = (random.choice(cases), random.randrange(90_000), user)
            connection.execute(ATTEMPT, values)
            connection.execute(PROGRESS, (random.randrange(90), user))
            # The replaced row has a new rowid: the largest.
            rowids[place] = connection.last_insert_rowid()
        return time.perf_counter() - start
    finally:
        connection.close()
