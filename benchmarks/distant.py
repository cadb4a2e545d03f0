"""A PostgreSQL that is far away: a forwarder that delays, and counts who waits for whom."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Self


class Distance:
    """Forwards a loopback port; each byte arrives ``milliseconds`` / 2 later, so that an answer
    comes that many later than its question.

    ``turns`` counts, over all connections, how often a client has sent something after an answer:
    the round trips that somebody has waited for.
    """

    def __init__(self, port: int, milliseconds: float) -> None:
        self._to = port
        self._delay = milliseconds / 2000
        self.turns = 0
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client = self._listener.accept()[0]
                server = socket.create_connection(("127.0.0.1", self._to))
            except OSError:
                return
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            answered = threading.Event()
            answered.set()
            self._forward(client, server, partial(self._asked, answered))
            self._forward(server, client, answered.set)

    def _asked(self, answered: threading.Event) -> None:
        if answered.is_set():
            answered.clear()
            with self._lock:
                self.turns += 1

    def _forward(self, one: socket.socket, other: socket.socket, seen: Callable[[], None]) -> None:
        waiting: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()

        def receive() -> None:
            with contextlib.suppress(OSError):
                while content := one.recv(262144):
                    seen()
                    waiting.put((time.monotonic() + self._delay, content))
            waiting.put((time.monotonic() + self._delay, b""))

        def send() -> None:
            while True:
                due, content = waiting.get()
                time.sleep(max(due - time.monotonic(), 0))
                if not content:
                    with contextlib.suppress(OSError):
                        other.shutdown(socket.SHUT_WR)
                    return
                try:
                    other.sendall(content)
                except OSError:
                    return

        for run in (receive, send):
            threading.Thread(target=run, daemon=True).start()
