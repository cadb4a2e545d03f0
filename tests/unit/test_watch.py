"""The watchdogs end a command that was stopped, soon, and leave alone one that works or waits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

STARTS = """
import os, signal, sys, time
from migration_job.protocol import sign_of_life, upgrade_guard, watch
sign_of_life.SILENCE_SECONDS = 2.0
if sys.argv[1:] == ["beside"]:
    sys.exit(0 if upgrade_guard.wait_for_end() else 3)
def stop():
    os.kill(os.getpid(), signal.SIGSTOP)
def work():
    until = time.monotonic() + 4
    while time.monotonic() < until:
        pass
"""

SWITCH = STARTS + "with watch.guarded():\n    watch.expect({seconds})\n    {does}\nprint('ended')"

UPGRADE = (
    STARTS
    + "with upgrade_guard.beside([sys.executable, __file__, 'beside']) as guardian:\n"
    + "    guardian.expect({seconds})\n    {does}\nprint('ended')"
)


@pytest.mark.parametrize("program", [SWITCH, UPGRADE], ids=["switch", "upgrade"])
@pytest.mark.parametrize(
    ("seconds", "does", "status"),
    [
        (600, "stop()", -signal.SIGKILL),
        (600, "work()", 0),
        (600, "time.sleep(4)", 0),
        (1, "time.sleep(60)", -signal.SIGKILL),
    ],
    ids=["stopped", "works", "waits", "takes too long"],
)
def test_a_process_is_ended_where_it_stands_still(
    program: str, seconds: int, does: str, status: int, tmp_path: Path
) -> None:
    script = tmp_path / "command.py"
    script.write_text(program.format(seconds=seconds, does=does))
    ended = subprocess.run(
        [sys.executable, os.fspath(script)], capture_output=True, text=True, timeout=40, check=False
    )
    assert ended.returncode == status, ended.stderr
    assert (ended.stdout.strip() == "ended") is (status == 0)
