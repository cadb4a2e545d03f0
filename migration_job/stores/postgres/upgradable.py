"""Whether a server can be left for a newer one by logical replication, asked before anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psycopg

from migration_job.errors import InputError
from migration_job.quoting import compose

_OWN = (
    "n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', '_migration_upgrade') "
    "AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.objid = c.oid "
    "AND e.classid = 'pg_class'::regclass AND e.deptype = 'e')"
)

UNLOGGED = compose(
    "SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n "
    "ON n.oid = c.relnamespace WHERE c.relkind = 'r' AND c.relpersistence = 'u' AND {own}",
    own=_OWN,
)
WITHOUT_EQUALITY = compose(
    "SELECT n.nspname || '.' || c.relname || '.' || a.attname || ' (' || t.typname || ')' "
    "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
    "JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped "
    "JOIN pg_type d ON d.oid = a.atttypid "
    "JOIN pg_type t ON t.oid = coalesce(nullif(d.typbasetype, 0), nullif(d.typelem, 0), d.oid) "
    "WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND {own} AND t.typname IN "
    "('json', 'xml', 'point', 'lseg', 'path', 'box', 'polygon', 'line', 'circle', 'jsonpath', "
    "'txid_snapshot', 'pg_snapshot') AND NOT EXISTS (SELECT FROM pg_index i "
    "WHERE i.indrelid = c.oid AND i.indisvalid AND i.indimmediate AND "
    "CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident "
    "ELSE false END)",
    own=_OWN,
)
LARGE_OBJECTS = (
    "SELECT count(*) || ' large objects' FROM pg_largeobject_metadata HAVING count(*) > 0"
)
OTHERS = (
    "SELECT 'publication ' || pubname FROM pg_publication WHERE pubname <> 'migration_upgrade' "
    "UNION ALL SELECT 'subscription ' || subname FROM pg_subscription s JOIN pg_database d "
    "ON d.oid = s.subdbid WHERE d.datname = current_database() "
    "AND NOT starts_with(subname, 'migration_upgrade_')"
)
EXTENSION_ROWS = (
    "SELECT extname::text FROM pg_extension WHERE extconfig IS NOT NULL OR extname = 'citus'"
)
TABLES = compose(
    "SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n "
    "ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S') AND {own}",
    own=_OWN,
)
BOTH = (
    "SELECT current_setting('wal_level'), "
    "(SELECT rolsuper FROM pg_roles WHERE rolname = current_user), "
    "current_setting('max_replication_slots')::int - (SELECT count(*) FROM pg_replication_slots "
    "WHERE NOT (starts_with(slot_name, 'migration_upgrade_') AND database = current_database())), "
    "current_setting('max_logical_replication_workers')::int"
)
SLOTS = 4
"""One that is followed, two by which tables are copied, one by which changes are verified."""


def _asks(connection: psycopg.Connection, query: str) -> list[str]:
    return [str(row[0]) for row in connection.execute(query.encode()).fetchall()]


def require_server(connection: psycopg.Connection, which: str) -> None:
    """Raises InputError where the server cannot take part; ``which`` is its name for people."""
    row = connection.execute(BOTH.encode()).fetchone()
    if row is None:
        raise AssertionError("a query without FROM has a row")
    level, superuser, slots, workers = row
    if not superuser:
        raise InputError(
            f"expected a superuser on the {which} server, found {connection.info.user!r}",
            advice="logical replication and the fence need its rights; give its connection string",
        )
    if level != "logical":
        raise InputError(
            f"expected wal_level = logical on the {which} server, found {level}",
            advice="ALTER SYSTEM SET wal_level = logical, restart that server (`migration-job "
            "hold` holds the application's queries meanwhile), then run the command again",
        )
    if int(slots) < SLOTS or int(workers) < 1:
        raise InputError(
            f"expected {SLOTS} free replication slots and a worker on the {which} server, found "
            f"{slots} and {workers}",
            advice="raise max_replication_slots and max_logical_replication_workers there",
        )


def require_pair(old: psycopg.Connection, new: psycopg.Connection) -> None:
    """Raises InputError where the second is not a newer server that sorts text as the first."""
    versions = [c.info.server_version // 10000 for c in (old, new)]
    if versions[1] < versions[0]:
        raise InputError(
            f"expected a server of PostgreSQL {versions[0]} or newer at --to-target, found "
            f"{versions[1]}",
            advice="exchange the two, or give a newer server",
        )
    identities = [
        c.execute("SELECT system_identifier::text FROM pg_control_system()").fetchone()
        for c in (old, new)
    ]
    if identities[0] == identities[1]:
        raise InputError(
            "expected two servers, found one behind --from-target and --to-target",
            advice="give the new server's connection string as --to-target",
        )
    query = "SELECT datcollate, datctype FROM pg_database WHERE datname = current_database()"
    sorts = [c.execute(query).fetchone() for c in (old, new)]
    if sorts[0] != sorts[1]:
        raise InputError(
            f"expected the new database to have the collation and character type {sorts[0]}, "
            f"found {sorts[1]}",
            advice="recreate it: CREATE DATABASE ... TEMPLATE template0 LC_COLLATE ... LC_CTYPE",
        )


def require_content(old: psycopg.Connection, new: psycopg.Connection) -> None:
    """Raises InputError where the old server has what logical replication does not carry, or the
    new one lacks an extension; naming it, and what to do."""
    for found, expected, advice in _obstacles(old, new):
        shown = ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")
        raise InputError(f"expected {expected}, found {shown}", advice=advice)


def require_empty(new: psycopg.Connection) -> None:
    """Raises InputError where the new database holds anything of somebody's."""
    found = _asks(new, TABLES)
    if found:
        raise InputError(
            f"expected an empty database at --to-target, found {found[0]} in it",
            advice="give an empty database: what an upgrade that was given up has left is removed "
            "with its database",
        )


def _obstacles(
    old: psycopg.Connection, new: psycopg.Connection
) -> Iterator[tuple[list[str], str, str]]:
    ask: Callable[[str], list[str]] = lambda query: _asks(old, query)  # noqa: E731
    checks = (
        (
            UNLOGGED,
            "no unlogged table",
            "ALTER TABLE ... SET LOGGED, or drop it: replication does not see its rows",
        ),
        (
            WITHOUT_EQUALITY,
            "a primary key where a column's type has no equality",
            "add a primary key: without one the row cannot be found on the other server",
        ),
        (
            LARGE_OBJECTS,
            "no large objects",
            "move them into a bytea column: replication does not carry them",
        ),
        (
            OTHERS,
            "no other publications or subscriptions",
            "it would not continue on the new server: end it, and recreate it there afterwards",
        ),
        (
            EXTENSION_ROWS,
            "no extension that keeps rows of its own",
            "move it by its own means: replication does not carry what belongs to an extension",
        ),
    )
    for query, expected, advice in checks:
        if found := ask(query):
            yield found, expected, advice
    available = set(_asks(new, "SELECT name::text FROM pg_available_extensions"))
    missing = [e for e in ask("SELECT extname::text FROM pg_extension") if e not in available]
    if missing:
        yield (
            missing,
            "the old server's extensions on the new one too",
            "install their packages there, or drop them here, then run the command again",
        )
