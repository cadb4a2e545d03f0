"""The copy alone, without keys, indexes and statistics, against what others do with the tables."""

from __future__ import annotations

import os
import time
import uuid
from dataclasses import dataclass, field, replace
from pathlib import Path

import psycopg

from benchmarks import peers
from benchmarks.lab import MIB, Lab, tables_of
from benchmarks.project import migrate
from benchmarks.results import Goal, Row, Sample, Section, ratio
from migration_job.plan.model import Plan
from migration_job.plan.planner import make_plan
from migration_job.quoting import postgres_name, sqlite_name
from migration_job.stores.postgres import load, records, schema
from migration_job.stores.postgres.copy_stream import Session
from migration_job.stores.postgres.database import connect
from migration_job.stores.sqlite.catalogue import read_catalogue
from migration_job.stores.sqlite.model import Catalogue
from migration_job.stores.sqlite.snapshot import open_immutable
from migration_job.workers import run_all

SAMPLE_TABLE = "quiz_attempts"
SAMPLE_ROWS = 3_000


def plan_of(source: Path) -> tuple[Plan, Catalogue]:
    """The plan without a profile, and the catalogue it was made from."""
    connection = open_immutable(source)
    try:
        catalogue = read_catalogue(connection)
        return make_plan(connection, catalogue), catalogue
    finally:
        connection.close()


def bare(plan: Plan) -> Plan:
    """The plan's tables and columns, with no key, constraint, index or default on them."""
    tables = tuple(
        table.model_copy(
            update={
                "primary_key": (),
                "uniques": (),
                "checks": (),
                "foreign_keys": (),
                "indexes": (),
                "columns": tuple(replace(c, identity=False, default=None) for c in table.columns),
            }
        )
        for table in plan.tables
    )
    return plan.model_copy(update={"tables": tables, "views": (), "sequences": ()})


def copy_alone(source: Path, plan: Plan, catalogue: Catalogue, dsn: str, jobs: int) -> float:
    """Seconds for the job's own copy of every table of a bare plan, ledger included."""
    with connect(dsn) as target:
        records.begin(
            target,
            run_id=str(uuid.uuid4()),
            source_path=str(source),
            snapshot_sha256="",
            plan=plan,
            job_version="benchmark",
        )

    def session() -> Session:
        target = connect(dsn)
        load.tune_session(target)
        return Session(open_immutable(source), target)

    # No table whole, since that is with its statistics, which the others do not make either.
    tasks = load.tasks(plan, catalogue, set(), lambda _rows: None, small_rows=-1)
    copies = [task for task in tasks if task.name.startswith("rows ")]
    start = time.perf_counter()
    run_all(copies, session, jobs)
    return time.perf_counter() - start


@dataclass(frozen=True, slots=True)
class _Seconds:
    """What each way took, a value a run; ``single`` in rows a second."""

    ours: list[float] = field(default_factory=list)
    floor: list[float] = field(default_factory=list)
    piped: list[float] = field(default_factory=list)
    single: list[float] = field(default_factory=list)
    proven: list[float] = field(default_factory=list)


def measure(lab: Lab) -> Section:
    """Each way in turn, ``lab.runs`` times, into a new database each."""
    source = lab.radcase()
    plan, catalogue = plan_of(source)
    heaps = bare(plan)
    rows = sum(tables_of(source).values())
    jobs = os.cpu_count() or 1
    can_pipe = peers.available("sqlite3")
    taken = _Seconds()
    folder = lab.server.directory / "files"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o777)
    files: dict[str, Path] = {}
    for _ in range(lab.runs):
        dsn = lab.database()
        taken.ours.append(copy_alone(source, heaps, catalogue, dsn, jobs))
        if not files:
            files = peers.write_text_files(dsn, folder, [t.target for t in heaps.tables])
        _emptied(lab, dsn, heaps)
        taken.floor.append(peers.server_side_copy(dsn, files))
        if can_pipe:
            _emptied(lab, dsn, heaps)
            psql = lab.server.program("psql")
            taken.piped.append(peers.sqlite_to_psql(psql, source, dsn, _pairs(heaps)).seconds)
        _emptied(lab, dsn, heaps)
        names = [str(c.source) for c in heaps.table(SAMPLE_TABLE).copied]
        taken.single.append(peers.row_by_row(source, dsn, SAMPLE_TABLE, names, SAMPLE_ROWS))
        taken.proven.append(migrate(source, lab.database()).phases["verify"])
    return Section(
        key="copy",
        title="The copy alone",
        rows=tuple(_rows(taken, rows)),
        text=f"{rows:,} rows, {source.stat().st_size // MIB} MiB, into tables without keys, "
        f"indexes and statistics, {jobs} threads. The text files lie on the server, so that "
        "nothing but PostgreSQL works in that row. The row-by-row script's statements are sent "
        f"from Python, {SAMPLE_ROWS:,} rows of {SAMPLE_TABLE}; through `sqlite3 -csv`, NULL and "
        "the empty string become one.",
    )


def _rows(taken: _Seconds, rows: int) -> list[Row]:
    """The section's rows; ``rows`` is how many were copied."""
    copied = Sample(label="this project's copy", values=tuple(taken.ours))
    found = [
        ratio(
            "copy alone",
            "server-side COPY of ready text files, one table after another",
            copied,
            Sample(label="server-side COPY", values=tuple(taken.floor)),
            Goal(sense="at most", bound=1.0),
        )
    ]
    if taken.piped:
        found.append(
            ratio(
                "copy alone",
                "sqlite3 -csv piped to psql, one table after another",
                copied,
                Sample(label="sqlite3 -csv to psql", values=tuple(taken.piped)),
                Goal(sense="at most", bound=0.8),
            )
        )
    found.append(
        ratio(
            "copy alone",
            "the strategy's row-by-row script, on a sample",
            Sample(label="copy", values=tuple(rows / s for s in taken.ours), unit="rows/s"),
            Sample(label="row by row", values=tuple(taken.single), unit="rows/s"),
            Goal(sense="at least", bound=150),
        )
    )
    found.append(
        ratio(
            "verification of everything, in a whole migrate",
            "the copy alone",
            Sample(label="this project's verification", values=tuple(taken.proven)),
            copied,
            Goal(sense="at most", bound=1.0),
        )
    )
    return found


def _emptied(lab: Lab, dsn: str, plan: Plan) -> None:
    """The tables recreated, empty, and nothing left to write."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for table in plan.tables:
            connection.execute(f"DROP TABLE IF EXISTS {postgres_name(table.target)}".encode())
            connection.execute(schema.table_sql(table).encode())
    lab.settle()


def _pairs(plan: Plan) -> list[tuple[str, str]]:
    """For each table SQLite's query, and the target with its columns. No name here has a quote or
    a space, so that both fit psql's one line."""
    pairs = []
    for table in plan.tables:
        names = ", ".join(str(c.source).join(("[", "]")) for c in table.copied)
        columns = ", ".join(postgres_name(c.target) for c in table.copied)
        query = f"select {names} from {sqlite_name(str(table.source)).strip(chr(34))}"
        pairs.append((query, f"{postgres_name(table.target)} ({columns})"))
    return pairs
