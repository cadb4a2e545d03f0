"""The decision's own row, written in both directions inside a transaction of the source."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import apsw

from migration_job.errors import JobError, OperationError
from migration_job.protocol.run_context import Pair
from migration_job.stores.sqlite import fence
from migration_job.stores.sqlite.database import looking


@dataclass(frozen=True, slots=True)
class Switched:
    """How a switch went."""

    held_ms: float
    """How long writers of the source waited at most, to a tenth; 0 where it was switched before."""
    position: int
    """The last position in the source's log that the certificate covers."""
    certificate: str


def take_decision(
    source: apsw.Connection, certificate: str, one_way: tuple[str, ...], token: str
) -> None:
    """Close the source, in the caller's transaction; its commit is the decision that PostgreSQL
    serves. ``token`` is the state's new one, which the target has been told."""
    fence.change_state(
        source,
        token=token,
        closed=1,
        reads_moved=0,
        certificate=certificate,
        one_way=json.dumps(one_way),
        switched_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        back_at=None,
        back_position=None,
    )


@contextlib.contextmanager
def truthful(source: Path, command: str) -> Iterator[None]:
    """Whatever nobody foresaw ends the block as an OperationError that says which side serves, as
    the source has it now: after a decision nothing may read as if it had not been taken."""
    try:
        yield
    except JobError:
        raise
    except (Exception, KeyboardInterrupt) as error:
        raise OperationError(
            f"{command} {_cause(error)}", advice=f"{_serving(source)}; run the command again"
        ) from error


def _cause(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "was interrupted"
    if isinstance(error, apsw.FullError):
        return "failed: the source's disk is full"
    if isinstance(error, apsw.BusyError | apsw.LockedError):
        return "failed: the source was locked by another program all that time"
    # Without what a server's further lines may quote of the data.
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"failed: {lines[0] if lines else type(error).__name__}"


def _serving(source: Path) -> str:
    try:
        with looking(source) as reader:
            state = fence.read_state(reader)
    except (JobError, apsw.Error) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        return f"which side serves cannot be read now ({lines[0]}): ask `migration-job status`"
    if state is None or not state.closed:
        return "SQLite serves"
    return (
        f"PostgreSQL serves, by the decision of {state.switched_at}; where something of it is "
        "left to do, `sync` does it"
    )


def commit_decision(pair: Pair, *, limit: float, certificate: str | None) -> None:
    """Commit the decision that is written in the open transaction: that PostgreSQL serves, by
    ``certificate``, or, where that is None, that SQLite does.

    Returns only where it is taken, and raises only where it is not, with the transaction rolled
    back: an error of the disk may come after the commit has become durable, so that only the file,
    reread, says which is so. Where it cannot be read either, OperationError says that.
    """
    try:
        fence.commit(pair.source, limit=limit)
    except fence.LockedError:
        raise  # SQLite says that the transaction is open
    except BaseException as error:
        if not _is_taken(pair, certificate, error):
            raise


def _is_taken(pair: Pair, certificate: str | None, error: BaseException) -> bool:
    fence.give_up(pair.source)
    try:
        pair.reopen_source()
        state = fence.read_state(pair.source)
    except (JobError, apsw.Error, OSError) as second:
        to = "SQLite" if certificate is None else "PostgreSQL"
        raise OperationError(
            f"it is not known whether the decision that {to} serves was taken: the source's disk "
            f"failed at its commit ({error}), and the file cannot be read ({second})",
            advice="make the source readable again; `migration-job status` says then which side "
            "serves, and this command, run again, continues from there",
        ) from error
    if certificate is None:
        return state is not None and not state.closed
    return state is not None and state.closed and state.certificate == certificate


def take_back(source: apsw.Connection, token: str, *, reads_moved: bool = False) -> None:
    """Open the source, in the caller's transaction; its commit is the decision that SQLite
    serves. ``token`` is the state's new one."""
    fence.change_state(
        source,
        token=token,
        closed=0,
        reads_moved=int(reads_moved),
        certificate=None,
        switched_at=None,
    )
