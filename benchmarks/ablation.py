"""``python -m benchmarks.ablation``: what each setting of the tuned configuration is worth alone.

One cluster in one control group is started with stock settings and with a variant in turn, and
pgbench runs on either, first to warm it up. What counts is the ratio within a pair, since a machine
that others use is slower in one minute than in the next. ``nothing`` compares stock with itself:
what it shows is the noise, and a setting that moves less moves nothing that was seen. On a busy
machine ``--by processor`` says more than the clock: transactions for each second of processor time
of the server and its client, which others' work changes little. It knows no waiting for a disk.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from statistics import median
from typing import Annotated

import psycopg
import typer

from benchmarks.lab import processor_seconds, run_timed
from benchmarks.tuned import CLIENTS, DISK, control_group, enter
from infra import tuning
from migration_job.embedded import EmbeddedPostgres

HOT = "\\set aid random_zipfian(1, 100000 * :scale, 1.1)\n" + (
    "SELECT abalance FROM pgbench_accounts WHERE aid = :aid;\n"
)


@dataclass(frozen=True, slots=True)
class Workload:
    """What pgbench does, and on how much: ``scale`` is for each GB of memory."""

    name: str
    scale: int
    options: tuple[str, ...] = ()
    script: str = ""


WORKLOADS = (
    Workload("reads, data that fit", 20, ("-S",)),
    Workload("reads, data larger than memory", 80, ("-S",)),
    Workload("hot reads (Zipf 1.1), data larger than memory", 80, script=HOT),
    Workload("TPC-B-like, data larger than memory", 80),
)


class By(StrEnum):
    """What a transaction costs."""

    CLOCK = "clock"
    PROCESSOR = "processor"


NOTHING, ALL = "nothing", "all of them"


def tuned_settings(gigabytes: int) -> dict[str, str]:
    """The whole tuned configuration of that much memory."""
    host = tuning.Host(
        memory=gigabytes * tuning.GB,
        cpus=os.cpu_count() or 1,
        storage="ssd",
        disk=DISK,
        pool_max=CLIENTS,
    )
    return {value.name: value.value for value in tuning.compute(host)}


def variants(tuned: Mapping[str, str], stock: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """By name what differs from stock: nothing, each setting alone, and all of them."""
    alone = {n: {n: v} for n, v in tuned.items() if stock.get(n) != v}
    return {NOTHING: {}, **alone, ALL: dict(tuned)}


@dataclass(slots=True)
class Bench:
    """One cluster with pgbench's data, in one control group."""

    directory: Path
    gigabytes: int
    group: Path | None
    seconds: tuple[int, int]
    """To warm up, and to measure."""
    by: By = By.CLOCK

    @contextmanager
    def server(self, settings: Mapping[str, str]) -> Iterator[EmbeddedPostgres]:
        """The cluster, started with these settings."""
        server = EmbeddedPostgres(self.directory, settings=settings)
        server.start()
        try:
            if self.group is not None:
                enter(self.group, server.pid)
            yield server
        finally:
            server.stop()

    def stock(self) -> dict[str, str]:
        """The settings as they are without ours, in the form in which they are set."""
        with self.server({}) as server, psycopg.connect(server.dsn) as connection:
            rows = connection.execute(
                "SELECT name, current_setting(name) FROM pg_settings"
            ).fetchall()
        return {str(name): str(value) for name, value in rows}

    def fill(self, workloads: Sequence[Workload]) -> None:
        """Make the data of these, once for each scale."""
        with self.server({"max_wal_size": "4GB"}) as server:
            for scale in sorted({w.scale for w in workloads}):
                dsn = server.create_database(f"scale_{scale}")
                size = str(scale * self.gigabytes)
                run_timed([str(server.program("pgbench")), "-i", "-q", "-s", size, dsn])

    def speed(self, workload: Workload, settings: Mapping[str, str]) -> float:
        """Transactions per second of a warm server, by the clock or of processor time."""
        with self.server(settings) as server:
            dsn = server.dsn_for(f"scale_{workload.scale}")
            command = [str(server.program("pgbench")), "-n", *("-c", str(CLIENTS)), *("-j", "2")]
            script = self.directory / "script.sql"
            script.write_text(workload.script)
            more = ["-f", str(script)] if workload.script else list(workload.options)
            told, spent = "", 0.0
            for seconds in self.seconds:
                before = processor_seconds(server.pid)
                told = run_timed([*command, "-T", str(seconds), *more, dsn]).output
                spent = processor_seconds(server.pid) - before
        counted = re.search(r"^number of transactions actually processed: (\d+)", told, re.M)
        found = re.search(r"^tps = ([0-9.]+) ", told, re.MULTILINE)
        if found is None or counted is None:
            raise ValueError(f"expected pgbench's figures, found:\n{told}")
        return float(counted[1]) / spent if self.by is By.PROCESSOR else float(found[1])

    def ratios(self, workload: Workload, settings: Mapping[str, str], pairs: int) -> list[float]:
        """Of each pair, the variant's speed in stock's; who begins takes turns."""
        found = []
        for number in range(pairs):
            both: list[tuple[str, Mapping[str, str]]] = [("stock", {}), ("variant", settings)]
            order = both[::-1] if number % 2 else both
            speeds = {label: self.speed(workload, of) for label, of in order}
            found.append(speeds["variant"] / speeds["stock"])
        return found


def as_table(results: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Markdown: a line for each variant, for each workload the median of its pairs and their
    span."""
    names = list(dict.fromkeys(name for found in results.values() for name in found))
    lines = [f"| setting | {' | '.join(names)} |", "|---|" + "---|" * len(names)]
    for variant, found in results.items():
        cells = [
            f"{median(found[n]):.2f} ({min(found[n]):.2f} to {max(found[n]):.2f})"
            if n in found
            else "-"
            for n in names
        ]
        lines.append(f"| {variant} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(  # noqa: PLR0913 - the options of a command
    gigabytes: Annotated[int, typer.Option(help="Memory that PostgreSQL may use.")] = 1,
    pairs: Annotated[int, typer.Option(help="Pairs of each variant and workload.")] = 5,
    warm: Annotated[int, typer.Option(help="Seconds before each measurement.")] = 15,
    seconds: Annotated[int, typer.Option(help="Seconds of each measurement.")] = 15,
    only: Annotated[str, typer.Option(help="Some settings; all without it.")] = "",
    loads: Annotated[int, typer.Option(help="How many of the workloads, in their order.")] = 4,
    by: Annotated[By, typer.Option(help="What a transaction costs.")] = By.CLOCK,
    output: Annotated[Path | None, typer.Option(help="A JSON file of all ratios.")] = None,
) -> None:
    """Measure each setting of the tuned configuration alone against stock, and all of them."""
    results: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory(prefix="ablation-") as home:
        Path(home).chmod(0o711)  # started by root, PostgreSQL is another user's
        group = control_group(gigabytes * tuning.GB)
        bench = Bench(Path(home) / "server", gigabytes, group, (warm, seconds), by)
        try:
            tried = variants(tuned_settings(gigabytes), bench.stock())
            wanted = {word for word in only.split(",") if word}
            if unknown := wanted - set(tried):
                raise typer.BadParameter(f"expected some of {', '.join(tried)}; found {unknown}")
            bench.fill(WORKLOADS[:loads])
            for name in [n for n in tried if not wanted or n in wanted]:
                results[name] = {}
                for workload in WORKLOADS[:loads]:
                    found = bench.ratios(workload, tried[name], pairs)
                    results[name][workload.name] = found
                    sys.stderr.write(f"{name}, {workload.name}: {median(found):.2f}\n")
                    if output is not None:
                        output.write_text(json.dumps(results, indent=1) + "\n")
        finally:
            if group is not None:
                group.rmdir()
    held = "in a control group" if group is not None else "not limited: no control group here"
    typer.echo(f"{gigabytes} GB {held}, {pairs} pairs of {seconds} s after {warm} s, by {by}\n")
    typer.echo(as_table(results))


if __name__ == "__main__":
    typer.run(main)
