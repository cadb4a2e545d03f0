"""What the job says, as text and as JSON."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from migration_job import log_format
from migration_job.commands.live_options import say
from migration_job.log_format import LogFormat, line
from migration_job.progress import Reporter

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(log_format.VARIABLE, LogFormat.JSON)


def test_people_get_the_words_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(log_format.VARIABLE, raising=False)
    assert log_format.line("decided: SQLite serves") == "decided: SQLite serves"


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("decided: SQLite serves", "info"),
        ("waiting: the target does not answer", "warning"),
        ("warning: PgBouncer is down", "warning"),
        ("error: expected a file, found none", "error"),
        ('a "quoted" line\nand another \x1b[31m', "info"),
    ],
)
@pytest.mark.usefixtures("as_json")
def test_machines_get_one_object_a_line(text: str, level: str) -> None:
    said = log_format.line(text)
    assert "\n" not in said
    assert "\x1b" not in said
    found = json.loads(said)
    assert found["message"] == text
    assert found["level"] == level
    assert datetime.fromisoformat(found["time"]).utcoffset() is not None


@pytest.mark.usefixtures("as_json")
def test_a_runs_progress_is_objects_too() -> None:
    stream = io.StringIO()
    reporter = Reporter(stream)
    with reporter.phase("copy", total=3):
        reporter.advance(3)
    (only,) = [json.loads(one)["message"] for one in stream.getvalue().splitlines()]
    assert only.startswith("copy: ")
    assert only.endswith("3 rows")


@pytest.mark.parametrize("how", ["option", "environment"])
def test_the_command_line_takes_it_and_errors_follow(how: str) -> None:
    option = ["--log-format", "json"] if how == "option" else []
    environment = {log_format.VARIABLE: "json"} if how == "environment" else {}
    done = subprocess.run(
        [sys.executable, "-m", "migration_job", *option, "inspect", "/nowhere/at.db"],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    said = json.loads(done.stderr)
    assert said["level"] == "error"
    assert "/nowhere/at.db" in said["message"]


def test_a_name_forges_no_line_and_moves_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert line("error: \x1b[2J of a\u202eb\nwhat to do") == (
        "error: \\x1b[2J of a\\u202eb\nwhat to do"
    )
    say("trigger a\ndecided: PostgreSQL serves \x1b[1A")
    assert capsys.readouterr().out == "trigger a\\ndecided: PostgreSQL serves \\x1b[1A\n"
