"""Files compressed by Zstandard, which are read back before they count."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

SUFFIX = ".zst"

LEVEL = 2
"""A database of ordinary rows becomes a third of its size, at 250 MB and more for each second of
one core, which the copy beside it may need. Level 3 takes half as long again for a tenth less."""

BLOCK = 1 << 20

SPACE_MARGIN = 64 << 20
"""Bytes that stay free: the application may write to the same disk."""


class Sink(Protocol):
    """Where unpacked bytes go."""

    def write(self, block: bytes, /) -> int:
        """Take a block; how much of it was taken."""


@dataclass(frozen=True, slots=True)
class Packed:
    """A compressed file."""

    bytes: int
    sha256: str
    """Of the compressed file, in hex."""
    content_sha256: str
    """Of what the file unpacks to, read back from it."""


class Stopped(Exception):
    """The packing was told to stop; nothing is left of it."""


def pack(file: Path, to: Path, stop: threading.Event | None = None) -> Packed:
    """Compress ``file`` to ``to``, have it on the disk, and read it back. Whatever is in the place
    of ``to``, a symbolic link above all, goes. Raises OSError where there is no room, and
    :class:`Stopped` soon after ``stop`` is set; ``to`` is gone then."""
    to.unlink(missing_ok=True)
    try:
        size, sha256 = _write(file, to, stop or threading.Event())
        return Packed(size, sha256, _read_back(to, stop or threading.Event()))
    except BaseException:
        to.unlink(missing_ok=True)
        raise


def unpack(file: Path, stream: Sink) -> str:
    """Write what ``file`` holds to ``stream``; its SHA-256. Raises OSError, zstd's error for bytes
    that are damaged included."""
    digest = hashlib.sha256()
    try:
        with zstd.open(file, "rb") as packed:
            while block := packed.read(BLOCK):
                digest.update(block)
                stream.write(block)
    except (zstd.ZstdError, EOFError) as error:
        raise OSError(errno.EIO, f"not what was compressed: {error}") from error
    return digest.hexdigest()


def _write(file: Path, to: Path, stop: threading.Event) -> tuple[int, str]:
    options: dict[int, int] = {
        zstd.CompressionParameter.compression_level: LEVEL,
        zstd.CompressionParameter.checksum_flag: 1,
    }
    compressor = zstd.ZstdCompressor(options=options)
    digest, size = hashlib.sha256(), 0
    descriptor = os.open(to, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with file.open("rb") as plain, os.fdopen(descriptor, "wb") as stream:
        ended = False
        while not ended:
            if stop.is_set():
                raise Stopped
            if shutil.disk_usage(to.parent).free < SPACE_MARGIN:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            block = plain.read(BLOCK)
            ended = not block
            written = compressor.flush() if ended else compressor.compress(block)
            digest.update(written)
            size += stream.write(written)
        stream.flush()
        os.fsync(stream.fileno())
        _forget(stream.fileno())
    return size, digest.hexdigest()


def _forget(descriptor: int) -> None:
    """Have what is read next come from the disk, and not from the kernel's memory."""
    if hasattr(os, "posix_fadvise"):
        with contextlib.suppress(OSError):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


class _Nowhere:
    """A stream that keeps nothing, and ends where it is told to."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop

    def write(self, block: bytes, /) -> int:
        if self._stop.is_set():
            raise Stopped
        return len(block)


def _read_back(file: Path, stop: threading.Event) -> str:
    return unpack(file, _Nowhere(stop))
