"""A thousand live files followed by one `fleet-sync`: its memory, its sessions, how soon a change
is visible, and how long a tenant's writers are held by its switch."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import apsw
import psycopg

from benchmarks import fleet
from benchmarks.lab import MIB, CommandFailed, Lab
from benchmarks.project import ENVIRONMENT
from benchmarks.results import Goal, Row, Sample, Section

WRITERS = 10
CHANGES = 10
"""Of each writer, one after the other."""

SWITCHED = 5

SLEEP_SECONDS = 20.0
"""How long a fleet at rest is watched."""

WAIT_SECONDS = 600.0

SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'migration-job%'"


@dataclass(slots=True)
class _Fleet:
    folder: Path
    """A copy: live files are written to."""
    dsn: str

    @property
    def report(self) -> Path:
        return self.folder / "report"

    def words(self, command: str, *more: str) -> list[str]:
        words = [sys.executable, "-m", "migration_job", command]
        words += [os.fspath(self.folder / "manifest.yaml"), "--target", self.dsn]
        return [*words, "--report", os.fspath(self.report), *more]

    def application(self) -> list[str]:
        return ["--connect-to", os.fspath(self.folder / "to.json")]

    def run(self, command: str, *more: str) -> None:
        """Raises CommandFailed."""
        ended = subprocess.run(
            self.words(command, *more),
            env={**os.environ, **ENVIRONMENT},
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode:
            raise CommandFailed(f"{command} ended with {ended.returncode}: {ended.stderr}")

    def beat(self) -> dict[str, object]:
        try:
            told: dict[str, object] = json.loads((self.report / "fleet-sync.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return told


def measure(lab: Lab) -> Section:
    """Once, since it makes a thousand schemas."""
    made = lab.made(
        lab.folder / f"fleet-{fleet.FILES}-{lab.seed}", lambda p: fleet.make(p, lab.seed)
    )
    folder = Path(tempfile.mkdtemp(prefix="bench-live-fleet-"))
    there = _Fleet(folder, lab.database("live_fleet"))
    try:
        for path in made.glob("*.db"):
            shutil.copyfile(path, folder / path.name)
            _on_sqlite(folder / path.name, "PRAGMA journal_mode = WAL")
        text = "files: '*.db'\nlayout: schema-per-file\nname: 'c_{tenant}'\njobs: 2\nlive: true\n"
        (folder / "manifest.yaml").write_text(text)
        told = {"host": "127.0.0.1", "database": "d", "user": "u", "authentication": "trust"}
        (folder / "to.json").write_text(json.dumps(told))
        there.run("fleet", "--quiet")
        return _section(there)
    finally:
        shutil.rmtree(folder)
        lab.server.drop_database("live_fleet")


def _section(there: _Fleet) -> Section:
    with _followed(there) as process:
        busy = fleet.cpu_of(process.pid)
        time.sleep(SLEEP_SECONDS)
        asleep = (fleet.cpu_of(process.pid) - busy) / SLEEP_SECONDS
        most: list[int] = []
        with (
            fleet.memory_of(process.pid) as memory,
            psycopg.connect(there.dsn, autocommit=True) as c,
        ):
            delays = _write(there, lambda: most.append(_count(c)))
        held = _switch(there)
    peak = max(memory, default=0) / MIB
    rows = (
        _row(f"memory of `fleet-sync` over {fleet.FILES:,} files", peak, 200, "MiB"),
        _row("its sessions on PostgreSQL", float(max(most, default=0)), 8, "", "at most"),
        _row(f"the slowest change of {WRITERS} active files, visible", max(delays), 2, "s"),
        Row(what="the median of them", against="", value=median(delays)),
        _row("longest hold of a tenant's writers at its switch", max(held), 100, "ms"),
        Row(what="of one processor while all files sleep", against="", value=100 * asleep),
    )
    return Section(
        key="live-fleet",
        title="Many live files",
        rows=rows,
        text=f"{fleet.FILES:,} files of a schema each are followed by one process. {WRITERS} "
        f"writers make {CHANGES} changes each, and wait for each on PostgreSQL. Then "
        f"{SWITCHED} tenants are switched. The last row is in percent.",
    )


def _row(what: str, value: float, bound: float, unit: str, sense: str = "under") -> Row:
    goal = Goal.model_validate({"sense": sense, "bound": bound, "unit": unit})
    samples = (Sample(label=what, values=(value,), unit=unit),)
    return Row(what=what, against="", value=value, goal=goal, samples=samples)


@contextmanager
def _followed(there: _Fleet) -> Iterator[subprocess.Popen[bytes]]:
    """`fleet-sync` runs, and has visited every file. Raises CommandFailed."""
    process = subprocess.Popen(
        there.words("fleet-sync", *there.application()),
        env={**os.environ, **ENVIRONMENT},
        stdout=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + WAIT_SECONDS
        while there.beat().get("files") != fleet.FILES or there.beat().get("due"):
            if time.monotonic() > deadline or process.poll() is not None:
                raise CommandFailed(f"fleet-sync did not visit all files: {there.beat()}")
            time.sleep(0.5)
        yield process
    finally:
        process.terminate()
        process.wait()


def _write(there: _Fleet, looked: object) -> list[float]:
    """Seconds from the commit on SQLite to when PostgreSQL shows it, of each change."""
    delays: list[float] = []
    problems: list[str] = []

    def writer(number: int) -> None:
        name = f"t{number:04}"
        query = f'SELECT count(*) FROM "c_{name}".note WHERE body = %s'.encode()
        with psycopg.connect(there.dsn, autocommit=True) as target:
            for change in range(CHANGES):
                said = f"change {change}"
                _on_sqlite(
                    there.folder / f"{name}.db",
                    f"INSERT INTO note (person, body, score) VALUES (1, '{said}', 0.5)",
                )
                began = time.monotonic()
                while target.execute(query, (said,)).fetchone() != (1,):
                    if time.monotonic() - began > 60:
                        problems.append(f"{name}: {said} is not visible after a minute")
                        return
                    time.sleep(0.02)
                delays.append(time.monotonic() - began)
                if number == 0 and callable(looked):
                    looked()

    threads = [threading.Thread(target=writer, args=(number,)) for number in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise CommandFailed(problems[0])
    return delays


def _switch(there: _Fleet) -> list[float]:
    """Milliseconds for which the writers of each switched tenant were held."""
    held = []
    for number in range(WRITERS, WRITERS + SWITCHED):
        name = f"t{number:04}"
        there.run("fleet-switch", *there.application(), "--tenant", name)
        told = json.loads((there.report / "files" / name / "switch.json").read_bytes())
        held.append(float(told["held_ms"]))
    return held


def _count(connection: psycopg.Connection) -> int:
    row = connection.execute(SESSIONS).fetchone()
    return int(row[0]) if row is not None else 0


def _on_sqlite(path: Path, statement: str) -> None:
    connection = apsw.Connection(os.fspath(path))
    try:
        connection.set_busy_timeout(10_000)
        connection.execute(statement).fetchall()
    finally:
        connection.close()
