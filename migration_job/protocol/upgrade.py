"""``upgrade``: move the application from one PostgreSQL server to a newer one, and back.

The protocol is that of the switch, with two servers. The receiving server follows the serving one
and is proven equal before any client is held. Then PgBouncer holds the queries, the serving server
is closed, and the last changes are proved. One commit on the server that is left is the decision.
From then on changes flow the other way, so ``--back`` is the same move with the sides exchanged.

Each step may be cut off anywhere: :func:`migration_job.protocol.upgrade_follow.recover` finishes a
decision or undoes a hold without one. This command does so at its start; a watchdog process beside
it does so when it dies or is stopped.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg

from migration_job.durable import write_durably
from migration_job.errors import InputError, JobError, OperationError
from migration_job.place import DEFAULT_SCHEMA, RECORDS, in_schema
from migration_job.plural import counted
from migration_job.protocol import lease
from migration_job.protocol.fault_points import step
from migration_job.protocol.lock import Lock
from migration_job.protocol.upgrade_ends import (
    HELD_FILE,
    Server,
    Servers,
    UpgradeEnds,
    opened,
    session,
)
from migration_job.protocol.upgrade_follow import recover
from migration_job.protocol.upgrade_guard import beside
from migration_job.protocol.upgrade_prepare import prepare
from migration_job.protocol.upgrade_proof import Proof
from migration_job.stores.postgres import replication, shape, side
from migration_job.verify.servers import read_tables

ALONE_SECONDS = 60.0
"""How long another upgrade, or the process beside one that died, may take to end."""

MARGIN_SECONDS = 20.0
"""Beyond what the hold's parts may take by their own limits, until this process is taken to stand
still."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Moved:
    """What a move did."""

    serves: str
    """``from`` or ``to``."""
    held_seconds: float
    """From the PAUSE to the RESUME."""
    tables: int
    rows: int
    compared_in_hold: int


def upgrade(ends: UpgradeEnds, say: Say, *, prepare_only: bool = False) -> Moved | None:
    """Move the application to the new server. None where it is there already, or with
    ``prepare_only``. Raises JobError, with the application on the side that served it."""
    with alone(ends), opened(ends) as servers:
        if recovered(ends, servers, say) is servers.new:
            say(f"the application is on the {servers.new.label} already")
            return None
        prepare(ends, servers, say)
        if prepare_only:
            say(f"the {servers.new.label} follows; run the command again to move the application")
            return None
        return _move(ends, servers, servers.old, say)


def back(ends: UpgradeEnds, say: Say) -> Moved | None:
    """Move the application back to the old server; None where it is there already. Raises
    JobError."""
    with alone(ends), opened(ends) as servers:
        if recovered(ends, servers, say) is servers.old:
            say(f"the application is on the {servers.old.label} already")
            return None
        return _move(ends, servers, servers.new, say)


@contextlib.contextmanager
def alone(ends: UpgradeEnds) -> Iterator[None]:
    """No two upgrades at once with one state directory."""
    with Lock(ends.state / "upgrade").command("upgrade", limit=ALONE_SECONDS):
        yield


def recovered(ends: UpgradeEnds, servers: Servers, say: Say) -> Server:
    """The server that serves, after what a dead process began was finished or undone."""
    with Lock(ends.state).command("upgrade"):
        return recover(ends, servers, say)


def _move(ends: UpgradeEnds, servers: Servers, source: Server, say: Say) -> Moved:
    target = servers.opposite(source)
    with step("upgrade.reverse"):
        _require_unchanged(source)
        _prepare_reverse(source, target)
    slot = session(source.dsn)
    servers.more.append(slot)
    try:
        tables = read_tables(source.connection)
        proof = Proof(source, target, tables, slot, ends.drain_seconds * 12)
        with step("upgrade.compare"):
            proof.everything()
            rows = sum(c.rows for c in proof.contents.values())
            found = f"{counted(len(tables), 'table')} with {counted(rows, 'row')}"
            say(f"compared {found} on both servers")
            last = proof.rounds()
        say(f"all equal but for what is being changed; the last round took {last * 1000:,.0f} ms")
        proof.limit = ends.drain_seconds
        with beside(ends.guard) as guardian, Lock(ends.state).command("upgrade"):
            _require_no_lease(ends)
            proof.rounds()  # while the lock was waited for, the application wrote on
            guardian.expect(ends.pause_seconds + ends.drain_seconds + MARGIN_SECONDS)
            clock, compared = _hold(ends, servers, proof, say)
        held = clock.ended - clock.began
    finally:
        slot.close()
        servers.more.clear()
    ms = f"{held * 1000:,.0f} ms"
    say(f"the application is on the {target.label}; its queries were held for {ms}")
    return Moved(target.name, held, len(tables), rows, compared)


@dataclass(slots=True)
class _Clock:
    began: float
    ended: float = 0.0


def _hold(ends: UpgradeEnds, servers: Servers, proof: Proof, say: Say) -> tuple[_Clock, int]:
    """From the PAUSE to the RESUME. Whatever fails, the records say what is to be done."""
    source, target = proof.source, proof.target
    write_durably(ends.state / HELD_FILE, b"", mode=0o600)
    clock, compared = _Clock(time.monotonic()), 0
    try:
        with step("upgrade.pause"):
            ends.pooler(source.at).pause(limit=ends.pause_seconds)
        with step("upgrade.fence"):
            side.close(source.connection, spare=servers.spare())
        with step("upgrade.drain"):
            compared = proof.finally_equal()
            certificate = _certify(source, target, proof, compared)
        with step("upgrade.decide"):
            side.decide(source.connection, certificate, int(certificate["epoch"]))
    except (JobError, psycopg.Error, OSError) as error:
        # A commit that failed may be durable all the same: the record says what is.
        servers.again()
        if recover(ends, servers, say) is not target:
            raise
        say(f"warning: {error}; but the decision is valid, and was followed")
    else:
        recover(ends, servers, say, release=lambda: setattr(clock, "ended", time.monotonic()))
    clock.ended = clock.ended or time.monotonic()
    return clock, compared


def _certify(source: Server, target: Server, proof: Proof, compared: int) -> dict[str, Any]:
    """All that stands on the receiving server before the decision, and the certificate of it."""
    _require_unchanged(source)
    _require_nothing_prepared(source)
    sequences = replication.read_sequences(source.connection)
    replication.set_sequences(target.connection, sequences)
    _carry_shapes(source, target)
    was = source.side()
    if was is None:
        raise AssertionError("the source was closed by its record")
    certificate: dict[str, Any] = {
        "id": str(uuid.uuid4()),
        "upgrade": was.upgrade,
        "epoch": was.epoch + 1,
        "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "from": source.version,
        "to": target.version,
        "position": replication.position(source.connection),
        "tables": {
            name: {"rows": c.rows, "digest": f"{c.first} {c.second}"}
            for name, c in proof.contents.items()
        },
        "compared_in_hold": compared,
        "sequences": len(sequences),
        "admitted": list(was.admitted),
        "triggers": replication.read_triggers(source.connection),
    }
    side.certify(target.connection, certificate)
    # What the receiving server has until here came from this one and must not come back to it.
    replication.begin_after(source.connection, source.name, replication.position(target.connection))
    return certificate


def _carry_shapes(source: Server, target: Server) -> None:
    """Record again what the way back to SQLite knows of a server's own catalogue, for each
    schema of an application's."""
    rows = source.connection.execute(
        "SELECT n.nspname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE c.relname = 'schema_seen' AND (n.nspname = %s OR starts_with(n.nspname, %s))",
        (RECORDS, f"{RECORDS}_"),
    ).fetchall()
    for (records,) in rows:
        name = str(records).partition("_")[2] or DEFAULT_SCHEMA
        with (
            contextlib.closing(session(in_schema(source.dsn, name))) as one,
            contextlib.closing(session(in_schema(target.dsn, name))) as other,
        ):
            _carry_shape(one, other)


def _carry_shape(source: psycopg.Connection, target: psycopg.Connection) -> None:
    row = source.execute("SELECT digest FROM migration.schema_seen").fetchone()
    if row is None:
        return
    if str(row[0]) != shape.read_digest(source):
        raise OperationError(
            "expected `sync` to have carried the last change of the schema to SQLite, found one "
            "that it has not",
            advice="let `sync` run, or `settle` first; then run the command again",
        )
    with target.transaction():
        target.execute("DELETE FROM migration.served")
        # The move switches triggers off on one side and on at the other: its own doing.
        shapes = {
            name: one.model_copy(update={"triggers": None})
            for name, one in shape.read_shapes(target).items()
        }
        shape.keep(target, shape.read_digest(target), shapes)


def _prepare_reverse(source: Server, target: Server) -> None:
    """Have the way back ready: published and subscribed, and not received yet."""
    relations = [table.relation for table in read_tables(source.connection)]
    replication.publish(target.connection, relations)
    replication.unsubscribe(source.connection, source.name)
    replication.require_reach(source, target)
    replication.make_slot(target.connection, source.name)
    replication.subscribe(source.connection, target, source.name, copy=False)


def _require_unchanged(source: Server) -> None:
    found = source.side()
    if found is None or found.definitions != side.definitions(source.connection):
        raise OperationError(
            f"expected the {source.label} to have the schema that was carried, found it changed",
            advice="the application is served as before. Undo the change, or give this upgrade up "
            "(`migration-job upgrade --abandon`, before the move) and begin it again",
        )


def _require_nothing_prepared(source: Server) -> None:
    row = source.connection.execute(
        "SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()"
    ).fetchone()
    if row is not None and row[0]:
        raise OperationError(
            f"expected no prepared transaction, found {row[0]}",
            advice="COMMIT PREPARED or ROLLBACK PREPARED (pg_prepared_xacts names them), then run "
            "the command again",
        )


def _require_no_lease(ends: UpgradeEnds) -> None:
    held = lease.read_lease(ends.state)
    if held is not None:
        raise InputError(
            f"expected the application's traffic not to be held, found: {lease.in_words(held)}",
            advice="wait for its end, or `migration-job resume`",
        )
