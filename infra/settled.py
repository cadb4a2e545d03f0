"""A stage that simply is PostgreSQL: what is done once the way back was given up.

``cutover: settled`` runs ``migration-job settle``. From then on nothing of the stage needs the
SQLite file: the sync and the source's mounts go, and the connection is written without it.
"""

from __future__ import annotations

import os

from infra import live
from infra.dynamic import say
from infra.errors import StageError
from infra.inputs import CutoverInputs

MODE = "settled"

ACCEPT_LOSS = "MIGRATION_ACCEPT_LOSS"
"""``MIGRATION_ACCEPT_LOSS=yes pulumi destroy`` goes on although what PostgreSQL has is lost."""


def loss_is_accepted() -> bool:
    """Whether the operator has said that what PostgreSQL alone has may be lost."""
    return os.environ.get(ACCEPT_LOSS, "").lower() == "yes"


def settle(inputs: CutoverInputs) -> None:
    """Give up the way back. StageError where SQLite serves, or the window is not over yet."""
    if live.serving(inputs) != "postgresql":
        raise StageError(
            "expected PostgreSQL to serve before the way back is given up, found SQLite serving",
            advice="`cutover: switch` comes first; nothing was changed",
        )
    live.run("settle", inputs, ["--window-hours", f"{inputs.settle_after_hours:g}"])


def refuse_to_leave() -> None:
    """StageError unless the loss was accepted: PostgreSQL is the only place of the data."""
    if loss_is_accepted():
        say(
            f"{ACCEPT_LOSS}=yes: the stage goes, and with it what PostgreSQL has; remove its state "
            "directory before one of that name is recreated"
        )
        return
    raise StageError(
        "expected a way back to SQLite, found the stage settled: its PostgreSQL is the only place "
        "of the application's data",
        advice="nothing was taken down. Set `cutover: settled` again to keep it. To remove it for "
        f"good, move the data elsewhere first, then `{ACCEPT_LOSS}=yes make down`",
    )


def refuse_to_unsettle() -> None:
    """StageError: there is no way from ``settled`` to another word."""
    raise StageError(
        "expected `cutover: settled` to stay, since the way back was given up, found another",
        advice="nothing was changed; set `cutover: settled` again. `migration-job restore-backup` "
        "writes the archived SQLite file to another place",
    )
