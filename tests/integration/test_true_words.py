"""What `migrate` and `verify` say, on the screen and on their pages, of little and of nothing."""

from __future__ import annotations

import html
import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.integration.running import DIFFERS, DONE, FAILED, USAGE, Ended, run

pytestmark = pytest.mark.postgres

NOWHERE = "postgresql://somebody@127.0.0.1:1/nothing"
"""Nobody listens there."""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.db"
    connection = sqlite3.connect(path)
    connection.executescript(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, word TEXT); INSERT INTO t VALUES (1, 'a')"
    )
    connection.close()
    return path


def migrate(source: Path, dsn: str) -> Ended:
    return run("migrate", source, "--target", dsn, "--report", source.parent / "report")


def verify(source: Path, dsn: str) -> Ended:
    return run("verify", source, "--target", dsn, "--report", source.parent / "report")


def found(source: Path, name: str) -> tuple[dict[str, Any], str]:
    """A report and what its page says."""
    folder = source.parent / "report"
    told: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    page = (folder / f"{name}.html").read_text()
    body = re.sub(r"<(style|script)>.*?</\1>", "", page, flags=re.S)
    return told, re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " | ", body)))


def test_one_row_is_one_row(source: Path, postgres: str) -> None:
    said = [migrate(source, postgres), verify(source, postgres)]
    assert [ended.status for ended in said] == [DONE, DONE]
    words = "\n".join(ended.said for ended in said)
    assert "plan: " in words
    assert not re.findall(r"\b1 (?:rows|tables|values|changes)\b", words)
    assert not re.findall(r"1 row.*\b(?:are|were)\b", words)
    assert "1 row in 1 table is on the target and verified" in words
    assert "1 row in 1 table is equal on both sides" in words
    for name in ("report", "verify"):
        _, page = found(source, name)
        assert not re.findall(r"\b1 (?:rows|tables|values|changes)\b", page)


def test_a_verify_keeps_the_report_of_the_migration(source: Path, postgres: str) -> None:
    """In one directory, as the how-to has it."""
    assert migrate(source, postgres).status == DONE
    before = found(source, "report")
    ended = verify(source, postgres)
    assert ended.status == DONE
    assert f"report: {source.parent / 'report' / 'verify.json'}" in ended.said
    assert found(source, "report") == before
    told, page = found(source, "verify")
    assert (told["command"], before[0]["command"]) == ("verify", "migrate")
    assert "copied" not in page
    assert "1 row of PostgreSQL in 1 table was compared with the source" in page


def test_a_run_that_could_not_begin_says_so(source: Path) -> None:
    assert migrate(source, NOWHERE).status in (FAILED, USAGE)
    told, page = found(source, "report")
    assert (told["outcome"], told["stopped_in"], told["tables"]) == ("failed", "", {})
    assert "This run stopped before anything was read." in page
    for claim in ("0 rows", "0 tables", "bit for bit", "set aside"):
        assert claim not in page


def test_a_target_that_is_not_empty_stops_it_before_the_source(source: Path, postgres: str) -> None:
    with psycopg.connect(postgres) as target:
        target.execute("CREATE TABLE there (id int)")
    assert migrate(source, postgres).status == USAGE
    assert "This run stopped before anything was read." in found(source, "report")[1]


def test_a_run_that_stopped_says_in_which_phase(source: Path, postgres: str) -> None:
    """A damaged source in the plan; differences in the comparison, though other phases end it."""
    assert migrate(source, postgres).status == DONE
    with psycopg.connect(postgres) as target:
        target.execute("UPDATE t SET word = 'b'")
    assert verify(source, postgres).status == DIFFERS
    told, page = found(source, "verify")
    assert told["stopped_in"] == "verify"
    assert "This run stopped in the phase: verify." in page
    assert "1 | row in the source" in re.sub(r"(?: [|])+", " |", page)
    source.write_bytes(b"no database, " * 1_000)
    assert verify(source, postgres).status == USAGE
    told, page = found(source, "verify")
    assert told["stopped_in"] == "snapshot"
    assert "This run stopped in the phase: snapshot." in page


@pytest.mark.parametrize("schema", ["", "CREATE TABLE t(id INTEGER PRIMARY KEY)"])
def test_nothing_is_told_to_prove_nothing(schema: str, tmp_path: Path, postgres: str) -> None:
    path = tmp_path / "empty.db"
    connection = sqlite3.connect(path)
    connection.executescript(f"PRAGMA user_version = 1; {schema}")
    connection.close()
    ended = migrate(path, postgres)
    assert ended.status == DONE, ended.said
    thing, proven = (
        ("row", "nothing was proven but the schema")
        if schema
        else (
            "table",
            "nothing was proven",
        )
    )
    assert f"warning: there is no {thing} to migrate, so {proven}\n" in ended.said
    assert "bit for bit" not in found(path, "report")[1]
