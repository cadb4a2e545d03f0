"""``python -m benchmarks``: measure everything, or what ``--only`` names, and write the page."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import (
    back_capture,
    capture_cost,
    copying,
    distance,
    existing,
    fleet,
    full_stage,
    gate,
    growth,
    live,
    live_fleet,
    operations,
    page,
    pooler,
    rules,
    tuned,
    ways,
    whole,
)
from benchmarks.lab import CommandFailed, Lab, machine
from benchmarks.results import Results, Section, load, save
from migration_job.stores.sqlite.memory import stop_memory_accounting

ROOT = Path(__file__).resolve().parent.parent
RESULTS = "benchmarks.json"

MEASURES: dict[str, Callable[[Lab], Section]] = {
    "migrate": whole.measure,
    "copy": copying.measure,
    "existing": existing.measure,
    "growth": growth.measure,
    "fleet": fleet.measure,
    "live-fleet": live_fleet.measure,
    "catchup": live.measure,
    "distance": distance.measure,
    "capture": capture_cost.measure,
    "back": back_capture.measure,
    "pooler": pooler.measure,
    "gate": gate.measure,
    "operations": operations.measure,
    "stage": full_stage.measure,
    "rules": rules.measure,
    "shapes": growth.measure_shapes,
    "tuning": tuned.measure,
    "ways": ways.measure,
}


def main(
    rows: Annotated[int, typer.Option(help="Rows of the RadCase-like file.")] = 1_500_000,
    seed: Annotated[int, typer.Option(help="Seed of everything generated.")] = 2026,
    runs: Annotated[int, typer.Option(help="Runs of each; the median counts.")] = 5,
    only: Annotated[str, typer.Option(help=f"Some of {','.join(MEASURES)}.")] = "",
    folder: Annotated[Path, typer.Option(help="Where generated files are kept.")] = ROOT
    / ".cache"
    / "benchmarks",
    output: Annotated[Path, typer.Option(help="Where the page goes.")] = ROOT / "docs",
) -> None:
    """Measure, and write benchmarks.md, benchmarks.svg and benchmarks.json.

    What ``--only`` leaves out stays on the page as it was measured before.
    """
    stop_memory_accounting()  # as the job's commands begin
    wanted = [w for w in only.split(",") if w] or list(MEASURES)
    unknown = [w for w in wanted if w not in MEASURES]
    if unknown:
        raise typer.BadParameter(f"expected some of {', '.join(MEASURES)}; found {unknown}")
    say(f"rows {rows:,}, seed {seed}, runs {runs}")
    lab = Lab(folder.resolve(), rows, seed, runs, say)
    settings = {"rows": f"{rows:,}", "seed": str(seed), "runs": f"median of {runs}"}
    earlier = load(output / RESULTS)
    sections = dict(earlier.sections) if earlier and earlier.settings == settings else {}
    output.mkdir(parents=True, exist_ok=True)
    failed = []
    try:
        for key in wanted:
            say(f"measuring {key}")
            start = time.perf_counter()
            try:
                sections[key] = MEASURES[key](lab)
            except CommandFailed as error:
                failed.append(key)
                say(f"{key} could not be measured: {error}")
                continue
            for row in sections[key].rows:
                verdict = {True: "met", False: "MISSED", None: ""}[row.met]
                say(f"  {row.what} | {row.against} | {page.number(row.value)} {verdict}")
            say(f"  took {time.perf_counter() - start:.0f} s")
            results = Results(machine=machine(), settings=settings, sections=sections)
            save(results, output / RESULTS)
            page.write(results, output)
    finally:
        lab.close()
    if failed:
        raise typer.Exit(1)


def say(text: str) -> None:
    """One line of progress, on standard error."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    typer.run(main)
