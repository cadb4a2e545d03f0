"""What an operator waits for: a command's start, a warm ``make demo``, an unchanged stage."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import apsw

from benchmarks.lab import CommandFailed, Lab, Timing, run_timed
from benchmarks.project import ENVIRONMENT, ROOT
from benchmarks.results import Goal, Row, Sample, Section

STAGE = "dev"
CHANGES = re.compile(r"^\s+[+~-]\S* \d+ ", re.MULTILINE)
"""Pulumi's summary of what it created, updated, deleted or replaced."""


def measure(lab: Lab) -> Section:
    """Each once to warm up, then ``lab.runs`` times."""
    rows = [*_start(lab), _demo(lab)]
    cause = missing()
    if cause is None:
        rows.append(_up(lab))
    return Section(
        key="operations",
        title="What an operator waits for",
        rows=tuple(rows),
        text="Each after one run that sets everything up. A command's start is its processor time; "
        "the file that is looked at has one table with an index."
        + ("" if cause is None else f" `pulumi up` was not measured: {cause}."),
    )


def _row(what: str, bound: float, seconds: list[float]) -> Row:
    sample = Sample(label="seconds", values=tuple(seconds))
    goal = Goal(sense="under", bound=bound, unit="s")
    return Row(what=what, against="", value=sample.median, goal=goal, samples=(sample,))


SMALL = "CREATE TABLE t (id INTEGER PRIMARY KEY, at DATETIME); CREATE INDEX i ON t (at)"


def _start(lab: Lab) -> list[Row]:
    source = lab.made(lab.folder / "small.db", make_small)
    arguments = {"`migration-job --help`": ["--help"], "`inspect`": ["inspect", os.fspath(source)]}
    rows = []
    for what, words in arguments.items():
        command = [sys.executable, "-m", "migration_job", *words]
        run_timed(command, env=ENVIRONMENT)
        cpu = [run_timed(command, env=ENVIRONMENT).cpu for _ in range(lab.runs)]
        rows.append(_row(f"{what}, processor time", 0.35, cpu))
    return rows


def make_small(path: Path) -> None:
    """A file of one table with an index."""
    connection = apsw.Connection(os.fspath(path))
    connection.execute(SMALL)
    connection.close()


def _make(*arguments: str) -> Timing:
    return run_timed(["make", "-C", os.fspath(ROOT), *arguments])


def _demo(lab: Lab) -> Row:
    _make("demo")
    return _row("`make demo`, warm", 40, [_make("demo").seconds for _ in range(lab.runs)])


def missing() -> str | None:
    """Why a stage cannot be measured here; None where it can."""
    for program in ("pulumi", "docker"):
        if shutil.which(program) is None:
            return f"{program} is not installed here"
    engine = subprocess.run(["docker", "info"], capture_output=True, check=False)
    return None if engine.returncode == 0 else "no Docker engine runs here"


def _up(lab: Lab) -> Row:
    """``make up`` of the dev stage. A stage that was up before stays up."""
    stage = f"STAGE={STAGE}"
    fresh = CHANGES.search(_make("up", stage).output) is not None
    try:
        seconds = []
        for _ in range(lab.runs):
            timing = _make("up", stage)
            if CHANGES.search(timing.output):
                raise CommandFailed(f"expected no change, found:\n{timing.output[-2000:]}")
            seconds.append(timing.seconds)
    finally:
        if fresh:
            _make("down", stage)
    return _row("`pulumi up` without a change (`make up`)", 10, seconds)
