"""How an application's own proof is asked for, and what the job says when it waits for one."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from migration_job.errors import InputError

LIMIT_SECONDS = 3_600.0
"""How long the command may take."""

ANSWER_SECONDS = 2 * LIMIT_SECONDS
"""How long somebody else's answer may take: an image may have to be pulled first."""

AWAITED = "the application's proof is awaited on the database "
"""What this job says, and then the copy's name, when somebody else is to run the proof."""


@dataclass(frozen=True, slots=True)
class Proof:
    """Who runs the proof: this process a command, or somebody else, who leaves an answer."""

    command: str = ""
    """Run without a shell; '' where somebody else runs the proof."""
    answer: Path | None = None
    """The file that appears when somebody else has run it: JSON with ``command`` (what was run, for
    people), ``status`` (its exit status) and ``said`` (its output), or with ``error``, which says
    why it could not be run."""


def given(command: str | None, answer: Path | None) -> Proof | None:
    """What the options of a command say; None where they want no proof. Raises InputError."""
    if command is None and answer is None:
        return None
    if command is not None and answer is not None:
        raise InputError(
            "expected one of --proof and --proof-answer, found both",
            advice="--proof runs a command here; --proof-answer waits for what somebody else runs",
        )
    if command is not None and not shlex.split(command):
        raise InputError(
            "expected a command after --proof, found nothing",
            advice="e.g. --proof 'python manage.py migrate --check'",
        )
    if answer is not None and answer.exists():
        raise InputError(
            f"expected no {answer} before the proof is run, found one",
            advice="remove it: it would be taken for this run's",
        )
    return Proof(command or "", answer)
