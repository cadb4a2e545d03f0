"""How far a migration is, as its operator reads it: each long phase says how much of how much."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest

from migration_job import progress
from migration_job.embedded import EmbeddedPostgres
from tests.integration.running import DONE, run

pytestmark = pytest.mark.postgres

ROWS = 3_000
TOLD = re.compile(r"(\w+): ([\d,]+) of (?:about )?([\d,]+) (rows|MiB)", re.MULTILINE)


def test_each_long_phase_says_how_much_of_how_much(
    tmp_path: Path, postgres_server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source.db"
    connection = sqlite3.connect(source)
    connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, word TEXT)")
    words = ((n, f"word {n}" + "x" * 1_000) for n in range(1, ROWS + 1))
    connection.executemany("INSERT INTO t VALUES (?, ?)", words)
    connection.commit()
    connection.close()
    monkeypatch.setattr(progress, "PLAIN_INTERVAL", 0.0)
    dsn = postgres_server.create_database()
    ended = run("migrate", source, "--target", dsn, "--report", tmp_path / "report")
    assert ended.status == DONE, ended.said
    found: dict[str, list[tuple[str, str, str]]] = {}
    for phase, done, total, unit in TOLD.findall(ended.said):
        found.setdefault(phase, []).append((done, total, unit))
    assert list(found) == ["snapshot", "plan", "copy", "verify"], ended.said
    done, total, unit = found["snapshot"][-1]
    assert (done, unit) == (total, "MiB")
    for phase in ("plan", "copy", "verify"):
        assert found[phase][-1] == ("3,000", "3,000", "rows"), found[phase]
    # By blocks, since one table may be nearly all that there is.
    assert found["verify"][0] == ("1,000", "3,000", "rows"), found["verify"]
