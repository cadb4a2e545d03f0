"""``make bench-guard``: fixed work costs no more than was recorded, by instructions where they can
be counted.

Instructions are the same in every run, however busy the machine is. Where nothing counts them the
figure is processor time, the best of five. A figure is compared with one of the same kind of
machine alone: another interpreter, processor or way of counting makes another figure.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.lab import CommandFailed, checkpoint, machine, run_timed
from benchmarks.operations import make_small
from benchmarks.project import ROOT
from migration_job.demo.radcase import make_radcase
from migration_job.embedded import EmbeddedPostgres

RECORDED = ROOT / "benchmarks" / "guard.json"

MORE = 1.10
"""What a figure may be of the recorded one."""

BEST_OF = 5
ROWS, SEED = 2_000, 2026
PROFILE = ("--profile", "radcase")

WORK = (
    "--help",
    "inspect, one table",
    f"inspect, RadCase of {ROWS:,} rows",
    f"migrate, RadCase of {ROWS:,} rows",
)
"""The fixed work; of a migration the job's own part alone, not PostgreSQL's."""


@dataclass(frozen=True, slots=True)
class Counter:
    """A way to say what a command costs."""

    name: str
    cost: Callable[[list[str], Mapping[str, str]], float]


class CannotCount(Exception):
    """This machine has no such counter, or does not let us have it."""


def by_perf(command: list[str], env: Mapping[str, str]) -> float:
    """Instructions in user mode, by the processor's own counter. Raises CannotCount."""
    with tempfile.NamedTemporaryFile(mode="r", suffix=".csv") as told:
        perf = ["perf", "stat", "-x", ",", "-e", "instructions:u", "-o", told.name, "--"]
        run_timed([*perf, *command], env=env)
        found = re.search(r"^(\d+),[^,]*,instructions:u", told.read(), re.MULTILINE)
    if found is None:
        raise CannotCount("perf counts no instructions here")
    return float(found[1])


def by_valgrind(command: list[str], env: Mapping[str, str]) -> float:
    """Instructions of the command's first process, by valgrind. Raises CannotCount."""
    valgrind = ["valgrind", "--tool=cachegrind", "--cache-sim=no"]
    output = run_timed([*valgrind, "--cachegrind-out-file=/dev/null", *command], env=env).output
    found = re.search(r"^==\d+== I +refs: +([\d,]+)$", output, re.MULTILINE)
    if found is None:
        raise CannotCount("valgrind counts no instructions here")
    return float(found[1].replace(",", ""))


def by_time(command: list[str], env: Mapping[str, str]) -> float:
    """Processor seconds, the best of five runs."""
    return min(run_timed(command, env=env).cpu for _ in range(BEST_OF))


COUNTERS = (
    Counter("instructions by perf", by_perf),
    Counter("instructions by valgrind", by_valgrind),
    Counter("processor seconds", by_time),
)


def environment(folder: Path) -> dict[str, str]:
    """What is the same in every run: no compiling, the same order of sets, the same width."""
    return {
        "PYTHONPATH": os.fspath(ROOT),
        "PYTHONPYCACHEPREFIX": os.fspath(folder / "compiled"),
        "PYTHONDONTWRITEBYTECODE": "",
        "PYTHONHASHSEED": "0",
        "COLUMNS": "80",
        "TERM": "dumb",
        "NO_COLOR": "1",
    }


def counter_here(env: Mapping[str, str]) -> Counter:
    """The first that works on this machine."""
    for counter in COUNTERS[:-1]:
        if shutil.which(counter.name.split()[-1]) is not None:
            try:
                counter.cost([sys.executable, "-c", "pass"], env)
            except (CannotCount, CommandFailed):
                continue
            return counter
    return COUNTERS[-1]


def kind_here(counter: Counter) -> str:
    """What makes two figures comparable. Seconds are those of one processor; instructions are the
    same on all of an architecture."""
    parts = [counter.name, platform.machine(), f"Python {platform.python_version()}"]
    if counter is COUNTERS[-1]:
        parts.append(machine()["processor"])
    return ", ".join(parts)


def measured(counter: Counter, env: Mapping[str, str], folder: Path) -> dict[str, float]:
    """What each piece of fixed work costs here, after one run that is not counted: that one
    compiles the modules."""
    job = [sys.executable, "-m", "migration_job"]
    small, radcase = folder / "small.db", folder / "radcase.db"
    make_small(small)
    make_radcase(radcase, rows=ROWS, seed=SEED)
    checkpoint(radcase)

    with EmbeddedPostgres() as server:

        def migrate(number: int) -> list[str]:
            target = ["--target", server.create_database(f"guard{number}")]
            report = ["--report", os.fspath(folder / f"report{number}")]
            return ["migrate", os.fspath(radcase), *PROFILE, "--quiet", *target, *report]

        looked_at = ["inspect", os.fspath(small)]
        for warm in (["--help"], looked_at, migrate(0)):
            run_timed([*job, *warm], env=env)
        work = (["--help"], looked_at, ["inspect", os.fspath(radcase), *PROFILE], migrate(1))
        costs = [counter.cost([*job, *arguments], env) for arguments in work]
    return dict(zip(WORK, costs, strict=True))


def judged(figures: Mapping[str, float], recorded: Mapping[str, float]) -> list[str]:
    """A line for each figure that is more than it may be, or that nothing was recorded for."""
    found = []
    for what, figure in figures.items():
        before = recorded.get(what)
        if before is None:
            found.append(f"{what}: nothing is recorded; run it with --record")
        elif figure > before * MORE:
            found.append(
                f"{what}: {figure / before:.2f} of what was recorded ({before:,.4g}), at most "
                f"{MORE:.2f}. Find the cause, or record the new figure with its reason"
            )
    return found


def main(
    record: Annotated[bool, typer.Option(help="Keep these figures as the recorded ones.")] = False,
    file: Annotated[Path, typer.Option(help="Where figures are recorded.")] = RECORDED,
) -> None:
    """Measure fixed work, and fail where it costs a tenth more than was recorded."""
    known = json.loads(file.read_text()) if file.exists() else {}
    with tempfile.TemporaryDirectory(prefix="bench-guard-") as name:
        folder = Path(name)
        env = environment(folder)
        counter = counter_here(env)
        kind = kind_here(counter)
        typer.echo(kind)
        figures = measured(counter, env, folder)
    for what, figure in figures.items():
        before = known.get(kind, {}).get(what)
        beside = "" if before is None else f"  {figure / before:.3f} of what was recorded"
        typer.echo(f"  {what:<40} {figure:>16,.4g}{beside}")
    if record:
        file.write_text(json.dumps({**known, kind: figures}, indent=1, sort_keys=True) + "\n")
        typer.echo(f"recorded in {file}")
    elif kind not in known:
        typer.echo("nothing is recorded for this kind of machine: nothing was compared")
    elif wrong := judged(figures, known[kind]):
        typer.echo("\n".join(["error:", *wrong]), err=True)
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
