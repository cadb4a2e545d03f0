"""A watchdog process beside ``switch`` and ``rollback``: it ends a stopped command (SIGSTOP,
a debugger, a core that swaps) while it holds the application's writers or queries. Then what it
held is free, and ``sync`` takes over.

SQLite's write lock cannot be taken from its holder, and the application's own library would ignore
a lease in a file: only the holder's death releases it. So before each step the command gives the
watchdog a deadline, and until then a sign of life each second (:mod:`.sign_of_life`). When the
deadline passes, or no sign comes, the watchdog sends SIGKILL, after which nothing of the holder can
act any more. It runs in a session of its own: what stops the command's terminal does not stop it.
It cannot help where the whole machine or container is frozen.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

from migration_job.deadline import expect_within
from migration_job.protocol import sign_of_life

GRACE_SECONDS = 2.0
"""Beyond what a step may take by its own limits, until its process is taken to stand still."""

STEP_SECONDS = 10.0
"""For a step that has no limit of its own, such as telling PgBouncer."""

ROUND_SECONDS = 60.0
"""For one round of the way back."""

PROGRAM = """
import os, select, signal, sys, time
holder, silence = int(sys.argv[1]), float(sys.argv[2])
deadline, heard = None, time.monotonic()
while True:
    left = None
    if deadline is not None:
        left = max(min(deadline, heard + silence) - time.monotonic(), 0)
    if not select.select([0], [], [], left)[0]:
        if os.getppid() == holder:
            os.kill(holder, signal.SIGKILL)
        break
    told = os.read(0, 65536)
    if not told:
        break
    heard = time.monotonic()
    for word in told.split():
        if word != b".":
            deadline = heard + float(word) if float(word) else None
"""


class _Process:
    pipe: int | None = None


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Have :func:`expect` mean something within the block."""
    command = [sys.executable, "-I", "-S", "-c", PROGRAM]
    command += [str(os.getpid()), str(sign_of_life.SILENCE_SECONDS)]
    with subprocess.Popen(  # noqa: S603 - this interpreter and a constant
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as beside:
        if beside.stdin is None:
            raise AssertionError("a pipe was asked for")
        _Process.pipe = beside.stdin.fileno()
        try:
            with sign_of_life.given(_Process.pipe):
                yield
        finally:
            _Process.pipe = None
            expect_within(0)


def expect(seconds: float) -> None:
    """This process is to be heard of again within ``seconds``; 0: no matter when."""
    expect_within(seconds if _Process.pipe is not None else 0)
    if _Process.pipe is not None:
        # Without the watcher the command goes on as well as ever.
        with contextlib.suppress(OSError):
            os.write(_Process.pipe, f"{seconds:.3f} ".encode())
