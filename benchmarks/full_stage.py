"""A stage with everything on: how long it takes to come up, and what it holds while it is idle."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import yaml

from benchmarks.lab import MIB, CommandFailed, Lab, run_timed
from benchmarks.operations import missing
from benchmarks.project import ROOT
from benchmarks.results import Goal, Row, Sample, Section
from infra import engine
from infra.names import Names
from infra.settings import PROJECT
from migration_job.embedded import free_port

STAGE = "bench"
LIKE = "Pulumi.dev.yaml"
ON: dict[str, object] = {"tls": "private", "monitoring": True, "backup": True}
PORTS = (
    *("postgresPort", "poolerPort", "examplePort"),
    *("prometheusPort", "alertmanagerPort", "dashboardPort", "restorePort"),
)
UP_SECONDS = 120
BACKUP_SECONDS = 300
SAMPLES = 6
SAMPLE_SECONDS = 5
"""Apart, so that the median is of half a minute in which nobody asks for anything."""


def measure(lab: Lab) -> Section:
    """Once: its images first, which is not counted, then `make up` of a stage like dev's."""
    title = "A stage like dev with everything on"
    cause = missing()
    if cause is not None:
        return Section(key="stage", title=title, rows=(), skipped=cause)
    with _stage() as names:
        lab.say("making the images")
        _make("images")
        before = os.getloadavg()[0]
        lab.say("make up")
        seconds = _make("up")
        lab.say("waiting for the first backup to end")
        memory = _idle(names)
    up = Row(
        what="`make up` with TLS, monitoring, backups and the example application",
        against="",
        value=seconds,
        goal=Goal(sense="under", bound=UP_SECONDS, unit="s"),
        samples=(Sample(label="seconds", values=(seconds,)),),
        remark=f"load of the machine before it: {before:.1f}",
    )
    one_by_one = [
        Row(
            what=f"idle memory of `{name}`",
            against="",
            value=sample.median,
            samples=(sample,),
        )
        for name, sample in sorted(memory.items(), key=lambda found: -found[1].median)
    ]
    total = sum(sample.median for sample in memory.values())
    whole = Row(
        what=f"idle memory of all {len(memory)} containers",
        against="",
        value=total,
        samples=(Sample(label="sum", values=(total,), unit="MiB"),),
    )
    return Section(
        key="stage",
        title=title,
        rows=(up, whole, *one_by_one),
        text="Settings as in `Pulumi.dev.yaml`, with `tls: private`, `monitoring: true` and "
        "`backup: true`; the images were there. Memory is what `docker stats` shows: without the "
        "page cache that the kernel may take back.",
    )


@contextmanager
def _stage() -> Iterator[Names]:
    """A stage file of its own, and the stage gone again at the end."""
    file = ROOT / f"Pulumi.{STAGE}.yaml"
    if file.exists():
        raise CommandFailed(f"expected no {file.name}, found one: a stage of that name is measured")
    config = yaml.safe_load((ROOT / LIKE).read_text())["config"]
    wanted = {**ON, **{port: free_port() for port in PORTS}}
    config |= {f"{PROJECT}:{name}": value for name, value in wanted.items()}
    file.write_text(yaml.safe_dump({"config": config}))
    state = ROOT / ".state" / STAGE
    shutil.rmtree(state, ignore_errors=True)
    try:
        yield Names(config[f"{PROJECT}:application"], STAGE)
    finally:
        try:
            _make("down")
        finally:
            file.unlink()
            shutil.rmtree(state, ignore_errors=True)


def _make(target: str) -> float:
    return run_timed(["make", "-C", os.fspath(ROOT), target, f"STAGE={STAGE}"]).seconds


def _idle(names: Names) -> dict[str, Sample]:
    """MiB of each container, once the first backup is over."""
    client = engine.connect("")
    label = f"sqlite-to-postgresql.stage={names.stack}"
    containers = client.containers.list(filters={"label": label})
    backup = client.containers.get(names.backup)
    deadline = time.monotonic() + BACKUP_SECONDS
    while b'"full backup done"' not in backup.logs():
        if time.monotonic() > deadline:
            raise CommandFailed(f"no backup within {BACKUP_SECONDS} s:\n{backup.logs().decode()}")
        time.sleep(1)
    values: dict[str, list[float]] = {}
    for _ in range(SAMPLES):
        time.sleep(SAMPLE_SECONDS)
        for container in containers:
            name = str(container.name).removeprefix(f"{names.prefix}-")
            told: Any = container.stats(stream=False)
            held = _held(told["memory_stats"])
            values.setdefault(name, []).append(held / MIB)
    return {
        name: Sample(label="MiB", values=tuple(found), unit="MiB") for name, found in values.items()
    }


def _held(used: dict[str, Any]) -> int:
    """As `docker stats` counts: with cgroup v1 the field has another name."""
    cache = used["stats"].get("inactive_file", used["stats"].get("total_inactive_file", 0))
    return int(used["usage"]) - int(cache)
