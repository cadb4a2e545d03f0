"""Takes a stage's base backups on time, and tells Prometheus how they went.

Runs beside PostgreSQL, in a container of the same image that shares its data and socket volumes.
What is due follows from the repository itself (``pgbackrest info``), so a restart forgets nothing.
Standard library only: the image holds PostgreSQL and pgBackRest and no Python packages.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field

from beside_postgres import backups, gauges, pgbackrest, say, serve

RETRY_SECONDS = 60
"""After a failure it tries again this soon, rather than a whole period later."""
POLL_SECONDS = 10


@dataclass
class State:
    """What the metrics page shows. Times are Unix seconds; 0 means never."""

    succeeded: bool = True
    last_success: float = 0
    last_full: float = 0
    repository_bytes: int = 0
    backups: int = 0
    seconds: float = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def page(self) -> str:
        with self.lock:
            lines = [
                ("backup_last_success", "1 if the last attempt succeeded", int(self.succeeded)),
                ("backup_count", "backups in the repository", self.backups),
                ("backup_repository_bytes", "size of the newest full set", self.repository_bytes),
                ("backup_duration_seconds", "how long the last attempt took", self.seconds),
            ]
            if self.last_success:
                lines.append(
                    (
                        "backup_last_success_timestamp_seconds",
                        "end of the newest backup",
                        self.last_success,
                    )
                )
        return gauges(lines)


def read_repository(state: State) -> None:
    """Refresh ``state`` from what the repository holds."""
    found = backups()
    with state.lock:
        state.backups = len(found)
        state.last_success = max((b["timestamp"]["stop"] for b in found), default=0)
        fulls = [b for b in found if b["type"] == "full"]
        state.last_full = max((b["timestamp"]["stop"] for b in fulls), default=0)
        if fulls:
            state.repository_bytes = fulls[-1]["info"]["repository"]["size"]


def due(state: State, now: float, full_hours: float, differential_hours: float) -> str | None:
    """The kind of backup that is due now, ``full`` before ``diff``; None when none is."""
    if now - state.last_full >= full_hours * 3600:
        return "full"
    if now - state.last_success >= differential_hours * 3600:
        return "diff"
    return None


def answers(sockets: str) -> bool:
    """Whether a PostgreSQL answers on the socket in that directory."""
    command = ["/usr/bin/env", "pg_isready", "--quiet", f"--host={sockets}"]
    return subprocess.run(command, check=False).returncode == 0  # noqa: S603


def wait_for_database(sockets: list[str]) -> None:
    """Until PostgreSQL answers on a shared socket, one of several servers: the containers start at
    the same time."""
    waiting = False
    while not any(answers(directory) for directory in sockets):
        if not waiting:
            say("waiting for PostgreSQL to answer")
            waiting = True
        time.sleep(1)


def prepare() -> str:
    """Make the stanza and check that archiving works; '' or pgBackRest's own words."""
    for command in ("stanza-create", "check"):
        answer = pgbackrest(command)
        if answer.returncode:
            return f"{command}: {(answer.stderr or answer.stdout).strip()[-500:]}"
    return ""


def back_up(state: State, kind: str, sockets: list[str]) -> None:
    wait_for_database(sockets)
    started = time.monotonic()
    failure = prepare()
    if not failure:
        answer = pgbackrest(f"--type={kind}", "backup")
        failure = (answer.stderr or answer.stdout).strip()[-500:] if answer.returncode else ""
    with state.lock:
        state.succeeded = not failure
        state.seconds = time.monotonic() - started
    read_repository(state)
    say(f"{kind} backup failed: {failure}" if failure else f"{kind} backup done")


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--full-hours", type=float, required=True)
    words.add_argument("--differential-hours", type=float, required=True)
    words.add_argument("--port", type=int, default=9854)
    words.add_argument("--sockets", action="append", help="the directory of a server's socket")
    chosen = words.parse_args()
    # The container's first process: without a handler it would not end until it is killed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    state = State()
    serve(chosen.port, state.page)
    while True:
        read_repository(state)
        kind = due(state, time.time(), chosen.full_hours, chosen.differential_hours)
        if kind is not None:
            back_up(state, kind, chosen.sockets or ["/var/run/postgresql"])
        time.sleep(POLL_SECONDS if state.succeeded else RETRY_SECONDS)


if __name__ == "__main__":
    main()
