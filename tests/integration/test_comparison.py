"""What docs/comparison.md says was measured of other tools, measured; and that the rest has its
source."""

from __future__ import annotations

import re
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from benchmarks.peers import url
from migration_job.embedded import EmbeddedPostgres
from tests.conftest import MakeSqlite
from tests.integration.running import BLOCKED, run

PAGE = Path(__file__).resolve().parents[2] / "docs" / "comparison.md"
OTHERS = slice(2, None)
"""The columns of other tools, behind a row's name and this project's."""

ONE_IN_THREE = (
    "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER NOT NULL);"
    "INSERT INTO t VALUES (1, 5), (2, 'many'), (3, 7)"
)


def rows_at(dsn: str) -> int:
    with psycopg.connect(dsn) as target:
        if target.execute("SELECT to_regclass('public.t')").fetchone() == (None,):
            return 0
        row = target.execute("SELECT count(*) FROM t").fetchone()
    assert row is not None
    return int(row[0])


def pgloader(source: Path, dsn: str, server: EmbeddedPostgres) -> int:
    del server
    if shutil.which("pgloader") is None:
        pytest.skip("pgloader is not installed (Debian: pgloader)")
    command = ["pgloader", f"sqlite://{source}", url(dsn)]
    return subprocess.run(command, cwd=source.parent, capture_output=True, check=False).returncode


def dumped(source: Path, dsn: str, server: EmbeddedPostgres) -> int:
    with sqlite3.connect(source) as connection:
        script = "\n".join(connection.iterdump())
    command = [str(server.program("psql")), "-qX", dsn]
    done = subprocess.run(command, input=script, capture_output=True, text=True, check=False)
    assert "invalid input syntax for type integer" in done.stderr
    return done.returncode


@pytest.mark.postgres
@pytest.mark.parametrize("tool", [pgloader, dumped])
def test_rows_are_lost_and_the_exit_status_is_zero(
    tool: Callable[[Path, str, EmbeddedPostgres], int],
    make_sqlite: MakeSqlite,
    postgres: str,
    postgres_server: EmbeddedPostgres,
) -> None:
    status = tool(make_sqlite(ONE_IN_THREE), postgres, postgres_server)
    assert rows_at(postgres) < 3
    assert status == 0


@pytest.mark.postgres
def test_this_project_loses_none_or_says_so(
    make_sqlite: MakeSqlite, postgres: str, tmp_path: Path
) -> None:
    source = make_sqlite(ONE_IN_THREE)
    done = run("migrate", str(source), "--target", postgres, "--report", str(tmp_path / "kept"))
    assert (done.status, rows_at(postgres)) == (0, 3)
    policy = tmp_path / "policy.yaml"
    policy.write_text("default: block\n")
    more = ["--policy", str(policy), "--report", str(tmp_path / "blocked")]
    assert run("inspect", str(source), *more[:2]).status == BLOCKED


def test_each_statement_about_another_tool_has_its_source() -> None:
    text = PAGE.read_text(encoding="utf-8")
    named = dict(re.findall(r"^\[([\w-]+)\]: (\S+)$", text, re.MULTILINE))
    assert all(address.startswith("https://") for address in named.values())
    table = [line for line in text.splitlines() if line.startswith("| ")]
    without = []
    for line in table[1:]:
        for cell in [c.strip() for c in line.strip("|").split("|")][OTHERS]:
            used = re.findall(r"\]\[([\w-]+)\]", cell)
            assert set(used) <= set(named)
            tested = "](../tests/integration/test_comparison.py)" in cell
            if not used and not tested and cell not in ("-", "not measured", "the application"):
                without.append(cell)
    assert len(table) > 8
    assert without == []
    assert set(re.findall(r"\]\[([\w-]+)\]", text)) == set(named)
