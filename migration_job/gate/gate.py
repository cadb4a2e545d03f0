"""The gate: passes requests on, holds them, and has the application restarted.

A request is held before its first byte is sent on, so that nothing is ever sent twice. It is under
way from then until its answer has gone out. The gate is open unless

* the job asks for a hold (:mod:`migration_job.protocol.gate_protocol`),
* the connection names another database than the one that the application was started with; then,
  once nothing is under way, it is restarted, and must answer before the gate opens.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from migration_job.connection import Connection, read_connection
from migration_job.errors import JobError, OperationError
from migration_job.gate.application import Application
from migration_job.gate.client import Client
from migration_job.gate.exchange import Exchange
from migration_job.gate.limits import Limits, connections, raise_descriptors
from migration_job.gate.links import Links
from migration_job.gate.listener import Listener
from migration_job.protocol import gate_protocol

LOOK_SECONDS = 0.01
"""Between looks at the hold and the connection: a switch waits so long at most."""

RETRY_SECONDS = 0.05

ANSWER_SECONDS = 5.0
"""How long an application that has just accepted a connection may take to say anything."""

END_SECONDS = 20.0
"""How long what is under way may take to end when the gate itself is to end."""

EVICTED = 64
"""At a time, where all connections are taken."""

_PROBE = b"HEAD / HTTP/1.1\r\nHost: gate\r\nConnection: close\r\n\r\n"

Say = Callable[[str], None]
Result = TypeVar("Result")


class Gate:
    """One gate before one application. ``upstream`` is the application's host and port."""

    def __init__(
        self,
        application: Application,
        upstream: tuple[str, int],
        *,
        connection: Path,
        state: Path,
        say: Say,
        limits: Limits | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.links = Links(upstream, self.limits)
        self.waiting: dict[Client, float] = {}
        self._application = application
        self._upstream = upstream
        self._connection = connection
        self._state = state
        self._say = say
        self._open = asyncio.Event()
        self._closed_at = 0.0
        self._under_way: set[Exchange] = set()
        self._told: tuple[str | None, int | None, float] = (None, None, 0.0)
        self._warned = ""
        self._started_with: Connection | None = None
        self._served = False

    async def serve(self, listen: tuple[str, int], ready: Callable[[int], None]) -> None:
        """Start the application, then serve until cancelled; ``ready`` is told the port."""
        await self._start()
        most = connections(self.limits, raise_descriptors())
        listener = Listener(most, self._serve_client, self._evict, self._say)
        try:
            ready(listener.open(*listen))
            self._served = True
            await self._watch()
        finally:
            listener.close()
            self._open.clear()
            await self._finish()
            await listener.end()
            self.links.forget(all_of_them=True)
            await self._application.stop()
            gate_protocol.end_heartbeat(self._state)

    async def _finish(self) -> None:
        """What is under way gets its answer, but for streams, which have no end."""
        start = time.monotonic()
        while self._under_way and time.monotonic() - start < END_SECONDS:
            self._cut(time.monotonic() - start)
            self._tell(None)
            await asyncio.sleep(LOOK_SECONDS)

    # -------------------------------------------------------------------------- the watch

    async def _watch(self) -> None:
        while True:
            token = gate_protocol.wanted(self._state)
            if token is not None:
                self._close()
            elif self._changed():
                self._close()
                if not self._under_way:
                    await self._start()
                    continue
            else:
                self._open.set()
            self.links.forget(all_of_them=not self._open.is_set())
            held = token if token is not None and not self._under_way else None
            self._tell(held, self._generation() if self._open.is_set() else None)
            await asyncio.sleep(LOOK_SECONDS)

    def _close(self) -> None:
        """Nothing more is sent; what keeps the gate from being quiet ends in time."""
        if self._open.is_set():
            self._open.clear()
            self._closed_at = time.monotonic()
        self._cut(time.monotonic() - self._closed_at)

    def _cut(self, held: float) -> None:
        cut = sum([exchange.end_for_hold(held) for exchange in self._under_way])
        if cut:
            self._say(f"{cut} connections that had not ended after {held:.0f} s were closed")

    def _generation(self) -> int | None:
        return self._started_with.generation if self._started_with else None

    def _changed(self) -> bool:
        now, before = self._named(), self._started_with
        if before is None and now is not None and now.write.engine == now.read.engine == "sqlite":
            # The first connection names what the application has been using without one.
            self._started_with = now
            return False
        if now is None or before is None:
            return now is not before
        if now.same_sides(before):
            self._started_with = now  # it may be a later word for the same
            return False
        return True

    def _named(self) -> Connection | None:
        try:
            return read_connection(self._connection)
        except JobError as error:
            self._warn(error.message)
            return self._started_with

    async def _start(self) -> None:
        self._tell(None)
        self._started_with = self._named()
        where = "its own database"
        if self._started_with is not None:
            where = self._started_with.write.engine
        self._say(f"starting the application on {where}")
        began = time.monotonic()
        while True:
            try:
                await self._telling(self._application.start(self._connection))
                break
            except OperationError as error:
                if not self._served:
                    raise
                # Its requests wait; to let them go to the old database would have them fail.
                self._say(f"error: {error}; trying again")
                await asyncio.sleep(gate_protocol.HEARTBEAT_SECONDS)
        waits = False
        while not await self._telling(self._answers()):
            if not waits:
                self._say(f"waiting until it answers at {self._upstream[0]}:{self._upstream[1]}")
                waits = True
            await asyncio.sleep(RETRY_SECONDS)
        self._say(f"the application answers after {time.monotonic() - began:.1f} s")

    async def _telling(self, work: Coroutine[Any, Any, Result]) -> Result:
        """The work's result; the heartbeat goes on for as long as it takes."""
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                self._tell(None)
                await asyncio.wait({task}, timeout=gate_protocol.HEARTBEAT_SECONDS)
        finally:
            task.cancel()
        return task.result()

    async def _answers(self) -> bool:
        """Whether it speaks HTTP already. That it accepts connections is not enough: the engine
        does so for a published port before the program behind it is there."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                reader, writer = await asyncio.open_connection(*self._upstream)
                try:
                    writer.write(_PROBE)
                    return await reader.readexactly(5) == b"HTTP/"
                finally:
                    writer.close()
        except (OSError, asyncio.IncompleteReadError):  # TimeoutError is an OSError
            return False

    def _tell(self, holds: str | None, serves: int | None = None) -> None:
        now = time.monotonic()
        *told, at = self._told
        if [holds, serves] != told or now - at > gate_protocol.HEARTBEAT_SECONDS:
            self._told = (holds, serves, now)
            try:
                gate_protocol.write_heartbeat(self._state, holds, serves, os.getpid())
            except OSError as error:
                # The requests go on: a command that sees no heartbeat holds nothing.
                self._warn(f"the heartbeat cannot be written: {error.strerror}")
            else:
                self._warned = ""

    def _warn(self, text: str) -> None:
        """Once for as long as it is so."""
        if text != self._warned:
            self._warned = text
            self._say(f"warning: {text}")

    # -------------------------------------------------------------------- what a client meets

    def is_open(self) -> bool:
        return self._open.is_set()

    async def opened(self) -> None:
        while not self._open.is_set():
            await self._open.wait()

    def begin(self, exchange: Exchange) -> None:
        self._under_way.add(exchange)

    def done(self, exchange: Exchange) -> None:
        self._under_way.discard(exchange)

    async def _serve_client(self, sock: socket.socket) -> None:
        await Client(sock, self).run()

    def _evict(self) -> None:
        """Close connections that have waited for a head the longest, of those that may be."""
        now = time.monotonic()
        oldest = list(itertools.islice(self.waiting.items(), EVICTED))
        for client, since in oldest:
            if now - since >= self.limits.evict:
                del self.waiting[client]
                client.end()
