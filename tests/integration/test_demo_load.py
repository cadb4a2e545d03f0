"""The demo's load: its journal holds the application to what it acknowledged."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from migration_job.demo.load import Load

ROOT = Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def application(path: Path) -> Iterator[int]:
    """The example application on a SQLite file of its own; its port."""
    command = [
        sys.executable,
        "-m",
        "example_app",
        "--sqlite",
        str(path),
        "--port",
        "0",
        "--deadline",
        "0.5",
    ]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().rsplit(":", 1)[1])
        yield port
        process.terminate()


def load_of(port: int, requests: int) -> Load:
    load = Load(port, writers=2, readers=1, pace=200.0, seed=7)
    load.start()
    deadline = time.monotonic() + 30
    while load.tally().requests < requests:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return load


def asker(connection: sqlite3.Connection) -> Any:
    def ask(query: str, values: list[str]) -> list[tuple[Any, ...]]:
        marks = ",".join("?" * len(values))
        plain = query.replace("::text", "").replace("= ANY(%s)", f"IN ({marks})")
        return connection.execute(plain, values).fetchall()

    return ask


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> tuple[Load, Path]:
    """A load that has ended, and the database that it left."""
    path = tmp_path_factory.mktemp("load") / "app.db"
    with application(path) as port:
        load = load_of(port, 150)
        load.stop()
    return load, path


def test_counts_and_misses_nothing(ended: tuple[Load, Path]) -> None:
    load, path = ended
    tally = load.tally()
    assert tally.failed == 0, tally.first_failure
    assert 0 < tally.writes < tally.requests
    assert 0 < tally.longest < 30
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert load.missing(asker(connection)) == []


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        ("DELETE FROM quiz_attempts WHERE id = (SELECT max(id) FROM quiz_attempts)", "0 times"),
        (
            "INSERT INTO quiz_attempts (case_id, correct, session_id) "
            "SELECT case_id, correct, session_id FROM quiz_attempts LIMIT 1",
            "2 times",
        ),
        (
            "UPDATE cases SET title = 'another' WHERE title LIKE 'Load case%' OR title LIKE 'Re%'",
            "found 'another'",
        ),
        ("UPDATE user_case_progress SET repetitions = repetitions - 1", "progress of"),
        ("DELETE FROM user_case_progress", "found None"),
    ],
)
def test_finds_what_was_lost(ended: tuple[Load, Path], harm: str, words: str) -> None:
    load, path = ended
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("BEGIN")
        connection.execute(harm)
        wrong = load.missing(asker(connection))
        connection.rollback()
    assert wrong
    assert any(words in sentence for sentence in wrong)


def test_failures_are_counted_with_the_first_ones_words(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with application(path) as port:
        load = load_of(port, 20)
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("DROP TABLE quiz_attempts")
        deadline = time.monotonic() + 30
        while load.tally().failed == 0:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        tally = load.stop()
    assert "no such table" in tally.first_failure
