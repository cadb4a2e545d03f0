"""Where the clients' connections arrive: no more than the process has files for."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any

BACKLOG = 1024
"""What the system keeps while no more are taken."""

BATCH = 16
"""Connections taken at once, before others have their turn."""

ROOM_SECONDS = 0.1
"""Between attempts to make room."""

Serve = Callable[[socket.socket], Coroutine[Any, Any, None]]
Say = Callable[[str], None]


class Listener:
    """Takes up to ``most`` connections at once; ``evict`` closes some that can be spared."""

    def __init__(self, most: int, serve: Serve, evict: Callable[[], None], say: Say) -> None:
        self._most, self._serve, self._evict, self._say = most, serve, evict, say
        self._sockets: list[socket.socket] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._paused = False
        self._told = 0.0

    def open(self, host: str, port: int) -> int:
        """Listen; returns the port. Raises OSError."""
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, address in dict.fromkeys(found):
            sock = socket.socket(family, socket.SOCK_STREAM)
            self._sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # What is set here holds for the connections that are taken from it.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setblocking(False)
            sock.bind(address)
            sock.listen(BACKLOG)
        self._resume()
        return int(self._sockets[0].getsockname()[1])

    def close(self) -> None:
        """No more are taken; those that are there go on."""
        self._pause()
        for sock in self._sockets:
            sock.close()
        self._sockets.clear()

    async def end(self) -> None:
        """End those that are there; they say so where they can."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=ROOM_SECONDS * 10)

    def _resume(self) -> None:
        self._paused = False
        loop = asyncio.get_running_loop()
        for sock in self._sockets:
            loop.add_reader(sock.fileno(), self._take, sock)

    def _pause(self) -> None:
        self._paused = True
        loop = asyncio.get_running_loop()
        for sock in self._sockets:
            loop.remove_reader(sock.fileno())

    def _take(self, sock: socket.socket) -> None:
        for _ in range(BATCH):
            if len(self._tasks) >= self._most:
                self._wait("all connections are taken")
                return
            try:
                connection, _ = sock.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                self._wait(f"no connection can be taken: {error.strerror}")
                return
            connection.setblocking(False)
            task = asyncio.create_task(self._serve(connection))
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._say(f"error: a connection ended with {type(error).__name__}: {error}")

    def _wait(self, why: str) -> None:
        """Take none until there is room."""
        now = time.monotonic()
        if not self._told or now - self._told > 60:
            self._told = now
            self._say(f"warning: {why} ({len(self._tasks)} are open); others wait")
        self._pause()
        self._evict()
        asyncio.get_running_loop().call_later(ROOM_SECONDS, self._look)

    def _look(self) -> None:
        if self._sockets and self._paused:
            self._resume()
