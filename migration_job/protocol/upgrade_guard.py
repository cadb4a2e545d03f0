"""A watchdog process beside an upgrade: it ends or completes a hold when the upgrade cannot.

It is this command itself in another role, connected by a pipe. If the pipe closes without a
message, the upgrade's process died. If no sign of life comes (:mod:`.sign_of_life`), or the step's
deadline passes, that process is stopped, and the watchdog ends it. Then the watchdog takes the
locks, which the kernel has freed, and reads the record: a decision is followed, a hold without one
is undone. So the application waits for some seconds and is served.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

from migration_job.errors import OperationError
from migration_job.protocol import sign_of_life
from migration_job.protocol.fault_points import VARIABLE

READY, DONE = b"ready\n", "done"
START_SECONDS = 60.0


class Guardian:
    """The pipe to it; without one (``descriptor`` None) nothing is told."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def expect(self, seconds: float) -> None:
        """This process will say that it is done within ``seconds``."""
        self._tell(f"{seconds:.1f}")

    def done(self) -> None:
        """There is nothing to be ended any more."""
        self._tell(DONE)

    def _tell(self, word: str) -> None:
        if self._descriptor is not None:
            # Without it the command goes on as well as ever.
            with contextlib.suppress(OSError):
                os.write(self._descriptor, f"{word} ".encode())


@contextlib.contextmanager
def beside(command: Sequence[str]) -> Iterator[Guardian]:
    """Have a guardian within the block, where ``command`` says how to start one. Raises
    OperationError where it does not start: nothing is held yet."""
    if not command:
        yield Guardian(None)
        return
    with subprocess.Popen(  # noqa: S603 - this interpreter and this command's own words
        list(command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={k: v for k, v in os.environ.items() if k != VARIABLE},
    ) as process:
        if process.stdin is None or process.stdout is None:
            raise AssertionError("pipes were asked for")
        if not select.select([process.stdout], [], [], START_SECONDS)[0] or (
            process.stdout.readline() != READY
        ):
            process.kill()
            raise OperationError(
                "the process that would end a hold whose command died did not start",
                advice="nothing was held; run the command again",
            )
        guardian = Guardian(process.stdin.fileno())
        try:
            with sign_of_life.given(process.stdin.fileno()):
                yield guardian
        finally:
            # Also after an error: what is left to do is known to the command, which says it.
            guardian.done()


def wait_for_end() -> bool:
    """In the guardian: whether there is something to be ended."""
    parent, heard = os.getppid(), time.monotonic()
    deadline: float | None = None
    sys.stdout.buffer.write(READY)
    sys.stdout.flush()
    while True:
        left = None
        if deadline is not None:
            silent = heard + sign_of_life.SILENCE_SECONDS
            left = max(min(deadline, silent) - time.monotonic(), 0)
        if not select.select([0], [], [], left)[0]:
            if os.getppid() == parent:
                os.kill(parent, signal.SIGKILL)
            return True
        told = os.read(0, 65536).split()
        if not told:
            return True
        if DONE.encode() in told:
            return False
        heard = time.monotonic()
        for word in told:
            if word != sign_of_life.SIGN.strip():
                deadline = heard + float(word)
