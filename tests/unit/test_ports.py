"""A stage's ports are chosen before they are taken, so each is given once."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from tests.deployment import ports


def of_two(monkeypatch: pytest.MonkeyPatch, first: int) -> tuple[int, int]:
    """Have ports chosen from two alone."""
    monkeypatch.setattr(ports, "FIRST", first)
    monkeypatch.setattr(ports, "LAST", first + 1)
    return first, first + 1


def test_no_port_is_given_twice_by_any_process(monkeypatch: pytest.MonkeyPatch) -> None:
    two = of_two(monkeypatch, 32001)
    command = (
        "from tests.deployment import ports; import sys; "
        f"ports.FIRST, ports.LAST = {two}; print(ports.free_port(), flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        theirs = int(other.stdout.readline())
        ours = ports.free_port()
        other.communicate("", timeout=30)
    assert {theirs, ours} == set(two)


def test_a_port_that_listens_on_any_address_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    taken, free = of_two(monkeypatch, 32003)
    with socket.create_server(("127.0.0.2", taken)):
        assert ports.free_port() == free
