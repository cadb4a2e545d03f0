"""Ports for stages: chosen now, taken later, so not from the range that the kernel gives to
outgoing connections meanwhile."""

from __future__ import annotations

import random
import socket

FIRST, LAST = 20000, 32000
"""Below Linux' own range for outgoing connections (32768 on), macOS' (49152 on) too."""


def free_port() -> int:
    """A port of this machine that nobody listens on; other tests choose at random as well."""
    while True:
        port = random.SystemRandom().randint(FIRST, LAST)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
