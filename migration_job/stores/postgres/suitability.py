"""Whether a PostgreSQL that somebody else runs can be a target: looked at, never changed.

It may be managed, under Patroni, Citus, anything that speaks PostgreSQL, and the role is not
expected to be a superuser. Each check is one line of a list: what was expected, what was found,
and, where it stands in the way, what to do.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import psycopg

from migration_job.place import schema_of_session
from migration_job.plural import counted
from migration_job.quoting import postgres_name
from migration_job.stores.postgres import citus, collation, records, settings, standbys

Verdict = Literal["ok", "warning", "refused"]

NEWEST = 180000
"""The newest major version that this project is tried with."""

SHOWN_TRIGGERS = 5

SPACE_FACTOR = 3
"""Rows, their indexes and the write-ahead log of the load, in sizes of the SQLite file."""


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    verdict: Verdict
    found: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Accepted:
    """What the operator accepts by name."""

    asynchronous: bool = False
    """That a failover may lose acknowledged commits."""
    collation: bool = False
    """That text compares by the database's own collation."""
    tables: bool = False
    """That the database holds the application's own tables, which are to be filled."""


def examine(
    connection: psycopg.Connection,
    *,
    source_bytes: int | None,
    connections: int,
    live: bool,
    accepted: Accepted | None = None,
) -> list[Check]:
    """All checks, in the order in which an operator would mend them.

    ``source_bytes`` is the SQLite file's size, None where it is not known, ``connections``
    what the pool and the job will open, ``live`` whether changes are to be captured and followed.
    """
    accepted = accepted or Accepted()
    return [
        _version(connection),
        _primary(connection),
        _settings(connection),
        _event_triggers(connection),
        *_rights(connection),
        *([_replica(connection)] if live else []),
        _connections(connection, connections),
        _durability(connection),
        _standbys(connection, accepted.asynchronous),
        _collation(connection, accepted.collation),
        _space(connection, source_bytes),
        _emptiness(connection, accepted.tables),
        *_citus(connection),
    ]


def _one(connection: psycopg.Connection, query: str, *values: object) -> str:
    row = connection.execute(query.encode(), values).fetchone()
    return "" if row is None or row[0] is None else str(row[0])


def _version(connection: psycopg.Connection) -> Check:
    # Older ones, and databases not in UTF8, were refused when the session was opened.
    version = connection.info.server_version
    found = _one(connection, "SHOW server_version")
    if version // 10000 > NEWEST // 10000:
        return Check("version", "warning", found, "14 to 18 are tried; rehearse on this one first")
    return Check("version", "ok", found)


def _primary(connection: psycopg.Connection) -> Check:
    standby = _one(connection, "SELECT pg_is_in_recovery()") == "True"
    read_only = _one(connection, "SHOW transaction_read_only") == "on"
    if standby:
        return Check("primary", "refused", "a standby", "give the primary's address")
    if read_only:
        return Check(
            "primary",
            "refused",
            "read-only by default",
            "ALTER ROLE ... SET default_transaction_read_only = off",
        )
    return Check("primary", "ok", "takes writes")


def _settings(connection: psycopg.Connection) -> Check:
    found = settings.unfit(connection)
    if found:
        return Check(
            "settings",
            "refused",
            "; ".join(what for what, _ in found),
            "; ".join(how for _, how in found),
        )
    return Check("settings", "ok", "triggers fire in every session")


_EVENT_TRIGGERS = """
SELECT t.evtname, t.evtevent, t.evtfoid::regprocedure::text, e.extname
FROM pg_event_trigger AS t
LEFT JOIN pg_depend AS d ON d.classid = 'pg_event_trigger'::regclass AND d.objid = t.oid
    AND d.deptype = 'e'
LEFT JOIN pg_extension AS e ON e.oid = d.refobjid
WHERE t.evtenabled <> 'D'
ORDER BY t.evtname
"""


def _event_triggers(connection: psycopg.Connection) -> Check:
    found = connection.execute(_EVENT_TRIGGERS).fetchall()
    if not found:
        return Check("event triggers", "ok", "none")
    shown = ", ".join(
        f"{name} ({event}, {function}" + (f", of extension {extension})" if extension else ")")
        for name, event, function, extension in found[:SHOWN_TRIGGERS]
    )
    more = f" and {len(found) - SHOWN_TRIGGERS} more" if len(found) > SHOWN_TRIGGERS else ""
    return Check(
        "event triggers",
        "warning",
        shown + more,
        "each is run by the tables, indexes, triggers and functions that the job makes and drops, "
        "and may refuse or alter them: rehearse with it, or have a superuser disable it until the "
        "migration is settled: ALTER EVENT TRIGGER ... DISABLE",
    )


def _rights(connection: psycopg.Connection) -> Iterator[Check]:
    wanted = {
        "make schemas": "has_database_privilege(current_database(), 'CREATE')",
        "make tables": "coalesce(has_schema_privilege("
        "to_regnamespace(quote_ident(current_schema())), 'CREATE'), "
        "has_database_privilege(current_database(), 'CREATE'))",
    }
    for name, test in wanted.items():
        if _one(connection, f"SELECT {test}") == "True":
            yield Check(name, "ok", "granted")
        else:
            schema = postgres_name(schema_of_session(connection))
            what = f"SCHEMA {schema}" if name == "make tables" else "DATABASE ..."
            yield Check(name, "refused", "not granted", f"GRANT CREATE ON {what} TO the role")


def _replica(connection: psycopg.Connection) -> Check:
    may = _one(
        connection,
        "SELECT rolsuper FROM pg_roles WHERE rolname = current_user",
    )
    if may != "True" and connection.info.server_version >= 150000:
        may = _one(
            connection,
            "SELECT has_parameter_privilege('session_replication_role', 'SET')",
        )
    if may != "True":
        may = _one(
            connection,
            "SELECT has_function_privilege(to_regprocedure('privileges.act_as_replica()'), "
            "'EXECUTE')",
        )
    if may == "True":
        return Check("follow changes", "ok", "may suppress triggers while it applies them")
    return Check(
        "follow changes",
        "refused",
        "the role may not set session_replication_role",
        "on 15 and later: GRANT SET ON PARAMETER session_replication_role TO the role; on 14 make "
        "the function that docs/how-to/external-database.md shows",
    )


def _connections(connection: psycopg.Connection, wanted: int) -> Check:
    limit = int(_one(connection, "SHOW max_connections"))
    reserved = int(_one(connection, "SHOW superuser_reserved_connections"))
    used = int(_one(connection, "SELECT count(*) FROM pg_stat_activity WHERE usesysid IS NOT NULL"))
    free = limit - reserved - used
    found = f"{free} free of {limit}"
    if free < wanted:
        return Check(
            "connections",
            "refused",
            found,
            f"{wanted} are needed: raise max_connections or lower poolMax",
        )
    return Check("connections", "ok", found)


def _durability(connection: psycopg.Connection) -> Check:
    off = [
        name
        for name in ("fsync", "full_page_writes")
        if _one(connection, f"SHOW {name}").lower() != "on"
    ]
    if off:
        return Check(
            "durability",
            "refused",
            f"{' and '.join(off)} off",
            "a power cut could lose acknowledged writes: set them on",
        )
    if _one(connection, "SHOW synchronous_commit") == "off":
        return Check(
            "durability",
            "warning",
            "synchronous_commit is off",
            "the application's last writes are lost with a crash of the server",
        )
    return Check("durability", "ok", "fsync, full_page_writes and synchronous_commit are on")


def _standbys(connection: psycopg.Connection, accepted: bool) -> Check:
    found = standbys.look(connection)
    if not found.asynchronous:
        return Check("standbys", "ok", found.found)
    if accepted:
        return Check("standbys", "warning", found.found, "accepted by name")
    return Check("standbys", "refused", found.found, standbys.ADVICE)


def _collation(connection: psycopg.Connection, accepted: bool) -> Check:
    found = collation.look(connection)
    if found.by_bytes:
        return Check("collation", "ok", f"{found}: byte by byte, as on SQLite")
    if accepted:
        return Check(
            "collation",
            "warning",
            f"{found}: ranges and orders of text differ from SQLite's",
            "accepted by name",
        )
    return Check(
        "collation",
        "ok",
        f'{found}: columns of text get COLLATE "C", which compares as SQLite does',
    )


def _space(connection: psycopg.Connection, source_bytes: int | None) -> Check:
    needed = (source_bytes or 0) * SPACE_FACTOR
    need = (
        "what is needed is not computed without --source"
        if source_bytes is None
        else f"about {_size(needed)} are needed"
    )
    directory = ""
    if _one(connection, "SELECT pg_has_role('pg_read_all_settings', 'USAGE')") == "True":
        directory = _one(connection, "SHOW data_directory")
    local = connection.info.hostaddr in ("127.0.0.1", "::1") or connection.info.host.startswith("/")
    if not (directory and local and os.path.isdir(directory)):  # noqa: PTH112
        return Check(
            "disk", "warning", f"{need}; PostgreSQL does not report its free space", "look"
        )
    status = os.statvfs(directory)
    free = status.f_bavail * status.f_frsize
    if free < needed:
        return Check("disk", "refused", f"{_size(free)} free; {need}", "make room")
    return Check("disk", "ok", f"{_size(free)} free; {need}")


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} TB"


def _emptiness(connection: psycopg.Connection, tables: bool) -> Check:
    run = records.read_run(connection)
    if run is not None:
        return Check("emptiness", "ok", f"holds a run of this project, phase {run.phase}")
    found = records.objects(connection)
    if found:
        shown = ", ".join(found[:3]) + (" ..." if len(found) > 3 else "")
        if tables:
            return Check("emptiness", "ok", f"{len(found)} objects of the application's: {shown}")
        return Check(
            "emptiness",
            "refused",
            f"{len(found)} objects: {shown}",
            "give a database of the application's own: CREATE DATABASE ... TEMPLATE template0",
        )
    return Check("emptiness", "ok", "empty")


def _citus(connection: psycopg.Connection) -> Iterator[Check]:
    version = citus.version(connection)
    if not version:
        return
    there = citus.distributed(connection)
    if there:
        found = f"{version}, {counted(len(there), 'table')} distributed: {', '.join(there[:3])}"
        yield Check("citus", "refused", found, citus.ADVICE)
    else:
        yield Check("citus", "ok", f"{version}, which distributes nothing here")
