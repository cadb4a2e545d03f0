"""Ten times the rows, and other shapes than the default's."""

from __future__ import annotations

from pathlib import Path

from benchmarks import peers
from benchmarks.copying import plan_of
from benchmarks.lab import MIB, Lab
from benchmarks.project import migrate
from benchmarks.results import Goal, Row, Sample, Section, ratio
from benchmarks.shapes import MANY_TABLES, shapes
from migration_job.stores.postgres import load
from migration_job.workers import default_jobs

FACTOR = 10


def measure(lab: Lab) -> Section:
    """``migrate`` at one and at ten times the rows, in turns."""
    small, large = lab.radcase(), lab.radcase(lab.rows * FACTOR)
    seconds: dict[str, list[float]] = {"1x": [], "10x": []}
    peaks: dict[str, list[float]] = {"1x": [], "10x": []}
    for _ in range(lab.runs):
        for label, source in (("1x", small), ("10x", large)):
            done = migrate(source, lab.database())
            seconds[label].append(done.timing.seconds)
            peaks[label].append(done.timing.peak)
    largest = Sample(label=f"{FACTOR}x", values=tuple(peaks["10x"]), unit="MiB")
    rows = (
        ratio(
            f"whole migrate at {FACTOR}x the rows",
            "at 1x",
            Sample(label=f"{FACTOR}x", values=tuple(seconds["10x"])),
            Sample(label="1x", values=tuple(seconds["1x"])),
            Goal(sense="at most", bound=11),
        ),
        ratio(
            f"peak memory of the job at {FACTOR}x the rows",
            "at 1x",
            largest,
            Sample(label="1x", values=tuple(peaks["1x"]), unit="MiB"),
            Goal(sense="at most", bound=1.2),
        ),
        Row(
            what=f"peak memory of the job at {FACTOR}x the rows",
            against="",
            value=largest.median,
            goal=Goal(sense="under", bound=300, unit="MiB"),
            samples=(largest,),
        ),
    )
    return Section(
        key="growth",
        title="Ten times the rows",
        rows=rows,
        text=f"{small.stat().st_size // MIB} MiB and {large.stat().st_size // MIB} MiB of SQLite. "
        "Memory is the job's largest resident set, as the kernel has it.",
    )


def measure_shapes(lab: Lab) -> Section:
    """``migrate`` of each shape, in bytes per second of the default's."""
    default = lab.radcase()
    files: dict[str, Path] = {title: make() for title, make in shapes(lab).items()}
    base: list[float] = []
    speeds: dict[str, list[float]] = {title: [] for title in files}
    loaded: dict[Path, str] = {}
    names = []
    peaks = []
    for run in range(lab.runs):
        for number, (path, speed) in enumerate(
            [(default, base), *((files[title], speeds[title]) for title in files)]
        ):
            names.append(f"shape_{run}_{number}")
            loaded[path] = lab.database(names[-1])
            done = migrate(path, loaded[path])
            speed.append(path.stat().st_size / MIB / done.timing.seconds)
            if path == files[MANY_TABLES]:
                peaks.append(done.timing.peak)
    many = files[MANY_TABLES]
    alone = _server_alone(lab, many, loaded[many], names)
    # Not before: where thousands of files were deleted minutes ago, ext4 creates others slowly.
    for name in names:
        lab.server.drop_database(name)
    reference = Sample(label="the default", values=tuple(base), unit="MiB/s")
    rows = tuple(
        ratio(
            title,
            "the default's bytes per second",
            Sample(
                label=f"{files[title].stat().st_size // MIB} MiB at", values=tuple(v), unit="MiB/s"
            ),
            reference,
            Goal(sense="at least", bound=0.5),
        )
        for title, v in speeds.items()
    )
    whole = Sample(
        label="migrate, verified",
        values=tuple(many.stat().st_size / MIB / v for v in speeds[MANY_TABLES]),
    )
    rows += (
        ratio(
            f"{MANY_TABLES}, whole migrate",
            "the same statements, rows from ready files: PostgreSQL alone",
            whole,
            Sample(label="PostgreSQL alone", values=alone),
            None,
        ),
        _peak(peaks),
    )
    return Section(
        key="shapes",
        title="Other shapes",
        rows=rows,
        text="The whole of `migrate`, verified, in bytes of the SQLite file per second. The line "
        "of PostgreSQL alone says what of it PostgreSQL needs by itself to create, fill, index and "
        "analyze so many tables, in as many sessions as the job has. Memory is the job's largest "
        "resident set.",
    )


def _peak(peaks: list[float]) -> Row:
    sample = Sample(label=MANY_TABLES, values=tuple(peaks), unit="MiB")
    return Row(
        what=f"peak memory of the job, {MANY_TABLES}",
        against="",
        value=sample.median,
        goal=Goal(sense="under", bound=200, unit="MiB"),
        samples=(sample,),
    )


def _server_alone(lab: Lab, source: Path, loaded: str, names: list[str]) -> tuple[float, ...]:
    """Seconds of each run of :func:`peers.server_alone` for what the database ``loaded`` holds of
    the source; adds its databases' names to ``names``."""
    plan, catalogue = plan_of(source)
    folder = lab.server.directory / "ready"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o777)
    files = peers.write_text_files(loaded, folder, [table.target for table in plan.tables])
    sessions = load.sessions(load.tasks(plan, catalogue, set(), lambda _: None), default_jobs())
    seconds = []
    for run in range(lab.runs):
        names.append(f"ready_{run}")
        seconds.append(peers.server_alone(lab.database(names[-1]), plan, files, sessions))
    return tuple(seconds)
