"""What a restore drill makes of what it reads (images/backup/drill.py), and the line that tells."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from infra import drill as told

PROGRAM = Path(__file__).resolve().parents[2] / "images" / "backup" / "drill.py"


@pytest.fixture
def drill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The container's program, with its record in a directory of the test's."""
    spec = importlib.util.spec_from_file_location("drill_of_the_image", PROGRAM)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    # As in the image, where what both programs use is beside them.
    monkeypatch.syspath_prepend(str(PROGRAM.parent))
    # Its dataclasses look their module up.
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "RECORD", tmp_path / "record.json")
    return module


def lines(*parts: tuple[str, int, int, str]) -> list[str]:
    return [json.dumps(part) for part in parts]


def wanted(drill: ModuleType, *parts: tuple[str, int, int, str]) -> Any:
    return drill.Wanted("0/1", drill.tables(lines(*parts)), "0" * 24)


def test_the_parts_of_a_table_are_added_up(drill: ModuleType) -> None:
    found = drill.tables(lines(("a", 7, 2, "5"), ("b", 8, 1, "-3"), ("a", 7, 1, "-9")))
    assert found == {"a": drill.Table(7, 3, -4), "b": drill.Table(8, 1, -3)}


def test_a_table_that_was_rewritten_is_named_and_not_compared(drill: ModuleType) -> None:
    held = wanted(drill, ("a", 7, 2, "5"), ("b", 8, 1, "4"))
    found = drill.tables(lines(("a", 7, 2, "5"), ("b", 9, 0, "0")))
    assert drill.compare(held, found) == ["b"]
    between = wanted(drill, ("a", 7, 2, "5"), ("a", 9, 0, "0"))
    assert drill.compare(between, drill.tables(lines(("a", 7, 3, "6")))) == ["a"]


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([("a", 7, 1, "5")], r"a \(rows: 1 for 2\)"),
        ([("a", 7, 2, "6")], r"a \(rows: 2 for 2\)"),
        ([], "a is not in the backup"),
        ([("a", 7, 2, "5"), ("b", 8, 0, "0")], "b is in the backup alone"),
    ],
)
def test_what_differs_fails_it(
    drill: ModuleType, found: list[tuple[str, int, int, str]], said: str
) -> None:
    with pytest.raises(drill.DrillError, match=said):
        drill.compare(wanted(drill, ("a", 7, 2, "5")), drill.tables(lines(*found)))


def test_a_drill_is_due_on_time_and_sooner_after_one_that_failed(drill: ModuleType) -> None:
    hour = 3600.0
    assert drill.due(drill.Record(), hour, 24)
    for failure, hours, at, due in (
        ("", 24, 23.9, False),
        ("", 24, 24.1, True),
        ("x", 24, 0.9, False),
        ("x", 24, 1.1, True),
        ("x", 0.5, 0.6, True),
    ):
        record = drill.Record(last=drill.Result(started=0, failure=failure))
        assert drill.due(record, at * hour, hours) is due, (failure, hours, at)


def test_the_record_outlives_the_program(drill: ModuleType) -> None:
    assert drill.Record.read() == drill.Record()
    record = drill.Record(5.0, "", "asked", drill.Result(started=5.0, tables=2, rewritten=["a"]))
    record.write()
    assert drill.Record.read() == record
    drill.RECORD.write_text('{"last": 3')
    assert drill.Record.read() == drill.Record()


def test_the_page_has_no_success_before_the_first(drill: ModuleType) -> None:
    assert drill.Record().page() == ""
    failed = drill.Record(last=drill.Result(started=5.0, failure="x")).page()
    assert "drill_last_success 0\n" in failed
    assert "timestamp" not in failed
    assert "drill_last_success_timestamp_seconds 5.0\n" in drill.Record(5.0, last=None).page()


LAST = {
    "started": 1_000_000.0,
    "failure": "",
    "backup": "20261130-093000F",
    "moment": 1_000_000.0,
    "tables": 2,
    "rows": 3000,
    "compared": True,
    "rewritten": [],
}


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ({"last": None}, "none yet: the first backup is awaited"),
        ({"last": None, "doing": "replaying the log"}, "replaying the log, for the first time"),
        (
            {"last": LAST},
            "passed 3 hours ago: 2 tables, 3,000 rows, as PostgreSQL had them at "
            "1970-01-12 13:46:40+00, from 20261130-093000F",
        ),
        (
            {"last": {**LAST, "failure": "no room"}, "doing": "replaying the log"},
            "FAILED 3 hours ago: no room (last never); now replaying the log",
        ),
        (
            {"last": {**LAST, "failure": "no room"}, "last_success": 1_007_200.0},
            "FAILED 3 hours ago: no room (last passed 60 minutes ago)",
        ),
    ],
)
def test_it_is_told_in_one_line(said: dict[str, Any], line: str) -> None:
    record = {"doing": "", "last_success": 0.0, **said}
    assert told.told(record, 1_010_800.0) == line


def test_where_nothing_was_compared_it_says_so() -> None:
    record = {"doing": "", "last_success": 1.0, "last": {**LAST, "compared": False}}
    assert "read and not compared (wal_level = replica)" in told.told(record, 1_010_800.0)
