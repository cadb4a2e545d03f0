"""Small inputs that users could bring go there, are written to on both sides, and come home.

They lie beside this checkout, and not in it: without them there is nothing to try.
"""

from __future__ import annotations

import re
import runpy
import sqlite3
import sys
from pathlib import Path

import apsw
import psycopg
import pytest

from tests.integration import independent_compare
from tests.integration.backway import compare_back
from tests.integration.running import BLOCKED, DONE, USAGE, run
from tests.integration.wholeway import Way

CASES = Path(__file__).resolve().parents[3] / "shared" / "cases"
"""``NAME.sql`` or ``NAME.py FILE`` makes the source, ``NAME.live.sql`` and ``NAME.pg.sql`` are
written to either side, ``NAME.policy.yaml`` is the policy."""

TOO_LARGE = ("N3-many", "N5-wide")
MADE_BY_SQLITE = ("a-typeorm-synchronize-loss",)
"""Their script makes a table that SQLite keeps for itself."""

ONLY_BY_THE_POLICY = ("05-jsonb", "13-rails", "32-decimal-text", "42-yn-min")
"""What a value means there only the plan's rules know, which the third comparison does not share;
each has a test of its own kind."""

NAMES = sorted(
    path.stem
    for path in (CASES.iterdir() if CASES.is_dir() else ())
    if path.suffix in (".sql", ".py") and "." not in path.stem
)

pytestmark = [pytest.mark.postgres, pytest.mark.slow]


def _make(name: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = CASES / f"{name}.sql"
    if script.exists():
        with sqlite3.connect(file) as connection:
            connection.executescript(script.read_text())
        connection.close()
        return
    monkeypatch.setattr(sys, "argv", [f"{name}.py", str(file)])
    runpy.run_path(str(CASES / f"{name}.py"), run_name="__main__")


def _there(way: Way, name: str) -> list[str]:
    """To PostgreSQL, by the policy that is given or suggested; the tables whose changes do not come
    back, as the switch says."""
    given = CASES / f"{name}.policy.yaml"
    options: list[str | Path] = ["--policy", given] if given.exists() else []
    ended = way.migrate(*options)
    policy = way.folder / "policy.yaml"
    if ended.status == BLOCKED and not options:
        run("inspect", way.source, "--suggest", policy)
        ended = way.migrate("--policy", policy)
    elif ended.status == USAGE and "virtual table" in ended.err:
        # Nothing follows the changes of a virtual table of its own rows: it stays behind by name.
        with sqlite3.connect(way.source) as connection:
            tables = [n for (n,) in connection.execute("SELECT name FROM sqlite_schema")]
        connection.close()
        names = ", ".join(f'"virtual-table-rows-left-behind:{n}"' for n in tables)
        policy.write_text(f"acknowledge: [{names}]")
        ended = way.migrate("--policy", policy)
    assert ended.status == DONE, ended.said
    live = CASES / f"{name}.live.sql"
    if live.exists():
        way.on_sqlite(live.read_text())
    ended = way.command("sync", "--once")
    assert ended.status == DONE, ended.said
    ended = way.command("switch")
    one_way = re.findall(r"--one-way (\S+)", ended.err) if ended.status == USAGE else []
    if one_way:
        ended = way.command("switch", *(f"--one-way={table}" for table in one_way))
    assert ended.status == DONE, ended.said
    return one_way


@pytest.mark.skipif(not NAMES, reason=f"no cases beside this checkout ({CASES})")
@pytest.mark.parametrize("name", NAMES)
def test_there_and_back(
    name: str, tmp_path: Path, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name in TOO_LARGE:
        pytest.skip("too large for every run")
    if name in MADE_BY_SQLITE:
        pytest.skip("its script takes a name that SQLite keeps for itself")
    way = Way.of(tmp_path, postgres, "SELECT 1")
    way.source.unlink()
    _make(name, way.source, monkeypatch)
    apsw.Connection(str(way.source)).execute("PRAGMA journal_mode = wal").fetchall()
    one_way = _there(way, name)
    written = CASES / f"{name}.pg.sql"
    for statement in written.read_text().split(";\n") if written.exists() else ():
        try:
            way.on_postgres(statement)
        except psycopg.errors.IntegrityError:
            continue  # an ON CONFLICT clause of SQLite's alone, which a finding has named
    before = independent_compare.read_target(postgres)
    way.back(*(["--accept-loss"] if one_way and written.exists() else []))
    source = independent_compare.read_source(way.source)
    source = {n: t for n, t in source.items() if not n.startswith("_migration_")}
    records = independent_compare.read_records(postgres)
    if name not in ONLY_BY_THE_POLICY:
        assert compare_back(source, before, records, set(one_way)) == []
