"""One client's connection: a request, its answer, and so on."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from typing import Protocol

import h11

from migration_job.gate import sockets
from migration_job.gate.exchange import Broken, Exchange, Gone, Stale
from migration_job.gate.limits import BLOCK_BYTES, HEAD_BYTES, Limits
from migration_job.gate.links import Links
from migration_job.gate.messages import Refused, onward, unreadable

REFUSE_SECONDS = 5.0
LINGER_SECONDS = 2.0
AGAIN_SECONDS = 1


class Door(Protocol):
    """What of the gate a client meets."""

    limits: Limits
    links: Links
    waiting: dict[Client, float]
    """Those that wait for a head, with since when; the longest first."""

    def is_open(self) -> bool: ...

    async def opened(self) -> None: ...

    def begin(self, exchange: Exchange) -> None:
        """It is under way from now on."""

    def done(self, exchange: Exchange) -> None: ...


class Client:
    """``sock`` does not block, and is closed at the end of :meth:`run`."""

    def __init__(self, sock: socket.socket, door: Door) -> None:
        self._sock, self._door = sock, door
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES)
        self._method = b"GET"
        self._exchange: Exchange | None = None
        self._asked = False
        """Whether there is a request that waits for its answer."""
        self._task: asyncio.Task[None] | None = None

    def end(self) -> None:
        """It waits for a request, and is to make room."""
        if self._task is not None:
            self._task.cancel()

    async def run(self) -> None:
        """Until one side closes. A cancellation is the gate's word that it ends here."""
        self._task = asyncio.current_task()
        try:
            try:
                while await self._one():
                    self._exchange = None
            except asyncio.CancelledError:
                if not self._asked:
                    return
                text = "the database is being switched or the gate is ending; try again"
                raise Refused(503, text, again=AGAIN_SECONDS) from None
        except Refused as refused:
            await self._refuse(refused)
        except Broken:
            if self._http.their_http_version == b"1.0":  # the end would look like the answer's own
                sockets.reset(self._sock)
        except (Gone, OSError):
            pass
        except asyncio.CancelledError:
            pass
        finally:
            self._door.waiting.pop(self, None)
            self._sock.close()

    async def _refuse(self, refused: Refused) -> None:
        if self._exchange is not None and self._exchange.began:
            if self._http.their_http_version == b"1.0":
                sockets.reset(self._sock)
            return
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await sockets.send(self._sock, refused.encode(self._method), REFUSE_SECONDS)
            await sockets.linger(self._sock, LINGER_SECONDS)

    async def _one(self) -> bool:
        """One request and its answer; whether another may come."""
        self._asked = False
        request = await self._head()
        if request is None:
            return False
        self._method = request.method
        self._asked = True
        exchange = self._exchange = Exchange(
            onward(request, self._door.links.authority), self._sock, self._http, self._door.limits
        )
        if not await self._passed(exchange):
            if not exchange.whole:
                await sockets.linger(self._sock, LINGER_SECONDS)
            return False
        self._asked = False
        self._http.start_next_cycle()
        return True

    async def _passed(self, exchange: Exchange) -> bool:
        door, reuse = self._door, exchange.safe
        while True:
            if not door.is_open():
                await door.opened()
                if sockets.gone(self._sock):
                    # Its client has given up, and may be asking again: it is not sent any more.
                    raise Refused(503, "closed while it was held", again=AGAIN_SECONDS)
            door.begin(exchange)
            try:
                link = door.links.take() if reuse else None
                link = link or await door.links.reach(door.is_open)
                if link is None:
                    continue  # nothing has been sent: it waits with the others
                try:
                    going = await exchange.run(link)
                except BaseException:
                    link.close()
                    raise
                door.links.give(link)
                return going
            except Stale:
                reuse = False
            finally:
                door.done(exchange)

    async def _head(self) -> h11.Request | None:
        """The next request's; None where the client closes, or has none for too long."""
        limits, waiting = self._door.limits, self._door.waiting
        seconds, begun = limits.idle, bool(self._http.trailing_data[0])
        if self._http.their_http_version is None or begun:
            seconds = limits.head
        since = time.monotonic()
        waiting[self] = since
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                raise unreadable(error) from error
            if isinstance(event, h11.Request):
                waiting.pop(self, None)
                return event
            if isinstance(event, h11.ConnectionClosed):
                return None
            try:
                left = since + seconds - time.monotonic()
                block = await sockets.receive(self._sock, BLOCK_BYTES, left)
            except TimeoutError as error:
                if not begun:
                    return None
                raise Refused(408, "the request's head has not come in time") from error
            if not begun and block:
                block = block.lstrip(b"\r\n")  # an old client may end a body so
                begun = bool(block)
                if not block:
                    continue
                since, seconds = time.monotonic(), limits.head
            self._http.receive_data(block)
