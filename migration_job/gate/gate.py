"""The gate: passes requests on, holds them, and has the application started anew.

A request is held before its first byte is sent on, so that nothing is ever sent twice. It is under
way from then until its answer has gone out. The gate is open unless

* the job asks for a hold (:mod:`migration_job.live.hold`),
* the connection names another database than the one that the application was started with; then,
  once nothing is under way, it is started anew, and must answer before the gate opens.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from migration_job.connection import Connection, read_connection
from migration_job.errors import JobError, OperationError
from migration_job.gate.application import Application
from migration_job.gate.messages import BODILESS, HEAD_BYTES, Head, Malformed, pass_body, read_head
from migration_job.live import hold

LOOK_SECONDS = 0.01
"""Between looks at the hold and the connection: a switch waits so long at most."""

CONNECT_SECONDS = 30.0
"""How long a request waits for an application that is just starting."""

RETRY_SECONDS = 0.05

ANSWER_SECONDS = 5.0
"""How long an application that has just accepted a connection may take to say anything."""

END_SECONDS = 20.0
"""How long what is under way may take to end when the gate itself is to end."""

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
    ) -> None:
        self._application = application
        self._upstream = upstream
        self._connection = connection
        self._state = state
        self._say = say
        self._open = asyncio.Event()
        self._under_way = 0
        self._told: tuple[str | None, int | None, float] = (None, None, 0.0)
        self._started_with: Connection | None = None
        self._served = False

    async def serve(self, listen: tuple[str, int], ready: Callable[[int], None]) -> None:
        """Start the application, then serve until cancelled; ``ready`` is told the port."""
        await self._start()
        server = await asyncio.start_server(self._client, *listen, limit=HEAD_BYTES)
        ready(int(server.sockets[0].getsockname()[1]))
        self._served = True
        try:
            await self._watch()
        finally:
            # Not `async with server`: that waits for clients that keep their connections open.
            server.close()
            await self._finish()
            await self._application.stop()
            hold.end_heartbeat(self._state)

    async def _finish(self) -> None:
        """What is under way gets its answer."""
        deadline = time.monotonic() + END_SECONDS
        while self._under_way and time.monotonic() < deadline:
            self._tell(None)
            await asyncio.sleep(LOOK_SECONDS)

    # -------------------------------------------------------------------------- the watch

    async def _watch(self) -> None:
        while True:
            token = hold.wanted(self._state)
            if token is not None:
                self._open.clear()
            elif self._changed():
                self._open.clear()
                if self._under_way == 0:
                    await self._start()
                    continue
            else:
                self._open.set()
            held = token if token is not None and self._under_way == 0 else None
            self._tell(held, self._generation() if self._open.is_set() else None)
            await asyncio.sleep(LOOK_SECONDS)

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
            self._say(f"warning: {error.message}")
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
                await asyncio.sleep(hold.HEARTBEAT_SECONDS)
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
                await asyncio.wait({task}, timeout=hold.HEARTBEAT_SECONDS)
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
        if [holds, serves] != told or now - at > hold.HEARTBEAT_SECONDS:
            hold.write_heartbeat(self._state, holds, serves, os.getpid())
            self._told = (holds, serves, now)

    # ------------------------------------------------------------------------- the clients

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (head := await read_head(reader)) is not None:
                if not await self._admit(head, reader, writer):
                    break
        except Malformed as error:
            with contextlib.suppress(OSError):
                writer.write(_plain(400, str(error)))
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client has gone
        finally:
            writer.close()

    async def _admit(
        self, head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """One request, when the gate is open; whether the client's connection goes on."""
        while not self._open.is_set():
            await self._open.wait()
        self._under_way += 1  # no other task has run since it was open
        try:
            return await self._exchange(head, reader, writer)
        finally:
            self._under_way -= 1

    async def _exchange(
        self, head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        try:
            there, back = await self._connect()
        except OSError:
            writer.write(_plain(502, "the application does not answer"))
            await writer.drain()
            return False
        try:
            if head.has(b"expect", b"100-continue"):
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                head = head.without(b"expect")
            upgrade = head.get(b"upgrade") is not None
            back.write((head if upgrade else head.for_one_hop(close=True)).encode())
            await pass_body(head, reader, back, to_the_end=False)
            await back.drain()
            return await self._answer(head, reader, there, writer, back)
        finally:
            back.close()

    async def _answer(
        self,
        head: Head,
        reader: asyncio.StreamReader,
        there: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        back: asyncio.StreamWriter,
    ) -> bool:
        answer = await read_head(there)
        while answer is not None and answer.status < 200 and answer.status != 101:
            writer.write(answer.encode())
            answer = await read_head(there)
        if answer is None:
            writer.write(_plain(502, "the application closed the connection without an answer"))
            await writer.drain()
            return False
        if answer.status == 101:
            await self._tunnel(answer, reader, there, writer, back)
            return False
        bodiless = head.first.startswith(b"HEAD ") or answer.status in BODILESS
        endless = (
            not bodiless
            and answer.get(b"content-length") is None
            and not answer.has(b"transfer-encoding", b"chunked")
        )
        old = not head.first.rstrip().endswith(b"HTTP/1.1")
        close = endless or old or head.has(b"connection", b"close")
        writer.write(answer.for_one_hop(close=close).encode())
        if not bodiless:
            await pass_body(answer, there, writer, to_the_end=True)
        await writer.drain()
        return not close

    async def _tunnel(
        self,
        answer: Head,
        reader: asyncio.StreamReader,
        there: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        back: asyncio.StreamWriter,
    ) -> None:
        """A connection that is HTTP no more (WebSocket). It does not count as under way: it may
        last for ever, and ends when the application is started anew."""
        writer.write(answer.encode())
        self._under_way -= 1
        try:
            await asyncio.gather(_pour(reader, back), _pour(there, writer))
        finally:
            self._under_way += 1

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        deadline = time.monotonic() + CONNECT_SECONDS
        while True:
            try:
                return await asyncio.open_connection(*self._upstream, limit=HEAD_BYTES)
            except OSError:
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(RETRY_SECONDS)


async def _pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while block := await reader.read(HEAD_BYTES):
            writer.write(block)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


def _plain(status: int, text: str) -> bytes:
    body = f"{text}\n".encode()
    reason = {400: "Bad Request", 502: "Bad Gateway"}[status]
    return (
        f"HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain\r\nConnection: close\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body
