"""Ports for stages: chosen now, taken later, so not from the range that the kernel gives to
outgoing connections meanwhile, and none twice."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path
from typing import IO

FIRST, LAST = 20000, 32000
"""Below Linux' own range for outgoing connections (32768 on), macOS' (49152 on) too."""

_given: dict[int, IO[bytes]] = {}
"""The ports that this process has given, each with the lock that keeps others from giving it."""


def free_port() -> int:
    """A port of this machine that nobody listens on, given to nobody else while this process runs:
    what is chosen listens later, so that a second choice could not see the first."""
    locks = Path(tempfile.gettempdir()) / f"test-ports-{os.getuid()}"
    locks.mkdir(exist_ok=True)
    for _ in range(10 * (LAST - FIRST + 1)):
        port = random.SystemRandom().randint(FIRST, LAST)
        if port in _given or not _listens_nobody(port):
            continue
        lock = (locks / str(port)).open("wb")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # another test process has given it
            lock.close()
            continue
        _given[port] = lock
        return port
    raise RuntimeError(f"no port from {FIRST} to {LAST} is free")


def _listens_nobody(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("", port))  # on any address
        except OSError:
            return False
    return True
