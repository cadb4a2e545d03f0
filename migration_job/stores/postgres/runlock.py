"""The lock that one run holds on the schema that it fills."""

from __future__ import annotations

import hashlib

import psycopg

from migration_job.errors import InputError
from migration_job.place import DEFAULT_SCHEMA, schema_of_session

LOCK = 0x6D69_6772_6174_696F
"""The advisory lock of a run into the default schema ("migratio" in ASCII)."""


def lock_number(schema: str) -> int:
    """The number of the lock of a run into that schema: each schema has a run of its own."""
    if schema == DEFAULT_SCHEMA:
        return LOCK
    digest = hashlib.sha256(b"migration-job " + schema.encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def lock(connection: psycopg.Connection) -> None:
    """Take the target for this session. Raises InputError while another session holds it.

    Any role that may connect can take an advisory lock, and so keep a run from beginning: it is
    named, with its process. It holds up nothing else; whoever stops the application is not asked
    for this lock, but for one on a table (:mod:`migration_job.stores.postgres.capture`).
    """
    number = lock_number(schema_of_session(connection))
    taken = connection.execute("SELECT pg_try_advisory_lock(%s)", (number,)).fetchone()
    if taken is not None and taken[0]:
        return
    halves = ((number >> 32) & 0xFFFF_FFFF, number & 0xFFFF_FFFF)
    holder = connection.execute(_LOCK_HOLDER, halves).fetchone()
    if holder is not None and not holder[2]:
        raise InputError(
            f"expected the target to be free, found role {holder[1]!r} holding the run's lock, "
            f"which is no role of the job's (process {holder[0]} of the server)",
            advice=f"end that session, as its role or a superuser: "
            f"SELECT pg_terminate_backend({holder[0]}); the application is not held up by it",
        )
    named = "" if holder is None else f" (process {holder[0]} of the server)"
    raise InputError(
        f"expected the target to be free, found another run of the migration job on it{named}",
        advice="wait for it to end; a run that was killed lets go within half a minute",
    )


_LOCK_HOLDER = """
SELECT l.pid, a.usename, a.usename = session_user
FROM pg_locks AS l JOIN pg_stat_activity AS a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND l.classid = %s::bigint::oid AND l.objid = %s::bigint::oid
"""
"""Whose session has it, and whether its role is this one's."""
