"""The rendered configuration against PostgreSQL's own, with 1 GB and 4 GB of memory to use."""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import psycopg

from benchmarks.lab import Lab, run_timed
from benchmarks.project import ROOT, migrate
from benchmarks.results import Row, Sample, Section, ratio
from infra import tuning
from migration_job.embedded import EmbeddedPostgres
from migration_job.verify.checks import load_checks

SCALES = {"data that fit": 20, "data larger than memory": 80}
"""pgbench's, for each GB: about 0.3 and 1.2 GB of data."""

CLIENTS = 20
"""The pool's size in the stage files."""

WARM_SECONDS, SECONDS = 24, 8
"""Of one run of pgbench, whose connections are kept as a pool's are: first each of them maps
shared_buffers page by page, which costs the larger one more and is not counted; then as many
stretches as there are runs."""

DISK = 50 * tuning.GB
REPEATS = 5
CHECKS = ROOT / "migration_job" / "profiles" / "radcase" / "checks"

CONTROL_GROUPS = Path("/sys/fs/cgroup")


def measure(lab: Lab) -> Section:
    """Stock and tuned in turn, each in a server of its own, at both sizes."""
    rows: list[Row] = []
    limited = True
    for gigabytes in (1, 4):
        memory = gigabytes * tuning.GB
        host = tuning.Host(
            memory=memory, cpus=os.cpu_count() or 1, storage="ssd", disk=DISK, pool_max=CLIENTS
        )
        settings = {value.name: value.value for value in tuning.compute(host)}
        found: dict[str, dict[str, list[float]]] = {}
        for label, own in (("stock", {}), ("tuned", settings)):
            with _server(own, memory) as (server, is_limited):
                limited = limited and is_limited
                found[label] = _figures(lab, server, gigabytes)
        for title, values in found["tuned"].items():
            unit = "s" if title == QUERIES else "tx/s"
            rows.append(
                ratio(
                    f"{title}, {gigabytes} GB",
                    "the stock configuration",
                    Sample(label="tuned", values=tuple(values), unit=unit),
                    Sample(label="stock", values=tuple(found["stock"][title]), unit=unit),
                    None,
                )
            )
    held = (
        "A control group holds PostgreSQL and its page cache to the size"
        if limited
        else "The memory could not be limited here: both had all of the machine's page cache"
    )
    return Section(
        key="tuning",
        title="The tuned configuration",
        rows=tuple(rows),
        text=f"{held}. pgbench with {CLIENTS} clients, scale "
        f"{' or '.join(map(str, SCALES.values()))} for each GB, every row as likely as another, "
        f"connections kept, median of {lab.runs} stretches of {SECONDS} s after the first "
        f"{WARM_SECONDS} s, in which each connection maps shared_buffers page by page; RadCase's "
        f"queries, all of the profile's checks one after another over {lab.rows:,} rows, as often. "
        "The tuned configuration also counts every statement (pg_stat_statements), for the "
        "monitoring: some 3 % of reads as short as these. For transactions more is better, for "
        "queries less.",
    )


QUERIES = "RadCase's queries"


def _figures(lab: Lab, server: EmbeddedPostgres, gigabytes: int) -> dict[str, list[float]]:
    pgbench = str(server.program("pgbench"))
    data: dict[str, str] = {}
    for title, scale in SCALES.items():
        data[title] = server.create_database(f"bench_{scale}")
        run_timed([pgbench, "-i", "-q", "-s", str(scale * gigabytes), data[title]])
    radcase = server.create_database("radcase")
    migrate(lab.radcase(), radcase, profile="radcase")
    figures: dict[str, list[float]] = {}
    for title, dsn in data.items():
        for kind, options in (("reads", ["-S"]), ("TPC-B-like", [])):
            figures[f"pgbench, {kind}, {title}"] = _stretches(pgbench, dsn, options, lab.runs)
    figures[QUERIES] = [_queries(radcase) for _ in range(lab.runs)]
    return figures


def _stretches(pgbench: str, dsn: str, options: Sequence[str], count: int) -> list[float]:
    """Transactions per second in each of ``count`` stretches of one run, once it is warm."""
    seconds = WARM_SECONDS + count * SECONDS
    command = [pgbench, *("-c", str(CLIENTS)), *("-j", "2"), *("-T", str(seconds)), "-n"]
    output = run_timed([*command, *("-P", str(SECONDS)), *options, dsn]).output
    told = re.findall(r"^progress: [0-9.]+ s, ([0-9.]+) tps", output, re.MULTILINE)
    # The last stretch may end with the run and not be told of.
    counted = [float(value) for value in told[WARM_SECONDS // SECONDS :]]
    if len(counted) < count - 1:
        raise ValueError(f"expected {count} lines of progress from pgbench, found:\n{output}")
    return counted[:count]


def _queries(dsn: str) -> float:
    """Seconds for all of the application's queries, each the median of a few."""
    total = 0.0
    with psycopg.connect(dsn, autocommit=True) as connection:
        for check in load_checks(CHECKS):
            times = []
            for _ in range(REPEATS):
                start = time.perf_counter()
                connection.execute(check.postgresql.encode()).fetchall()
                times.append(time.perf_counter() - start)
            total += median(times)
    return total


@contextmanager
def _server(settings: Mapping[str, str], memory: int) -> Iterator[tuple[EmbeddedPostgres, bool]]:
    with EmbeddedPostgres(settings=settings) as server:
        group = _limit(server.pid, memory)
        try:
            yield server, group is not None
        finally:
            server.stop()
            if group is not None:
                group.rmdir()


def _limit(pid: int, memory: int) -> Path | None:
    """A control group that holds the process and its children to ``memory`` bytes, page cache
    included; None where this machine or user cannot have one."""
    group = control_group(memory)
    if group is not None:
        try:
            enter(group, pid)
        except OSError:
            group.rmdir()
            return None
    return group


def control_group(memory: int) -> Path | None:
    """An empty one that holds whatever enters it to ``memory`` bytes."""
    unified = (CONTROL_GROUPS / "cgroup.controllers").exists()
    parent = CONTROL_GROUPS if unified else CONTROL_GROUPS / "memory"
    group = parent / f"benchmark-{secrets.token_hex(4)}"
    try:
        group.mkdir()
        limit = "memory.max" if unified else "memory.limit_in_bytes"
        (group / limit).write_text(str(memory))
    except OSError:
        if group.exists():
            group.rmdir()
        return None
    return group


def enter(group: Path, pid: int) -> None:
    """Move a server and its children into the group."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for process in (str(pid), *children):
        (group / "cgroup.procs").write_text(process)
