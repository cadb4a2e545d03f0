"""Decimal numbers that the application keeps in text become numeric where the policy says so, and
come back as the application spells them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.running import DONE
from tests.integration.wholeway import Way

pytestmark = pytest.mark.postgres

SCRIPT = """
CREATE TABLE m (id INTEGER PRIMARY KEY, a TEXT, b TEXT, c NUMERIC, d DECIMAL(10,2), e VARCHAR(20));
INSERT INTO m VALUES (1, '12345678901234567.89', '1,50', '1,50', '7,25', '0.10'),
  (2, '0.10', '2,00', 2, 3.5, '-1.00'), (3, '-5', NULL, NULL, NULL, '+3'),
  (4, '.5', '0,00', 1, 1, '12');
"""
POLICY = r"""
tables:
  m:
    columns:
      a: {type: numeric}
      b: {type: "numeric(10,2)", pattern: [{match: '(\d+),(\d+)', replace: '\1.\2'}]}
      c: {pattern: [{match: '(\d+),(\d+)', replace: '\1.\2'}]}
      d: {pattern: [{match: '(\d+),(\d+)', replace: '\1.\2'}]}
      e: {type: "numeric(5,2)"}
"""


def test_there_and_back(tmp_path: Path, postgres: str) -> None:
    way = Way.of(tmp_path, postgres, SCRIPT)
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    ended = way.migrate("--policy", policy)
    assert ended.status == DONE, ended.said
    types = way.on_postgres(
        "SELECT string_agg(format_type(atttypid, atttypmod), ' ' ORDER BY attnum) "
        "FROM pg_attribute WHERE attrelid = 'm'::regclass AND attnum > 1"
    )
    assert types == [("numeric numeric(10,2) numeric numeric(10,2) numeric(5,2)",)]
    way.on_sqlite("INSERT INTO m VALUES (5, '7.10', '10,25', '9,75', 4.25, '9.99')")
    assert way.command("sync", "--once").status == DONE
    assert way.on_postgres(
        "SELECT sum(a)::text, sum(b)::text, sum(c)::text, sum(d)::text, sum(e)::text FROM m"
    ) == [("12345678901234570.59", "13.75", "14.25", "16.00", "24.09")]
    ended = way.command("switch")
    assert ended.status == DONE, ended.said
    way.on_postgres(
        "INSERT INTO m VALUES (6, 1.10, 1.1, 0.5, 1.5, 1.5); "
        "UPDATE m SET a = a + 1, b = b * 2, e = e WHERE id = 1; UPDATE m SET c = 3.5 WHERE id = 5"
    )
    way.back()
    assert way.on_sqlite("SELECT * FROM m ORDER BY id") == [
        (1, "12345678901234568.89", "3,00", "1,50", "7,25", "0.10"),
        (2, "0.10", "2,00", 2, 3.5, "-1.00"),
        (3, "-5", None, None, None, "+3"),
        (4, ".5", "0,00", 1, 1, "12"),
        (5, "7.10", "10,25", 3.5, 4.25, "9.99"),
        (6, "1.10", "1,10", 0.5, 1.5, "1.50"),
    ]
    way.on_sqlite("UPDATE m SET a = a")
    assert way.command("sync", "--once").status == DONE


NEXT_TO = 995585.0651219999
"""What SQLite before 3.42 made of the text 995585.065122, and shows as that."""
REALS = f"""
CREATE TABLE o (id INTEGER PRIMARY KEY, amount decimal NOT NULL, sized DECIMAL(12,6),
    n NUMERIC UNIQUE, sum REAL);
INSERT INTO o VALUES (1, {NEXT_TO!r}, {NEXT_TO!r}, {NEXT_TO!r}, {NEXT_TO!r}),
  (2, 995585.065122, 995585.065122, 1, 0.5), (3, 7, 7, 7, 7), (4, -0.25, -0.25, -0.25, -0.25);
"""


def test_a_real_next_to_its_fifteen_digits(tmp_path: Path, postgres: str) -> None:
    way = Way.of(tmp_path, postgres, REALS)
    before = way.on_sqlite("SELECT * FROM o ORDER BY id")
    assert before[0][1] == NEXT_TO != 995585.065122
    ended = way.migrate()
    assert ended.status == DONE, ended.said
    way.on_sqlite(f"INSERT INTO o VALUES (5, {NEXT_TO!r}, 1, 8, 8)")
    ended = way.command("switch")
    assert ended.status == DONE, ended.said
    assert way.on_postgres("SELECT amount::text, sized::text, n::text FROM o ORDER BY id") == [
        ("995585.065122", "995585.065122", "995585.0651219999"),
        ("995585.065122", "995585.065122", "1"),
        ("7", "7.000000", "7"),
        ("-0.25", "-0.250000", "-0.25"),
        ("995585.065122", "1.000000", "8"),
    ]
    way.on_postgres("UPDATE o SET amount = 12.34 WHERE id = 5; UPDATE o SET sum = 1 WHERE id = 1")
    way.back()
    after = way.on_sqlite("SELECT * FROM o ORDER BY id")
    assert after[0] == (*before[0][:4], 1.0)
    assert after[1:4] == before[1:4]
    assert after[4][1] == 12.34
