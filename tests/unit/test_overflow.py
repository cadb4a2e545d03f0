"""Arithmetic that PostgreSQL refuses is found among the rows before the load, and foretold."""

from __future__ import annotations

from pathlib import Path

import pytest

from migration_job.plan.model import Plan
from tests.unit.planning import database, findings_of, plan_of

MOST = 9223372036854775807

NOT_CARRIED = [
    "index-not-carried",
    "check-not-carried",
    "generated-as-plain",
    "view-not-carried",
]


def planned(place: Path, *statements: str, value: int = MOST, checks: str = "") -> Plan:
    return plan_of(
        database(
            place / "a.db",
            f"CREATE TABLE t(id INTEGER PRIMARY KEY, c BIGINT, s INTEGER{checks})",
            f"INSERT INTO t VALUES (1, {value}, 5), (2, 1, 6)",
            *statements,
        )
    )


@pytest.mark.parametrize(
    ("statement", "checks", "code"),
    [
        ("CREATE INDEX i ON t(c + 1)", "", "index-not-carried"),
        ("CREATE INDEX i ON t(s) WHERE c * 2 > s", "", "index-not-carried"),
        ("", ", CHECK (c + s > 0)", "check-not-carried"),
        ("", ", g AS (c - -1)", "generated-as-plain"),
        ("", ", g AS (c + 1 > 5) STORED", "generated-as-plain"),
        ("CREATE VIEW v AS SELECT coalesce(c, 0) + s AS x FROM t", "", "view-not-carried"),
        ("CREATE VIEW v AS SELECT x * 2 AS y FROM (SELECT c AS x FROM t)", "", "view-not-carried"),
        ("CREATE VIEW v AS SELECT a.s FROM t a JOIN t b ON a.c + 1 = b.s", "", "view-not-carried"),
    ],
)
def test_what_a_row_forbids_is_not_carried(
    statement: str, checks: str, code: str, tmp_path: Path
) -> None:
    plan = planned(tmp_path, *filter(None, [statement]), checks=checks)
    found = [f for f in plan.findings if f.code in NOT_CARRIED]
    assert [f.code for f in found] == [code]
    assert "beyond 64 bits" in found[0].message


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE INDEX i ON t(s + 1)",
        "CREATE INDEX i ON t(abs(s) * 2)",
        "CREATE INDEX i ON t(-c)",
        "CREATE INDEX i ON t(c % 10 + length(s))",
        "CREATE VIEW v AS SELECT c + 1 AS x FROM t WHERE c < 100",
        "CREATE VIEW v AS SELECT sum(s) * 100 / count(*) AS x FROM t",
    ],
)
def test_what_fits_is_carried_without_a_word(statement: str, tmp_path: Path) -> None:
    plan = planned(tmp_path, statement)
    assert not [f for f in plan.findings if f.code in (*NOT_CARRIED, "integer-overflow-later")]
    assert len(plan.table("t").indexes) + len(plan.views) == 1


def test_later_values_are_foretold(tmp_path: Path) -> None:
    plan = planned(tmp_path, "CREATE INDEX i ON t(c + 1)", value=7)
    assert len(plan.table("t").indexes) == 1
    (told,) = findings_of(plan, "integer-overflow-later")
    assert (told.severity, told.table) == ("note", "t")
    assert "index i computes c + 1 in 64 bits" in told.message


@pytest.mark.parametrize(("value", "carried"), [(2**53 + 1, 0), (2**53, 1)])
def test_a_comparison_with_a_real_is_exact(value: int, carried: int, tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, c BIGINT, r REAL, CHECK (c >= r))",
        f"INSERT INTO t VALUES (1, {value}, 9007199254740992.0), (2, 5, NULL)",
    )
    plan = plan_of(path)
    assert len([c for c in plan.table("t").checks if ">=" in c.expression]) == carried
    assert len(findings_of(plan, "check-not-carried")) == 1 - carried


def test_a_computed_integer_is_bigint(tmp_path: Path) -> None:
    plan = planned(tmp_path, value=7, checks=", g AS (s * 2), h INT AS (s + s) STORED")
    types = {c.target: c.type for c in plan.table("t").columns}
    assert (types["s"], types["g"], types["h"]) == ("integer", "bigint", "bigint")


def test_reals_beyond_a_double_are_not_carried(tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, r REAL)",
        "INSERT INTO t VALUES (1, 1.7e308), (2, 1e-200)",
        "CREATE INDEX large ON t(r * 2)",
        "CREATE INDEX small ON t(r / 1e200)",
        "CREATE INDEX fits ON t(r / 2)",
        "CREATE INDEX whole ON t(CAST(r AS INTEGER))",
    )
    plan = plan_of(path)
    assert {i.name for i in plan.table("t").indexes} == {"fits", "whole"}
    assert len(findings_of(plan, "index-not-carried")) == 2
