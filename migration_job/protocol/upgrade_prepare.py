"""The new server is made to follow the old one: all that is done before anybody is held."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable

import psycopg

from migration_job.errors import InputError, OperationError
from migration_job.plural import counted
from migration_job.protocol.fault_points import step
from migration_job.protocol.upgrade_ends import Server, Servers, UpgradeEnds
from migration_job.quoting import compose, postgres_relation
from migration_job.stores.postgres import carry, replication, side
from migration_job.stores.postgres.database import briefly
from migration_job.stores.postgres.upgradable import (
    require_content,
    require_empty,
    require_pair,
    require_server,
)
from migration_job.verify.servers import ServerTable, read_tables

LOCKS_SECONDS = 30.0
POLL_SECONDS = 0.1
TOLD_SECONDS = 10.0
STALL_SECONDS = 60.0
"""How long the subscription may have no worker before it is taken to fail again and again."""

Say = Callable[[str], None]


def prepare(ends: UpgradeEnds, servers: Servers, say: Say) -> None:
    """Everything carried, copied, and followed. Where it was cut off it goes on. Raises JobError,
    with the application served as before."""
    old, new = servers.old, servers.new
    for server, name in ((old, "old"), (new, "new")):
        require_server(server.connection, name)
    require_pair(old.connection, new.connection)
    _require_lookup(ends, new)
    known = _begin(servers)
    if not known.loaded:
        with step("upgrade.carry"):
            _carry(ends, servers, say)
    if not replication.subscribed(new.connection, "to"):
        with step("upgrade.subscribe"):
            replication.set_triggers(
                new.connection, replication.read_triggers(new.connection), fire=False
            )
            replication.require_reach(new, old)
            replication.require_reach(old, new)
            replication.drop_slot(old.connection, "to")
            replication.make_slot(old.connection, "to")
            replication.subscribe(new.connection, old, "to", copy=True)
    with step("upgrade.copy"):
        _await_copy(new, say)
        _fill_views(new.connection)


def _require_lookup(ends: UpgradeEnds, new: Server) -> None:
    """Raises InputError where PgBouncer would find nothing to look passwords up in."""
    name = ends.alias.beside
    if name is None:
        return
    found = new.connection.execute("SELECT FROM pg_database WHERE datname = %s", (name,))
    if found.fetchone() is None:
        raise InputError(
            f"expected the database {name!r} of --auth-database on the {new.label}, found none",
            advice="make it there as it is on the old server: it is not carried",
        )


def _begin(servers: Servers) -> side.Side:
    """The record on both servers, the new one closed; the new one's."""
    old, new = servers.old, servers.new
    mine, theirs = old.side(), new.side()
    if theirs is not None and (mine is None or mine.upgrade != theirs.upgrade):
        raise InputError(
            "expected an empty database at --to-target, found one of another upgrade",
            advice="give an empty database: what an upgrade that was given up has left is removed "
            "with its database",
        )
    if theirs is None:
        require_content(old.connection, new.connection)
        require_empty(new.connection)
        with step("upgrade.record"):
            name = str(uuid.uuid4()) if mine is None else mine.upgrade
            side.make(old.connection, name, "from")
            side.make(new.connection, name, "to")
    side.close(new.connection, spare=servers.spare())
    found = new.side()
    if found is None:
        raise AssertionError("it was made a moment ago")
    return found


def _carry(ends: UpgradeEnds, servers: Servers, say: Say) -> None:
    old, new = servers.old, servers.new
    major = new.connection.info.server_version // 10000
    carrier = carry.Carrier(carry.programs(major, ends.programs), old.dsn, new.dsn)
    keyless = [t for t in read_tables(old.connection) if not t.key and t.identity != "f"]
    for table in keyless:
        _identify(old.connection, table)
    if keyless:
        say(f"followed by all their columns: {counted(len(keyless), 'table')} without a key")
    replication.publish(old.connection, [t.relation for t in read_tables(old.connection)])
    side.note_definitions(old.connection)
    carrier.roles(new.connection)
    carry.database(old.connection, new.connection)
    side.close(new.connection, spare=servers.spare())
    carrier.schema()
    say(f"roles, rights, settings and schema are on the {new.label}")
    for name, (mine, theirs) in carry.differing_settings(old.connection, new.connection).items():
        say(f"warning: {name} is {mine} on the old server and {theirs} on the new one")


def _identify(connection: psycopg.Connection, table: ServerTable) -> None:
    """Have its rows told by all their columns, and note that it was this job's doing."""
    with connection.transaction():
        connection.execute(
            "INSERT INTO _migration_upgrade.identities VALUES (%s, %s) ON CONFLICT DO NOTHING",
            (table.schema, table.name),
        )
        briefly(
            connection,
            [compose("ALTER TABLE {name} REPLICA IDENTITY FULL", name=table.relation)],
            limit=LOCKS_SECONDS,
        )


def _await_copy(new: Server, say: Say) -> None:
    told = alive = time.monotonic()
    while True:
        pending, workers = replication.pending_tables(new.connection, "to")
        now = time.monotonic()
        if pending == 0:
            return
        alive = now if workers else alive
        if now - alive > STALL_SECONDS:
            raise OperationError(
                f"expected the {new.label} to copy the rows, found its subscription stopped with "
                f"{counted(pending, 'table')} left",
                advice="that server's log says why; correct it, then run the command again: it "
                "continues where it stopped",
            )
        if now - told > TOLD_SECONDS:
            say(f"copying: {counted(pending, 'table')} left")
            told = now
        time.sleep(POLL_SECONDS)


def _fill_views(connection: psycopg.Connection) -> None:
    """Materialized views have no rows of their own to be carried: they are computed again, those
    first that others are made of."""
    rows = connection.execute(
        "SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n "
        "ON n.oid = c.relnamespace WHERE c.relkind = 'm' AND NOT c.relispopulated "
        "AND n.nspname !~ '^pg_' ORDER BY c.oid"
    ).fetchall()
    for schema, name in rows:
        connection.execute(
            compose(
                "REFRESH MATERIALIZED VIEW {name}", name=postgres_relation(str(name), str(schema))
            ).encode()
        )
