"""``migrate --schema existing`` against the planned way, into the same tables; and what pgloader
makes of tables that are there (`data only`)."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from benchmarks import peers
from benchmarks.lab import MIB, Lab, processor_seconds, tables_of
from benchmarks.losses import altered_in_words, definitions, lost_between, lost_in_words
from benchmarks.project import Migrated, migrate
from benchmarks.results import Goal, Row, Sample, Section, ratio

GOAL = Goal(sense="at most", bound=1.3)
LEAST_SECONDS = 0.05
"""What is shorter is not compared: phases are told in milliseconds, and some take none."""


def measure(lab: Lab) -> Section:
    """Both ways in turn, ``lab.runs`` times, each into a new database with nothing left to do."""
    source = lab.radcase()
    rows = sum(tables_of(source).values())
    schema = application_schema(lab, source)
    planned: list[Migrated] = []
    existing: list[Migrated] = []
    processor: dict[str, list[float]] = {"into existing tables": [], "planned": []}
    for _ in range(lab.runs):
        with _worked(lab, processor["planned"], lab.database()) as dsn:
            planned.append(migrate(source, dsn))
        with _worked(lab, processor["into existing tables"], _made(lab, schema)) as dsn:
            existing.append(migrate(source, dsn, schema="existing"))
    mine, theirs = _whole("into existing tables", existing), _whole("planned", planned)
    found = [ratio("migrate --schema existing", "the planned way", mine, theirs, GOAL)]
    worked, other = (Sample(label=n, values=tuple(v)) for n, v in processor.items())
    found.append(ratio("- processor time, with the server's", "planned", worked, other, None))
    found += _phases(planned, existing)
    rows_of_peers, told = _peers(lab, source, schema, mine)
    found += rows_of_peers
    text = (
        f"{rows:,} rows, {source.stat().st_size // MIB} MiB of SQLite, 51 tables. The existing "
        "tables are the ones that the planned way makes: with all keys, constraints and indexes. "
        f"Both ways are the whole command, verified. {told}"
    )
    return Section(key="existing", title="Into tables that are there", rows=tuple(found), text=text)


@contextmanager
def _worked(lab: Lab, seconds: list[float], dsn: str) -> Iterator[str]:
    """Add what the job and the server work meanwhile, which others on the machine do not change."""
    began = processor_seconds(lab.server.pid)
    yield dsn
    seconds.append(processor_seconds(lab.server.pid) - began)


def application_schema(lab: Lab, source: Path) -> str:
    """The statements that make the tables, as `pg_dump` writes those of the planned way."""
    dsn = lab.database()
    migrate(source, dsn)
    words = ["--schema-only", "--no-owner", "--exclude-schema=migration", "--dbname", dsn]
    done = subprocess.run(
        [str(lab.server.program("pg_dump")), *words], check=True, capture_output=True, text=True
    )
    # psql's own commands of newer releases are no SQL.
    return "\n".join(li for li in done.stdout.splitlines() if not li.startswith("\\"))


def _made(lab: Lab, schema: str, name: str = "bench") -> str:
    """A new database with the application's tables."""
    dsn = lab.database(name)
    with psycopg.connect(dsn, autocommit=True) as target:
        target.execute(schema.encode())
    return dsn


def _peers(lab: Lab, source: Path, schema: str, mine: Sample) -> tuple[list[Row], str]:
    """pgloader's `data only` into the same tables, against the last run's, and what it lost."""
    ours = _made(lab, schema)
    migrate(source, ours, schema="existing")
    before = definitions(ours)
    found: list[Row] = []
    told: list[str] = []
    for name, program in peers.pgloaders().items():
        seconds: list[float] = []
        for _ in range(lab.runs):
            theirs = _made(lab, schema, "bench_peer")
            seconds.append(peers.pgloader_data_only(program, source, theirs).seconds)
        peer = Sample(label=f"{name}, unverified", values=tuple(seconds))
        found.append(ratio("migrate --schema existing", f"{name}, data only", mine, peer, None))
        lost = lost_in_words(lost_between(ours, theirs))
        altered = altered_in_words(before, definitions(theirs))
        told.append(f"{name}, `data only`: {lost}{altered}.")
    if not told:
        told.append("No pgloader was here to compare with.")
    told += peers.absent()
    return found, " ".join(told)


def _whole(label: str, runs: list[Migrated]) -> Sample:
    return Sample(label=label, values=tuple(m.timing.seconds for m in runs))


def _phases(planned: list[Migrated], existing: list[Migrated]) -> list[Row]:
    """Each phase both ways; those that one way has not, or that take no time, by themselves."""
    found: list[Row] = []
    for phase in existing[0].phases:
        mine = Sample(label="existing", values=tuple(m.phases[phase] for m in existing))
        other = [m.phases[phase] for m in planned if phase in m.phases]
        theirs = Sample(label="planned", values=tuple(other or [0.0]))
        what = f"- of it: {phase}"
        if theirs.median >= LEAST_SECONDS:
            found.append(ratio(what, "the same, planned", mine, theirs, None))
        else:
            samples = (mine, theirs) if other else (mine,)
            found.append(Row(what=what, against="", value=mine.median, samples=samples))
    return found
