"""The errors an operator may meet, and the exit status of each.

Every message says what was expected, what was found and what to do next, and never holds a
secret. Anything that is not one of these is a defect and ends with ``ExitStatus.UNEXPECTED``.
"""

from __future__ import annotations

import enum
import re

GOES_ON = "it continues where it stopped"
"""What an advice says of the command that is run again, where what was done stays."""

ANEW = "it starts from the beginning"
"""The same where what was done is taken back."""


class ExitStatus(enum.IntEnum):
    """What the process's exit status means; part of the command-line contract."""

    DONE = 0
    UNEXPECTED = 1
    USAGE = 2
    BLOCKED = 3
    VERIFICATION_FAILED = 4


class JobError(Exception):
    """An end that the job foresees: a sentence for the operator, and an exit status.

    ``message`` states what was expected and what was found; ``advice`` what to do next.
    """

    status: ExitStatus = ExitStatus.UNEXPECTED

    def __init__(self, message: str, *, advice: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.message}\n{self.advice}" if self.advice else self.message


class InputError(JobError):
    """Wrong usage or input: a missing file, not a database, an unreachable target, a bad policy."""

    status = ExitStatus.USAGE


class BlockedError(JobError):
    """The data has what the policy does not allow; nothing was written or switched."""

    status = ExitStatus.BLOCKED


class VerificationError(JobError):
    """The target differs from the source where it must not; the switch is refused."""

    status = ExitStatus.VERIFICATION_FAILED


class OperationError(JobError):
    """An operation could not be completed (a lost connection, a full disk); it can be run again."""

    status = ExitStatus.UNEXPECTED


_SECRETS = re.compile(
    r"""(?P<name>\b(?:password|passwd|sslpassword)\s*=\s*)(?:'(?:[^'\\]|\\.)*'|[^\s'&]+)"""
    r"""|(?P<address>:/{1,2}[^:/@\s]*:)[^@\s]*(?=@)""",
    re.IGNORECASE,
)


def without_secrets(text: str) -> str:
    """The text without the passwords of connection strings (``password=...``, ``//user:...@``): an
    option that wants a file may have been given one, and its error names what it was given."""
    return _SECRETS.sub(lambda match: f"{match['name'] or match['address']}***", text)
