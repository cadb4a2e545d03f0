"""Who may act on the two databases: one process at a time, and the next when it dies.

Two locked files in the state directory. To act, a process takes the *turn* lock and then the *work*
lock. ``sync`` gives the turn back as soon as it works, so a command waits for one round of it at
most. A command keeps both locks to its end. The kernel releases them when their holder dies,
however it dies; ``sync``, waiting for the turn, then goes on.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from migration_job.errors import OperationError

POLL_SECONDS = 0.02

FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
"""A link in the file's place would have another file locked, and written to."""

UNKNOWN = "another process"


class AtWork(OperationError):
    """Another process has the lock for longer than it was to be waited for."""


LOOKS = 4
"""How often the turn must be found taken before a command is said to have it."""


class Lock:
    """The lock of one state directory. Not for use by several threads at once."""

    def __init__(self, state: Path) -> None:
        """Makes the directory where it is not there. Raises OperationError where it cannot."""
        try:
            state.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise OperationError(
                f"expected a directory for locks and records at {state}, which is made where it is "
                f"not there, found: {error.strerror}",
                advice="each part of that path has to be a directory, writable by this user, on a "
                "file system with space",
            ) from error
        self._turn = state / "turn.lock"
        self._work = state / "work.lock"
        self._mine = ""

    @contextlib.contextmanager
    def command(self, name: str, *, limit: float = 60.0) -> Iterator[None]:
        """Both locks for a command's whole life. Raises OperationError, naming the holder, where
        another command has them for longer than ``limit`` seconds."""
        with self._locked(self._turn, name, limit), self._locked(self._work, name, limit):
            yield

    @contextlib.contextmanager
    def round(self, *, limit: float | None = None) -> Iterator[bool]:
        """The work lock for one round of ``sync``; waits for as long as a command has the turn, or
        raises AtWork after ``limit`` seconds. Gives whether another process had it since this
        one's last round."""
        with self._locked(self._turn, None, limit) as turn:
            before = _told(self._work)
            with self._locked(self._work, "sync", limit):
                fcntl.flock(turn, fcntl.LOCK_UN)
                yield before == UNKNOWN or before != self._mine
                self._mine = _told(self._work)

    def others_since(self) -> bool:
        """Whether another process had the lock since this one's last :meth:`round`."""
        return _told(self._work) != self._mine

    @property
    def file(self) -> Path:
        """The file that every holder writes its name to."""
        return self._work

    def holder(self) -> str | None:
        """Which command works at this moment, for people; None where none does or only ``sync``."""
        with self._opened(self._turn) as stream:
            # `sync` has the turn for an instant at each round: a command has it longer.
            for _ in range(LOOKS):
                try:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    time.sleep(POLL_SECONDS)
                else:
                    return None
        return _told(self._turn)

    @contextlib.contextmanager
    def _opened(self, path: Path) -> Iterator[int]:
        """The file's descriptor. Raises OperationError where it is none of this user's."""
        try:
            descriptor = os.open(path, FLAGS, 0o600)
        except OSError as error:
            raise OperationError(
                f"cannot open the lock {path}: {error.strerror}",
                advice="it has to be a file of this user's, not a symbolic link; remove what is "
                "there, or give another --state",
            ) from error
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def _locked(self, path: Path, name: str | None, limit: float | None) -> Iterator[int]:
        with self._opened(path) as descriptor:
            self._acquire(descriptor, path, limit)
            if name is not None:
                note = {"name": name, "pid": os.getpid(), "since": datetime.now(UTC).isoformat()}
                # For people, and for `sync` to see that others were at work; on a full disk the
                # lock holds all the same, and an unreadable note counts as another's.
                with contextlib.suppress(OSError):
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, json.dumps(note).encode(), 0)
            yield descriptor

    def _acquire(self, descriptor: int, path: Path, limit: float | None) -> None:
        if limit is None:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            return
        deadline = time.monotonic() + limit
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise AtWork(
                        f"expected to be the only one at work, found {_told(path)}, for more "
                        f"than {limit:g} s",
                        advice="wait until it ends; `migration-job status` shows what it does",
                    ) from None
            time.sleep(POLL_SECONDS)


def _told(path: Path) -> str:
    try:
        note = json.loads(path.read_text())
        return f"`{note['name']}` (process {note['pid']}, since {note['since']})"
    except (OSError, ValueError, KeyError):
        return UNKNOWN
