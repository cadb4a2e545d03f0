"""How a live command ended, as JSON for programs: ``DIR/switch.json``, ``DIR/rollback.json``."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from migration_job.durable import write_durably
from migration_job.errors import JobError


@contextlib.contextmanager
def write_outcome(directory: Path, command: str) -> Iterator[dict[str, Any]]:
    """Write ``DIRECTORY/COMMAND.json`` on every way out: ``outcome`` (``done`` or ``failed``),
    ``message`` where it failed, ``seconds``, ``at``, and what the block puts into the mapping."""
    start = time.monotonic()
    outcome: dict[str, Any] = {"command": command, "outcome": "done"}
    try:
        yield outcome
    except BaseException as error:
        outcome["outcome"] = "failed"
        outcome["message"] = error.message if isinstance(error, JobError) else type(error).__name__
        raise
    finally:
        outcome["seconds"] = round(time.monotonic() - start, 3)
        outcome["at"] = datetime.now(UTC).isoformat(timespec="milliseconds")
        directory.mkdir(parents=True, exist_ok=True)
        content = json.dumps(outcome, indent=2, ensure_ascii=False) + "\n"
        write_durably(directory / f"{command}.json", content.encode(), mode=0o644)
