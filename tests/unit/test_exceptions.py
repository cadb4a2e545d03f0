"""What a verified run did not carry as the schema says it stands beside "verified"."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from migration_job.plan.planner import make_plan
from migration_job.plural import counted
from migration_job.report.exceptions import exceptions, with_exceptions
from migration_job.report.html import render_html
from migration_job.stores.sqlite.catalogue import read_catalogue
from migration_job.stores.sqlite.database import reading


def planned(tmp_path: Path, script: str) -> list[str]:
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        connection.executescript(script)
    with reading(tmp_path / "a.db") as source:
        return exceptions(make_plan(source, read_catalogue(source)), set_aside=0)


def test_one_value_that_retypes_a_column_and_loses_its_check_is_told(tmp_path: Path) -> None:
    found = planned(
        tmp_path,
        "CREATE TABLE stock (id INTEGER PRIMARY KEY, quantity INTEGER CHECK (quantity <> 0));"
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)"
        "INSERT INTO stock SELECT i, CASE i WHEN 250 THEN 'many' ELSE i END FROM n;",
    )
    assert found[0] == "1 column changed type (stock.quantity)"
    assert found[1:] == ["1 CHECK lost"]


def test_a_source_that_fits_its_schema_has_none(tmp_path: Path) -> None:
    assert planned(tmp_path, "CREATE TABLE a (b INTEGER); INSERT INTO a VALUES (1)") == []


def test_rows_set_aside_are_one() -> None:
    assert with_exceptions([]) == ""
    assert with_exceptions(["1 CHECK lost"]) == ", with exceptions: 1 CHECK lost"


@pytest.mark.parametrize(
    ("number", "thing", "said"),
    [(1, "row", "1 row"), (0, "row", "0 rows"), (2_000, "query", "2,000 queries")],
)
def test_numbers_agree(number: int, thing: str, said: str) -> None:
    assert counted(number, thing) == said


def test_the_report_is_amber_and_says_so_in_its_first_line() -> None:
    page = render_html({"outcome": "verified", "exceptions": ["2 columns changed type (a.b, c.d)"]})
    assert "Verified, with exceptions" in page
    assert page.index("With exceptions: 2 columns") < page.index("were copied to PostgreSQL")
    plain = render_html({"outcome": "verified"})
    assert "with exceptions" not in plain.lower()


def test_the_time_in_all_is_the_clocks_and_what_ran_beside_adds_nothing() -> None:
    page = render_html(
        {
            "outcome": "verified",
            "began_at": "2026-01-01T10:00:00.000+00:00",
            "ended_at": "2026-01-01T10:00:20.000+00:00",
            "seconds": {"copy": 7.0, "verify": 3.0},
            "beside_seconds": {"integrity check": 12.0},
        }
    )
    assert "20.0 s in all" in page
    assert "start, backup and report" in page
    assert "beside the others" in page
