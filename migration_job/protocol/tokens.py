"""The token by which source and target know each other's last step, and which of them is behind.

Each transaction of consequence on the source (rows that come back, a decision) takes a new token,
which the target has committed before, after all that the transaction relies on. A server's log is a
sequence: a target that holds the source's token holds everything before it. Tokens are numbered, so
that a target that has forgotten (a failover to a standby that was behind, an old copy) is told from
a source that was put back.
"""

from __future__ import annotations

import secrets

from migration_job.errors import OperationError
from migration_job.stores.postgres.pair_identity import Identity
from migration_job.stores.sqlite.fence import SourceState


class Forgotten(OperationError):
    """The target lacks what the source relies on; nothing may open it or go on from it."""


def fresh(before: str) -> str:
    """A token that comes after ``before``."""
    return f"{number(before) + 1:08x}-{secrets.token_hex(16)}"


def number(token: str) -> int:
    """How many steps came before it; 0 for the one that the capture was installed with."""
    head, mark, _ = token.partition("-")
    return int(head, 16) if mark else 0


def forgot(known: Identity | None, state: SourceState) -> bool:
    """Whether the target, by what it knows, is older than the source."""
    if known is None:
        return state.closed
    return number(state.token) > max(number(known.token), number(known.next_token))


def what(state: SourceState) -> str:
    """What was expected and found, for people."""
    return (
        "the target has forgotten what it had committed: expected it to hold "
        + ("the certificate of the switch and " if state.closed else "")
        + "the last step that the source relies on, found an older state"
    )


def forgotten(state: SourceState) -> Forgotten:
    """What to raise where nothing is looked at for the moment."""
    return Forgotten(
        what(state),
        advice="nothing continues until that is resolved; `sync` brings it up again where it can, "
        "or says which rows only one side has",
    )
