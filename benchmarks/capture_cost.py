"""What capture costs the application that goes on writing, and how long the switch has it wait.

``python -m benchmarks.capture_cost`` prints the figures; ``python -m benchmarks --only capture``
puts them on the page.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import apsw

from benchmarks.lab import Lab
from benchmarks.results import Goal, Row, Sample, Section
from example_app.load import Load, Result
from migration_job.demo.stage import DemoStage, write_secret
from migration_job.plan.planner import make_plan
from migration_job.stores.sqlite import capture
from migration_job.stores.sqlite.catalogue import read_catalogue

ROOT = Path(__file__).resolve().parent.parent

PER_WRITE = Goal(sense="under", bound=15, unit="µs")
COMMITS_LOST = Goal(sense="under", bound=30, unit="%")
ADDED_WAIT = Goal(sense="under", bound=200, unit="ms")

SOURCE_ROWS = 20_000
WRITES = 20_000
"""Writes of one timing; so many that a single one's noise is below a tenth of a microsecond."""
COMMITS = 4_000
RATE = 200.0
"""Writes per second while the switch is measured, as the goal has it."""
SWITCHES = 15
"""So many that the wait of 99 % is not merely that of the one unluckiest write."""
SMALL, TIMES = 50_000, 10
"""Rows of the database that is switched, and how many times more the large one has."""
QUIET_SECONDS = 2.0
"""Load before a switch, to know what a write takes without one."""


def measure(lab: Lab) -> Section:
    """All of it. The rates are measured on ``lab.folder``'s disk."""
    lab.folder.mkdir(parents=True, exist_ok=True)
    rows = [_per_write(lab), *_commits(lab), *_switches(lab)]
    return Section(
        key="capture",
        title="What a live migration costs the application",
        rows=tuple(rows),
        text=(
            "Per write: the statements of RadCase's four commonest writes (an insert, an `INSERT "
            "OR REPLACE`, an insert with a generated key, an update) in transactions of a "
            "thousand, with capture's triggers and without. Full load: one writer, one commit for "
            "each write. "
            f"The switch: the example application under {RATE:.0f} writes and as many reads per "
            "second through eight clients each, half of them with a new connection for each; the "
            "wait of the writes that were under way while the source was held, less the median "
            "wait before. Most of it is not the switch's: sixteen clients log in at once "
            "(SCRAM), on the cores that serve everything else."
        ),
    )


# ------------------------------------------------------------------------- what a write costs


@contextmanager
def _source(lab: Lab, *, captured: bool, synchronous: str) -> Iterator[apsw.Connection]:
    """A copy of the RadCase-like file, with capture or without, as the application opens it."""
    with tempfile.TemporaryDirectory(dir=lab.folder) as folder:
        path = Path(folder) / "app.db"
        shutil.copyfile(lab.radcase(SOURCE_ROWS), path)
        with closing(apsw.Connection(os.fspath(path))) as connection:
            connection.execute("PRAGMA journal_mode = WAL").fetchall()
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute(f"PRAGMA synchronous = {synchronous}")
            if captured:
                catalogue = read_catalogue(connection)
                tables = capture.captured_tables(catalogue, make_plan(connection, catalogue).keys)
                with connection:
                    capture.install(connection, tables, run="bench", capture="bench")
            yield connection


@dataclass
class _Writer:
    """The application's four commonest writes, one after the other."""

    connection: apsw.Connection

    def __post_init__(self) -> None:
        self._users = self._column("SELECT id FROM users")
        self._cases = self._column("SELECT id FROM cases LIMIT 1000")

    def _column(self, query: str) -> list[str]:
        return [str(row[0]) for row in self.connection.execute(query)]

    def write(self, number: int) -> None:
        execute = self.connection.execute
        user = self._users[number % len(self._users)]
        case = self._cases[number * 7 % len(self._cases)]
        match number % 4:
            case 0:
                execute(
                    "INSERT INTO cases (id, title, modality, body_part, diagnosis, difficulty) "
                    "VALUES (?, ?, 'CT', 'Chest', 'Normal', 2)",
                    (str(uuid.uuid4()), f"Case {number}"),
                )
            case 1:
                execute(
                    "INSERT OR REPLACE INTO user_case_progress (user_id, case_id, ease_factor, "
                    "interval_days, repetitions, next_review, last_reviewed) "
                    "VALUES (?, ?, 2.5, 1, ?, '2026-01-02', '2026-01-01 00:00:00')",
                    (user, case, number),
                )
            case 2:
                execute(
                    "INSERT INTO quiz_attempts (case_id, correct, time_spent_ms, user_id) "
                    "VALUES (?, 1, 1500, ?)",
                    (case, user),
                )
            case _:
                execute("UPDATE cases SET title = ? WHERE id = ?", (f"Again {number}", case))


def _per_write(lab: Lab) -> Row:
    plain, captured = [], []
    for _ in range(lab.runs):
        plain.append(_microseconds(lab, captured=False))
        captured.append(_microseconds(lab, captured=True))
    without = Sample(label="without capture", values=tuple(plain), unit="µs")
    with_it = Sample(label="with capture", values=tuple(captured), unit="µs")
    return Row(
        what="capture, added to a write",
        against="the same write without it",
        value=with_it.median - without.median,
        goal=PER_WRITE,
        samples=(without, with_it),
    )


def _microseconds(lab: Lab, *, captured: bool) -> float:
    with _source(lab, captured=captured, synchronous="NORMAL") as connection:
        writer = _Writer(connection)
        spent = 0.0
        for start in range(0, WRITES, 1000):
            with connection:
                began = time.perf_counter()
                for number in range(start, start + 1000):
                    writer.write(number)
                spent += time.perf_counter() - began
    return spent / WRITES * 1e6


def _commits(lab: Lab) -> list[Row]:
    rows = []
    for synchronous, remark in (
        ("NORMAL", "synchronous = NORMAL, as RadCase has it"),
        ("FULL", "synchronous = FULL, each commit on the disk"),
    ):
        plain, captured = [], []
        for _ in range(lab.runs):
            plain.append(_rate(lab, captured=False, synchronous=synchronous))
            captured.append(_rate(lab, captured=True, synchronous=synchronous))
        without = Sample(label="without capture", values=tuple(plain), unit="commits/s")
        with_it = Sample(label="with capture", values=tuple(captured), unit="commits/s")
        rows.append(
            Row(
                what="commits per second lost to capture at full load",
                against="one writer without it",
                value=(1 - with_it.median / without.median) * 100,
                goal=COMMITS_LOST,
                samples=(without, with_it),
                remark=remark,
            )
        )
    return rows


def _rate(lab: Lab, *, captured: bool, synchronous: str) -> float:
    with _source(lab, captured=captured, synchronous=synchronous) as connection:
        writer = _Writer(connection)
        began = time.perf_counter()
        for number in range(COMMITS):
            connection.execute("BEGIN IMMEDIATE")
            writer.write(number)
            connection.execute("COMMIT")
        return COMMITS / (time.perf_counter() - began)


# ------------------------------------------------------------------------ what a switch costs


def _switches(lab: Lab) -> list[Row]:
    """The goal is the switch's, so its readers ask by key; what readers add who go through whole
    tables, of which the large database has ten times as much, is shown beside it."""
    large = SMALL * TIMES
    return [
        _switched(lab, "1x rows", SMALL, by_key=True, goal=ADDED_WAIT),
        _switched(lab, f"{TIMES}x rows", large, by_key=True, goal=ADDED_WAIT),
        _switched(lab, f"{TIMES}x rows, readers scan them", large, by_key=False, goal=None),
    ]


def _switched(lab: Lab, label: str, size: int, *, by_key: bool, goal: Goal | None) -> Row:
    waits, held = _added_waits(lab.radcase(size), by_key=by_key)
    added = Sample(label="added wait of each write", values=tuple(waits), unit="ms")
    return Row(
        what=f"wait added by the switch, 99% of writes, {label}",
        against=f"{RATE:.0f} writes/s before it",
        value=_quantile(waits, 0.99),
        goal=goal,
        samples=(added, Sample(label="source held", values=tuple(held), unit="ms")),
        remark=f"{size:,} rows, {SWITCHES} switches, {len(waits)} writes met one; the "
        f"longest waited {max(waits):.0f} ms",
    )


def _quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _added_waits(source: Path, *, by_key: bool) -> tuple[list[float], list[float]]:
    """Milliseconds that each write met by a switch waited beyond the median before, and for how
    long the source was held each time."""
    waits: list[float] = []
    held: list[float] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="capture-cost-")))
        folder.chmod(0o755)
        live = _Live(stack, folder, source)
        live.job("migrate", "--live", "--profile", "none")
        stack.enter_context(live.syncing())
        for number in range(SWITCHES):
            load = Load(
                live.url, folder / f"journal-{number}", rate=RATE, seed=number, by_key=by_key
            )
            load.start()
            time.sleep(QUIET_SECONDS)
            began = time.monotonic()
            said = live.job("switch")
            ended = time.monotonic()
            time.sleep(QUIET_SECONDS / 2)
            result = load.stop()
            if result.failures:
                raise RuntimeError(f"a request failed: {result.failures[0]}")
            length = float(re.search(r"held for (\d+) ms", said)[1])  # type: ignore[index]
            held.append(length)
            waits += _met(result, began, ended, length / 1000)
            live.job("rollback")
    return waits, held


def _met(result: Result, began: float, ended: float, held: float) -> list[float]:
    """The added waits of the writes that were under way while the source was held.

    The moment is told by the writes themselves: the first that PostgreSQL took was answered just
    after it.
    """
    writes = [r for r in result.answered if r.write]
    before = sorted(r.seconds for r in writes if r.began + r.seconds < began)
    usual = before[len(before) // 2]
    first = min(
        r.began + r.seconds
        for r in writes
        if r.side == "postgresql" and began <= r.began + r.seconds
    )
    first = min(first, ended)
    return [
        (r.seconds - usual) * 1000
        for r in writes
        if r.began <= first and r.began + r.seconds >= first - held
    ]


class _Live:
    """The example application on a source of its own, and the job's commands around it."""

    def __init__(self, stack: ExitStack, folder: Path, source: Path) -> None:
        self._folder = folder
        self._source = folder / "app.db"
        shutil.copyfile(source, self._source)
        self._stage = stack.enter_context(DemoStage(folder / "stage"))
        side = self._stage.application_side
        write_secret(folder / "connect-to.json", json.dumps(side.model_dump(exclude={"engine"})))
        application = stack.enter_context(
            _running(
                [
                    *(sys.executable, "-m", "example_app", "--sqlite", str(self._source)),
                    *("--connection", str(folder / "connection"), "--port", "0"),
                ]
            )
        )
        if application.stdout is None:
            raise RuntimeError("no output of the application's")
        self.url = "http://" + application.stdout.readline().split()[-1]

    def _command(self, name: str, *options: str) -> list[str]:
        stage = self._stage
        command = [sys.executable, "-m", "migration_job", name, str(self._source)]
        command += [
            "--target-file",
            str(stage.target_file),
            "--report",
            str(self._folder / "report"),
        ]
        command += ["--state", str(self._folder / "state")]
        if name != "migrate":
            command += ["--connection", str(self._folder / "connection")]
            command += ["--connect-to", str(self._folder / "connect-to.json")]
        if name != "migrate" and stage.bouncer is not None:
            command += ["--console-file", str(stage.console_file)]
            command += ["--alias-file", str(stage.bouncer.alias_path)]
        return [*command, *options]

    def job(self, name: str, *options: str) -> str:
        """One command to its end; what it said. Raises RuntimeError where it ended badly."""
        done = subprocess.run(
            self._command(name, *options), cwd=ROOT, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"{name} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    @contextmanager
    def syncing(self) -> Iterator[None]:
        with _running(self._command("sync")):
            yield


@contextmanager
def _running(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    lab = Lab(
        ROOT / ".cache" / "benchmarks", SOURCE_ROWS, 2026, 5, lambda line: print(line, flush=True)
    )
    try:
        for row in measure(lab).rows:
            unit = row.goal.unit if row.goal else ""
            verdict = {True: "met", False: "MISSED", None: "no goal"}[row.met]
            print(f"{row.what}: {row.value:.1f} {unit} ({verdict}) {row.remark}")
            for sample in row.samples:
                print(f"    {sample.label}: median {sample.median:.1f} {sample.unit}")
    finally:
        lab.close()


if __name__ == "__main__":
    main()
