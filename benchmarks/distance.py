"""A PostgreSQL that is 20 and 60 ms away: the copy, a round, the catch-up, and how long the switch
holds the writers. The delay is made by a forwarder (:mod:`benchmarks.distant`)."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import apsw
from psycopg.conninfo import make_conninfo

from benchmarks.distant import Distance
from benchmarks.lab import Lab, run_timed
from benchmarks.project import ENVIRONMENT, without_pooler
from benchmarks.results import Goal, Row, Sample, Section
from migration_job.protocol.catchup import catch_up, catch_up_fully
from migration_job.protocol.run_context import opened
from migration_job.protocol.switch import switch

ROWS = 1_000
DELAYS = (0, 20, 60)
"""Milliseconds from a question to its answer."""

CHANGES = 20_000
RATE = 78.0
"""Writes a second during the switch."""

LIMIT = 300.0

GOALS = {
    ("migrate", 20): Goal(sense="under", bound=8, unit="s"),
    ("held", 20): Goal(sense="under", bound=300, unit="ms"),
    ("held", 60): Goal(sense="under", bound=600, unit="ms"),
    ("catch-up", 60): Goal(sense="at least", bound=2_000, unit="changes/s"),
}

INSERT = (
    "INSERT INTO quiz_attempts (case_id, correct, time_spent_ms, user_id) "
    "SELECT case_id, correct, ?, user_id FROM quiz_attempts LIMIT 1"
)

UNITS = {
    "migrate": "s",
    "opening": "round trips",
    "idle round": "round trips",
    "round": "round trips",
    "catch-up": "changes/s",
    "held": "ms",
}
TITLES = {
    "migrate": f"migrate --live of {ROWS} rows",
    "opening": "sync opens both databases",
    "idle round": "a round that finds nothing",
    "round": "a round with a change to one table",
    "catch-up": f"catch-up of {CHANGES:,} changes",
    "held": f"writers held by the switch, {RATE:g} writes/s",
}


@dataclass
class _Found:
    values: dict[str, list[float]] = field(default_factory=dict)

    def note(self, what: str, value: float) -> None:
        self.values.setdefault(what, []).append(value)


def measure(lab: Lab) -> Section:
    """Everything at each distance, in turns."""
    load = os.getloadavg()[0]
    of = "of one run" if lab.runs == 1 else f"medians of {lab.runs} runs"
    found = {delay: _Found() for delay in DELAYS}
    for _ in range(lab.runs):
        for delay in DELAYS:
            _once(lab, delay, found[delay])
    rows = []
    for what, title in TITLES.items():
        for delay in DELAYS:
            sample = Sample(label=title, values=tuple(found[delay].values[what]), unit=UNITS[what])
            rows.append(
                Row(
                    what=title,
                    against=f"{delay} ms away",
                    value=sample.median,
                    goal=GOALS.get((what, delay)),
                    samples=(sample,),
                )
            )
    return Section(
        key="distance",
        title="Distance",
        rows=tuple(rows),
        text="The delay is made by a forwarder between the job and PostgreSQL; a round trip is "
        f"something sent after an answer had come. Values are {of}, not ratios; the load of the "
        f"machine before it was {load:.1f}. What a busy machine adds to the seconds and the rates "
        "is in the rows of 0 ms as well; round trips and the time for which writers "
        "are held depend on it little.",
    )


def _once(lab: Lab, delay: int, found: _Found) -> None:
    folder = Path(tempfile.mkdtemp(prefix="bench-distance-"))
    try:
        source = folder / "source.db"
        shutil.copyfile(lab.radcase(ROWS), source)
        near = lab.database()
        with Distance(lab.server.port, delay) as distance:
            dsn = make_conninfo(near, port=distance.port)
            command = [
                sys.executable,
                "-m",
                "migration_job",
                "migrate",
                str(source),
                "--target",
                dsn,
            ]
            command += ["--report", str(folder / "report"), "--profile", "radcase", "--live"]
            command += ["--state", str(folder / "state")]
            found.note("migrate", run_timed(command, env=ENVIRONMENT).seconds)
            _follow(source, dsn, distance, found)
            found.note("held", _switch(source, dsn, folder))
    finally:
        shutil.rmtree(folder)


def _follow(source: Path, dsn: str, distance: Distance, found: _Found) -> None:
    before = distance.turns
    with opened(source, dsn) as pair:
        found.note("opening", distance.turns - before)
        for what, changes in (("round", 1), ("idle round", 0)):
            _write(source, changes)
            before = distance.turns
            catch_up(pair)
            found.note(what, distance.turns - before)
        _write(source, CHANGES)
        start = time.perf_counter()
        catch_up_fully(pair, enough=0, limit=LIMIT)
        found.note("catch-up", CHANGES / (time.perf_counter() - start))


def _write(source: Path, changes: int) -> None:
    connection = apsw.Connection(os.fspath(source), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        connection.set_busy_timeout(5_000)
        with connection:
            connection.executemany(INSERT, ((number,) for number in range(changes)))
    finally:
        connection.close()


def _switch(source: Path, dsn: str, folder: Path) -> float:
    """Milliseconds for which the writers were held at most."""
    ends = without_pooler(source, dsn, folder)
    stop = threading.Event()
    writer = threading.Thread(target=_go_on_writing, args=(source, stop), daemon=True)
    writer.start()
    try:
        return switch(ends, budget=10.0, compare=False).held_ms
    finally:
        stop.set()
        writer.join()


def _go_on_writing(source: Path, stop: threading.Event) -> None:
    connection = apsw.Connection(os.fspath(source), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        connection.set_busy_timeout(15_000)
        while not stop.wait(1 / RATE):
            connection.execute(INSERT, (1,))
    except apsw.ConstraintError:
        pass  # switched: the source is closed
    finally:
        connection.close()
