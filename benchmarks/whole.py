"""The whole of ``migrate`` against the whole of each pgloader that is here, and what those lost."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks import peers
from benchmarks.lab import MIB, Lab, rows_arrived, tables_of
from benchmarks.losses import lost_between, lost_in_words
from benchmarks.project import Migrated, migrate
from benchmarks.results import Goal, Row, Sample, Section, ratio
from migration_job.stores.sqlite import integrity

GOAL = Goal(sense="at most", bound=0.7)


@dataclass(slots=True)
class Peer:
    """A pgloader: how the page names it, what its runs took, and the last one's database."""

    name: str
    program: str
    seconds: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    dsn: str = ""

    def run(self, lab: Lab, source: Path) -> None:
        self.dsn = lab.database("bench_" + self.name.replace(" ", "_").replace(".", "_"))
        timing = peers.pgloader(self.program, source, self.dsn)
        self.seconds.append(timing.seconds)
        self.processor.append(timing.cpu)

    def row(self, mine: Sample) -> Row:
        """The packaged one has no version in its row, which the README's figure is of."""
        packaged = self.program == peers.PACKAGED_PGLOADER
        label = "pgloader" if packaged else self.name
        peer = Sample(label=f"{label}, unverified", values=tuple(self.seconds))
        return ratio("whole migrate", f"{label}'s whole run", mine, peer, GOAL)

    def told(self, ours: str) -> str:
        """What of our rows it has not, and what it took of the processor."""
        return (
            f"With {self.name} {rows_arrived(self.dsn):,} arrived: "
            f"{lost_in_words(lost_between(ours, self.dsn))}; its processor time alone: "
            f"{median(self.processor):.1f} s."
        )


def measure(lab: Lab) -> Section:
    """All in turn, ``lab.runs`` times, each into a new database."""
    source = lab.radcase()
    rows = sum(tables_of(source).values())
    others = [Peer(name, program) for name, program in peers.pgloaders().items()]
    ours: list[Migrated] = []
    dsn = ""
    for _ in range(lab.runs):
        for other in others:
            other.run(lab, source)
        dsn = lab.database()
        ours.append(migrate(source, dsn))
    mine = Sample(
        label="this project: migrate, verified", values=tuple(m.timing.seconds for m in ours)
    )
    found = [other.row(mine) for other in others]
    if not found:
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
        f"Of the rows, {ours[-1].rows:,} arrived. Processor time of the job alone: "
        f"{median(m.timing.cpu for m in ours):.1f} s."
    )
    told = [other.told(dsn) for other in others] + peers.absent()
    return Section(
        key="migrate",
        title="The whole migration",
        rows=tuple(found),
        text=" ".join([text, *told]),
    )
