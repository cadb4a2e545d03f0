"""A fault is where it was asked for, and nowhere without being asked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from migration_job.protocol.fault_points import ROLLBACK_STEPS, SWITCH_STEPS, SYNC_STEPS, VARIABLE

PROGRAM = """
import os, time
from migration_job.protocol.fault_points import step
print("start", flush=True)
with step("switch.drain"):
    print("within", flush=True)
    time.sleep(0.2)
print("end", flush=True)
"""


def run(fault: str) -> tuple[int, list[str]]:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, VARIABLE: fault},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return ended.returncode, ended.stdout.split()


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        ("", 0, ["start", "within", "end"]),
        ("before:switch.fence", 0, ["start", "within", "end"]),
        ("before:switch.drain", -signal.SIGKILL, ["start"]),
        ("after:switch.drain", -signal.SIGKILL, ["start", "within"]),
    ],
)
def test_where_it_ends(fault: str, code: int, words: list[str]) -> None:
    assert run(fault) == (code, words)


def test_in_a_step_is_before_its_end() -> None:
    code, words = run("in:switch.drain")
    assert code == -signal.SIGKILL
    assert words in (["start"], ["start", "within"])


def test_it_may_stand_still_instead() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, VARIABLE: "before:switch.drain:stop"},
        stdout=subprocess.PIPE,
        text=True,
    )
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    os.kill(process.pid, signal.SIGCONT)
    assert process.stdout is not None
    assert process.stdout.read().split() == ["start", "within", "end"]
    os.waitpid(process.pid, 0)


def test_each_step_has_one_name() -> None:
    names = [*SWITCH_STEPS, *ROLLBACK_STEPS, *SYNC_STEPS]
    assert len(names) == len(set(names)) == 17
