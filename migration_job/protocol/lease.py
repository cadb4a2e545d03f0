"""Who holds the application's traffic at PgBouncer, and until when: a lease with an end.

``lease.json``  ``migration-job hold`` has paused the alias for maintenance. It is written before
                the PAUSE and removed after the RESUME, so that a PAUSE of this job's always has an
                end: :func:`end_expired` is `sync`'s part of it.
``pause.json``  a rollback is about to PAUSE. A crash leaves it; the next lock holder undoes that
                PAUSE; without such a mark a PAUSE, or an alias that is gone, is somebody else's,
                and is not undone.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import apsw

from migration_job.durable import write_durably
from migration_job.errors import JobError, OperationError
from migration_job.protocol import heartbeat
from migration_job.protocol.fault_points import step
from migration_job.protocol.lock import Lock
from migration_job.protocol.settings import Endpoints
from migration_job.stores.sqlite import fence

LONGEST = timedelta(hours=24)

LATE_SECONDS = 60.0
"""A PAUSE that a rollback sent before it died may come so much later: its mark is kept so long."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Lease:
    """A hold that is in force, or that nobody has ended yet."""

    by: str
    """Who holds, e.g. ``anna@db1``."""
    reason: str
    since: str
    until: str
    """Both UTC, ISO 8601."""

    @property
    def over(self) -> bool:
        """Whether its end has come."""
        return datetime.now(UTC) >= datetime.fromisoformat(self.until)

    @property
    def left(self) -> float:
        """Seconds to its end, negative after it."""
        return (datetime.fromisoformat(self.until) - datetime.now(UTC)).total_seconds()

    def __str__(self) -> str:
        return f"{self.by} until {self.until} ({self.reason})"


def read_lease(state: Path) -> Lease | None:
    """The lease, also one whose end has come; None where nobody holds. Raises OperationError for a
    file that cannot be read as one."""
    file = state / "lease.json"
    try:
        return Lease(**json.loads(file.read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError) as error:
        raise OperationError(
            f"expected a lease in {file}, found something else ({type(error).__name__})",
            advice="`migration-job resume` ends it",
        ) from error


def require_none(state: Path, command: str) -> None:
    """Raises OperationError where somebody holds the traffic: ``command`` would change what they
    hold."""
    lease = read_lease(state)
    if lease is not None:
        raise OperationError(
            f"expected the application's traffic not to be held, found it held by {lease}",
            advice=f"wait for its end, or `migration-job resume`; then run {command} again",
        )


# ------------------------------------------------------------------------ this job's own PAUSE


def mark_pause(state: Path) -> None:
    """Note, durably, that a PAUSE is about to be this job's own."""
    write_durably(state / "pause.json", json.dumps({"at": time.time()}).encode(), mode=0o644)


def paused_by_us(state: Path) -> bool:
    """Whether a PAUSE may be a rollback's that did not come to its end."""
    return (state / "pause.json").exists()


def forget_pause(state: Path, *, late: float = 0.0) -> None:
    """The alias is as the decision has it; with ``late`` the mark is kept for so many seconds."""
    file = state / "pause.json"
    with contextlib.suppress(FileNotFoundError):
        if time.time() - file.stat().st_mtime >= late:
            file.unlink()


# -------------------------------------------------------------------------- hold and resume


def hold(ends: Endpoints, *, seconds: float, reason: str, by: str, wait: float, say: Say) -> Lease:
    """Hold the application's traffic at PgBouncer for up to ``seconds``: new queries wait, open
    transactions end first, for ``wait`` seconds at most. The same ``by`` may hold again, with
    another end. Raises OperationError, with the traffic going on, where that is not to be had or
    somebody else holds."""
    with Lock(ends.state).command("hold"):
        present = read_lease(ends.state)
        if present is not None and present.by != by:
            raise OperationError(
                f"expected no other hold of the application's traffic, found it held by {present}",
                advice="wait for its end, or `migration-job resume`",
            )
        now = datetime.now(UTC)
        lease = Lease(
            by,
            reason,
            now.isoformat(timespec="seconds"),
            (now + timedelta(seconds=seconds)).isoformat(timespec="seconds"),
        )
        with step("hold.lease"):
            content = json.dumps(asdict(lease)).encode()
            write_durably(ends.state / "lease.json", content, mode=0o644)
        if ends.pooler is not None and _served_by_postgres(ends):
            try:
                with step("hold.pause"):
                    if not ends.pooler.is_paused():
                        ends.pooler.pause(limit=wait)
            except BaseException:
                with contextlib.suppress(JobError):
                    ends.pooler.resume()
                    (ends.state / "lease.json").unlink(missing_ok=True)
                raise
            say(f"PgBouncer holds the application's queries: {lease}")
        else:
            say(f"nothing goes through PgBouncer now, and nothing will: {lease}")
        if not heartbeat.lives(ends.state):
            say("warning: `sync` does not run, so only `migration-job resume` ends this hold")
    return lease


def resume(ends: Endpoints, *, say: Say) -> None:
    """End a hold, or what somebody else has closed: admit the application again where PostgreSQL
    serves it. Raises OperationError where PgBouncer does not take it; the hold goes on then."""
    with Lock(ends.state).command("resume"):
        lease: Lease | None = None
        with contextlib.suppress(OperationError):
            lease = read_lease(ends.state)
        with step("resume.open"):
            if ends.pooler is not None and _served_by_postgres(ends):
                ends.pooler.resume()
                if not ends.pooler.is_open():
                    ends.pooler.open_alias()
        with step("resume.end"):
            (ends.state / "lease.json").unlink(missing_ok=True)
        said = "the traffic was not held" if lease is None else f"the hold of {lease} is ended"
        say(f"{said}; the application is served")


def end_expired(ends: Endpoints, say: Say) -> Lease | None:
    """End a lease whose end has come; gives one that is in force. For the holder of the lock.
    Raises OperationError where PgBouncer does not answer: to be tried again."""
    lease = read_lease(ends.state)
    if lease is None or not lease.over:
        return lease
    if ends.pooler is not None:
        ends.pooler.resume()
    (ends.state / "lease.json").unlink(missing_ok=True)
    say(f"the hold of {lease} has ended: the application's queries continue")
    return None


def in_words(lease: Lease) -> str:
    """What `sync` reports of a lease that is in force."""
    return f"held by {lease}"


def speaks_of_lease(held: str) -> bool:
    """Whether a report's words are :func:`in_words` of some lease, and not of somebody without."""
    return held.startswith("held by ")


def held_by_others(ends: Endpoints) -> str:
    """In words, that the alias is closed and not by this job; '' where it is open. Raises
    OperationError where PgBouncer does not answer."""
    if ends.pooler is None or ends.pooler.is_open() or paused_by_us(ends.state):
        return ""
    what = "paused" if ends.pooler.is_paused() else "removed or changed"
    return (
        f"PgBouncer's alias {ends.pooler.alias.name!r} was {what} by something other than this "
        "job, which leaves it so; `migration-job resume` opens it"
    )


def _served_by_postgres(ends: Endpoints) -> bool:
    """Whether the application's queries go to PostgreSQL, all or the reads."""
    source = fence.open_source(ends.source)
    try:
        state = fence.read_state(source)
        return state is not None and (state.closed or state.reads_moved)
    except apsw.Error as error:
        raise OperationError(
            f"the source's state cannot be read: {error}",
            advice="nothing was changed; run the command again",
        ) from error
    finally:
        source.close()
