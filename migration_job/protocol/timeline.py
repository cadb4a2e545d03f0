"""When each step of a command began and ended, by this process's own clock.

The steps are those of :mod:`.fault_points`. A step inside another one (``sync.forward`` in
``switch.drain``) is part of it and not told by itself.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime

from migration_job.report.model import Step

KEPT = 200
"""Steps of one command that are kept: a switch that tries again for minutes has no end of them."""


@dataclass(slots=True)
class Timeline:
    """The steps of one command so far; times in milliseconds from ``began_at``."""

    began_at: str = field(
        default_factory=lambda: datetime.now(UTC).isoformat(timespec="milliseconds")
    )
    run_id: str = ""
    steps: list[Step] = field(default_factory=list)
    _start: float = field(default_factory=time.monotonic)
    _within: bool = False

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Time the block as the step ``name``; one that an error ends has failed."""
        if self._within:
            yield
            return
        self._within, began, failed = True, time.monotonic(), True
        try:
            yield
            failed = False
        finally:
            self._within = False
            at, took = (began - self._start) * 1000, (time.monotonic() - began) * 1000
            step = Step(name=name, at_ms=round(at, 3), took_ms=round(took, 3), failed=failed)
            self.steps = [*self.steps, step][-KEPT:]


_PRESENT: ContextVar[Timeline | None] = ContextVar("timeline", default=None)


@contextlib.contextmanager
def recorded() -> Iterator[Timeline]:
    """Within the block, the steps that this thread takes are noted."""
    line = Timeline()
    before = _PRESENT.set(line)
    try:
        yield line
    finally:
        _PRESENT.reset(before)


@contextlib.contextmanager
def timed(name: str) -> Iterator[None]:
    """The block as a step of the command that is recorded, where one is."""
    line = _PRESENT.get()
    if line is None:
        yield
        return
    with line.timed(name):
        yield


def of_run(run_id: str) -> None:
    """Say which run the command that is recorded acts on."""
    if (line := _PRESENT.get()) is not None:
        line.run_id = run_id
