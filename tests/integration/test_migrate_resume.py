"""A run that is cut off anywhere, and the run that goes on."""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

from migration_job.embedded import EmbeddedPostgres
from migration_job.stores.postgres import load
from tests.integration.running import DONE, run

pytestmark = [pytest.mark.postgres, pytest.mark.slow]

SEED = 4_711
CUTS = 24

CUT = """
import itertools, os, sys
import psycopg
from migration_job.cli import main
from migration_job.stores.postgres import load

limit, load.PART_VALUES = int(sys.argv.pop(1)), int(sys.argv.pop(1))
calls = itertools.count(1)

def counted(call):
    def counting(*args, **kwargs):
        if next(calls) >= limit:
            os._exit(137)
        return call(*args, **kwargs)
    return counting

psycopg.Connection.execute = counted(psycopg.Connection.execute)
psycopg.Cursor.execute = counted(psycopg.Cursor.execute)
psycopg.Copy.write = counted(psycopg.Copy.write)
try:
    main()
finally:
    print("calls", next(calls))
"""
"""The command line, killed without a word at the given call on the target."""

POLICY = """
tables:
  item:
    columns:
      amount: {action: quarantine}
"""


def _source(path: Path, seed: int = SEED) -> None:
    rng = random.Random(seed)
    connection = sqlite3.connect(path)
    connection.executescript(
        """
        CREATE TABLE owner(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE, seen DATETIME);
        CREATE TABLE item(id INTEGER PRIMARY KEY, owner INTEGER REFERENCES owner(id), word TEXT,
            amount INTEGER);
        CREATE INDEX item_word ON item(word);
        CREATE INDEX item_owner ON item(owner);
        CREATE TABLE word(a TEXT, b REAL);
        CREATE VIEW some AS SELECT id, name FROM owner WHERE id < 100;
        """
    )
    connection.executemany(
        "INSERT INTO owner(name, seen) VALUES (?, ?)",
        [
            (f"n{i}", "2024-01-02 03:04:05" if i % 10 else "2024-01-02T03:04:05Z")
            for i in range(300)
        ],
    )
    connection.executemany(
        "INSERT INTO item(owner, word, amount) VALUES (?, ?, ?)",
        [
            (rng.randint(1, 300), f"w{rng.random()}", i if i % 1_000 else f"much {i}")
            for i in range(25_000)
        ],
    )
    connection.executemany(
        "INSERT INTO word VALUES (?, ?)", [(f"w{i % 7}", rng.random()) for i in range(500)]
    )
    connection.commit()
    connection.close()


def _content(dsn: str) -> dict[str, Any]:
    """Everything that a target consists of, as far as it must not depend on cuts."""
    content: dict[str, Any] = {}
    with psycopg.connect(dsn) as target:
        for name in ("owner", "item", "word", "some"):
            content[name] = sorted(
                str(r[0]) for r in target.execute(f'SELECT x::text FROM "{name}" AS x'.encode())
            )
        for name, query in {
            "constraints": "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) "
            "FROM pg_constraint WHERE connamespace = 'public'::regnamespace",
            "indexes": "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'",
            "columns": "SELECT table_name, column_name, data_type, is_nullable, column_default, "
            "is_identity FROM information_schema.columns WHERE table_schema = 'public'",
            "sequences": "SELECT sequencename, last_value FROM pg_sequences",
            "objects": "SELECT relname, relkind::text FROM pg_class "
            "WHERE relnamespace = 'public'::regnamespace",
            "ledger": "SELECT tab, key, col, before, after, rule FROM migration.ledger",
            "quarantine": "SELECT tab, key, source_row FROM migration.quarantine",
            "progress": "SELECT tab, step, rows, quarantined FROM migration.progress",
            "phase": "SELECT phase FROM migration.run",
        }.items():
            content[name] = sorted(map(str, target.execute(query.encode()).fetchall()))
    return content


def _arguments(folder: Path, dsn: str) -> list[str]:
    (folder / "policy.yaml").write_text(POLICY)
    return [
        "migrate",
        str(folder / "source.db"),
        *("--target", dsn, "--report", str(folder / "report")),
        *("--policy", str(folder / "policy.yaml")),
    ]


def _cut(
    folder: Path, dsn: str, call: int, *more: str, part_values: int = load.PART_VALUES
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CUT, str(call), str(part_values), *_arguments(folder, dsn), *more],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("in_parts", [False, True])
def test_a_run_cut_off_anywhere_ends_the_same(
    in_parts: bool,
    tmp_path: Path,
    postgres_server: EmbeddedPostgres,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = random.Random(SEED)
    part_values, more = (10_000, ("--jobs", "4")) if in_parts else (load.PART_VALUES, ())
    monkeypatch.setattr(load, "PART_VALUES", part_values)
    _source(tmp_path / "source.db")
    dsn = postgres_server.create_database("uncut")
    whole = _cut(tmp_path, dsn, 10**9, *more, part_values=part_values)
    assert whole.returncode == DONE, whole.stderr
    calls = int(whole.stdout.split("calls ")[1])
    expected = _content(dsn)
    assert expected["ledger"]
    assert expected["quarantine"]
    assert any("rows, part 10 of 10" in step for step in expected["progress"]) == in_parts
    postgres_server.drop_database("uncut")
    # The ends and the beginning, and between them anywhere.
    points = [2, 8, calls - 2, *sorted(rng.sample(range(9, calls - 2), CUTS - 3))]
    print(f"seed {SEED}: cut at {points} of {calls} calls")
    for point in points:
        name = f"cut_{point}"
        dsn = postgres_server.create_database(name)
        cut = _cut(tmp_path, dsn, point, *more, part_values=part_values)
        assert cut.returncode == 137, (point, cut.stderr)
        ended = run(*_arguments(tmp_path, dsn), *more)
        assert ended.status == DONE, (point, ended.said)
        assert _content(dsn) == expected, point
        postgres_server.drop_database(name)


def test_a_table_begun_in_parts_is_ended_in_parts(
    tmp_path: Path, postgres_server: EmbeddedPostgres
) -> None:
    """Whatever a later run would do by itself, with fewer sessions or in another release."""
    _source(tmp_path / "source.db")
    # The sessions share the calls as the machine lets them, so the place is looked for, each time
    # in a new database: a later cut of the same one could end the parts that an earlier one began.
    for call in range(100, 400, 10):
        dsn = postgres_server.create_database(f"cut_{call}")
        assert _cut(tmp_path, dsn, call, "--jobs", "4", part_values=10_000).returncode == 137
        with psycopg.connect(dsn) as target:
            steps = [r[0] for r in target.execute("SELECT step FROM migration.progress")]
        ended_parts = sum(step.startswith("rows, part ") for step in steps)
        if "made for 10 parts" in steps and 0 < ended_parts < 10:
            break
    assert 0 < ended_parts < 10, steps
    ended = run(*_arguments(tmp_path, dsn), "--jobs", "1")
    assert ended.status == DONE, ended.said
    with psycopg.connect(dsn) as target:
        done = target.execute(
            "SELECT rows, quarantined FROM migration.progress WHERE tab = 'item' AND step = 'rows'"
        )
        assert done.fetchall() == [(24_975, 25)]


def test_a_run_cut_off_twice_and_in_another_report_directory(tmp_path: Path, postgres: str) -> None:
    _source(tmp_path / "source.db")
    assert _cut(tmp_path, postgres, 120).returncode == 137
    assert _cut(tmp_path, postgres, 90).returncode == 137
    arguments = _arguments(tmp_path, postgres)
    arguments[arguments.index("--report") + 1] = str(tmp_path / "elsewhere")
    ended = run(*arguments)
    assert ended.status == DONE, ended.said


def test_what_is_done_is_kept(tmp_path: Path, postgres: str) -> None:
    _source(tmp_path / "source.db")
    assert run(*_arguments(tmp_path, postgres)).status == DONE
    files = "SELECT relname, relfilenode FROM pg_class WHERE relnamespace = 'public'::regnamespace"
    with psycopg.connect(postgres) as target:
        before = sorted(target.execute(files).fetchall())
    again = run(*_arguments(tmp_path, postgres))
    assert again.status == DONE, again.said
    assert "continuing run" in again.err
    with psycopg.connect(postgres) as target:
        assert sorted(target.execute(files).fetchall()) == before


@pytest.mark.parametrize("change", ["row", "schema", "policy"])
def test_another_source_or_plan_starts_clean(change: str, tmp_path: Path, postgres: str) -> None:
    _source(tmp_path / "source.db")
    assert _cut(tmp_path, postgres, 150).returncode == 137
    arguments = _arguments(tmp_path, postgres)
    connection = sqlite3.connect(tmp_path / "source.db")
    if change == "row":
        connection.execute("INSERT INTO owner(name) VALUES ('new')")
    elif change == "schema":
        connection.executescript("DROP VIEW some; ALTER TABLE word RENAME TO other;")
    else:
        (tmp_path / "policy.yaml").write_text("default: widen\n")
    connection.commit()
    connection.close()
    ended = run(*arguments)
    assert ended.status == DONE, ended.said
    assert "starting clean" in ended.err
    with psycopg.connect(postgres) as target:
        new = target.execute("SELECT count(*) FROM owner WHERE name = 'new'").fetchone()
        there = target.execute("SELECT to_regclass('word') IS NULL").fetchone()
        rows = target.execute("SELECT count(*) FROM item").fetchone()
    assert new == (int(change == "row"),)
    assert there == (change == "schema",)
    assert rows == (25_000 if change == "policy" else 24_975,)


def test_a_target_that_dies_in_mid_copy_is_one_clear_error(
    tmp_path: Path, postgres: str, postgres_server: EmbeddedPostgres
) -> None:
    _source(tmp_path / "source.db")
    ended = threading.Event()
    killed: list[bool] = []

    def kill() -> None:
        """End every session of the copy as soon as one is copying."""
        with psycopg.connect(postgres_server.dsn, autocommit=True) as admin:
            while not ended.is_set() and not killed:
                rows = admin.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE application_name = 'migration-job copy'"
                ).fetchall()
                if rows:
                    killed.append(True)
                time.sleep(0.001)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        broken = run(*_arguments(tmp_path, postgres))
    finally:
        ended.set()
        thread.join()
    assert killed
    assert broken.status == 1, broken.said
    assert "Traceback" not in broken.said
    assert "run the same command again" in broken.err
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["outcome"] == "failed"
    assert report["phase"] != "verified"
    again = run(*_arguments(tmp_path, postgres))
    assert again.status == DONE, again.said


def test_a_run_that_is_told_to_stop_says_so_and_can_go_on(tmp_path: Path, postgres: str) -> None:
    """SIGTERM is how a container is stopped; the report is written all the same."""
    _source(tmp_path / "source.db")
    job = subprocess.Popen(
        [sys.executable, "-m", "migration_job", *_arguments(tmp_path, postgres)],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert job.stderr is not None
    assert job.stderr.readline().startswith("snapshot")
    job.terminate()
    said = job.communicate(timeout=60)[1]
    assert job.returncode == 1, said
    assert "stopped by SIGTERM" in said
    assert "Traceback" not in said
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["outcome"] == "failed"
    assert "SIGTERM" in report["message"]
    again = run(*_arguments(tmp_path, postgres))
    assert again.status == DONE, again.said
