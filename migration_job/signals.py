"""How a run ends when the process is told to stop.

Python runs a signal's handler in the main thread between any two instructions. An exception out of
it is what ends a run in an orderly way, but it must not come while a thread is being started: the
interpreter's own list of threads would be left wrong.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from migration_job.errors import GOES_ON, OperationError

STOPPING = (signal.SIGTERM, signal.SIGINT)
"""SIGTERM is how a container is stopped, SIGINT what Ctrl-C sends."""


class _Held:
    """Whether the main thread may be interrupted now; used by the main thread alone."""

    depth = 0
    number: int | None = None


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """SIGTERM and SIGINT end the block with an OperationError, so that the report is written and
    nothing is left running; a second one acts as it did before the block. Without effect outside
    the main thread."""
    if not _in_main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in STOPPING}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def stop(number: int, _frame: object) -> None:
        if _Held.depth:
            _Held.number = number
            return
        restore()
        raise _stopped(number)

    for number in STOPPING:
        signal.signal(number, stop)
    try:
        yield
    finally:
        restore()


@contextmanager
def undisturbed() -> Iterator[None]:
    """Within the block the main thread is not interrupted by :func:`stopped_by_signals`; a signal
    that comes meanwhile acts at its end. For what takes no time, such as the start of a thread."""
    if not _in_main_thread():
        yield
        return
    _Held.depth += 1
    try:
        yield
    finally:
        _Held.depth -= 1
        if not _Held.depth and _Held.number is not None:
            number, _Held.number = _Held.number, None
            signal.raise_signal(number)


class StoppedError(OperationError):
    """The process was told to stop."""


def _stopped(number: int) -> StoppedError:
    return StoppedError(
        f"stopped by {signal.Signals(number).name}",
        advice=f"the source is untouched; run the same command again, {GOES_ON}",
    )


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
