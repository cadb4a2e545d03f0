"""Tasks that wait for one another, run by a few threads, each with a session of its own.

SQLite and libpq release the interpreter's lock while they work, so threads use all cores here.
"""

from __future__ import annotations

import heapq
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from migration_job.signals import undisturbed

MOST_JOBS = 8
"""Sessions that a run takes by itself. A stage's role for the job may have 16, the run's first and
the sync's among them, however many cores the engine's host has."""

JOIN_INTERVAL = 0.2
"""Seconds between looks at the threads, so that the main thread can still be interrupted."""


def default_jobs() -> int:
    """As many sessions as there are cores that this process may use, within two and
    ``MOST_JOBS``."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 2
    return min(max(cores, 2), MOST_JOBS)


DISTANT_SECONDS = 0.005
"""A server whose answer takes longer keeps its sessions waiting for more than they work."""

MORE_FOR_DISTANCE = 4


def sessions_for(jobs: int, round_trip: float) -> int:
    """How many sessions work side by side where ``jobs`` would for a server that is near, and an
    answer takes ``round_trip`` seconds."""
    if round_trip < DISTANT_SECONDS:
        return jobs
    return max(jobs, min(jobs + MORE_FOR_DISTANCE, MOST_JOBS))


class Session(Protocol):
    """What a worker works with; each has its own."""

    def close(self) -> None:
        """Give everything back."""

    def cancel(self) -> None:
        """Make a statement that runs in another thread end soon."""


S = TypeVar("S", bound=Session)


@dataclass(frozen=True, slots=True)
class Task(Generic[S]):
    """One piece of work. ``weight`` decides what is begun first among the tasks that may begin;
    ``after`` names the tasks that must have ended. A ``short`` one waits for the disk more than it
    works: one of several threads does these first, while the others keep the processor busy."""

    name: str
    run: Callable[[S], None]
    weight: float = 0.0
    after: tuple[str, ...] = ()
    short: bool = False


class _Board(Generic[S]):
    """The tasks' state, shared by the threads under one lock."""

    def __init__(self, tasks: Sequence[Task[S]]) -> None:
        self.changed = threading.Condition()
        self.error: BaseException | None = None
        self.sessions: list[S] = []
        self._tasks = tasks
        self._left = len(tasks)
        """Tasks that nobody has taken."""
        self._unmet = [len(set(task.after)) for task in tasks]
        self._waiting: dict[str, list[int]] = {}
        """Tasks, by number, that wait for one that has not ended."""
        self._ready: dict[bool, list[tuple[float, int]]] = {True: [], False: []}
        """Heaps of those that may begin, the short ones and the others."""
        for number, task in enumerate(tasks):
            for name in set(task.after):
                self._waiting.setdefault(name, []).append(number)
            if not task.after:
                self._make_ready(number)

    def _make_ready(self, number: int) -> None:
        task = self._tasks[number]
        heapq.heappush(self._ready[task.short], (-task.weight, number))

    def take(self, *, short_first: bool) -> Task[S] | None:
        """The heaviest task that may begin, or the heaviest short one; waits for one, None when
        there will be none."""
        with self.changed:
            while True:
                if self.error is not None or not self._left:
                    return None
                heaps = [heap for heap in self._ready.values() if heap]
                if heaps:
                    short = self._ready[True]
                    heap = short if short_first and short else min(heaps)
                    self._left -= 1
                    return self._tasks[heapq.heappop(heap)[1]]
                self.changed.wait()

    def finish(self, task: Task[S]) -> None:
        with self.changed:
            for number in self._waiting.pop(task.name, ()):
                self._unmet[number] -= 1
                if not self._unmet[number]:
                    self._make_ready(number)
            self.changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """Remember the first error and make the other threads' statements end."""
        with self.changed:
            if self.error is None:
                self.error = error
            self.changed.notify_all()
            # Under the lock, so that no session is closed meanwhile.
            for session in self.sessions:
                session.cancel()


def run_all(tasks: Sequence[Task[S]], open_session: Callable[[], S], jobs: int) -> None:
    """Run the tasks on up to ``jobs`` threads and return when all have ended.

    The first error stops everything: what has not begun never does, what runs is cancelled, and
    the error is raised here. Raises ValueError where ``after`` names an unknown task.
    """
    names = {task.name for task in tasks}
    unknown = {name for task in tasks for name in task.after} - names
    if unknown:
        raise ValueError(f"tasks wait for what is not there: {sorted(unknown)}")
    board = _Board(tasks)
    number = max(1, min(jobs, len(tasks)))
    threads = [
        threading.Thread(
            target=_work, args=(board, open_session, n == 1), name=f"worker-{n}", daemon=True
        )
        for n in range(number)
    ]
    try:
        with undisturbed():
            for thread in threads:
                thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(JOIN_INTERVAL)
    except BaseException as error:  # an interrupt must not leave the threads at work
        board.fail(error)
        for thread in threads:
            thread.join()
        raise
    if board.error is not None:
        raise board.error


def _work(board: _Board[S], open_session: Callable[[], S], short_first: bool) -> None:
    session: S | None = None
    try:
        while (task := board.take(short_first=short_first)) is not None:
            if session is None:
                session = open_session()
                with board.changed:
                    board.sessions.append(session)
                    if board.error is not None:
                        return
            task.run(session)
            board.finish(task)
    except BaseException as error:
        board.fail(error)
    finally:
        if session is not None:
            with board.changed:
                board.sessions.remove(session)
                session.close()
