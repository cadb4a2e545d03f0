"""Whether the application will find on the target what it found before: its queries, and their
speed. Either that fails stops the switch, since no certificate is issued.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import apsw
import psycopg

from migration_job.errors import InputError, VerificationError
from migration_job.plural import counted
from migration_job.progress import Reporter
from migration_job.report.model import Report
from migration_job.verify import performance
from migration_job.verify.checks import Check, CheckResult, load_checks, run_checks

SHOWN = 3
"""Failures named in the last words; all are in the report."""

PROFILES = Path(__file__).resolve().parent.parent / "profiles"


@dataclass(frozen=True, slots=True)
class Demands:
    """What the application's queries have to stand."""

    checks: tuple[Check, ...] = ()
    given: bool = False
    """Whether the operator named the queries. A profile's own are left out where the source itself
    refuses them: they ask for a table that this application's version does not have."""
    budget: performance.Budget | None = None
    """None: speed is not measured."""
    through: str | None = None
    """The pooler's connection string; None for the target's own."""


def demands(checks: Path | None, profile: str, budget: str | None, through: str | None) -> Demands:
    """What the options ask for: the queries of a directory, else those of the profile; a budget
    where speed is to be measured. Raises InputError."""
    own = PROFILES / profile / "checks"
    if checks is not None:
        queries = load_checks(checks)
    elif own.is_dir():
        queries = load_checks(own)
    else:
        queries = ()
    if budget is None and through is not None:
        raise InputError(
            "expected a performance budget with the pooler's connection string, found none",
            advice="give --performance-budget as well, '' for the defaults",
        )
    if budget is not None and not queries:
        raise InputError(
            "expected queries to measure, found none",
            advice="give --checks with a directory of the application's queries",
        )
    return Demands(
        checks=queries,
        given=checks is not None,
        budget=None if budget is None else performance.parse_budget(budget),
        through=through,
    )


@dataclass(frozen=True, slots=True)
class Proving:
    """Both sides as the application's queries find them."""

    source: apsw.Connection
    target: psycopg.Connection[Any]
    dsn: str
    """The target's connection string."""
    mapped: Container[tuple[object, object]]
    """Pairs of values, before and after, that the plan's maps make of one another."""


def prove(wanted: Demands, sides: Proving, report: Report, reporter: Reporter) -> dict[str, str]:
    """Run the queries on both sides, measure them where a budget is given, and put what was found
    into the report. Returns the certificate's words for each. Raises VerificationError."""
    words: dict[str, str] = {}
    if wanted.checks:
        with reporter.phase("application checks", total=len(wanted.checks), unit="query"):
            words |= _replay(wanted, sides.source, sides.target, sides.mapped, report, reporter)
    if wanted.budget is not None:
        with reporter.phase("performance"):
            words["performance"] = _measure(
                wanted, wanted.budget, sides.source, wanted.through or sides.dsn, report, reporter
            )
    return words


def _replay(
    wanted: Demands,
    source: apsw.Connection,
    target: psycopg.Connection[Any],
    mapped: Container[tuple[object, object]],
    report: Report,
    reporter: Reporter,
) -> dict[str, str]:
    results = run_checks(
        wanted.checks, source, target, mapped=mapped, progress=lambda _result: reporter.advance(1)
    )
    left_out = [r for r in results if r.source_refused and not wanted.given]
    counted = [r for r in results if r not in left_out]
    report.checks = [asdict(r) for r in counted]
    for result in left_out:
        reporter.say(f"query {result.name} does not fit this source and is left out")
    failed = [r for r in counted if not r.passed]
    if failed:
        first = "; ".join(f"query {r.name}: {r.differences[0]}" for r in failed[:SHOWN])
        raise VerificationError(
            f"{len(failed)} of {len(counted)} of the application's queries answer otherwise on "
            f"the target: {first}",
            advice="nothing was switched. Where the policy widened a column that the query reads, "
            "map its values or set the rows aside instead; where the dialects differ, give the "
            "query as a pair NAME.sqlite.sql and NAME.postgresql.sql, and change the application "
            "alike; the report lists all",
        )
    return {r.name: _word(r) for r in counted} | {
        r.name: "left out: the source refuses the query" for r in left_out
    }


def _word(result: CheckResult) -> str:
    return f"the same {result.source_rows:,} row{'' if result.source_rows == 1 else 's'}"


def _measure(
    wanted: Demands,
    budget: performance.Budget,
    source: apsw.Connection,
    dsn: str,
    report: Report,
    reporter: Reporter,
) -> str:
    names = {entry["name"] for entry in report.checks}
    try:
        found = performance.measure(
            [check for check in wanted.checks if check.name in names],
            source,
            dsn,
            budget,
            through_pooler=wanted.through is not None,
            progress=reporter.say,
        )
    except psycopg.Error as error:
        raise InputError(
            f"cannot measure through the pooler: {performance.reason(error)}",
            advice="check that PgBouncer runs and admits this database, user and password",
        ) from None
    report.performance = found.as_json()
    for text in found.not_measured:
        reporter.say(f"not measured: {text}")
    if not found.passed:
        raise VerificationError(
            f"{counted(len(found.failures), 'finding')} beyond the performance budget: "
            + "; ".join(found.failures[:SHOWN]),
            advice="nothing was switched. Look at the query's plan on the target, at its tuning, "
            "or widen the stage's budget; the report lists all",
        )
    return found.word()
