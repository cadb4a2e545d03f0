"""The worker processes of a fleet's run: each does one file after another.

Processes and not threads: planning and comparing are Python's own work, and a file that takes its
process with it (its memory, a fault in a library) takes no other file.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import TypeVar

from migration_job import workers
from migration_job.errors import ExitStatus, OperationError
from migration_job.fleet.tasks import Answer, Failed, Task

A = TypeVar("A", bound=Task)

END_SECONDS = 10.0
"""How long a worker without work may take to end."""


class Worker:
    """One worker process, started when it is first asked.
    It lives no longer than this process."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection[Task, Answer] | None = None
        self._cancelled = False

    def ask(self, task: Task) -> Answer:
        """Its answer; a Failed one where the process ends instead."""
        try:
            connection = self._started()
            if self._cancelled:  # while it was being started
                raise EOFError
            connection.send(task)
            return connection.recv()
        except (EOFError, OSError):
            if self._cancelled:
                raise OperationError("the fleet's run was stopped") from None
            status = self._ended()
            how = f"signal {-status}" if status < 0 else f"status {status}"
            return Failed(
                ExitStatus.UNEXPECTED,
                f"expected a worker to finish this file, found that its process ended ({how})\n"
                "run the fleet again, which tries it once more; where that ends so too, move the "
                "file by itself with `migration-job migrate`",
            )

    def close(self) -> None:
        """End the process, which has nothing to do."""
        if self._connection is not None:
            self._connection.close()
        self._ended()

    def cancel(self) -> None:
        """End the process, whatever it does."""
        self._cancelled = True
        if self._process is not None:
            self._process.kill()

    def _started(self) -> Connection[Task, Answer]:
        if self._connection is not None:
            return self._connection
        if self._cancelled:
            raise EOFError
        here, there = socket.socketpair()
        with there:
            self._process = subprocess.Popen(  # noqa: S603 - this interpreter and a module of ours
                [sys.executable, "-m", "migration_job.fleet.worker", str(there.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(there.fileno(),),
            )
        self._connection = Connection(here.detach())
        return self._connection

    def _ended(self) -> int:
        process, self._process = self._process, None
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.close()
            self._connection = None
        if process is None:
            return 0
        try:
            return process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


class Crew:
    """Some workers, which stay from one :meth:`each` to the next: starting one takes as long as
    moving a few small files."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._free: queue.SimpleQueue[Worker] = queue.SimpleQueue()

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        while not self._free.empty():
            self._free.get().close()

    def each(
        self,
        tasks: Sequence[A],
        ended: Callable[[A, Answer], None],
        *,
        begun: Callable[[A], None] = lambda _: None,
        weight: Callable[[A], float] = lambda _: 0.0,
    ) -> None:
        """Have the workers do the tasks, the heaviest first. ``begun`` is called before a task and
        ``ended`` with its answer, each in one of several threads. An error of theirs ends all of it
        and is raised here."""

        def one(task: A) -> Callable[[_Lent], None]:
            def run(lent: _Lent) -> None:
                begun(task)
                ended(task, lent.worker.ask(task))

            return run

        workers.run_all(
            [workers.Task(task.tenant, one(task), weight(task)) for task in tasks],
            lambda: _Lent(self._free),
            self._size,
        )


class _Lent:
    """A worker for as long as there are tasks (:class:`migration_job.workers.Session`)."""

    def __init__(self, free: queue.SimpleQueue[Worker]) -> None:
        self._free = free
        try:
            self.worker = free.get_nowait()
        except queue.Empty:
            self.worker = Worker()

    def close(self) -> None:
        """Give it back."""
        self._free.put(self.worker)

    def cancel(self) -> None:
        """End its process, whatever it does."""
        self.worker.cancel()
