"""Cases that `inspect --suggest` has to resolve in one go, or to say that nothing does."""

from __future__ import annotations

import runpy
import sqlite3
import sys
from pathlib import Path

import pytest

from tests.integration.running import BLOCKED, DONE, run

CASES = Path(__file__).resolve().parents[3] / "shared" / "cases"

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.skipif(not CASES.is_dir(), reason=f"no cases beside this checkout ({CASES})"),
]


@pytest.mark.slow
def test_more_rows_than_quarantine_takes(tmp_path: Path, postgres: str) -> None:
    source, policy = tmp_path / "source.db", tmp_path / "policy.yaml"
    with sqlite3.connect(source) as connection:
        connection.executescript((CASES / "N3-many.sql").read_text())
    connection.close()
    looked = run("inspect", source, "--suggest", policy)
    assert looked.status == BLOCKED, looked.said
    assert "was tried, and the plan goes through" in looked.out, looked.said
    target = ("--target", postgres, "--report", tmp_path / "report")
    ended = run("migrate", source, *target, "--policy", policy)
    assert ended.status == DONE, policy.read_text() + ended.said


def test_a_table_that_postgresql_cannot_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, policy = tmp_path / "source.db", tmp_path / "policy.yaml"
    monkeypatch.setattr(sys, "argv", ["N5-wide.py", str(source)])
    runpy.run_path(str(CASES / "N5-wide.py"), run_name="__main__")
    looked = run("inspect", source, "--suggest", policy)
    assert looked.status == BLOCKED, looked.said
    assert "No policy resolves what stops this migration: x too-many-columns." in looked.out
    assert "no policy resolves this" in policy.read_text()
