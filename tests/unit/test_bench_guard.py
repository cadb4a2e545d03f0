"""`make bench-guard`: what counts, what is compared with what, and when it fails."""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from benchmarks import guard
from benchmarks.lab import machine

PERF = """#!/bin/sh
while [ "$1" != -o ]; do shift; done
echo "# started on a day" >"$2"
echo "%s,,instructions:u,1000,100.00,," >>"$2"
"""
VALGRIND = """#!/bin/sh
echo "==77== Cachegrind, a cache profiler" >&2
echo "==77== I   refs:      %s" >&2
"""
COMMAND = [sys.executable, "-c", "pass"]


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that is all of PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "sh").symlink_to("/bin/sh")
    monkeypatch.setenv("PATH", str(folder))
    return folder


def put(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(script)
    (folder / name).chmod(0o755)


def test_the_processors_own_counter_comes_first(programs: Path) -> None:
    put(programs, "perf", PERF % "764204492")
    put(programs, "valgrind", VALGRIND % "1,523,799,099")
    found = guard.counter_here({})
    assert found.name == "instructions by perf"
    assert found.cost(COMMAND, {}) == 764_204_492


@pytest.mark.parametrize("told", ["<not supported>", "<not counted>"])
def test_a_counter_that_the_machine_does_not_give_is_passed_over(programs: Path, told: str) -> None:
    put(programs, "perf", PERF % told)
    put(programs, "valgrind", VALGRIND % "1,523,799,099")
    found = guard.counter_here({})
    assert found.name == "instructions by valgrind"
    assert found.cost(COMMAND, {}) == 1_523_799_099


def test_where_nothing_counts_it_is_the_processor_s_time(programs: Path) -> None:
    put(programs, "perf", "#!/bin/sh\nexit 1\n")
    found = guard.counter_here({})
    assert found.name == "processor seconds"
    assert 0 < found.cost(COMMAND, {}) < 60


def test_seconds_are_compared_on_the_same_processor_alone() -> None:
    perf, valgrind, seconds = (guard.kind_here(counter) for counter in guard.COUNTERS)
    assert len({perf, valgrind, seconds}) == 3
    assert all(platform.python_version() in kind for kind in (perf, valgrind, seconds))
    assert machine()["processor"] in seconds
    assert machine()["processor"] not in perf + valgrind


@pytest.mark.parametrize(
    ("figure", "fails"), [(100.0, False), (50.0, False), (109.9, False), (110.1, True)]
)
def test_a_tenth_more_fails(figure: float, fails: bool) -> None:
    found = guard.judged({"inspect": figure}, {"inspect": 100.0})
    assert bool(found) == fails
    assert guard.judged({"new": figure}, {}) == ["new: nothing is recorded; run it with --record"]


def run(monkeypatch: pytest.MonkeyPatch, figure: float, *arguments: str) -> tuple[int, str]:
    monkeypatch.setattr(guard, "measured", lambda *_: {"inspect": figure})
    app = typer.Typer()
    app.command()(guard.main)
    done = CliRunner().invoke(app, list(arguments))
    return done.exit_code, done.output


def test_it_is_recorded_compared_and_kept_beside_other_machines_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "guard.json"
    file.write_text(json.dumps({"another machine": {"inspect": 1.0}}))
    where = ["--file", str(file)]
    status, said = run(monkeypatch, 100.0, *where)
    assert (status, "nothing was compared" in said) == (0, True)
    assert run(monkeypatch, 100.0, "--record", *where)[0] == 0
    assert json.loads(file.read_text())["another machine"] == {"inspect": 1.0}
    status, said = run(monkeypatch, 109.0, *where)
    assert (status, "1.090 of what was recorded" in said) == (0, True)
    status, said = run(monkeypatch, 111.0, *where)
    assert (status, "1.11 of what was recorded (100), at most 1.10" in said) == (1, True)


def test_what_is_recorded_is_of_work_that_is_measured() -> None:
    recorded = json.loads(guard.RECORDED.read_text())
    assert recorded
    assert all(set(figures) == set(guard.WORK) for figures in recorded.values())
