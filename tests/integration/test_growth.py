"""A coarse guard on growth: four times the rows may not cost far more than four times the work.

Processor time, not the clock, and a wide margin: what this stops is work that grows with the square
of the rows, or memory that grows with them.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from migration_job.demo.radcase import make_radcase
from migration_job.embedded import EmbeddedPostgres

ROWS = 20_000
FACTOR = 4
START = "import migration_job.commands.migrate"
PROGRAM = """
import resource, runpy, sys
sys.argv = ["migration-job", *sys.argv[1:]]
try:
    runpy.run_module("migration_job", run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
usage = resource.getrusage(resource.RUSAGE_SELF)
print("used", usage.ru_utime + usage.ru_stime, usage.ru_maxrss)
"""


def used(source: Path, dsn: str, report: Path) -> tuple[float, int]:
    """Processor seconds and peak memory of one ``migrate``."""
    arguments = ["migrate", str(source), "--target", dsn, "--report", str(report)]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    _, seconds, peak = done.stdout.splitlines()[-1].split()
    return float(seconds), int(peak)


@pytest.mark.postgres
def test_work_and_memory_grow_no_faster_than_the_rows(
    tmp_path: Path, postgres_server: EmbeddedPostgres
) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", START], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    found = []
    for factor in (1, FACTOR):
        source = tmp_path / f"{factor}.db"
        make_radcase(source, rows=ROWS * factor, seed=7)
        dsn = postgres_server.create_database()
        seconds, peak = used(source, dsn, tmp_path / f"report-{factor}")
        found.append((max(seconds - start, 0.1), peak))
        with psycopg.connect(dsn) as connection:
            counted = connection.execute("SELECT count(*) FROM migration.certificate").fetchone()
        assert counted == (1,)
    (small, small_peak), (large, large_peak) = found
    assert large < small * FACTOR * 2, found
    assert large_peak < small_peak * 1.5, found
