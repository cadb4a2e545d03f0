"""Texts that a generated column compares with constants: PostgreSQL computes what is constant in it
before it knows a collation, and refuses it, where CHECKs and queries may say the same."""

from __future__ import annotations

import json
from pathlib import Path

import apsw
import psycopg
import pytest

from tests.integration.running import DONE, run

pytestmark = pytest.mark.postgres

GENERATED = [
    '"t" = 1',
    "\"t\" = 'ABC'",
    "\"t\" > 'aBc'",
    "\"t\" IS NOT 'aBc'",
    "\"t\" IN ('ABC', 'x')",
    "\"t\" BETWEEN 'A' AND 'b'",
    "\"t\" LIKE 'A%'",
    "'Abc' LIKE \"t\"",
    "CASE \"t\" WHEN 'ABC' THEN 1 ELSE 0 END",
    "\"t\" || upper('x')",
]
PLAIN = [
    "\"t\" || lower('X' || 'Y')",
    "CASE 'a' WHEN 'a' THEN \"t\" END",
    "iif('a' < 'b', \"t\", 0)",
    "iif('a' LIKE 'b', \"t\", 0)",
    "coalesce(nullif('a', 'b'), \"t\")",
    "\"t\" || max('a', 'b')",
]


@pytest.mark.parametrize("collation", ["BINARY", "NOCASE"])
def test_each_is_carried(tmp_path: Path, postgres: str, collation: str) -> None:
    source = tmp_path / "app.db"
    with apsw.Connection(str(source)) as connection:
        columns = "".join(
            f", g{n} AS ({expression})" for n, expression in enumerate(GENERATED + PLAIN)
        )
        connection.execute(f"CREATE TABLE x(t VARCHAR(9) COLLATE {collation}{columns})")
        connection.execute("INSERT INTO x(t) VALUES ('ABC'), ('abc'), ('1'), ('z'), (NULL)")
        expected = connection.execute("SELECT * FROM x").fetchall()
    ended = run("migrate", source, "--target", postgres, "--report", tmp_path / "report")
    assert ended.status == DONE, ended.said
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    plain = {f["column"] for f in report["findings"] if f["code"] == "generated-as-plain"}
    assert not plain & {"g0", "g1", "g3", "g4", "g6", "g7"}, plain
    with psycopg.connect(postgres) as target:
        found = target.execute("SELECT * FROM x").fetchall()
    told = sorted(
        str(
            [None if v is None else str(int(v) if isinstance(v, bool) else v) for v in row][
                : len(GENERATED) + 1
            ]
        )
        for row in found
    )
    assert told == sorted(
        str([None if v is None else str(v) for v in row][: len(GENERATED) + 1]) for row in expected
    )
