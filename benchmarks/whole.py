"""The whole of ``migrate`` against the whole of pgloader."""

from __future__ import annotations

from statistics import median

from benchmarks import peers
from benchmarks.lab import MIB, Lab, rows_arrived, tables_of
from benchmarks.project import Migrated, migrate
from benchmarks.results import Goal, Row, Sample, Section, ratio
from migration_job.stores.sqlite import integrity

GOAL = Goal(sense="at most", bound=0.7)


def measure(lab: Lab) -> Section:
    """Both in turn, ``lab.runs`` times, each into a new database."""
    source = lab.radcase()
    rows = sum(tables_of(source).values())
    with_peer = peers.available("pgloader")
    ours: list[Migrated] = []
    theirs: list[float] = []
    processor: list[float] = []
    arrived = 0
    for _ in range(lab.runs):
        if with_peer:
            dsn = lab.database()
            timing = peers.pgloader(source, dsn)
            theirs.append(timing.seconds)
            processor.append(timing.cpu)
            arrived = rows_arrived(dsn)
        ours.append(migrate(source, lab.database()))
    mine = Sample(
        label="this project: migrate, verified", values=tuple(m.timing.seconds for m in ours)
    )
    found: list[Row] = []
    if theirs:
        peer = Sample(label="pgloader, unverified", values=tuple(theirs))
        found.append(ratio("whole migrate", "pgloader's whole run", mine, peer, GOAL))
    else:
        found.append(Row(what="whole migrate", against="", value=mine.median, samples=(mine,)))
    for phase in ours[0].phases:
        sample = Sample(label="seconds", values=tuple(m.phases[phase] for m in ours))
        found.append(
            Row(what=f"- of it: {phase}", against="", value=sample.median, samples=(sample,))
        )
    small = source.stat().st_size <= integrity.FULL_BYTES
    text = (
        f"{rows:,} rows, {source.stat().st_size // MIB} MiB of SQLite, 51 tables. `migrate` is the "
        f"command from start to end: backup with its checksum, {integrity.name(full=small)}, "
        "preflight, copy, keys, indexes, foreign keys, verification of every value, report. "
        f"Of the rows, {ours[-1].rows:,} arrived; with pgloader {arrived:,}. Processor time of the "
        f"job alone: {median(m.timing.cpu for m in ours):.1f} s"
    )
    text += f"; of pgloader alone: {median(processor):.1f} s." if processor else "."
    return Section(key="migrate", title="The whole migration", rows=tuple(found), text=text)
