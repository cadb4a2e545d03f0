"""Sockets of an event loop, without buffers of their own.

A block is read when the one before has been passed on: that is the whole of the back-pressure. A
limit ends a wait and never a read, so that no byte is lost to it; and a write that fails leaves
what has arrived to be read, which asyncio's transports throw away.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import struct
from collections.abc import Callable
from typing import Any

Address = tuple[socket.AddressFamily, Any]


async def receive(sock: socket.socket, count: int, seconds: float | None) -> bytes:
    """Up to ``count`` bytes, b"" at the end. Raises TimeoutError after ``seconds``, OSError."""
    while True:
        try:
            return sock.recv(count)
        except BlockingIOError:
            loop = asyncio.get_running_loop()
            await _ready(sock, loop.add_reader, loop.remove_reader, seconds)


async def send(sock: socket.socket, data: bytes, seconds: float | None) -> None:
    """All of it. Raises TimeoutError where a part of it is not taken for ``seconds``, OSError."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[sock.send(rest) :]
        except BlockingIOError:
            loop = asyncio.get_running_loop()
            await _ready(sock, loop.add_writer, loop.remove_writer, seconds)


async def connect(address: Address, seconds: float) -> socket.socket:
    """A connection that does not block. Raises TimeoutError, OSError."""
    family, where = address
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        status = sock.connect_ex(where)
        if status == errno.EINPROGRESS and _established(sock):
            status = 0
        if status == errno.EINPROGRESS:
            loop = asyncio.get_running_loop()
            await _ready(sock, loop.add_writer, loop.remove_writer, seconds)
            status = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if status:
            raise OSError(status, os.strerror(status))
    except BaseException:
        sock.close()
        raise
    return sock


def _established(sock: socket.socket) -> bool:
    """Whether a connection that has just begun is there: on the same host it is, though Linux has
    said that it is in progress, and a turn of the event loop costs more than the question."""
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


async def _ready(
    sock: socket.socket,
    add: Callable[..., None],
    remove: Callable[[int], Any],
    seconds: float | None,
) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[bool] = loop.create_future()
    number = sock.fileno()
    if number < 0:
        raise OSError(errno.EBADF, "closed")
    add(number, _resolve_future, ready, True)
    limit = (
        None if seconds is None else loop.call_later(max(seconds, 0), _resolve_future, ready, False)
    )
    try:
        if not await ready:
            raise TimeoutError
    finally:
        remove(number)
        if limit is not None:
            limit.cancel()


def _resolve_future(ready: asyncio.Future[bool], value: bool) -> None:
    if not ready.done():
        ready.set_result(value)


def gone(sock: socket.socket) -> bool:
    """Whether the other side has closed, as far as can be seen without reading."""
    try:
        return not sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True


def finish(sock: socket.socket) -> None:
    """Say that nothing more comes; what the other side sends can still be read."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_WR)


def reset(sock: socket.socket) -> None:
    """Close in a way that nobody can take for the end of an answer."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


async def linger(sock: socket.socket, seconds: float) -> None:
    """Take what still comes, so that closing does not wipe out the answer before it is read."""
    finish(sock)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    with contextlib.suppress(OSError):  # TimeoutError is one
        while await receive(sock, 65536, deadline - loop.time()) and loop.time() < deadline:
            await asyncio.sleep(0)
