"""Addresses as connection strings have them: one host and port, or lists of them.

``host=a,b,c port=5432`` is any of three servers; ``port=5432,5433,5434`` gives each its own. Which
of them is meant is the client's to find out: ``target_session_attrs=read-write``.
"""

from __future__ import annotations

from typing import Literal

SessionAttributes = Literal["any", "read-write", "primary"]
"""What a client may want of the server that it stays with: what takes writes, as a rule."""

LEADER: SessionAttributes = "read-write"


def is_list(host: str) -> bool:
    """Whether more than one server is named."""
    return "," in host


def ports_of(port: int | str) -> list[int]:
    """The ports of a setting, in order. Raises ValueError for what is none."""
    found = [int(text) for text in str(port).split(",")]
    wrong = [number for number in found if not 1 <= number <= 65535]
    if wrong:
        raise ValueError(f"expected ports from 1 to 65535, found {wrong[0]}")
    return found


def require_matching(host: str, port: int | str) -> None:
    """Raises ValueError where the lists do not go together, or a host is empty."""
    hosts, ports = host.split(","), ports_of(port)
    if is_list(host) and not all(name.strip() for name in hosts):
        raise ValueError("expected a name between any two commas of host, found none")
    if len(ports) not in (1, len(hosts)):
        raise ValueError(
            f"expected one port, or one for each host of {len(hosts)}, found {len(ports)}"
        )


def plain_port(port: int | str) -> int | str:
    """A single port as a number, and a list as it is. Raises ValueError for what is neither."""
    ports = ports_of(port)
    return ports[0] if len(ports) == 1 else ",".join(str(number) for number in ports)
