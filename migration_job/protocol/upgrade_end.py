"""How an upgrade ends: the way back is given up (``--settle``), or the whole of it
(``--abandon``)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import psycopg

from migration_job.errors import InputError
from migration_job.protocol.fault_points import step
from migration_job.protocol.upgrade import alone, recovered
from migration_job.protocol.upgrade_ends import Server, Servers, UpgradeEnds, opened
from migration_job.quoting import compose, postgres_relation
from migration_job.stores.postgres import replication, side
from migration_job.stores.postgres.database import briefly

LOCKS_SECONDS = 30.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Standing:
    """Where an upgrade stands, for people and programs."""

    serves: str
    """``from`` or ``to``."""
    begun: bool
    moves: int
    certificate: str
    """The id of the last move's; '' before the first."""
    follows: bool
    """Whether the other server receives what the serving one writes."""

    def moves_in_words(self) -> str:
        """How often the application was moved, and by what one can tell the last time."""
        if not self.begun:
            return "none; no upgrade is begun"
        if not self.moves:
            return "none; the upgrade is prepared"
        if not self.certificate:
            return f"{self.moves}; settled, so that there is no way back"
        return f"{self.moves}, the last by certificate {self.certificate}"

    def as_json(self) -> dict[str, object]:
        """For ``--json``."""
        return asdict(self)


def standing(ends: UpgradeEnds) -> Standing:
    """Where it stands; nothing is changed."""
    with opened(ends, look=True) as servers:
        sides = list(servers.sides().values())
        epoch = max((s.epoch for s in sides if s is not None), default=0)
        serving = servers.new if epoch % 2 else servers.old
        other = servers.opposite(serving)
        found = serving.side()
        certificate = (found and found.certificate) or {}
        pending, workers = replication.pending_tables(other.connection, other.name)
        return Standing(
            serving.name,
            any(s is not None for s in sides),
            epoch,
            str(certificate.get("id", "")),
            pending == 0 and workers > 0,
        )


def settle(ends: UpgradeEnds, say: Say) -> None:
    """Give up the way back: the old server gets nothing any more and stays closed. Again where it
    was cut off. Raises InputError where the old server serves."""
    with alone(ends), opened(ends) as servers:
        if recovered(ends, servers, say) is not servers.new:
            raise InputError(
                f"expected the {servers.new.label} to serve, found the {servers.old.label}",
                advice="move the application first, or `--abandon` to give the upgrade up",
            )
        with step("upgrade.settle"):
            _end(servers, servers.old, servers.new)
            side.remove(servers.new.connection)
        say(
            f"settled: the {servers.old.label} is not needed any more and admits nobody; remove it "
            "when you like"
        )


def abandon(ends: UpgradeEnds, say: Say) -> None:
    """Give the upgrade up: the old server forgets it. Raises InputError where the new serves."""
    with alone(ends), opened(ends) as servers:
        if recovered(ends, servers, say) is not servers.old:
            raise InputError(
                f"expected the {servers.old.label} to serve, found the {servers.new.label}",
                advice="`--back` first, or `--settle` to give the way back up",
            )
        with step("upgrade.abandon"):
            _end(servers, servers.new, servers.old)
            side.remove(servers.old.connection)
        say(f"the upgrade is given up; the database on the {servers.new.label} can be dropped")


def _end(servers: Servers, left: Server, serving: Server) -> None:
    """No replication between the two any more, and no trace of it on the side that serves but its
    record, which goes last."""
    for server in (servers.old, servers.new):
        for purpose in (server.name, replication.PROBE):
            replication.unsubscribe(server.connection, purpose)
    for server in (servers.old, servers.new):
        for purpose in (server.name, replication.PROBE):
            replication.drop_slot(servers.opposite(server).connection, purpose)
        replication.unpublish(server.connection)
    if serving.side() is not None and left.side() is not None:
        _forget_identities(servers.old.connection, serving.connection)


def _forget_identities(kept: psycopg.Connection, serving: psycopg.Connection) -> None:
    """What got REPLICA IDENTITY FULL for this has the default again."""
    rows = kept.execute("SELECT schema, name FROM _migration_upgrade.identities").fetchall()
    for schema, name in rows:
        table = postgres_relation(str(name), str(schema))
        briefly(
            serving,
            [compose("ALTER TABLE IF EXISTS {t} REPLICA IDENTITY DEFAULT", t=table)],
            limit=LOCKS_SECONDS,
        )
