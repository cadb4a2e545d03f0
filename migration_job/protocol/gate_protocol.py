"""Holding the application's requests across a switch, where a gate stands before it.

The job asks, by a file in the state directory; ``migration-job gate`` answers by another:

``hold.json``   ``{"token", "until"}``: hold what comes, and say when nothing is under way any more.
                Its writer removes it; ``sync`` does where that one died; where there is no
                sync either, it lapses.
``gate.json``   the gate's heartbeat: ``{"pid", "at", "holds", "serves"}``: ``holds`` is the token
                once nothing is under way, ``serves`` the connection's generation that the
                application answers with, once its requests go through.

An application that follows its connection by itself needs none of this.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from migration_job.connection import read_connection
from migration_job.durable import write_durably
from migration_job.errors import OperationError

HEARTBEAT_SECONDS = 1.0
GONE_SECONDS = 5.0
"""A gate that has said nothing for so long is not there."""

UNDER_WAY_SECONDS = 60.0
"""How long requests that are under way may take to end before a switch gives up."""

START_SECONDS = 120.0
"""How long the application may take to be restarted before a command that waits says so."""

POLL_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What a gate says of itself; ``at`` is by ``time.time()``, the one clock that processes in
    several containers share."""

    pid: int
    at: float
    holds: str | None = None
    """The token of the hold that is in force: nothing is under way."""
    serves: int | None = None
    """The generation of the connection that the application runs with, where it answers."""


def write_heartbeat(state: Path, holds: str | None, serves: int | None, pid: int) -> None:
    """For the gate."""
    content = json.dumps(asdict(Heartbeat(pid, time.time(), holds, serves))).encode()
    write_durably(state / "gate.json", content, mode=0o644)


def end_heartbeat(state: Path) -> None:
    """For a gate that ends in order: nobody is to wait for it."""
    (state / "gate.json").unlink(missing_ok=True)


def read_heartbeat(state: Path) -> Heartbeat | None:
    """The gate's last word; None where there is no gate, or none any more."""
    try:
        found = Heartbeat(**json.loads((state / "gate.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None
    # A clock that was set back makes a heartbeat look to be of the future: it is there.
    return found if time.time() - found.at < GONE_SECONDS else None


def wanted(state: Path) -> str | None:
    """The token of the hold that is asked for at this moment, for the gate."""
    try:
        asked = json.loads((state / "hold.json").read_text())
        return str(asked["token"]) if time.time() < float(asked["until"]) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def let_go(state: Path) -> None:
    """End any hold. For the holder of the lock alone."""
    (state / "hold.json").unlink(missing_ok=True)


@contextlib.contextmanager
def holding(
    state: Path, *, limit: float = UNDER_WAY_SECONDS, longest: float, say: Callable[[str], None]
) -> Iterator[None]:
    """Have the gate hold the application's requests during the block, which takes no longer than
    ``longest`` seconds; without a gate, nothing.

    Raises OperationError where requests are still under way after ``limit`` seconds; they go on.
    """
    if read_heartbeat(state) is None:
        yield
        return
    token = secrets.token_hex(8)
    asked = {"token": token, "until": time.time() + limit + longest}
    write_durably(state / "hold.json", json.dumps(asked).encode(), mode=0o644)
    try:
        deadline = time.monotonic() + limit
        while True:
            gate = read_heartbeat(state)
            if gate is None:
                say("the gate has had no heartbeat for some seconds; continuing without it")
                break
            if gate.holds == token:
                say("the gate holds the application's requests")
                break
            if time.monotonic() > deadline:
                raise OperationError(
                    f"expected the application's requests to end within {limit:g} s, found some "
                    "still under way",
                    advice="nothing was changed; run the command again when there is less load",
                )
            time.sleep(POLL_SECONDS)
        yield
    finally:
        let_go(state)


def wait_for_application(
    state: Path, connection: Path, *, limit: float = START_SECONDS, say: Callable[[str], None]
) -> None:
    """Return when the application behind the gate answers with what the connection says now; at
    once where there is no gate.

    What comes after a switch or a rollback may take down what the application needs, and the gate
    itself: neither may happen while requests wait for it. Raises OperationError after ``limit``
    seconds; the requests go on waiting.
    """
    named = read_connection(connection)
    if named is None or _serves(state, named.generation):
        return
    say(f"waiting until the application is restarted on {named.write.engine}")
    deadline = time.monotonic() + limit
    while not _serves(state, named.generation):
        if time.monotonic() > deadline:
            raise OperationError(
                f"{named.write.engine} serves, but expected the gate to have the application "
                f"restarted within {limit:g} s, found it not answering yet",
                advice="its requests wait at the gate, whose log says why; correct that and run "
                "the same command again, or end the gate to go on without it",
            )
        time.sleep(POLL_SECONDS)
    say("the application answers")


def _serves(state: Path, generation: int) -> bool:
    """Whether the gate says so, or has gone."""
    gate = read_heartbeat(state)
    return gate is None or gate.serves == generation
