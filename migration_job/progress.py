"""What the operator sees while the job runs: a live line on a terminal, plain lines elsewhere.

Plain lines are for logs: each phase once when it begins and once when it ends, and in between the
rows so far at most every few seconds.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from migration_job.log_format import is_json, line
from migration_job.plural import counted, named

PLAIN_INTERVAL = 5.0
"""Seconds between plain lines within a phase."""


class Reporter:
    """Progress of one run; safe to call from several threads. ``seconds`` collects the phases'
    times, in the order in which they began; ``beside`` those of what ran beside the phases.
    ``stopped_in`` is the phase that an error ended, '' where none did."""

    def __init__(self, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._quiet = quiet
        self._live = not quiet and self._stream.isatty() and not is_json()
        self._lock = threading.Lock()
        self._bar: Progress | None = None
        self._phase = ""
        self._done = 0
        self._total = 0
        self._about = ""
        self._unit = "row"
        self._aside: Callable[[], str] = lambda: ""
        self._spoke = 0.0
        self._began = 0.0
        self.seconds: dict[str, float] = {}
        self.beside: dict[str, float] = {}
        self.stopped_in = ""

    def say(self, text: str) -> None:
        """One line for the operator."""
        if self._quiet:
            return
        with self._lock:
            if self._bar is not None:
                self._bar.console.print(text, markup=False, highlight=False)
            else:
                self._stream.write(line(text) + "\n")
                self._stream.flush()

    @contextmanager
    def phase(
        self,
        name: str,
        *,
        total: int = 0,
        unit: str = "row",
        aside: Callable[[], str] = lambda: "",
    ) -> Iterator[None]:
        """Time a phase; ``total`` is what :meth:`advance` counts up to, 0 where nothing counts or
        :meth:`at` tells it. ``unit`` is one of what is counted. ``aside`` is asked for
        what else there is to say while it goes on."""
        with self._lock:
            self._phase, self._done, self._total, self._unit = name, 0, total, unit
            self._about = ""
            self._aside = aside
            self._spoke = self._began = time.monotonic()
        began = self._began
        if self._live:
            self._show(name, total, unit)
        try:
            with self.within(name):
                yield
        finally:
            spent = time.monotonic() - began
            self.seconds[name] = round(self.seconds.get(name, 0.0) + spent, 3)
            self._hide()
        done = f", {counted(self._done, unit)}" if self._done else ""
        self.say(f"{name}: {spent:.1f} s{done}")

    @contextmanager
    def within(self, name: str) -> Iterator[None]:
        """What belongs to a phase and is not timed: an error that goes through here stopped it."""
        self.stopped_in = ""  # what stopped an earlier attempt has not stopped the run
        try:
            yield
        except BaseException:
            self.stopped_in = self.stopped_in or name
            raise

    def ran_beside(self, name: str, seconds: float) -> None:
        """Something took so long while phases went on: it is told, and adds to no sum."""
        self.beside[name] = round(seconds, 3)
        self.say(f"{name}: {seconds:.1f} s, beside the phases above")

    def advance(self, count: int) -> None:
        """Count ``count`` more of the phase's units."""
        with self._lock:
            self._done += count
            told = self._told()
        if told:
            self.say(told)

    def at(self, done: int, total: int) -> None:
        """The phase has counted ``done`` of about ``total``, of which it learns as it goes."""
        with self._lock:
            self._done, self._total = done, total
            self._about = "about " if done < total else ""
            told = self._told()
        if told:
            self.say(told)

    def _told(self) -> str:
        """Show how far the phase is; the plain line that is due, or ''. Under the lock."""
        done, total, aside = self._done, self._total, self._aside()
        if self._bar is not None:
            shown = self._bar.task_ids[0]
            said = f"{self._phase}: {aside}" if aside else self._phase
            self._bar.update(
                shown, completed=done, total=total or None, about=self._about, description=said
            )
        now = time.monotonic()
        if self._live or now - self._spoke < PLAIN_INTERVAL:
            return ""
        self._spoke = now
        of = f" of {self._about}{total:,}" if total else ""
        unit = named(total or done, self._unit)
        left = _left(done, total, now - self._began)
        return f"{self._phase}: {done:,}{of} {unit}{left}{aside and f'; {aside}'}"

    def _show(self, name: str, total: int, unit: str) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            _Counted(),
            console=Console(file=self._stream),
            transient=True,
        )
        self._bar.add_task(name, total=total or None, unit=unit, about="")
        self._bar.start()

    def _hide(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class _Counted(ProgressColumn):
    """How much of what is done and the time that is left; where nothing counts, the time so far."""

    def __init__(self) -> None:
        super().__init__()
        self._left, self._elapsed = TimeRemainingColumn(), TimeElapsedColumn()

    def render(self, task: Task) -> Text:
        if task.total is None:
            return self._elapsed.render(task)
        about, unit = task.fields["about"], named(int(task.total), task.fields["unit"])
        counted = f"{task.completed:,.0f} of {about}{task.total:,.0f} {unit}, left "
        return Text(counted, style="progress.download").append_text(self._left.render(task))


def _left(done: int, total: int, spent: float) -> str:
    """How long the rest takes at the pace so far, as the rest of a line."""
    if not done or total <= done:
        return ""
    seconds = spent * (total - done) / done
    return f", about {seconds / 60:.0f} min left" if seconds >= 90 else f", {seconds:.0f} s left"
