"""The fence on the target: who may write while it is closed, and ending those that still do."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Sequence

import psycopg

from migration_job.errors import InputError, OperationError
from migration_job.place import DEFAULT_SCHEMA, has_record, record, records_of, schema_of_session
from migration_job.plan.findings import some
from migration_job.plural import either
from migration_job.quoting import POSTGRES_NAME_BYTES, compose
from migration_job.stores.postgres import side
from migration_job.stores.postgres.capture import CLOSING, TABLES, guard_function, take, take_token
from migration_job.stores.postgres.database import Statement, commit_durably, durably

EARLIER_LOCK = 0x6D69_6772_6665_6E63
"""The advisory lock that targets switched by an earlier release have in place of the table."""

SESSION = "migration-job live"
"""``application_name`` of the sessions that act in the protocol; whoever takes over ends them."""


def session_name(schema: str) -> str:
    """The same for a run into that schema: one run ends no session of another's."""
    if schema == DEFAULT_SCHEMA:
        return SESSION
    name = f"{SESSION} {schema}"
    if len(name.encode()) <= POSTGRES_NAME_BYTES:
        return name
    return f"{SESSION} {hashlib.sha256(schema.encode()).hexdigest()[:32]}"


POLL_SECONDS = 0.01

NEIGHBOURS_SECONDS = 0.5
"""How long the transactions of a database with several runs may take to end by themselves, while
the queries of one are held."""

REPLICA = "SET session_replication_role = replica"


def is_closed(connection: psycopg.Connection) -> bool:
    """Whether the target refuses writes. Raises OperationError where there is no fence."""
    row = connection.execute("SELECT closed FROM migration.fence").fetchone()
    if row is None:
        raise OperationError(
            "expected the fence's row in migration.fence on the target, found none",
            advice="run the command again; it puts the fence back, closed",
        )
    return bool(row[0])


def open_fence(connection: psycopg.Connection, *more: Statement) -> None:
    """Let the application write, durably from the return on; ``more`` are statements of the same
    transaction."""
    commit_durably(
        connection,
        *more,
        (
            "UPDATE migration.fence SET closed = false, changed_at = clock_timestamp(), "
            "opened_at = coalesce(opened_at, clock_timestamp()) WHERE closed",
            (),
        ),
    )


def close_fence(connection: psycopg.Connection, *, limit: float) -> None:
    """Refuse writes: waits for transactions that have written, ``limit`` seconds at most, while new
    writers wait. Raises OperationError, with the fence as it was."""
    try:
        with durably(connection):
            connection.execute(
                compose(
                    "SET LOCAL lock_timeout TO {milliseconds}",
                    milliseconds=max(int(limit * 1000), 1),
                )
            )
            _lock_out_writers(connection)
            connection.execute(
                "UPDATE migration.fence SET closed = true, changed_at = clock_timestamp()"
            )
    except psycopg.errors.LockNotAvailable:
        require_none_prepared(connection)
        raise OperationError(
            f"expected open transactions on the target to end within {limit:g} s, found "
            f"{_writers(connection)} that have written and are still open",
            advice="the application is served as before; end the long transactions (see "
            "pg_stat_activity) and run the command again",
        ) from None


def _lock_out_writers(connection: psycopg.Connection) -> None:
    """In a transaction: wait for the writers that are under way, and hold up those that come."""
    if not has_record(connection, "fence_lock"):
        # Switched by an earlier release: its guard takes an advisory lock, until it is replaced.
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (EARLIER_LOCK,))
        connection.execute(TABLES)
        connection.execute(guard_function().encode())
        take_token(connection)
    connection.execute(
        compose("LOCK TABLE migration.fence_lock IN {closing} MODE", closing=CLOSING)
    )


PREPARED_ADVICE = "COMMIT PREPARED or ROLLBACK PREPARED it (pg_prepared_xacts shows it)"


def prepared(connection: psycopg.Connection) -> list[str]:
    """The names of prepared transactions that have written to tables of the run's: they belong to
    no session, so nothing ends them by itself."""
    rows = connection.execute(
        "SELECT DISTINCT p.gid FROM pg_prepared_xacts p "
        "JOIN pg_locks x ON x.locktype = 'transactionid' AND x.transactionid = p.transaction "
        "JOIN pg_locks l ON l.virtualtransaction = x.virtualtransaction "
        "WHERE x.pid IS NULL AND l.pid IS NULL AND p.database = current_database() "
        "AND l.database = "
        "(SELECT oid FROM pg_database WHERE datname = current_database()) "
        "AND l.relation = to_regclass(%s) AND l.mode = 'RowShareLock' ORDER BY 1",
        (record(connection, "fence_lock"),),
    ).fetchall()
    return [str(row[0]) for row in rows]


def prepared_words(names: Sequence[str]) -> str:
    """For people: what those are."""
    kind = either(len(names), "transaction has", "transactions have")
    return f"the prepared {kind} written and {either(len(names), 'is', 'are')} open: {some(names)}"


def require_none_prepared(connection: psycopg.Connection) -> None:
    """Raises OperationError where such a transaction is open."""
    names = prepared(connection)
    if names:
        raise OperationError(
            prepared_words(names),
            advice=f"PostgreSQL serves as before; {PREPARED_ADVICE}, then run the command again",
        )


def _writers(connection: psycopg.Connection) -> int:
    row = connection.execute(
        "SELECT count(DISTINCT virtualtransaction) FROM pg_locks WHERE granted "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
        "AND relation = to_regclass(%s) AND mode = 'RowShareLock'",
        (record(connection, "fence_lock"),),
    ).fetchone()
    return int(row[0]) if row is not None else 0


def end_sessions(connection: psycopg.Connection, *, limit: float) -> int:
    """End the sessions that are in a transaction, since their snapshots may be older than the
    closed fence; returns how many. Those that begin one later see it closed, and are not waited
    for: a role that goes on opening transactions would stop the way back. In a database that
    several runs share, each with a schema of its own, short transactions may end by themselves
    first: they may be other runs'. Raises OperationError where one cannot be ended within
    ``limit``."""
    # What pg_stat_activity says of another role's transactions only a member of pg_read_all_stats
    # sees. Everybody sees in pg_locks that each transaction holds its own number.
    first = _transactions(connection)
    if schema_of_session(connection) != DEFAULT_SCHEMA:
        deadline = time.monotonic() + min(limit, NEIGHBOURS_SECONDS)
        while first & _transactions(connection) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
    return _end(connection, lambda: first & _transactions(connection), limit)


def _transactions(connection: psycopg.Connection) -> set[tuple[int, str]]:
    rows = connection.execute(
        "SELECT a.pid, l.virtualtransaction FROM pg_locks l JOIN pg_stat_activity a USING (pid) "
        "WHERE l.locktype = 'virtualxid' AND l.mode = 'ExclusiveLock' AND l.granted "
        "AND a.datname = current_database() AND a.usesysid IS NOT NULL "
        "AND a.pid <> pg_backend_pid()"
    ).fetchall()
    return {(int(row[0]), str(row[1])) for row in rows}


def take_over(connection: psycopg.Connection, *, limit: float = 10.0) -> int:
    """End this job's other sessions and wait until they are gone: what a dead process has sent may
    still be running. Only for the holder of the lock, and only sessions of roles that could be
    the job's: anybody can give a session its name."""

    def named() -> set[tuple[int, str]]:
        rows = connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
            "AND application_name = %s AND pid <> pg_backend_pid() AND pg_has_role(usesysid, "
            "coalesce((SELECT nspowner FROM pg_namespace WHERE nspname = %s), usesysid), 'MEMBER')",
            (session_name(schema_of_session(connection)), records_of(connection)),
        ).fetchall()
        return {(int(row[0]), "") for row in rows}

    return _end(connection, named, limit)


def _end(
    connection: psycopg.Connection, find: Callable[[], set[tuple[int, str]]], limit: float
) -> int:
    deadline = time.monotonic() + limit
    ended: set[int] = set()
    while True:
        found = find()
        if not found:
            return len(ended)
        for pid, _ in found:
            # A superuser's session cannot be ended by another role, but it ends by itself.
            with contextlib.suppress(psycopg.errors.InsufficientPrivilege):
                connection.execute("SELECT pg_terminate_backend(%s)", (pid,))
            ended.add(pid)
        if time.monotonic() > deadline:
            raise OperationError(
                f"expected {len(found)} sessions on the target to end within {limit:g} s, found "
                "them still there",
                advice="end them by hand (pg_stat_activity shows them), or GRANT pg_signal_backend "
                "to the job's role, and run the command again",
            )
        time.sleep(POLL_SECONDS)


REPLICA_FUNCTION = "privileges.act_as_replica"
"""What an administrator of PostgreSQL 14, where the right cannot be granted, may offer instead: a
SECURITY DEFINER function of a superuser that sets it for the session."""


def act_as_replica(connection: psycopg.Connection) -> None:
    """Have this session's writes fire no triggers and no foreign keys. Raises InputError where the
    role may not: without it a cascade could remove rows that the source still has."""
    try:
        with connection.transaction():  # also within one, which a refusal would abort
            connection.execute(REPLICA)
        return
    except psycopg.errors.InsufficientPrivilege:
        offered = connection.execute(
            "SELECT has_function_privilege(to_regprocedure(%s), 'EXECUTE')",
            (f"{REPLICA_FUNCTION}()",),
        ).fetchone()
    if offered is not None and offered[0]:
        connection.execute(f"SELECT {REPLICA_FUNCTION}()".encode())
        return
    raise InputError(
        "expected a role that may set session_replication_role, found "
        f"{connection.info.user!r}, which may not",
        advice="let the job connect as a superuser, or on PostgreSQL 15 and later: "
        f"GRANT SET ON PARAMETER session_replication_role TO {connection.info.user}; on 14 the "
        f"how-to page on external databases shows the function {REPLICA_FUNCTION}() to make",
    )


def enter(connection: psycopg.Connection) -> None:
    """:func:`act_as_replica` and :func:`take_token`, in one round trip where the role may set the
    first by itself. Raises as they do, and psycopg.Error with SQLSTATE :data:`side.LEFT` where an
    upgrade has left this server."""
    try:
        connection.execute(f"{side.LOOK}; {REPLICA}; {take(connection)}".encode())
    except psycopg.errors.InsufficientPrivilege:
        act_as_replica(connection)
        take_token(connection)
