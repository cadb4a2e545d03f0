"""PostgreSQL's logical replication between two servers: publications, subscriptions, slots.

One direction at a time. A subscription has the name of the side that it leads to; both sides
publish under one name. Slots are the whole server's: a slot's name has the number of the database
whose changes it keeps, so that upgrades of several databases of one server do not meet.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import psycopg
from psycopg.conninfo import make_conninfo

from migration_job.errors import InputError, OperationError
from migration_job.quoting import compose, joined, postgres_name, postgres_relation, postgres_text
from migration_job.stores.postgres.database import durably

PUBLICATION = "migration_upgrade"
VERIFY, VERIFY_NOW, PROBE = "verify", "verify_now", "probe"
REACH_SECONDS = 30.0
"""How long one server may take to find the other."""
POLL_SECONDS = 0.002
DROP_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Address:
    """A server as PgBouncer and the other server reach it."""

    host: str
    port: int
    database: str

    def __str__(self) -> str:
        return f"{self.host}:{self.port}/{self.database}"


class Peer(Protocol):
    """One server of the two."""

    dsn: str
    at: Address
    connection: psycopg.Connection

    @property
    def label(self) -> str:
        """Its name for people."""


def subscription(to: str) -> str:
    """The name of the subscription that leads to the side ``to``."""
    return f"migration_upgrade_{to}"


def slot(connection: psycopg.Connection, purpose: str) -> str:
    """The name of the slot by which this database's changes are fetched for ``purpose``: the side
    that they go to."""
    row = connection.execute(
        "SELECT oid FROM pg_database WHERE datname = current_database()"
    ).fetchone()
    if row is None:
        raise AssertionError("a session has a database")
    return f"migration_upgrade_{row[0]}_{purpose}"


def publish(connection: psycopg.Connection, relations: Sequence[str]) -> None:
    """Publish these tables and the marker; nothing where they are published already."""
    found = connection.execute(
        "SELECT FROM pg_publication WHERE pubname = %s", (PUBLICATION,)
    ).fetchone()
    if found is not None:
        return
    names = joined(", ", ["_migration_upgrade.marker", *relations])
    connection.execute(
        compose(
            "CREATE PUBLICATION {name} FOR TABLE {names}",
            name=postgres_name(PUBLICATION),
            names=names,
        ).encode()
    )


def unpublish(connection: psycopg.Connection) -> None:
    """Publish nothing any more."""
    connection.execute(
        compose("DROP PUBLICATION IF EXISTS {name}", name=postgres_name(PUBLICATION)).encode()
    )


def subscribed(connection: psycopg.Connection, to: str) -> bool:
    """Whether this server has the subscription that leads to ``to``."""
    row = connection.execute(
        "SELECT FROM pg_subscription WHERE subname = %s "
        "AND subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())",
        (subscription(to),),
    ).fetchone()
    return row is not None


def subscribe(connection: psycopg.Connection, publisher: Peer, to: str, *, copy: bool) -> None:
    """Subscribe to what the other server publishes; its slot has to be there. With ``copy`` the
    rows are copied first; without it the subscription is not enabled."""
    # Never its slot: made here, it waits without end where the address leads to this very server.
    started = "copy_data = true" if copy else "copy_data = false, enabled = false"
    _create(connection, publisher, to, f"{started}, create_slot = false")


def require_reach(subscriber: Peer, publisher: Peer) -> None:
    """Raises InputError where the one server does not find the other at its address: a slot that
    is made on the publisher has to be dropped from the subscriber's side."""
    connection = subscriber.connection
    unsubscribe(connection, PROBE)
    drop_slot(publisher.connection, PROBE)
    publisher.connection.execute(
        "SELECT pg_create_physical_replication_slot(%s)", (slot(publisher.connection, PROBE),)
    )
    try:
        _create(connection, publisher, PROBE, "connect = false")
        with _bounded(connection):
            name = postgres_name(subscription(PROBE))
            connection.execute(compose("DROP SUBSCRIPTION {name}", name=name).encode())
    except psycopg.Error as error:
        said = error.diag.message_primary or type(error).__name__
        raise InputError(
            f"expected the {subscriber.label} to reach the {publisher.label} at {publisher.at}, "
            f"found none or another server there ({said})",
            advice="name the servers as they reach each other: --from-server and --to-server",
        ) from error
    finally:
        unsubscribe(connection, PROBE)
        drop_slot(publisher.connection, PROBE)


@contextlib.contextmanager
def _bounded(connection: psycopg.Connection) -> Iterator[None]:
    """A limit for what waits for the other server."""
    limit = "SELECT set_config('statement_timeout', %s, false)"
    was = connection.execute("SELECT current_setting('statement_timeout')").fetchone()
    connection.execute(limit, (f"{REACH_SECONDS:g}s",))
    try:
        yield
    finally:
        if not connection.closed:
            connection.execute(limit, was)


def _create(connection: psycopg.Connection, publisher: Peer, to: str, how: str) -> None:
    at = publisher.at
    told = make_conninfo(
        publisher.dsn, host=at.host, port=at.port, dbname=at.database, connect_timeout=10
    )
    with _bounded(connection):
        connection.execute(
            compose(
                "CREATE SUBSCRIPTION {name} CONNECTION {told} PUBLICATION {publication} "
                "WITH ({how}, slot_name = {slot})",
                name=postgres_name(subscription(to)),
                slot=postgres_name(slot(publisher.connection, to)),
                told=postgres_text(told),
                publication=postgres_name(PUBLICATION),
                how=how,
            ).encode()
        )


def unsubscribe(connection: psycopg.Connection, to: str) -> None:
    """Take the subscription away from this server; its slot stays on the other."""
    if not subscribed(connection, to):
        return
    name = postgres_name(subscription(to))
    for change in ("DISABLE", "SET (slot_name = NONE)"):
        connection.execute(
            compose("ALTER SUBSCRIPTION {name} {change}", name=name, change=change).encode()
        )
    connection.execute(compose("DROP SUBSCRIPTION {name}", name=name).encode())


def enable(connection: psycopg.Connection, to: str) -> None:
    """Have the subscription receive."""
    connection.execute(
        compose("ALTER SUBSCRIPTION {name} ENABLE", name=postgres_name(subscription(to))).encode()
    )


def make_slot(connection: psycopg.Connection, to: str) -> None:
    """The slot of the subscription that leads to ``to``, where it is not there."""
    connection.execute(
        "SELECT pg_create_logical_replication_slot(%s, 'pgoutput') WHERE NOT EXISTS "
        "(SELECT FROM pg_replication_slots WHERE slot_name = %s)",
        (name := slot(connection, to), name),
    )


def drop_slot(connection: psycopg.Connection, to: str) -> None:
    """Drop that slot, ending who receives from it. Raises OperationError where that fails."""
    name = slot(connection, to)
    deadline = time.monotonic() + DROP_SECONDS
    while True:
        try:
            connection.execute(
                "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots "
                "WHERE slot_name = %s AND active",
                (name,),
            )
            connection.execute(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots "
                "WHERE slot_name = %s",
                (name,),
            )
            return
        except psycopg.errors.ObjectInUse:
            if time.monotonic() > deadline:
                raise OperationError(
                    f"the replication slot {name} is in use",
                    advice="end who uses it (pg_replication_slots), then run the command again",
                ) from None
        time.sleep(POLL_SECONDS * 10)


def begin_after(connection: psycopg.Connection, to: str, position: str) -> None:
    """Have the subscription begin behind that position of the publisher's log, however far back
    its slot is: what this server sent there itself must not come back."""
    connection.execute(
        "SELECT pg_replication_origin_advance('pg_' || oid, %s::pg_lsn) FROM pg_subscription "
        "WHERE subname = %s "
        "AND subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())",
        (position, subscription(to)),
    )


def position(connection: psycopg.Connection) -> str:
    """How far this server's log is."""
    row = connection.execute("SELECT pg_current_wal_lsn()::text").fetchone()
    return "" if row is None else str(row[0])


# -------------------------------------------------------------------------------- marker


def send_marker(connection: psycopg.Connection) -> str:
    """Write a new token after everything that is committed; it arrives after all of it."""
    token = secrets.token_hex(8)
    with durably(connection):
        connection.execute(
            "INSERT INTO _migration_upgrade.marker (token) VALUES (%s) "
            "ON CONFLICT (one) DO UPDATE SET token = excluded.token",
            (token,),
        )
    return token


def await_marker(connection: psycopg.Connection, token: str, limit: float) -> None:
    """Wait until the token is here. Raises OperationError after ``limit`` seconds."""
    deadline = time.monotonic() + limit
    while True:
        row = connection.execute("SELECT token FROM _migration_upgrade.marker").fetchone()
        if row is not None and row[0] == token:
            return
        if time.monotonic() > deadline:
            raise OperationError(
                f"expected the receiving server to follow within {limit:g} s, found it behind",
                advice="its log says what holds the subscription up; a table without a key is slow "
                "to follow (each changed row is searched for from the first row on): give it a "
                "primary key; the command, run again, continues where it stopped",
            )
        time.sleep(POLL_SECONDS)


def pending_tables(connection: psycopg.Connection, to: str) -> tuple[int, int]:
    """How many tables of the subscription are not copied yet, and whether its worker runs (1)."""
    row = connection.execute(
        "SELECT (SELECT count(*) FROM pg_subscription_rel WHERE srsubid = s.oid "
        "AND srsubstate <> 'r'), (SELECT count(*) FROM pg_stat_subscription w "
        "WHERE w.subid = s.oid AND w.pid IS NOT NULL) FROM pg_subscription s "
        "WHERE subname = %s "
        "AND subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())",
        (subscription(to),),
    ).fetchone()
    return (-1, 0) if row is None else (int(row[0]), int(row[1]))


# ---------------------------------------------------------------------------- what changed


def watch_changes(connection: psycopg.Connection) -> None:
    """From now on :func:`read_changes` in this session tells what is changed."""
    _make_own(connection, VERIFY)


def read_changes(connection: psycopg.Connection) -> list[bytes]:
    """The messages of what was committed since the last look, whole transactions."""
    rows = connection.execute(
        "SELECT data FROM pg_logical_slot_get_binary_changes(%s, NULL, NULL, "
        "'proto_version', '1', 'publication_names', %s)",
        (slot(connection, VERIFY), PUBLICATION),
    ).fetchall()
    return [bytes(row[0]) for row in rows]


def shorten(connection: psycopg.Connection) -> None:
    """Have the next look begin near the end of the log: making a slot logs which transactions run,
    which is where decoding can start over."""
    _make_own(connection, VERIFY_NOW)
    connection.execute("SELECT pg_drop_replication_slot(%s)", (slot(connection, VERIFY_NOW),))


def _make_own(connection: psycopg.Connection, purpose: str) -> None:
    """A slot that lives as long as the session."""
    connection.execute(
        "SELECT pg_create_logical_replication_slot(%s, 'pgoutput', true)",
        (slot(connection, purpose),),
    )


# ------------------------------------------------------------------- sequences and triggers


def read_sequences(connection: psycopg.Connection) -> list[tuple[str, int, bool]]:
    """Each sequence of the application's, its last value, and whether that was given out."""
    names = connection.execute(
        "SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n "
        "ON n.oid = c.relnamespace WHERE c.relkind = 'S' AND c.relpersistence = 'p' "
        "AND n.nspname !~ '^pg_' AND n.nspname <> '_migration_upgrade' ORDER BY 1, 2"
    ).fetchall()
    relations = [postgres_relation(str(name), str(schema)) for schema, name in names]
    if not relations:
        return []
    parts = (
        compose("SELECT {n}, last_value, is_called FROM {relation}", n=n, relation=relation)
        for n, relation in enumerate(relations)
    )
    rows = connection.execute(joined(" UNION ALL ", parts).encode()).fetchall()
    return [(relations[int(n)], int(value), bool(called)) for n, value, called in rows]


def set_sequences(
    connection: psycopg.Connection, sequences: Sequence[tuple[str, int, bool]]
) -> None:
    """Have the sequences go on where those of the other server stopped."""
    names, values, called = ([s[n] for s in sequences] for n in range(3))
    connection.execute(
        "SELECT setval(name::regclass, value, called) "
        "FROM unnest(%s::text[], %s::bigint[], %s::boolean[]) AS s (name, value, called)",
        (names, values, called),
    )


def read_triggers(connection: psycopg.Connection) -> list[list[str]]:
    """Triggers that also fire for rows that arrive by replication: schema, table, name, A or R."""
    rows = connection.execute(
        "SELECT n.nspname::text, c.relname::text, t.tgname::text, t.tgenabled::text "
        "FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid "
        "JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE t.tgenabled IN ('A', 'R') AND NOT t.tgisinternal ORDER BY 1, 2, 3"
    ).fetchall()
    return [[str(part) for part in row] for row in rows]


def set_triggers(
    connection: psycopg.Connection, triggers: Sequence[Sequence[str]], *, fire: bool
) -> None:
    """Have these triggers fire as they did on the serving side, or not at all: on the side that
    receives, what they would write arrives as rows."""
    words = {"A": "ENABLE ALWAYS", "R": "ENABLE REPLICA"}
    tables: dict[str, list[str]] = {}
    for schema, table, name, kind in triggers:
        change = compose(
            "{word} TRIGGER {name}",
            word=words[kind] if fire else "DISABLE",
            name=postgres_name(name),
        )
        tables.setdefault(postgres_relation(table, schema), []).append(change)
    with connection.transaction():
        for relation, changes in tables.items():
            connection.execute(
                compose(
                    "ALTER TABLE {relation} {changes}",
                    relation=relation,
                    changes=joined(", ", changes),
                ).encode()
            )
