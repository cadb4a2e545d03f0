"""HTTP/1.1 messages as a gate needs them: where each ends, and nothing more (RFC 9112)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

HEAD_BYTES = 64 * 1024
BLOCK_BYTES = 64 * 1024

BODILESS = {204, 304}
"""Statuses whose answers have no body, whatever their headers say."""

_CONNECTION = {b"connection", b"keep-alive", b"proxy-connection"}


class Malformed(Exception):
    """A message that cannot be understood; the message says what."""


@dataclass(slots=True)
class Head:
    """The first line and the headers of a request or an answer, as they came."""

    first: bytes
    headers: list[tuple[bytes, bytes]]

    def get(self, name: bytes) -> bytes | None:
        """The last header of that name (in lower case), stripped; None where there is none."""
        found = None
        for key, value in self.headers:
            if key.lower() == name:
                found = value.strip()
        return found

    def has(self, name: bytes, word: bytes) -> bool:
        """Whether a header that lists words has this one."""
        words = (self.get(name) or b"").lower().split(b",")
        return word in [w.strip() for w in words]

    @property
    def status(self) -> int:
        """An answer's status. Raises Malformed."""
        parts = self.first.split(None, 2)
        if len(parts) < 2 or not parts[1].isdigit():
            raise Malformed("an answer without a status")
        return int(parts[1])

    def without(self, *names: bytes) -> Head:
        """The same without headers of these names (in lower case)."""
        return Head(self.first, [h for h in self.headers if h[0].lower() not in names])

    def for_one_hop(self, *, close: bool) -> Head:
        """The same with this hop's own word on whether the connection goes on."""
        kept = [h for h in self.headers if h[0].lower() not in _CONNECTION]
        return Head(self.first, [*kept, (b"Connection", b" close" if close else b" keep-alive")])

    def encode(self) -> bytes:
        lines = [self.first, *(key + b":" + value for key, value in self.headers)]
        return b"\r\n".join(lines) + b"\r\n\r\n"


async def read_head(reader: asyncio.StreamReader) -> Head | None:
    """The next message's head; None where the other side has closed. Raises Malformed."""
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial.strip():
            raise Malformed("a head that breaks off") from error
        return None
    except asyncio.LimitOverrunError as error:
        raise Malformed(f"a head of more than {HEAD_BYTES} bytes") from error
    first, *lines = raw[:-4].lstrip(b"\r\n").split(b"\r\n")
    headers = []
    for line in lines:
        key, colon, value = line.partition(b":")
        if not colon or not key or key != key.strip():
            raise Malformed("a line that is no header")
        headers.append((key, value))
    head = Head(first, headers)
    lengths = {v.strip() for k, v in headers if k.lower() == b"content-length"}
    if len(lengths) > 1 or (lengths and head.get(b"transfer-encoding") is not None):
        # What ends where must not be a matter of opinion between this and the next program.
        raise Malformed("a body with two lengths")
    return head


async def pass_body(
    head: Head,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    *,
    to_the_end: bool,
) -> bool:
    """Pass the body that follows ``head`` on, as it is.

    ``to_the_end`` is what a body without any length means: everything until the connection closes
    (an answer), or nothing (a request). Returns whether it went to the end. Raises Malformed.
    """
    if head.has(b"transfer-encoding", b"chunked"):
        await _pass_chunks(reader, writer)
        return False
    length = head.get(b"content-length")
    if length is not None:
        if not length.isdigit():
            raise Malformed("a length that is no number")
        await _pass_bytes(int(length), reader, writer)
        return False
    if to_the_end:
        while block := await reader.read(BLOCK_BYTES):
            writer.write(block)
            await writer.drain()
    return to_the_end


async def _pass_chunks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        line = await reader.readuntil(b"\r\n")
        writer.write(line)
        try:
            size = int(line.split(b";")[0].strip(), 16)
        except ValueError as error:
            raise Malformed("a chunk without a size") from error
        if size == 0:
            break
        await _pass_bytes(size + 2, reader, writer)
    while True:  # trailers, and the empty line that ends them
        line = await reader.readuntil(b"\r\n")
        writer.write(line)
        if line == b"\r\n":
            await writer.drain()
            return


async def _pass_bytes(
    count: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    while count:
        block = await reader.read(min(count, BLOCK_BYTES))
        if not block:
            raise Malformed("a body that breaks off")
        writer.write(block)
        await writer.drain()
        count -= len(block)
