"""Plans of small databases, for the tests of the planner."""

from __future__ import annotations

from pathlib import Path

import apsw

from migration_job.plan.model import ColumnPlan, Finding, Plan
from migration_job.plan.planner import make_plan
from migration_job.plan.policy import parse_policy
from migration_job.plan.profile import load_profile
from migration_job.stores.sqlite.catalogue import read_catalogue
from migration_job.stores.sqlite.database import reading


def database(path: Path, *statements: str | tuple[str, tuple[object, ...]]) -> Path:
    """A SQLite file made by the statements, each with its parameters where it has any."""
    connection = apsw.Connection(str(path))
    for statement in statements:
        sql, parameters = statement if isinstance(statement, tuple) else (statement, ())
        connection.execute(sql, parameters).fetchall()
    connection.close()
    return path


def plan_of(path: Path, policy: str = "", profile: str = "none") -> Plan:
    with reading(path) as connection:
        return make_plan(
            connection,
            read_catalogue(connection),
            profile=load_profile(profile),
            policy=parse_policy(policy),
        )


def column_of(plan: Plan, table: str, column: str) -> ColumnPlan:
    return next(c for c in plan.table(table).columns if c.source == column)


def findings_of(plan: Plan, code: str) -> list[Finding]:
    return [f for f in plan.findings if f.code == code]
