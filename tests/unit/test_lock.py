"""One acts at a time; a death hands over at once."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from migration_job.errors import OperationError
from migration_job.protocol.lock import Lock

HOLD = """
import sys, time
from pathlib import Path
from migration_job.protocol.lock import Lock
with Lock(Path(sys.argv[1])).command("switch"):
    print("held", flush=True)
    sys.stdin.readline()
"""


def holder(state: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(state)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_command_waits_and_says_for_whom(tmp_path: Path) -> None:
    process = holder(tmp_path)
    try:
        with (
            pytest.raises(OperationError, match="`switch`"),
            Lock(tmp_path).command("x", limit=0.1),
        ):
            pass
        assert "`switch`" in (Lock(tmp_path).holder() or "")
    finally:
        process.kill()
        process.wait()


def test_death_releases_it_at_once_and_the_next_knows(tmp_path: Path) -> None:
    sync = Lock(tmp_path)
    with sync.round():
        pass
    with sync.round() as others:
        assert not others
    process = holder(tmp_path)
    process.kill()
    process.wait()
    start = time.monotonic()
    with sync.round() as others:
        assert others
    assert time.monotonic() - start < 1
    with sync.round() as others:
        assert not others
    assert Lock(tmp_path).holder() is None


def test_a_command_comes_between_two_rounds_however_busy_sync_is(tmp_path: Path) -> None:
    busy = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time\nfrom pathlib import Path\n"
            "from migration_job.protocol.lock import Lock\n"
            "lock = Lock(Path(sys.argv[1]))\nprint('on', flush=True)\n"
            "while True:\n    with lock.round():\n        time.sleep(0.05)\n",
            str(tmp_path),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert busy.stdout is not None
        assert busy.stdout.readline() == "on\n"
        for _ in range(5):
            with Lock(tmp_path).command("switch", limit=10):
                pass
    finally:
        busy.kill()
        busy.wait()


@pytest.mark.parametrize("name", ["work.lock", "turn.lock"])
def test_a_link_in_the_place_of_a_lock_is_not_followed(tmp_path: Path, name: str) -> None:
    state, victim = tmp_path / "state", tmp_path / "victim"
    state.mkdir()
    victim.write_text("untouched")
    (state / name).symlink_to(victim)
    with pytest.raises(OperationError, match="symbolic link"), Lock(state).command("switch"):
        pass
    if name == "turn.lock":
        with pytest.raises(OperationError, match="symbolic link"):
            Lock(state).holder()
    assert victim.read_text() == "untouched"
