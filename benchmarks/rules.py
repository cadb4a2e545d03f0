"""What a rule costs for each row: a column under ``booleans``, ``map``, ``pattern`` or ``epoch``
against the same values carried as they are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw

from benchmarks.lab import Lab
from benchmarks.project import Migrated, migrate
from benchmarks.results import Goal, Row, Sample, Section, ratio
from migration_job.quoting import compose

MOST = Goal(sense="at most", bound=1.5)


@dataclass(frozen=True, slots=True)
class Kind:
    """A column: what it is declared as, its value as SQLite's expression of a row's number ``n``,
    and the policy that gives it the rule."""

    declared: str
    value: str
    policy: Mapping[str, Any]
    plain: tuple[str, str] | None = None
    """Declared type and value of a column that becomes the same type without a rule; None: the
    values themselves, as they are."""


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
    "epoch: s": Kind(
        "INTEGER",
        "1700000000 + n",
        {"epoch": "s", "type": "timestamptz(0)"},
        ("DATETIME", "datetime(1700000000 + n, 'unixepoch')"),
    ),
    "epoch: ms": Kind(
        "INTEGER",
        "1700000000123 + n",
        {"epoch": "ms", "type": "timestamptz(3)"},
        (
            "DATETIME",
            "strftime('%Y-%m-%d %H:%M:%S', 1700000000 + n / 1000, 'unixepoch') "
            "|| printf('.%03d', n % 1000)",
        ),
    ),
}


def measure(lab: Lab) -> Section:
    """``migrate`` of each column with its rule and without, in turns; then with all the rules at
    once."""
    found = [row for name, kind in KINDS.items() for row in _cost(lab, name, kind)]
    found.append(_memory(lab))
    return Section(
        key="rules",
        title="Columns under a rule",
        rows=tuple(found),
        text=f"{lab.rows:,} rows of a key and one column, the whole of `migrate`, verified. A "
        "plain column has the same values and no policy; for numbers that become times, the same "
        "times in text. Memory is the job's largest resident set, of a table with a column of each "
        "rule.",
    )


def _cost(lab: Lab, name: str, kind: Kind) -> list[Row]:
    title = name.replace(": ", "-")
    source = _file(lab, title, {"c": kind}, lab.rows)
    policy = _policy(lab, {"c": kind})
    plain = source
    if kind.plain is not None:
        plain = _file(lab, f"{title}-text", {"c": Kind(*kind.plain, policy={})}, lab.rows)
    runs: dict[str, list[Migrated]] = {"rule": [], "plain": [], "numbers": []}
    for _ in range(lab.runs):
        runs["plain"].append(migrate(plain, lab.database()))
        runs["rule"].append(migrate(source, lab.database(), policy=policy))
        if plain != source:
            runs["numbers"].append(migrate(source, lab.database()))
    what, mine = f"a column under `{name}`", _micros("with the rule", runs["rule"])
    rows = [ratio(what, "a plain column", mine, _micros("plain", runs["plain"]), MOST)]
    if runs["numbers"]:
        numbers = _micros("numbers", runs["numbers"])
        rows.append(ratio(what, "the numbers as they are", mine, numbers, None))
    return rows


def _micros(label: str, runs: list[Migrated]) -> Sample:
    values = tuple(m.timing.seconds / m.rows * 1e6 for m in runs)
    return Sample(label=label, values=values, unit="µs a row")


def _memory(lab: Lab) -> Row:
    columns = {f"c{number}": kind for number, kind in enumerate(KINDS.values())}
    policy = _policy(lab, columns)
    source = _file(lab, "all", columns, lab.rows)
    peaks: dict[str, list[float]] = {"with the rules": [], "without": []}
    for _ in range(lab.runs):
        for label, chosen in (("with the rules", policy), ("without", None)):
            peaks[label].append(migrate(source, lab.database(), policy=chosen).timing.peak)
    ruled, plain = (Sample(label=n, values=tuple(v), unit="MiB") for n, v in peaks.items())
    return ratio(
        "peak memory with every rule",
        "the same file without a policy",
        ruled,
        plain,
        Goal(sense="at most", bound=1.2),
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
