"""One request and its answer, passed on block by block."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Coroutine
from typing import Any

import h11

from migration_job.gate import sockets
from migration_job.gate.limits import BLOCK_BYTES, CHUNK_OVERHEAD_BYTES, Limits
from migration_job.gate.links import Link
from migration_job.gate.messages import (
    Refused,
    answer_onward,
    between,
    end_of,
    is_events,
    is_safe,
    lowered,
    unreadable,
)

CONTINUE_SECONDS = 1.0
"""A client that waits for leave to send its body has it after so long, whoever gives it."""

LOOK_SECONDS = 5.0
"""Between looks whether the client of a silent answer is still there."""

HALF_SECONDS = 30.0
"""How long one side of what is HTTP no more may go on after the other has ended."""


class Gone(Exception):
    """The client has gone, or takes nothing."""


class Broken(Exception):
    """An answer that has begun cannot be completed."""


class Stale(Exception):
    """A kept connection was closed before it took the request."""


class Exchange:
    """``request`` as it is to go on; ``sock`` and ``http`` are the client's."""

    def __init__(
        self, request: h11.Request, sock: socket.socket, http: h11.Connection, limits: Limits
    ) -> None:
        self.request = request
        self.safe = is_safe(request)
        self.cut = False
        self._sock, self._http, self._limits = sock, http, limits
        self._sent = False
        self._began: float | None = None
        self._endless = False
        self._lasting = False
        self._deaf = False
        """The application takes nothing more of this request."""
        self._allowed = asyncio.Event()
        self._task = asyncio.current_task()

    @property
    def began(self) -> bool:
        """Whether the answer's head has gone out: no other can be given."""
        return self._began is not None

    @property
    def whole(self) -> bool:
        """Whether the request has come to its end."""
        return self._sent

    def end_for_hold(self, held: float) -> bool:
        """Cut it if a hold of so many seconds is not to wait for it any longer: a stream, or one
        that waits for its client. One that waits for the application alone is never cut. Whether
        it was."""
        lasted = 0.0 if self._began is None else time.monotonic() - self._began
        if self._endless or (self._lasting and lasted - held > self._limits.long):
            limit = self._limits.stream
        elif self.began or not self._sent:
            limit = self._limits.slow
        else:
            return False
        if self.cut or held < limit:
            return False
        self.end()
        return True

    def end(self) -> None:
        """Cut it, whatever it waits for."""
        self.cut = True
        if self._task is not None:
            self._task.cancel()

    async def run(self, link: Link) -> bool:
        """Whether the client's connection goes on. Raises Refused, where there is no answer yet;
        Broken, Gone, and Stale where it may be sent again on a new connection."""
        self._deaf = False
        begun = link.http.send(self.request) or b""
        if self._http.they_are_waiting_for_100_continue:
            await self._to_application(link, begun)
        else:
            await self._to_application(link, begun + self._what_has_come(link))
        if self._sent:
            return await self._answer(link)
        return await self._both(link)

    # ------------------------------------------------------------------------ the request's body

    def _what_has_come(self, link: Link) -> bytes:
        """Of the body without waiting, in the application's framing."""
        if self._sent:  # on a connection before this one; it has no body
            return link.http.send(h11.EndOfMessage()) or b""
        out = bytearray()
        while True:
            event = self._of_client()
            if isinstance(event, h11.Data):
                out += link.http.send(h11.Data(data=event.data)) or b""
            elif isinstance(event, h11.EndOfMessage):
                self._sent = True
                return bytes(out) + (link.http.send(end_of(event)) or b"")
            else:
                return bytes(out)

    def _of_client(self) -> Any:
        try:
            return _next(self._http)
        except h11.RemoteProtocolError as error:
            raise unreadable(error) from error

    async def _to_application(self, link: Link, data: bytes) -> None:
        """A write that fails is no end: an answer may have come before it, such as a 413."""
        if self._deaf:
            return
        try:
            await sockets.send(link.sock, data, self._limits.answer)
        except TimeoutError as error:
            raise Refused(504, "the application does not take the request") from error
        except OSError:
            self._deaf = True

    async def _pump(self, link: Link) -> None:
        """The rest of the body, as it comes and as the application takes it."""
        if self._http.they_are_waiting_for_100_continue:
            await self._leave_to_send()
        waited, received, raw = 0.0, 0, 0
        while True:
            out = self._what_has_come(link)
            received += len(out)
            if raw - 8 * received > CHUNK_OVERHEAD_BYTES:
                raise Refused(400, "a body that is framing and no data")
            await self._to_application(link, out)
            if self._sent:
                return
            await asyncio.sleep(0)
            allowed = self._limits.body + received / self._limits.body_rate - waited
            start = time.monotonic()
            block = await self._from_client(allowed)
            waited += time.monotonic() - start
            raw += len(block)
            self._http.receive_data(block)

    async def _leave_to_send(self) -> None:
        try:
            await asyncio.wait_for(self._allowed.wait(), CONTINUE_SECONDS)
        except TimeoutError:
            await self._to_client(
                self._http.send(
                    h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")
                )
                or b""
            )

    async def _from_client(self, seconds: float) -> bytes:
        try:
            return await sockets.receive(self._sock, BLOCK_BYTES, seconds)
        except TimeoutError as error:
            raise Refused(408, "the request's body has not come in time") from error
        except OSError as error:
            raise Gone from error

    async def _both(self, link: Link) -> bool:
        """The body and the answer at once: an application may answer before it has all."""
        pump = asyncio.create_task(self._pump(link))
        answer = asyncio.create_task(self._answer(link))
        try:
            await asyncio.wait({pump, answer}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                pump.result()  # raises what the client did wrong
            return await answer
        finally:
            pump.cancel()
            answer.cancel()
            await asyncio.gather(pump, answer, return_exceptions=True)

    # -------------------------------------------------------------------------------- the answer

    async def _answer(self, link: Link) -> bool:
        try:
            return await self._pass_answer(link)
        except (OSError, h11.RemoteProtocolError, h11.LocalProtocolError) as error:
            if self.began:
                raise Broken from error
            if isinstance(error, TimeoutError):
                raise Refused(504, "the application has not answered in time") from error
            if self.safe and not link.received and link.since:
                raise Stale from error
            if isinstance(error, OSError) or not link.received:
                raise Refused(502, "the application closed without an answer") from error
            raise Refused(502, "the application's answer is not HTTP") from error

    async def _pass_answer(self, link: Link) -> bool:
        response = await self._head(link)
        if isinstance(response, h11.InformationalResponse):
            await self._tunnel(response, link)
            return False
        values = lowered(response.headers.raw_items())
        onward = answer_onward(response, values, close=not self._sent)
        self._lasting = b"content-length" not in values
        self._endless = is_events(values)
        out = bytearray(self._http.send(onward) or b"")
        self._began = time.monotonic()
        while not isinstance(event := _next(link.http), h11.EndOfMessage):
            if isinstance(event, h11.Data):
                out += self._http.send(h11.Data(data=event.data)) or b""
                continue
            if out:
                await self._to_client(out)
                out = bytearray()
                await asyncio.sleep(0)
            await self._more_of_answer(link)
        out += self._http.send(end_of(event)) or b""
        await self._to_client(out)
        return self._http.our_state is h11.DONE and self._http.their_state is h11.DONE

    async def _head(self, link: Link) -> h11.Response | h11.InformationalResponse:
        """The answer, or that the connection is HTTP no more; what comes before is passed on."""
        while True:
            event = _next(link.http)
            if isinstance(event, h11.Response):
                return event
            if isinstance(event, h11.InformationalResponse):
                if event.status_code == 101:
                    return event
                await self._informational(event)
            else:
                block = await sockets.receive(link.sock, BLOCK_BYTES, self._limits.answer)
                link.received += len(block)
                link.http.receive_data(block)

    async def _informational(self, event: h11.InformationalResponse) -> None:
        if event.status_code == 100:
            self._allowed.set()
            if not self._http.they_are_waiting_for_100_continue:
                return
        if self._http.their_http_version == b"1.1":
            await self._to_client(self._http.send(between(event)) or b"")

    async def _more_of_answer(self, link: Link) -> None:
        """Wait for the next block for as long as the client is there."""
        while True:
            try:
                block = await sockets.receive(link.sock, BLOCK_BYTES, LOOK_SECONDS)
            except TimeoutError:
                if self._sent and sockets.gone(self._sock):
                    raise Gone from None
            else:
                link.http.receive_data(block)
                return

    async def _to_client(self, data: bytes | bytearray) -> None:
        try:
            await sockets.send(self._sock, bytes(data), self._limits.take)
        except OSError as error:  # TimeoutError is one
            raise Gone from error

    # --------------------------------------------------------------------------- HTTP no more

    async def _tunnel(self, response: h11.InformationalResponse, link: Link) -> None:
        """WebSocket, say. It ends when a side does, and at the next hold."""
        out = self._http.send(between(response)) or b""
        self._began = time.monotonic()
        self._endless = True
        await self._to_client(out + link.http.trailing_data[0])
        await sockets.send(link.sock, self._http.trailing_data[0], self._limits.take)
        ways = {_task(_pour(self._sock, link.sock)), _task(_pour(link.sock, self._sock))}
        try:
            _, rest = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            if rest:
                await asyncio.wait(rest, timeout=HALF_SECONDS)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)


def _task(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    return asyncio.create_task(work)


async def _pour(source: socket.socket, sink: socket.socket) -> None:
    try:
        while block := await sockets.receive(source, BLOCK_BYTES, None):
            await sockets.send(sink, block, None)
            await asyncio.sleep(0)
    except OSError:
        pass
    finally:
        sockets.finish(sink)


def _next(http: h11.Connection) -> Any:
    """The next event; h11's own words on what cannot come here are an error of the other side."""
    event = http.next_event()
    if isinstance(event, h11.ConnectionClosed):
        raise h11.RemoteProtocolError("closed before the message")
    return event
