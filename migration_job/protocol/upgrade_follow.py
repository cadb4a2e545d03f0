"""What each command does first on finding an upgrade: finish a decision, else undo a hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from migration_job.errors import InputError, OperationError
from migration_job.protocol.fault_points import step
from migration_job.protocol.moved import forget_moved, write_moved
from migration_job.protocol.upgrade_ends import HELD_FILE, Server, Servers, UpgradeEnds
from migration_job.stores.postgres import replication, side

Say = Callable[[str], None]


def _nothing() -> None:
    return None


def recover(
    ends: UpgradeEnds, servers: Servers, say: Say, *, release: Callable[[], None] = _nothing
) -> Server:
    """Make both servers, the pooler and the state directory agree with what is on record; the
    server that serves. ``release`` is called when the application goes on. Only for the holder of
    the lock. Raises JobError, with nothing opened that may not be."""
    sides = servers.sides()
    old, new = sides["from"], sides["to"]
    epochs = [s.epoch for s in (old, new) if s is not None]
    epoch = max(epochs, default=0)
    serving = servers.new if epoch % 2 else servers.old
    left = servers.opposite(serving)
    found = sides[serving.name]
    if epoch and found is None:
        raise InputError(
            f"expected the {serving.label} to have a record of the upgrade, found none: it was "
            "settled, or another server answers",
            advice="a settled upgrade has no way back and nothing left to do; to come to a further "
            "version name the server that serves as --from-target",
        )
    if found is not None and found.epoch < epoch:
        _open(servers, left, serving, epoch)
    elif found is not None and found.closed:
        side.open_again(serving.connection)
        say(f"a hold without a decision was undone: the {serving.label} serves as before")
    with step("upgrade.alias"):
        _lead(ends, servers, serving)
    release()
    with step("upgrade.turn"):
        _turn(serving, left)
    return serving


def _open(servers: Servers, left: Server, serving: Server, epoch: int) -> None:
    """Behind the decision: the server that it names is opened, where it shows the certificate."""
    decided, shown = left.side(), serving.side()
    certificate: dict[str, Any] = (decided and decided.certificate) or {}
    if shown is None or (shown.certificate or {}).get("id") != certificate.get("id"):
        raise OperationError(
            f"expected the {serving.label} to show the certificate of the decision, found another: "
            "it has forgotten it, or another server answers",
            advice=f"nothing is opened. Bring that server back to its state, or, where it is lost, "
            f"open the {left.label} by hand: it has every write up to the decision "
            "(docs/how-to/upgrade-servers.md)",
        )
    with step("upgrade.open"):
        side.close(left.connection, spare=servers.spare())
        replication.set_triggers(left.connection, certificate["triggers"], fire=False)
        replication.set_triggers(serving.connection, certificate["triggers"], fire=True)
        side.note_definitions(serving.connection)
        side.take_over(serving.connection, certificate, epoch)


def _lead(ends: UpgradeEnds, servers: Servers, serving: Server) -> None:
    """The state directory's note and PgBouncer lead to the server that serves."""
    old, new = servers.old, servers.new
    if serving is new:
        write_moved(ends.state, (old.dsn, new.dsn), (old.at, new.at), ends.alias.beside)
    else:
        forget_moved(ends.state, old.dsn, old.at)
    pooler = ends.pooler(serving.at)
    held = ends.state / HELD_FILE
    if held.exists() or not pooler.leads_here():
        pooler.open_alias()
        held.unlink(missing_ok=True)


def _turn(serving: Server, left: Server) -> None:
    """Changes flow from the server that serves to the one that was left, and only so. In this
    order: what was received must not be sent back."""
    if serving.side() is None or left.side() is None:
        return
    if replication.subscribed(serving.connection, serving.name):
        replication.unsubscribe(serving.connection, serving.name)
        replication.drop_slot(left.connection, serving.name)
    if replication.subscribed(left.connection, left.name):
        replication.enable(left.connection, left.name)
