"""Connections to the application.

One that has been used may be used again for what may be sent twice, since it can turn out closed;
whatever else has a new one. So nothing is ever sent twice that the application may have done.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable

import h11

from migration_job.gate import sockets
from migration_job.gate.limits import HEAD_BYTES, Limits
from migration_job.gate.messages import Refused

CONNECT_SECONDS = 30.0
"""How long a request waits for an application that is just starting."""

ATTEMPT_SECONDS = 5.0
RETRY_SECONDS = 0.05
KEPT = 64
RESOLVED_SECONDS = 1.0


class Link:
    """A connection, and where each message on it ends."""

    __slots__ = ("http", "received", "since", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.since = 0.0
        self._begin()

    def _begin(self) -> None:
        # Anew for each exchange: an h11 connection that goes on keeps what it learned of the other.
        self.http = h11.Connection(h11.CLIENT, max_incomplete_event_size=2 * HEAD_BYTES)
        self.received = 0

    def reusable(self) -> bool:
        """Whether the exchange has ended on both sides; then it is ready for the next."""
        ended = self.http.our_state is h11.DONE and self.http.their_state is h11.DONE
        if not ended or self.http.trailing_data[0]:
            return False
        self._begin()
        return True

    def close(self) -> None:
        self.sock.close()


class Links:
    """All that are kept, and how to make another."""

    def __init__(self, upstream: tuple[str, int], limits: Limits) -> None:
        self._upstream = upstream
        self._limits = limits
        self._kept: list[Link] = []
        self._address: sockets.Address | None = None
        self._resolved = 0.0
        host, port = upstream
        self.authority = f"[{host}]:{port}".encode() if ":" in host else f"{host}:{port}".encode()

    def take(self) -> Link | None:
        """One that was used before and is still open, as far as can be seen."""
        while self._kept:
            link = self._kept.pop()
            if time.monotonic() - link.since < self._limits.kept and not self._spoke(link):
                return link
            link.close()
        return None

    @staticmethod
    def _spoke(link: Link) -> bool:
        """Closed, or with something to read that nobody asked for."""
        try:
            link.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True

    def give(self, link: Link) -> None:
        """Back after an exchange, whatever became of it."""
        if len(self._kept) < KEPT and link.reusable():
            link.since = time.monotonic()
            self._kept.append(link)
        else:
            link.close()

    def forget(self, *, all_of_them: bool) -> None:
        """Close those that were kept too long, or all."""
        limit = time.monotonic() - self._limits.kept
        while self._kept and (all_of_them or self._kept[0].since < limit):
            self._kept.pop(0).close()

    async def reach(self, wanted: Callable[[], bool]) -> Link | None:
        """A new one; None where it is no longer ``wanted``. Raises Refused."""
        deadline = time.monotonic() + CONNECT_SECONDS
        while wanted():
            try:
                return await self.new()
            except OSError as error:
                self._address = None
                if time.monotonic() > deadline:
                    raise Refused(502, "the application does not answer", again=5) from error
            await asyncio.sleep(RETRY_SECONDS)
        return None

    async def new(self) -> Link:
        """Raises OSError, TimeoutError."""
        address = self._address
        if address is None or time.monotonic() - self._resolved > RESOLVED_SECONDS:
            address = self._address = await _resolve(*self._upstream)
            self._resolved = time.monotonic()
        return Link(await sockets.connect(address, ATTEMPT_SECONDS))


async def _resolve(host: str, port: int) -> sockets.Address:
    with contextlib.suppress(socket.gaierror):  # a number needs no thread
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        return found[0][0], found[0][4]
    loop = asyncio.get_running_loop()
    named = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return named[0][0], named[0][4]
