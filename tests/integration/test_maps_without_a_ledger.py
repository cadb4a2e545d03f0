"""A map that goes forth and back writes no ledger row: views and the application's queries are
compared by what the plan says of it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import psycopg
import pytest

from migration_job.demo.radcase import make_radcase
from tests.integration.running import DIFFERS, DONE, run

pytestmark = pytest.mark.postgres

SOURCE = """
CREATE TABLE t(id INTEGER PRIMARY KEY, state TEXT, paid TEXT, at TEXT);
INSERT INTO t VALUES (1, 'on', 'yes', 'epoch'), (2, 'off', 'no', '2024-05-06 07:08:09'),
    (3, 'on', 'no', '2024-05-06 07:08:10');
CREATE VIEW states AS SELECT state, paid, at FROM t;
"""
POLICY = """
tables:
  t:
    columns:
      state: {map: {'on': 'running'}}
      paid: {map: {'yes': 1, 'no': 0}, type: boolean}
      at: {map: {'epoch': '1970-01-01 00:00:00'}, type: timestamptz}
"""


def made(path: Path, script: str) -> Path:
    with sqlite3.connect(path) as connection:
        connection.executescript(script)
    connection.close()
    return path


def test_views_and_queries_over_radcases_own_user(tmp_path: Path, postgres: str) -> None:
    source = tmp_path / "radcase.db"
    make_radcase(source, rows=1000, seed=7)
    made(source, "CREATE VIEW user_list AS SELECT id, username FROM users")
    checks = tmp_path / "checks"
    checks.mkdir()
    (checks / "own.sql").write_text("SELECT id, username FROM users WHERE username = 'system'")
    ended = run(
        *("migrate", source, "--target", postgres, "--profile", "radcase"),
        *("--checks", checks, "--report", tmp_path / "report"),
    )
    assert ended.status == DONE, ended.said
    with psycopg.connect(postgres) as target:
        ledger = "SELECT count(*) FROM migration.ledger WHERE before LIKE '%system%'"
        assert target.execute(ledger).fetchone() == (0,)
        own = "SELECT count(*) FROM user_list WHERE id = '00000000-0000-4000-8000-000000000001'"
        assert target.execute(own).fetchone() == (1,)


def test_maps_into_other_types(tmp_path: Path, postgres: str) -> None:
    source = made(tmp_path / "source.db", SOURCE)
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    checks = tmp_path / "checks"
    checks.mkdir()
    (checks / "all.sql").write_text("SELECT id, state, paid, at FROM t ORDER BY id")
    words = ("--target", postgres, "--policy", policy, "--checks", checks)
    ended = run("migrate", source, *words, "--report", tmp_path / "report")
    assert ended.status == DONE, ended.said
    with psycopg.connect(postgres) as target:
        rows = target.execute("SELECT state, paid FROM t ORDER BY id").fetchall()
        assert rows == [("running", True), ("off", False), ("running", False)]
        target.execute("CREATE OR REPLACE VIEW states AS SELECT 'x' AS state, paid, at FROM t")
    ended = run("verify", source, *words[:2], "--report", tmp_path / "again")
    assert ended.status == DIFFERS
    assert "states" in ended.said
