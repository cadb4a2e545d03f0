"""Running the job as an operator does - its command line - and judging the end independently."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import psycopg

from migration_job.cli import main
from migration_job.embedded import EmbeddedPostgres
from tests.integration import independent_compare

DONE, FAILED, USAGE, BLOCKED, DIFFERS = 0, 1, 2, 3, 4


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it printed."""

    status: int
    out: str
    err: str

    @property
    def said(self) -> str:
        return self.out + self.err


def run(*arguments: str | Path) -> Ended:
    """``migration-job ARGUMENTS`` in this process; the exit status is the command line's own."""
    out, err = io.StringIO(), io.StringIO()
    argv, sys.argv = sys.argv, ["migration-job", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    finally:
        sys.argv = argv
    return Ended(status, out.getvalue(), err.getvalue())


Script = str | Callable[[sqlite3.Connection], None]


@dataclass(frozen=True)
class Case:
    """A small hostile database, how its migration has to end, and what the target has to hold."""

    id: str
    source: Script
    """SQL, or a function that fills the database."""
    status: int = DONE
    says: tuple[str, ...] = ()
    """Patterns, each of which one finding (``code: message``) has to match."""
    silent: tuple[str, ...] = ()
    """Patterns that no finding may match."""
    types: Mapping[str, str] = field(default_factory=dict)
    """``table.column`` -> type on the target."""
    holds: Mapping[str, Sequence[tuple[Any, ...]]] = field(default_factory=dict)
    """Query on the target -> rows."""
    ledger: int | None = None
    quarantine: int | None = 0
    policy: str = ""
    profile: str = "none"
    options: tuple[str, ...] = ()
    encoding: str = "UTF-8"
    zone: str = "UTC"
    """Of times that name none, as the policy has it."""
    target_setup: str = ""
    """Statements on the target's server before the run."""

    def __str__(self) -> str:
        return self.id


def build(path: Path, source: Script, encoding: str = "UTF-8") -> None:
    connection = sqlite3.connect(path)
    try:
        connection.execute(f"PRAGMA encoding = '{encoding}'")
        if callable(source):
            source(connection)
            connection.commit()
        else:
            connection.executescript(source)
    finally:
        connection.close()


def dumped(server: EmbeddedPostgres, dsn: str, *options: str) -> str:
    """pg_dump's own idea of a database without the job's schema, rows included."""
    made = subprocess.run(
        [server.program("pg_dump"), "--exclude-schema=migration", *options, dsn],
        check=True,
        capture_output=True,
        text=True,
    )
    return "\n".join(line for line in made.stdout.splitlines() if "restrict" not in line)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check(case: Case, directory: Path, dsn: str) -> dict[str, Any]:
    """Inspect, migrate, and judge; returns the report. ``dsn`` names an empty database."""
    path = directory / "source.db"
    build(path, case.source, case.encoding)
    before = digest(path)
    options: list[str | Path] = ["--profile", case.profile]
    if case.policy:
        (directory / "policy.yaml").write_text(case.policy)
        options += ["--policy", directory / "policy.yaml"]
    if case.target_setup:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(case.target_setup.encode())
    looked = run("inspect", path, *options)
    assert looked.status == (BLOCKED if case.status == BLOCKED else DONE), looked.said
    ended = run(
        "migrate", path, "--target", dsn, "--report", directory / "report", *options, *case.options
    )
    assert ended.status == case.status, ended.said
    assert digest(path) == before, "the source file was changed"
    report: dict[str, Any] = json.loads((directory / "report" / "report.json").read_text())
    assert (directory / "report" / "report.html").stat().st_size > 1000
    _says(case, report, looked)
    if case.status == DONE:
        assert report["outcome"] == "verified"
        _holds(case, path, dsn, report)
    else:
        assert report["outcome"] == ("blocked" if case.status == BLOCKED else "failed")
        assert independent_compare.read_target(dsn) == {}, "a blocked run wrote to the target"
    return report


def _says(case: Case, report: Mapping[str, Any], looked: Ended) -> None:
    findings = [f"{f['severity']} {f['code']}: {f['message']}" for f in report["findings"]]
    for pattern in case.says:
        assert any(re.search(pattern, f) for f in findings), (pattern, findings)
    for pattern in case.silent:
        assert not any(re.search(pattern, f) for f in findings), (pattern, findings)
    for finding in report["findings"]:
        if finding["severity"] == "error":
            # `inspect` has shown it, with the line of YAML that would resolve it.
            assert finding["code"] in looked.said
    if case.status == BLOCKED:
        assert any(f["severity"] == "error" for f in report["findings"])


def _holds(case: Case, path: Path, dsn: str, report: Mapping[str, Any]) -> None:
    source = independent_compare.read_source(path)
    target = independent_compare.read_target(dsn)
    records = independent_compare.read_records(dsn)
    assert independent_compare.compare(source, target, records, ZoneInfo(case.zone)) == []
    for place, wanted in case.types.items():
        owner, _, column = place.rpartition(".")
        assert target[owner].types[column] == wanted, place
    ledger = sum(len(row) for rows in records.ledger.values() for row in rows.values())
    quarantine = sum(len(rows) for rows in records.quarantine.values())
    if case.ledger is not None:
        assert ledger == case.ledger, records.ledger
    if case.quarantine is not None:
        assert quarantine == case.quarantine, records.quarantine
    assert len(report["ledger"]) == ledger
    assert len(report["quarantine"]) == quarantine
    for name, table in source.items():
        said = report["tables"][name]
        assert said["source_rows"] == len(table.rows)
        assert said["target_rows"] == len(target[records.tables[name]].rows)
        assert said["quarantined_rows"] == len(records.quarantine.get(name, {}))
        assert not said["differences"]
    with psycopg.connect(dsn, autocommit=True) as connection:
        for query, rows in case.holds.items():
            assert connection.execute(query.encode()).fetchall() == list(rows), query
