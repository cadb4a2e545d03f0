"""An application that takes nothing but well-formed HTTP/1.1, and keeps a list of what it was sent.

It reads by its own rules, with no library that forgives: whatever it finds wrong is in ``wrong``.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+ (/[\x21-\x7e]*|\*) HTTP/1\.1")
HEADER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[ \t]*[\t\x20-\x7e\x80-\xff]*")
SIZE = re.compile(rb"[0-9A-Fa-f]{1,8}")
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Wrong(Exception):
    """Something that is no well-formed request."""


class Ended(Exception):
    """The gate has closed."""


class StrictApplication:
    """``wrong`` has what was not well-formed; ``requests`` the first line of each whole request."""

    def __init__(self, listening: socket.socket) -> None:
        self.port = int(listening.getsockname()[1])
        self.wrong: list[str] = []
        self.requests: list[bytes] = []
        self.over = threading.Event()
        self.streams = 0
        self._listening = listening

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._connection, args=(connection,), daemon=True).start()

    def _connection(self, connection: socket.socket) -> None:
        connection.settimeout(30)
        with connection, contextlib.suppress(Ended, OSError):
            reader = Reader(connection)
            try:
                while self._one(reader, connection):
                    pass
            except Wrong as error:
                self.wrong.append(str(error))

    def _one(self, reader: Reader, connection: socket.socket) -> bool:
        head = reader.until(b"\r\n\r\n").split(b"\r\n")
        first, headers = head[0], head[1:]
        if LINE.fullmatch(first) is None:
            raise Wrong(f"first line {first!r}")
        found: dict[bytes, list[bytes]] = {}
        for line in headers:
            if HEADER.fullmatch(line) is None:
                raise Wrong(f"header {line!r}")
            name, _, value = line.partition(b":")
            found.setdefault(name.lower(), []).append(value.strip())
        for name in (b"host", b"content-length", b"transfer-encoding"):
            if len(found.get(name, [])) > 1:
                raise Wrong(f"{name!r} twice")
        if b"host" not in found or {b"content-length", b"transfer-encoding"} <= set(found):
            raise Wrong(f"host or length of {head!r}")
        method, path = first.split(b" ")[:2]
        if path == b"/413":
            connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 5\r\n\r\nlarge")
            return False
        if b"transfer-encoding" in found:
            if found[b"transfer-encoding"] != [b"chunked"]:
                raise Wrong(f"coding {found[b'transfer-encoding']!r}")
            self._chunks(reader)
        elif b"content-length" in found:
            if not re.fullmatch(rb"[0-9]{1,19}", found[b"content-length"][0]):
                raise Wrong(f"length {found[b'content-length']!r}")
            reader.skip(int(found[b"content-length"][0]))
        self.requests.append(first)
        return self._answer(method, path, connection)

    @staticmethod
    def _chunks(reader: Reader) -> None:
        while True:
            line = reader.until(b"\r\n")
            if SIZE.fullmatch(line) is None:
                raise Wrong(f"chunk size {line!r}")
            if int(line, 16) == 0:
                break
            reader.skip(int(line, 16))
            if reader.until(b"\r\n"):
                raise Wrong("a chunk longer than its size")
        while trailer := reader.until(b"\r\n"):
            if HEADER.fullmatch(trailer) is None:
                raise Wrong(f"trailer {trailer!r}")

    def _answer(self, method: bytes, path: bytes, connection: socket.socket) -> bool:
        ok = b"HTTP/1.1 200 OK\r\n"
        if method == b"HEAD":
            connection.sendall(ok + b"Content-Length: 1000\r\n\r\n")
        elif path == b"/304":
            connection.sendall(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\n\r\n")
        elif path == b"/truncated":
            connection.sendall(ok + b"Content-Length: 100\r\n\r\ntoo short")
            return False
        elif path == b"/truncated-chunks":
            connection.sendall(ok + b"Transfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
            return False
        elif path == b"/two-lengths":
            connection.sendall(
                ok + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n"
            )
        elif path == b"/trailers":
            connection.sendall(ok + b"Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n")
            connection.sendall(b"2\r\nok\r\n0\r\nX-Sum: 1\r\nContent-Length: 7\r\n\r\n")
        elif path == b"/no-http":
            connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
            return False
        elif path == b"/large":
            connection.sendall(ok + b"Content-Length: 50000000\r\n\r\n")
            for _ in range(50):
                connection.sendall(b"x" * 1_000_000)
        elif path in (b"/events", b"/chunks", b"/websocket"):
            self._endless(path, connection)
            return False
        elif path == b"/once":
            connection.sendall(PLAIN)  # as if it were to go on, and then it does not
            return False
        else:
            connection.sendall(PLAIN)
        return True

    def _endless(self, path: bytes, connection: socket.socket) -> None:
        heads = {
            b"/events": b"200 OK\r\nContent-Type: text/event-stream\r\n",
            b"/chunks": b"200 OK\r\nContent-Type: text/plain\r\n",
            b"/websocket": b"101 Switching Protocols\r\nUpgrade: websocket\r\n",
        }
        coding = b"Connection: upgrade" if path == b"/websocket" else b"Transfer-Encoding: chunked"
        connection.sendall(b"HTTP/1.1 " + heads[path] + coding + b"\r\n\r\n")
        self.streams += 1
        try:
            while not self.over.wait(0.05):
                connection.sendall(b"9\r\ndata: 1\n\n\r\n")
        finally:
            self.streams -= 1


class Reader:
    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._data = b""

    def _more(self) -> None:
        block = self._connection.recv(65536)
        if not block:
            raise Ended
        self._data += block

    def until(self, mark: bytes) -> bytes:
        while mark not in self._data:
            if len(self._data) > 1_000_000:
                raise Wrong("a head or a line of more than a megabyte")
            self._more()
        found, _, self._data = self._data.partition(mark)
        return found

    def skip(self, count: int) -> None:
        while len(self._data) < count:
            count -= len(self._data)
            self._data = b""
            self._more()
        self._data = self._data[count:]


@contextmanager
def strict_application() -> Iterator[StrictApplication]:
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listening:
        made = StrictApplication(listening)
        threading.Thread(target=made.serve, daemon=True).start()
        try:
            yield made
        finally:
            made.over.set()
            listening.shutdown(socket.SHUT_RDWR)
