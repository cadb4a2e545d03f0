"""What the gate allows a client and the application: times, sizes, connections."""

from __future__ import annotations

import resource
from dataclasses import dataclass

BLOCK_BYTES = 16 * 1024
"""What is read at once: all that a body takes of memory, in either direction."""

HEAD_BYTES = 32 * 1024
HEADERS = 128

CHUNK_OVERHEAD_BYTES = 64 * 1024
"""What the framing of chunks may take, beyond eight times the data."""

RESERVED_DESCRIPTORS = 128
"""For the state's files, the listening sockets, a command, and kept connections."""


@dataclass(frozen=True, slots=True)
class Limits:
    """All in seconds but where it says otherwise."""

    head: float = 30.0
    """From a head's first byte, or from the connection's begin, to the head's end."""
    idle: float = 75.0
    """Between two requests of one connection."""
    body: float = 30.0
    """To wait for a body in all, and a second more for each ``body_rate`` bytes of it."""
    body_rate: int = 500
    take: float = 60.0
    """For a client to take one block of an answer."""
    answer: float = 3600.0
    """For the application to begin its answer, or to take a block of a body."""
    kept: float = 2.0
    """For which a connection to the application is kept; less than a server's usual 5."""
    stream: float = 1.0
    """Of a hold, until streams are cut: what is HTTP no more, event streams, long answers."""
    slow: float = 30.0
    """Of a hold, until whatever else waits for its client, not for the application, is cut."""
    long: float = 30.0
    """After which an answer without a length counts as a stream."""
    connections: int = 2048
    """Of clients, at most; fewer where the process may open fewer files."""
    evict: float = 1.0
    """Where all connections are taken, one that has waited for a head so long is closed."""


def raise_descriptors() -> int:
    """Have this process open as many files as it may; returns how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        hard = max(soft, 65536)
    if soft < hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            return soft
    return hard


def connections(limits: Limits, descriptors: int) -> int:
    """Clients that fit: each may need a second descriptor, to the application."""
    return max(1, min(limits.connections, (descriptors - RESERVED_DESCRIPTORS) // 2))
