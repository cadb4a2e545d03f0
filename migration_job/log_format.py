"""The lines that the job says: for people, or as JSON for what collects logs.

``migration-job --log-format json COMMAND``, or :data:`VARIABLE` in the environment, which is how a
stage's containers are told. Each line is then one object: ``time`` (UTC), ``level`` (``info``,
``warning`` or ``error``) and ``message``, the same words that people get.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from enum import StrEnum

VARIABLE = "MIGRATION_JOB_LOG_FORMAT"

_LEVELS = {"error: ": "error", "warning: ": "warning", "waiting: ": "warning"}


class LogFormat(StrEnum):
    """How a line is written."""

    TEXT = "text"
    JSON = "json"


def choose(chosen: LogFormat) -> None:
    """For this process and those that it starts."""
    os.environ[VARIABLE] = chosen.value


def is_json() -> bool:
    """Whether lines are for machines. Another value than ``json`` means text."""
    return os.environ.get(VARIABLE, "") == LogFormat.JSON


def printable(text: str, *, lines: bool = False) -> str:
    """The text with what a terminal obeys or hides written out (``\\x1b``), so that a name of the
    source forges and hides nothing; with ``lines`` its line ends stay."""
    return "".join(
        c if c.isprintable() or (lines and c == "\n") else c.encode("unicode_escape").decode()
        for c in text
    )


def line(text: str) -> str:
    """One thing said, as it is to be written: without the line's end."""
    if not is_json():
        return printable(text, lines=True)
    level = next((name for words, name in _LEVELS.items() if text.startswith(words)), "info")
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return json.dumps({"time": now, "level": level, "message": text.strip()})
