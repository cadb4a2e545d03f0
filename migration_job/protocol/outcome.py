"""How a live command ended, as JSON for programs: ``DIR/switch.json``, ``DIR/rollback.json``; and
where it held the application, when, for ``moves.json`` and the report's page."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import apsw
import psycopg

from migration_job.durable import write_durably
from migration_job.errors import JobError, OperationError
from migration_job.log_format import line
from migration_job.protocol import timeline
from migration_job.report import moves, writer
from migration_job.report.model import Move


@contextlib.contextmanager
def write_outcome(directory: Path, command: str) -> Iterator[dict[str, Any]]:
    """Write ``DIRECTORY/COMMAND.json`` on every way out: ``outcome`` (``done`` or ``failed``),
    ``message`` where it failed, ``seconds``, ``at``, and what the block puts into the mapping. What
    held the application is added to the moves."""
    start = time.monotonic()
    outcome: dict[str, Any] = {"command": command, "outcome": "done"}
    noted = timeline.Timeline()
    try:
        with timeline.recorded() as noted:
            yield outcome
    except (apsw.Error, psycopg.Error, OSError) as error:
        told = foreseen(error, command)
        outcome.update(outcome="failed", message=told.message)
        raise told from error
    except BaseException as error:
        outcome["outcome"] = "failed"
        outcome["message"] = error.message if isinstance(error, JobError) else type(error).__name__
        raise
    finally:
        outcome["seconds"] = round(time.monotonic() - start, 3)
        outcome["at"] = datetime.now(UTC).isoformat(timespec="milliseconds")
        content = json.dumps(outcome, indent=2, ensure_ascii=False) + "\n"
        file = directory / f"{command}.json"
        try:
            directory.mkdir(parents=True, exist_ok=True)
            write_durably(file, content.encode(), mode=0o600)
        except OSError as error:
            # What was done stays done, and is not to be called failed for this.
            said = line(f"warning: {file} cannot be written: {error.strerror}")
            sys.stderr.write(said + "\n")
        _note_move(directory, outcome, noted)


def _note_move(directory: Path, outcome: dict[str, Any], noted: timeline.Timeline) -> None:
    if outcome["command"] not in ("switch", "rollback") or not moves.held(noted.steps):
        return
    move = Move(
        command=outcome["command"],
        run_id=noted.run_id,
        began_at=noted.began_at,
        outcome=outcome["outcome"],
        message=outcome.get("message", ""),
        held_ms=outcome.get("held_ms"),
        steps=noted.steps,
    )
    try:
        moves.append(directory, move)
        writer.show(directory)
    except (OSError, ValueError) as error:
        # What was done stays done, and is not to be called failed for this.
        cause = (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
        said = f"warning: the times of this {outcome['command']} are not in the report: {cause}"
        sys.stderr.write(line(said) + "\n")


def foreseen(error: Exception, command: str) -> OperationError:
    """A failure of one of the two databases or of a disk as an operator understands it; without
    what a server's further lines may quote of the data."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = lines[0] if lines else type(error).__name__
    if isinstance(error, apsw.FullError):
        said = "the disk is full"
    return OperationError(
        f"{command} failed: {said}",
        advice="which side serves has not changed by this, or `sync` and this command, run again, "
        "finish it; `migration-job status` shows which side it is",
    )
