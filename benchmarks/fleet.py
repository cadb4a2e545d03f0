"""Many small files into one database, a schema each, by one ``fleet``."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from random import Random

import apsw

from benchmarks.lab import MIB, PEAK_SECONDS, CommandFailed, Lab, kib_of, sampled
from benchmarks.project import ENVIRONMENT
from benchmarks.results import Goal, Row, Sample, Section

FILES = 1_000

SCHEMA = """
PRAGMA page_size = 1024;
CREATE TABLE person (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, active BOOLEAN NOT NULL, made DATETIME);
CREATE TABLE note (
    id INTEGER PRIMARY KEY, person INTEGER NOT NULL REFERENCES person (id) ON DELETE CASCADE,
    body TEXT, score REAL);
CREATE INDEX note_person ON note (person);
"""


def measure(lab: Lab) -> Section:
    """``fleet`` over files of 20 KB: once, since it makes a thousand schemas each time."""
    folder = lab.made(lab.folder / f"fleet-{FILES}-{lab.seed}", lambda path: make(path, lab.seed))
    size = sum(path.stat().st_size for path in folder.glob("*.db"))
    manifest = folder / "manifest.yaml"
    manifest.write_text("files: '*.db'\nlayout: schema-per-file\nname: 'c_{tenant}'\njobs: 2\n")
    dsn = lab.database("fleet")
    report = Path(tempfile.mkdtemp(prefix="bench-fleet-"))
    try:
        first, peak, phases = _run(manifest, dsn, report)
        again, _, _ = _run(manifest, dsn, report)
    finally:
        shutil.rmtree(report)
        lab.server.drop_database("fleet")
    seconds = Sample(label=f"{FILES:,} files", values=(first,))
    memory = Sample(label=f"{FILES:,} files", values=(peak,), unit="MiB")
    rows = (
        Row(
            what=f"{FILES:,} files of {size // FILES / 1000:.0f} KB, verified",
            against="",
            value=first,
            goal=Goal(sense="under", bound=120, unit="s"),
            samples=(seconds,),
        ),
        Row(
            what="memory of a fleet's run, all of its processes",
            against="",
            value=peak,
            goal=Goal(sense="under", bound=300, unit="MiB"),
            samples=(memory,),
        ),
        Row(
            what="a second run, with nothing to do",
            against="",
            value=again,
            goal=None,
            samples=(Sample(label="again", values=(again,)),),
        ),
    )
    told = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in phases.items())
    return Section(
        key="fleet",
        title="Many small files",
        rows=rows,
        text=f"{size / MIB:.0f} MiB of SQLite in {FILES:,} files, each into a schema of its own, "
        f"two at a time: {told}. Memory is the largest sum over the run's processes of what each "
        "has to itself and its share of the rest, as the kernel counts it.",
    )


def make(folder: Path, seed: int) -> None:
    """A thousand files of 20 KB in a new folder."""
    folder.mkdir()
    for number in range(FILES):
        random = Random(seed + number)
        connection = apsw.Connection(os.fspath(folder / f"t{number:04}.db"))
        connection.execute(SCHEMA)
        with connection:
            connection.executemany(
                "INSERT INTO person VALUES (?, ?, ?, ?)",
                [(n, f"p{n} of {number}", n % 2, f"2025-01-02 03:04:{n:02}") for n in range(1, 41)],
            )
            connection.executemany(
                "INSERT INTO note VALUES (?, ?, ?, ?)",
                [
                    (n, random.randrange(1, 41), "lung nodule left " * 5, random.random())
                    for n in range(1, 121)
                ],
            )
        connection.close()


def _run(manifest: Path, dsn: str, report: Path) -> tuple[float, float, dict[str, float]]:
    """Seconds, MiB at the largest, and the seconds of the phases. Raises CommandFailed where it
    does not end with a certificate."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "migration_job", "fleet", os.fspath(manifest), "--quiet"),
            *("--target", dsn, "--report", os.fspath(report)),
        ],
        env={**os.environ, **ENVIRONMENT},
    )
    with memory_of(process.pid) as found:
        status = process.wait()
    seconds = time.perf_counter() - began
    told = json.loads((report / "fleet.json").read_bytes())
    if status or told["certificate"] is None:
        raise CommandFailed(f"fleet ended with {status}: {told['message']}")
    return seconds, max(found, default=0) / MIB, told["seconds"]


def memory_of(pid: int) -> AbstractContextManager[list[int]]:
    """The bytes of a process and its children, looked at again and again. Zero without /proc."""

    def look() -> int:
        children: list[int] = []
        with suppress(OSError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                children += map(int, (task / "children").read_text().split())
        return sum(
            kib_of(Path(f"/proc/{one}/smaps_rollup"), "Pss:") or 0 for one in [pid, *children]
        )

    return sampled(5 * PEAK_SECONDS, look)


def cpu_of(pid: int) -> float:
    """Seconds of a processor that a process has used. Zero without /proc."""
    with suppress(OSError, ValueError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0
