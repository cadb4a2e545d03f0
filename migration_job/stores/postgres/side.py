"""A server's own record of an upgrade, and the fence that keeps the application off it.

What is promised
    While a server is closed no role but a superuser can begin a session in its database, and when
    :func:`close` has returned none has one. So nothing can be written there, and every commit that
    there was precedes what the caller does next.

How
    CONNECT is revoked from everybody who has it (the owner too), in one transaction with the record
    of who had it; then the sessions that there are are ended. A session that is just being made
    holds a lock on the database until it can be seen, so none slips through.

Which server serves
    ``_migration_upgrade.side`` has a number on each server, ``epoch``. A decision raises it on the
    server that is left, in one commit; the server that is opened takes the number over. The side
    that serves is told by the highest: even, the old one; odd, the new one.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

import psycopg

from migration_job.errors import OperationError
from migration_job.quoting import compose, postgres_name
from migration_job.stores.postgres.database import durably

SCHEMA = "_migration_upgrade"

TABLES = """
CREATE SCHEMA IF NOT EXISTS _migration_upgrade;
CREATE TABLE IF NOT EXISTS _migration_upgrade.side (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    upgrade text NOT NULL,
    name text NOT NULL CHECK (name IN ('from', 'to')),
    epoch integer NOT NULL DEFAULT 0,
    closed boolean NOT NULL DEFAULT false,
    admitted text[] NOT NULL DEFAULT '{}',
    definitions text,
    loaded boolean NOT NULL DEFAULT false,
    certificate jsonb,
    changed_at timestamp with time zone NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE IF NOT EXISTS _migration_upgrade.identities (
    schema text, name text, PRIMARY KEY (schema, name)
);
CREATE TABLE IF NOT EXISTS _migration_upgrade.marker (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    token text NOT NULL
);
GRANT USAGE ON SCHEMA _migration_upgrade TO PUBLIC;
GRANT SELECT (closed) ON _migration_upgrade.side TO PUBLIC;
COMMENT ON TABLE _migration_upgrade.side IS 'which side of an upgrade this server is';
COMMENT ON COLUMN _migration_upgrade.side.admitted IS 'who could connect before it was closed';
COMMENT ON TABLE _migration_upgrade.identities IS 'tables that got REPLICA IDENTITY FULL for it';
COMMENT ON TABLE _migration_upgrade.marker IS 'what follows is proven up to the token it shows';
"""

LEFT = "MIG02"
"""The SQLSTATE of :data:`LOOK` where this server is closed."""

LOOK = """
DO $look$ BEGIN IF to_regclass('_migration_upgrade.side') IS NOT NULL THEN
    IF (SELECT closed FROM _migration_upgrade.side) THEN
        RAISE EXCEPTION 'an upgrade has left this server' USING ERRCODE = 'MIG02';
    END IF;
END IF; END $look$
"""
"""A statement that fails where an upgrade has left this server, or not yet opened it."""

EVERYBODY = "PUBLIC"

END_SECONDS = 10.0
POLL_SECONDS = 0.005


@dataclass(frozen=True, slots=True)
class Side:
    """The record of one server."""

    upgrade: str
    name: str
    epoch: int
    closed: bool
    admitted: tuple[str, ...]
    definitions: str | None
    loaded: bool
    certificate: dict[str, Any] | None


def make(connection: psycopg.Connection, upgrade: str, name: str) -> None:
    """The record, where there is none. The new server is made closed, by :func:`close`."""
    with connection.transaction():
        connection.execute(TABLES)
        connection.execute(
            "INSERT INTO _migration_upgrade.side (upgrade, name) VALUES (%s, %s) "
            "ON CONFLICT DO NOTHING",
            (upgrade, name),
        )


def read(connection: psycopg.Connection) -> Side | None:
    """The record; None where this server takes part in no upgrade."""
    there = connection.execute("SELECT to_regclass('_migration_upgrade.side') IS NOT NULL")
    if not (there.fetchone() or (False,))[0]:
        return None
    row = connection.execute(
        "SELECT upgrade, name, epoch, closed, admitted, definitions, loaded, certificate "
        "FROM _migration_upgrade.side"
    ).fetchone()
    if row is None:
        return None
    upgrade, name, epoch, closed, admitted, definitions, loaded, certificate = row
    return Side(
        str(upgrade),
        str(name),
        int(epoch),
        bool(closed),
        tuple(admitted),
        definitions,
        bool(loaded),
        certificate,
    )


def remove(connection: psycopg.Connection) -> None:
    """Forget the upgrade on this server."""
    connection.execute("DROP SCHEMA IF EXISTS _migration_upgrade CASCADE")


# ---------------------------------------------------------------------------------- fence


def who_connects(connection: psycopg.Connection) -> list[str]:
    """Every role that CONNECT was granted to, ``PUBLIC`` and the owner among them."""
    rows = connection.execute(
        "SELECT DISTINCT CASE a.grantee WHEN 0 THEN %s ELSE r.rolname::text END "
        "FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) AS a "
        "LEFT JOIN pg_roles r ON r.oid = a.grantee "
        "WHERE d.datname = current_database() AND a.privilege_type = 'CONNECT'",
        (EVERYBODY,),
    ).fetchall()
    return sorted(str(row[0]) for row in rows)


def close(connection: psycopg.Connection, *, spare: list[int] | None = None) -> None:
    """Close the server, and end every session but this one and those of ``spare`` (process ids).
    Again where it is closed already. Raises OperationError where a session does not end."""
    with connection.transaction():
        found = who_connects(connection)
        connection.execute(
            "UPDATE _migration_upgrade.side SET closed = true, changed_at = clock_timestamp(), "
            "admitted = CASE WHEN closed THEN admitted ELSE %s END",
            (found,),
        )
        database = postgres_name(connection.info.dbname)
        for role in found:
            connection.execute(
                compose(
                    "REVOKE CONNECT ON DATABASE {database} FROM {role} CASCADE",
                    database=database,
                    role=_role(role),
                ).encode()
            )
    left = connection.execute(
        "SELECT rolname::text FROM pg_roles WHERE rolcanlogin AND NOT rolsuper "
        "AND has_database_privilege(oid, current_database(), 'CONNECT')"
    ).fetchall()
    if left:
        raise OperationError(
            f"expected no role to have CONNECT on {connection.info.dbname!r}, found {left[0][0]!r}",
            advice="revoke it, then run the command again",
        )
    _end_sessions(connection, spare or [])


def _end_sessions(connection: psycopg.Connection, spare: list[int]) -> None:
    deadline = time.monotonic() + END_SECONDS
    while True:
        rows = connection.execute(
            "SELECT pid, pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity "
            "WHERE datname = current_database() AND backend_type = 'client backend' "
            # One that is being made shows its lock on the database before it shows itself.
            "UNION SELECT l.pid FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid) "
            "WHERE l.locktype = 'object' AND l.classid = 'pg_database'::regclass "
            "AND l.objid = (SELECT oid FROM pg_database WHERE datname = current_database()) "
            "AND coalesce(a.backend_type, 'client backend') = 'client backend') AS them "
            "WHERE pid <> pg_backend_pid() AND pid <> ALL (%s)",
            (spare,),
        ).fetchall()
        if not rows:
            return
        if time.monotonic() > deadline:
            raise OperationError(
                f"{len(rows)} sessions did not end within {END_SECONDS:g} s",
                advice="pg_stat_activity shows them; end them, then run the command again",
            )
        time.sleep(POLL_SECONDS)


def open_again(connection: psycopg.Connection) -> None:
    """Undo :func:`close` before a decision: as it was."""
    side = read(connection)
    if side is not None:
        _admit(connection, list(side.admitted), side.epoch)


def take_over(connection: psycopg.Connection, certificate: dict[str, Any], epoch: int) -> None:
    """Open the server that a decision names: whoever could connect to the other one can here."""
    _admit(connection, list(certificate["admitted"]), epoch)


def _admit(connection: psycopg.Connection, roles: list[str], epoch: int) -> None:
    with durably(connection):
        for role in roles:
            connection.execute(
                compose(
                    "GRANT CONNECT ON DATABASE {database} TO {role}",
                    database=postgres_name(connection.info.dbname),
                    role=_role(role),
                ).encode()
            )
        connection.execute(
            "UPDATE _migration_upgrade.side SET closed = false, epoch = %s, "
            "changed_at = clock_timestamp()",
            (epoch,),
        )


def _role(name: str) -> str:
    return EVERYBODY if name == EVERYBODY else postgres_name(name)


# ------------------------------------------------------------------------------- decision


def certify(connection: psycopg.Connection, certificate: dict[str, Any]) -> None:
    """Put the certificate on the server that is to be opened; what it has received until then is
    on its disk when this returns."""
    with durably(connection):
        connection.execute(
            "UPDATE _migration_upgrade.side SET certificate = %s", (json.dumps(certificate),)
        )


def decide(connection: psycopg.Connection, certificate: dict[str, Any], epoch: int) -> None:
    """The decision, on the server that is left: it stays closed, and ``epoch`` says who serves."""
    with durably(connection):
        connection.execute(
            "UPDATE _migration_upgrade.side SET epoch = %s, certificate = %s, "
            "changed_at = clock_timestamp() WHERE closed",
            (epoch, json.dumps(certificate)),
        )


def note_definitions(connection: psycopg.Connection, *, loaded: bool = False) -> None:
    """Put on record what the definitions are now, for :func:`definitions` to be compared with."""
    connection.execute(
        "UPDATE _migration_upgrade.side SET definitions = %s, loaded = loaded OR %s",
        (definitions(connection), loaded),
    )


DEFINITIONS = """
WITH own AS (
    SELECT c.oid, c.xmin, c.relname, c.relnamespace FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relpersistence <> 't' AND n.nspname !~ '^pg_'
        AND n.nspname NOT IN ('information_schema', '_migration_upgrade')
)
SELECT md5(coalesce(string_agg(line, ' ' ORDER BY line), '')) FROM (
    SELECT 'r' || oid || ' ' || relname || relnamespace AS line FROM own
    UNION ALL SELECT 'a' || attrelid || ' ' || attnum || ' ' || a.xmin FROM pg_attribute a
        JOIN own ON own.oid = attrelid WHERE NOT a.attisdropped
    UNION ALL SELECT 'd' || d.oid || ' ' || d.xmin FROM pg_attrdef d JOIN own ON own.oid = adrelid
    UNION ALL SELECT 'i' || indexrelid || ' ' || i.xmin FROM pg_index i
        JOIN own ON own.oid = indrelid
    UNION ALL SELECT 'g' || t.oid || ' ' || t.xmin FROM pg_trigger t JOIN own ON own.oid = tgrelid
    UNION ALL SELECT 'w' || w.oid || ' ' || w.xmin FROM pg_rewrite w JOIN own ON own.oid = ev_class
    UNION ALL SELECT 'y' || p.oid || ' ' || p.xmin FROM pg_policy p JOIN own ON own.oid = polrelid
    UNION ALL SELECT 's' || s.seqrelid || ' ' || s.xmin FROM pg_sequence s
        JOIN own ON own.oid = seqrelid
    UNION ALL SELECT 'c' || c.oid || ' ' || c.xmin FROM pg_constraint c
        LEFT JOIN own ON own.oid = conrelid WHERE conrelid = 0 OR own.oid IS NOT NULL
    UNION ALL SELECT 'p' || p.oid || ' ' || p.xmin FROM pg_proc p
        JOIN pg_namespace n ON n.oid = pronamespace
        WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', '_migration_upgrade')
    UNION ALL SELECT 'e' || e.oid || ' ' || e.xmin FROM pg_enum e
    UNION ALL SELECT 'x' || x.oid || ' ' || x.xmin FROM pg_extension x
) AS lines
"""


def definitions(connection: psycopg.Connection) -> str:
    """A digest of this server's definitions: another one after a change of a table, column, key,
    index, trigger, rule, policy, function, type or extension. It means nothing on another server.
    """
    row = connection.execute(DEFINITIONS).fetchone()
    return "" if row is None else str(row[0])
