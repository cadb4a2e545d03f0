"""The application behind the gate, and how it is restarted."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
from pathlib import Path
from typing import Protocol

from migration_job.connection import read_connection, render_env
from migration_job.durable import write_durably
from migration_job.errors import OperationError

STOP_SECONDS = 30.0
"""Between SIGTERM and SIGKILL: nothing is under way, so an orderly end takes no longer."""


class Application(Protocol):
    async def start(self, connection: Path) -> None:
        """Have it run with what ``connection`` says now, whether it ran before or not. Raises
        OperationError."""

    async def stop(self) -> None:
        """The gate ends."""


class Child:
    """A process of the gate's own. It gets ``database.env``'s variables in its environment."""

    def __init__(self, command: str) -> None:
        self._command = shlex.split(command)
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, connection: Path) -> None:
        await self.stop()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                env={**os.environ, **environment(connection)},
                start_new_session=True,
            )
        except OSError as error:
            raise OperationError(
                f"the application cannot be started: {self._command[0]}: {error.strerror}",
                advice="give the command that starts it after --run",
            ) from error

    async def stop(self) -> None:
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        _signal(process, signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
        except TimeoutError:
            _signal(process, signal.SIGKILL)
            await process.wait()


class Elsewhere:
    """Somebody else's process, such as a container: a command restarts it.

    ``record`` is a file that keeps which generation of the connection it was last started with: a
    gate that dies on the way is followed by one that does it again.
    """

    def __init__(self, command: str, record: Path) -> None:
        self._command = shlex.split(command)
        self._record = record
        self._runs = False

    async def start(self, connection: Path) -> None:
        """The first time it is taken as running already, with what ``connection`` says, unless the
        record says otherwise."""
        named = read_connection(connection)
        generation = str(named.generation if named else 0)
        if self._runs or self._recorded() not in ("", generation):
            await self._restart()
        self._runs = True
        if self._recorded() != generation:
            write_durably(self._record, generation.encode(), mode=0o644)

    def _recorded(self) -> str:
        try:
            return self._record.read_text()
        except FileNotFoundError:
            return ""

    async def _restart(self) -> None:
        try:
            process = await asyncio.create_subprocess_exec(*self._command)
        except OSError as error:
            raise OperationError(
                f"the application cannot be restarted: {self._command[0]}: {error.strerror}",
                advice="give a command that restarts it after --restart",
            ) from error
        status = await process.wait()
        if status != 0:
            raise OperationError(
                f"`{' '.join(self._command)}` ended with {status}",
                advice="the application still runs with the old connection; restart it by hand",
            )

    async def stop(self) -> None:
        """It goes on."""


def environment(connection: Path) -> dict[str, str]:
    """The variables of ``database.env``; none before the first connection was written."""
    found = read_connection(connection)
    if found is None:
        return {}
    terms = shlex.split(render_env(found), comments=True)
    return dict(term.split("=", 1) for term in terms)


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    # To the whole session: a shell that started the program does not pass it on.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
