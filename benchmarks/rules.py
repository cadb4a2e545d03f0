"""What a rule costs for each row: a column under ``booleans``, ``map``, ``pattern`` or ``epoch``
against the same values carried as they are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw

from benchmarks.lab import MIB, Lab
from benchmarks.project import Migrated, migrate
from benchmarks.results import Goal, Row, Sample, Section, ratio
from migration_job.quoting import compose

FACTOR = 10
MOST = Goal(sense="at most", bound=1.5)


@dataclass(frozen=True, slots=True)
class Kind:
    """A column: what it is declared as, its value as SQLite's expression of a row's number ``n``,
    and the policy that gives it the rule."""

    declared: str
    value: str
    policy: Mapping[str, Any]


KINDS: Mapping[str, Kind] = {
    "booleans": Kind("TEXT", "iif(n % 3, 'Y', 'N')", {"booleans": {"true": ["Y"], "false": ["N"]}}),
    "map": Kind(
        "TEXT",
        "CASE n % 4 WHEN 0 THEN 'low' WHEN 1 THEN 'high' ELSE 'none' END",
        {"map": {"low": "L", "high": "H"}},
    ),
    "pattern": Kind(
        "TEXT", "printf('ID-%08d', n)", {"pattern": [{"match": "ID-(.*)", "replace": "\\1"}]}
    ),
    "epoch: s": Kind("INTEGER", "1700000000 + n", {"epoch": "s", "type": "timestamptz(0)"}),
    "epoch: ms": Kind("INTEGER", "1700000000123 + n", {"epoch": "ms", "type": "timestamptz(3)"}),
}


def measure(lab: Lab) -> Section:
    """``migrate`` of each column with its rule and without, in turns; then with all the rules at a
    tenth of the rows."""
    found = [_cost(lab, name, kind) for name, kind in KINDS.items()]
    found.append(_memory(lab))
    return Section(
        key="rules",
        title="Columns under a rule",
        rows=tuple(found),
        text=f"{lab.rows:,} rows of a key and one column, the whole of `migrate`, verified. The "
        "same file goes without a policy, its column as it is. Memory is the job's largest "
        "resident set, of a table with a column of each rule.",
    )


def _cost(lab: Lab, name: str, kind: Kind) -> Row:
    source = _file(lab, name.replace(": ", "-"), {"c": kind}, lab.rows)
    policy = _policy(lab, {"c": kind})
    plain: list[Migrated] = []
    ruled: list[Migrated] = []
    for _ in range(lab.runs):
        plain.append(migrate(source, lab.database()))
        ruled.append(migrate(source, lab.database(), policy=policy))
    return ratio(
        f"a column under `{name}`",
        "the same values as they are",
        _micros("with the rule", ruled),
        _micros("without", plain),
        MOST,
    )


def _micros(label: str, runs: list[Migrated]) -> Sample:
    values = tuple(m.timing.seconds / m.rows * 1e6 for m in runs)
    return Sample(label=label, values=values, unit="µs a row")


def _memory(lab: Lab) -> Row:
    columns = {f"c{number}": kind for number, kind in enumerate(KINDS.values())}
    policy = _policy(lab, columns)
    peaks: dict[int, list[float]] = {lab.rows: [], lab.rows // FACTOR: []}
    for rows, found in peaks.items():
        source = _file(lab, "all", columns, rows)
        for _ in range(lab.runs):
            found.append(migrate(source, lab.database(), policy=policy).timing.peak)
    large, small = (
        Sample(label=f"{n:,} rows", values=tuple(v), unit="MiB") for n, v in peaks.items()
    )
    return ratio(
        f"peak memory with every rule at {FACTOR}x the rows",
        "at 1x",
        large,
        small,
        Goal(sense="at most", bound=1.2),
        f"{source.stat().st_size // MIB} MiB of SQLite at 1x",
    )


def _policy(lab: Lab, columns: Mapping[str, Kind]) -> Path:
    path = lab.folder / "rules-policy.yaml"
    parts = {name: dict(kind.policy) for name, kind in columns.items()}
    path.write_text(json.dumps({"tables": {"t": {"columns": parts}}}))
    return path


def _file(lab: Lab, name: str, columns: Mapping[str, Kind], rows: int) -> Path:
    def make(path: Path) -> None:
        connection = apsw.Connection(str(path))
        declared = ", ".join(f"{c} {kind.declared}" for c, kind in columns.items())
        connection.execute(
            compose("CREATE TABLE t(id INTEGER PRIMARY KEY, {declared})", declared=declared)
        )
        values = ", ".join(kind.value for kind in columns.values())
        series = "WITH RECURSIVE s(n) AS (VALUES(1) UNION ALL SELECT n + 1 FROM s WHERE n < ?)"
        connection.execute(
            compose(
                "{series} INSERT INTO t SELECT n, {values} FROM s", series=series, values=values
            ),
            (rows,),
        )
        connection.close()

    return lab.made(lab.folder / f"rules-{name}-{rows}.db", make)
