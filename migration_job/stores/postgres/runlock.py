"""The lock that one run holds on the schema that it fills.

It is an advisory lock: it needs no object on the target, and ends with its session, whatever ends
that. Any role that may connect can take one. A session of a role that may create nothing in the
database can be no run's: where it has the lock or waits for it, it is ended, or named where the
job's role may not do that. It holds up nothing else: whoever stops the application is not asked for
this lock, but for one on a table (:mod:`migration_job.stores.postgres.capture`).
"""

from __future__ import annotations

import hashlib
import time

import psycopg

from migration_job.errors import InputError
from migration_job.place import DEFAULT_SCHEMA, schema_of_session

LOCK = 0x6D69_6772_6174_696F
"""The advisory lock of a run into the default schema ("migratio" in ASCII)."""


ATTEMPTS = 5
"""How often the sessions of others are ended."""

APART = 0.2
"""Seconds between attempts on a lock that another run has."""

WAIT = "2s"
"""How long a session that was ended may take to let go."""


class BusyError(InputError):
    """Another run holds the target."""


def lock_number(schema: str) -> int:
    """The number of the lock of a run into that schema: each schema has a run of its own."""
    if schema == DEFAULT_SCHEMA:
        return LOCK
    digest = hashlib.sha256(b"migration-job " + schema.encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def lock(connection: psycopg.Connection, schema: str | None = None) -> list[str]:
    """Take the target for this session; what had to be done for it, in sentences. ``schema`` is the
    session's own unless it is named. Raises BusyError while another run holds it, and InputError
    where a session that is none of a run's cannot be ended."""
    number = lock_number(schema or schema_of_session(connection))
    told: list[str] = []
    for _ in range(ATTEMPTS):
        taken = connection.execute("SELECT pg_try_advisory_lock(%s)", (number,)).fetchone()
        if taken is not None and taken[0]:
            return told
        others = _others(connection, number)
        told += [
            f"ended a session of role {role!r} (process {pid}), which held the run's lock and has "
            "no use for it"
            for pid, role, granted in others
            if granted
        ]
        if _next(connection, number):
            return told
    raise _busy(None, "")


def lock_within(
    connection: psycopg.Connection, seconds: float, schema: str | None = None
) -> list[str]:
    """The same, and meanwhile wait for a run that was killed: the server has yet to notice."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return lock(connection, schema)
        except BusyError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(APART)


def _others(connection: psycopg.Connection, number: int) -> list[tuple[int, str, bool]]:
    """End the sessions that can be no run's and have the lock or wait for it: process, role, and
    whether it had it. Raises InputError where a run has it."""
    halves = ((number >> 32) & 0xFFFF_FFFF, number & 0xFFFF_FFFF)
    found = []
    for pid, role, granted, may_be_run in connection.execute(_SESSIONS, halves).fetchall():
        if may_be_run and granted:
            raise _busy(pid, role)
        if not may_be_run:
            _end(connection, pid, role)
            found.append((int(pid), str(role), bool(granted)))
    return found


def _end(connection: psycopg.Connection, pid: int, role: str) -> None:
    try:
        connection.execute("SELECT pg_terminate_backend(%s)", (pid,))
    except psycopg.errors.InsufficientPrivilege as error:
        raise InputError(
            f"expected the target to be free, found role {role!r} holding the run's lock, "
            f"which is no role of the job's (process {pid} of the server)",
            advice="end that session, as its role or a superuser: "
            f"SELECT pg_terminate_backend({pid}); the application is not held up by it",
        ) from error


def _next(connection: psycopg.Connection, number: int) -> bool:
    """Wait for the lock for a moment, so that whoever comes later comes after this session."""
    try:
        with connection.transaction():
            connection.execute("SELECT set_config('lock_timeout', %s, true)", (WAIT,))
            connection.execute("SELECT pg_advisory_lock(%s)", (number,))
    except psycopg.errors.LockNotAvailable:
        return False
    return True


def _busy(holder: int | None, role: str) -> BusyError:
    named = "" if holder is None else f" (process {holder} of the server, role {role!r})"
    return BusyError(
        f"expected the target to be free, found another run of the migration job on it{named}",
        advice="wait for it to end; the lock of a killed run is released within half a minute",
    )


_SESSIONS = """
SELECT l.pid, a.usename, l.granted,
    a.usename = session_user OR has_database_privilege(a.usesysid, l.database, 'CREATE')
FROM pg_locks AS l JOIN pg_stat_activity AS a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.pid <> pg_backend_pid()
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND l.classid = %s::bigint::oid AND l.objid = %s::bigint::oid
ORDER BY l.granted, l.pid
"""
"""Whose sessions have it or wait for it, and whether they could be a run's."""
