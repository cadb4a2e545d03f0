"""One way to the target: sessions with fixed settings, and errors that never hold a secret.

Every session of the job reads and writes values as text under the settings that the rules'
inverses are defined for (``migration_job.plan.rules``), whatever the server's or the role's
defaults are.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from migration_job.errors import GOES_ON, InputError, JobError, OperationError
from migration_job.place import (
    DEFAULT_SCHEMA,
    PlacedCursor,
    PlacedServerCursor,
    RawCursor,
    placed,
    placed_for,
    records_for,
    records_of,
    schema_of,
    schema_of_session,
    without_schema,
)
from migration_job.quoting import as_written, compose, postgres_name, postgres_text
from migration_job.stores.postgres.session import Session

# What psycopg tells its logger, such as that a transaction could not be rolled back on a server
# that is gone, is raised as well; without a handler Python prints it among the job's sentences.
logging.getLogger("psycopg").addHandler(logging.NullHandler())

NAMED_BY = ("PGHOST", "PGHOSTADDR", "PGSERVICE", "PGDATABASE")
"""Variables of libpq's any of which says that its environment names the target."""

WHERE = ("host", "hostaddr", "port", "dbname", "user")
"""The parts of a connection string that say where the target is."""

OLDEST = 140000
"""PostgreSQL 14, as ``server_version`` counts."""

CONNECT_TIMEOUT = 15
"""Seconds; a target that answers later than that is as good as down for an operator who waits."""

SETTINGS = (
    ("DateStyle", "ISO, YMD"),
    ("TimeZone", "UTC"),
    ("bytea_output", "hex"),
    ("extra_float_digits", "1"),
    ("IntervalStyle", "postgres"),
    ("standard_conforming_strings", "on"),
    ("client_min_messages", "warning"),
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    ("idle_session_timeout", "0"),
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_deferrable", "off"),
    ("row_security", "on"),
    ("array_nulls", "on"),
    ("transform_null_equals", "off"),
    ("quote_all_identifiers", "off"),
    ("gin_fuzzy_search_limit", "0"),
    ("timezone_abbreviations", "Default"),
    ("xmloption", "content"),
    # A job that is cut off from the network lets go of its locks within half a minute.
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
)
"""What a session of the job looks like. Set after connecting, not as start-up options, because a
pooler in between refuses unknown start-up options."""

LATER_SETTINGS = ((170000, "transaction_timeout", "0"),)
"""More of them, each with the version that knows it first."""

ROUND_TRIP_TRIES = 3

LOCK_MS = 1_000
"""How long a session that acts in the protocol waits for a lock, before it gives up, lets go of
what it holds and tries again."""

BRIEFLY_MS = 150
"""The same where everybody else has to wait meanwhile: see :func:`briefly`."""

BRIEFLY_APART_SECONDS = 0.25
"""Between such attempts: the others work off what has queued up."""


Statement = tuple[str, Sequence[object]]
"""A statement, and its parameters."""


def read_dsn(dsn: str | None, file: Path | None) -> str:
    """The connection string, from the option or from a file (so that a container's command line
    and environment show no password), or else from libpq's own variables. Raises InputError where
    there is none or both."""
    if dsn is None and file is None and named_by_environment():
        return ""
    if (dsn is None) == (file is None):
        raise InputError(
            "expected either --target or --target-file, found "
            + ("neither" if dsn is None else "both"),
            advice="give the PostgreSQL connection string, e.g. --target postgresql://host/db; or "
            f"set libpq's {', '.join(NAMED_BY[:-1])} or {NAMED_BY[-1]}",
        )
    if dsn is not None:
        return dsn
    if file is None:  # pragma: no cover - excluded above, said for the type checker
        raise InputError("no target")
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"cannot read the target's connection string from {file}: {type(error).__name__}",
            advice="the file must hold one PostgreSQL connection string",
        ) from error


def _parse(dsn: str) -> dict[str, str]:
    try:
        return {key: str(value) for key, value in conninfo_to_dict(dsn).items()}
    except psycopg.ProgrammingError:
        # libpq quotes the string in its message, and the string may hold the password.
        raise InputError(
            "expected a PostgreSQL connection string, found something libpq cannot parse",
            advice="use postgresql://user@host:5432/database or 'host=... dbname=...'; "
            "special characters in a URL are percent-encoded",
        ) from None


def named_by_environment() -> bool:
    """Whether libpq's variables say where the target is."""
    return any(os.environ.get(name) for name in NAMED_BY)


def located(dsn: str) -> dict[str, str]:
    """The connection string's parts, with what libpq takes from its own variables where it is
    silent: ``PGHOST``, ``PGSERVICE`` and the like. Raises InputError."""
    defaults = {
        option.keyword.decode(): option.val.decode()
        for option in psycopg.pq.Conninfo.get_defaults()
        if option.val and option.keyword.decode() in WHERE
    }
    if "PGUSER" not in os.environ:
        defaults.pop("user", None)  # the operating system's user, which nobody has named
    return {**defaults, **_parse(dsn)}


def describe(dsn: str) -> str:
    """Where the target is, for people: ``user@host:port/database``, never the password."""
    parts = located(dsn)
    if "service" in parts and not parts.get("host"):
        return f"service {parts['service']}"
    host = parts.get("host") or parts.get("hostaddr") or "local socket"
    user = f"{parts['user']}@" if parts.get("user") else ""
    schema = schema_of(dsn)
    inside = "" if schema == DEFAULT_SCHEMA else f", schema {schema}"
    return f"{user}{host}:{parts.get('port') or '5432'}/{parts.get('dbname') or ''}{inside}"


def _without_secret(message: str, dsn: str) -> str:
    lines = [line.strip() for line in message.strip().splitlines() if line.strip()]
    first = lines[0] if lines else "no reason given"
    password = _parse(dsn).get("password")
    return first.replace(password, "***") if password else first


def connect(
    dsn: str, *, purpose: str = "migration-job", more: Mapping[str, str] | None = None
) -> psycopg.Connection:
    """An autocommit session of the job on the target; transactions are opened explicitly. ``more``
    are settings beside those that every session has.

    None of its calls waits without end for a standby that is lost. Raises InputError when the
    target cannot be reached, is older than PostgreSQL 14 or does not store UTF-8.
    """
    schema = schema_of(dsn)
    options = _parse(without_schema(dsn))
    options.setdefault("connect_timeout", str(CONNECT_TIMEOUT))
    options.setdefault("application_name", purpose)
    options["client_encoding"] = "UTF8"
    try:
        connection = Session.connect(make_conninfo(**options), autocommit=True)
    except psycopg.Error as error:
        raise InputError(
            f"cannot connect to the target {describe(dsn)}: {_without_secret(str(error), dsn)}",
            advice="check that PostgreSQL runs there, and the user, password and pg_hba.conf",
        ) from None
    try:
        _require(connection, dsn)
        version = connection.info.server_version
        later = [(name, value) for since, name, value in LATER_SETTINGS if version >= since]
        _place(connection, schema)
        place = {"search_path": _path(connection)}
        _set(connection, {**dict((*SETTINGS, *later)), **place, **(more or {})})
        # A statement prepared on one server connection of a pooler is unknown to the next.
        connection.prepare_threshold = None
    except BaseException:
        connection.close()
        raise
    return connection


def round_trip(connection: psycopg.Connection) -> float:
    """Seconds from a question to its answer: the shortest of a few tries, so that a busy machine
    is not taken for a distant one."""
    tries = []
    for _ in range(ROUND_TRIP_TRIES):
        began = time.monotonic()
        connection.execute("SELECT 1")
        tries.append(time.monotonic() - began)
    return min(tries)


def execute_raw(
    connection: psycopg.Connection, query: str, parameters: Sequence[object] = ()
) -> psycopg.RawCursor[tuple[Any, ...]]:
    """Run a statement that holds names; its parameters are ``$1`` and on, so that a per cent sign
    in a name is nothing but that."""
    cursor: psycopg.RawCursor[tuple[Any, ...]] = RawCursor(connection)
    return cursor.execute(query.encode(), parameters or None)


def ask_together(
    connection: psycopg.Connection, statements: Sequence[Statement]
) -> list[list[tuple[Any, ...]]]:
    """Statements that wait for no answer of one another's, in one round trip; gives the rows of
    each. Their parameters are ``$1`` and on. Outside a transaction they are one by themselves.
    Raises the first one's psycopg.Error, with none after it done."""
    if not statements:
        return []
    with connection.pipeline():
        cursors = [execute_raw(connection, query, values) for query, values in statements]
    return [[] if c.description is None else c.fetchall() for c in cursors]


def ask_if_there(connection: psycopg.Connection, table: str, query: str) -> tuple[Any, ...] | None:
    """The first row of a query of ``table``, named as the job's statements name it; None where
    there is no row, or no such table."""
    if not in_transaction(connection):  # an error would end it
        try:
            return connection.execute(query.encode()).fetchone()
        except psycopg.errors.UndefinedTable:
            pass
    name = placed(table, records_of(connection))
    there = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (name,)).fetchone()
    if there is None or not there[0]:
        return None
    return connection.execute(query.encode()).fetchone()


def commit_together(
    connection: psycopg.Connection, statements: Sequence[Statement]
) -> list[list[tuple[Any, ...]]]:
    """The same as a transaction, or as a part of the present one: all of them, or none."""
    if in_transaction(connection):
        with connection.transaction():
            return ask_together(connection, statements)
    try:
        return ask_together(connection, [("BEGIN", ()), *statements, ("COMMIT", ())])[1:-1]
    except psycopg.Error:
        if not connection.closed and in_transaction(connection):
            connection.execute("ROLLBACK")
        raise


def _require(connection: psycopg.Connection, dsn: str) -> None:
    version = connection.info.server_version
    if version < OLDEST:
        raise InputError(
            f"expected PostgreSQL 14 or later at {describe(dsn)}, found {version // 10000}",
            advice="upgrade the target; 14 to 18 are supported",
        )
    # Every server tells it when a session begins.
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise InputError(
            f"expected the database {describe(dsn)} in UTF8, found {encoding or 'none'}",
            advice="create the target database with ENCODING 'UTF8' TEMPLATE template0",
        )


_EXTENSIONS = """
SELECT DISTINCT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n
ON n.oid = e.extnamespace WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', %(schema)s)
AND EXISTS (SELECT FROM pg_namespace WHERE nspname = %(schema)s)
AND has_schema_privilege(n.oid, 'USAGE') ORDER BY 1
"""


def _place(connection: Session, schema: str) -> None:
    """Have the session work in that schema."""
    connection.schema, connection.records = schema, records_for(schema)
    if schema != DEFAULT_SCHEMA:
        connection.cursor_factory = PlacedCursor
        connection.server_cursor_factory = PlacedServerCursor


def _path(connection: psycopg.Connection) -> str:
    """The session's schema, and behind it those in which extensions have their types. While the
    schema is not there, nothing else is: it would be taken for the schema."""
    schema = schema_of_session(connection)
    path = [postgres_name(schema)]
    if schema != DEFAULT_SCHEMA:
        rows = connection.execute(_EXTENSIONS, {"schema": schema})
        path += [str(row[0]) for row in rows]
    return ", ".join(path)


def enter(connection: psycopg.Connection) -> None:
    """Have the session find what is in its schema, which was made just now."""
    _set(connection, {"search_path": _path(connection)})


def _set(connection: psycopg.Connection, settings: Mapping[str, str]) -> None:
    """All of them in one statement: where the server is far, each would be a wait."""
    terms = ", ".join(
        f"set_config({postgres_text(name)}, {postgres_text(value)}, false)"
        for name, value in settings.items()
    )
    connection.execute(f"SELECT {terms}".encode())


@contextlib.contextmanager
def durably(connection: psycopg.Connection) -> Iterator[None]:
    """A transaction whose commit is on this server's disk, and applied by the standbys that the
    server waits for, where it waits for any.

    Raises OperationError where the server gave that wait up (somebody cancelled it): it then calls
    the commit done, with a warning, although a failover would lose it.
    """
    with _hearing(connection) as heard, connection.transaction():
        connection.execute("SET LOCAL synchronous_commit TO remote_apply")
        yield
        heard.clear()  # what comes now is about the commit


def in_transaction(connection: psycopg.Connection) -> bool:
    """Whether the session is in a transaction, also in one that has failed."""
    return connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE


def commit_durably(connection: psycopg.Connection, *statements: Statement) -> list[int]:
    """The same for statements that wait for no answer of one another's, in one round trip; gives
    how many rows each has touched. The statements themselves must give no warning."""
    if in_transaction(connection):
        with durably(connection):
            return [connection.execute(q.encode(), values).rowcount for q, values in statements]
    cursor = psycopg.ClientCursor(connection)
    script = [
        cursor.mogrify(placed_for(connection, q.encode(), formatted=bool(values)), values or None)
        for q, values in statements
    ]
    first = "BEGIN; SET LOCAL synchronous_commit TO remote_apply"
    with _hearing(connection):
        try:
            cursor.execute("; ".join([first, *script, "COMMIT"]).encode())
        except psycopg.Error:
            if in_transaction(connection) and not connection.closed:
                connection.execute("ROLLBACK")
            raise
    touched = [cursor.rowcount]
    while cursor.nextset():
        touched.append(cursor.rowcount)
    return touched[2:-1]


@contextlib.contextmanager
def _hearing(connection: psycopg.Connection) -> Iterator[list[str]]:
    """Raises OperationError at the block's end where the server has given a warning in it, that is
    not taken out of the list: a commit that no standby has confirmed is called done with one."""
    warnings: list[str] = []

    def hear(notice: psycopg.errors.Diagnostic) -> None:
        if notice.severity_nonlocalized == "WARNING":
            warnings.append(notice.message_primary or "")

    connection.add_notice_handler(hear)
    try:
        yield warnings
    finally:
        connection.remove_notice_handler(hear)
    if warnings:
        raise OperationError(
            f"expected the commit on a standby of the target, found: {warnings[0]}",
            advice="check the cluster's standbys and synchronous_standby_names, then run the "
            "command again",
        )


def commit_script(connection: psycopg.Connection, statements: Sequence[str]) -> None:
    """Statements without parameters as a transaction, or as a part of the present one, in one
    round trip: all of them, or none. Each may be several."""
    # A line of its own for what ends one: its last line may be a comment.
    script = as_written("\n;\n".join(statements))
    if in_transaction(connection):
        with connection.transaction():
            connection.execute(script.encode())
        return
    try:
        connection.execute(compose("BEGIN;{script}\n;COMMIT", script=script).encode())
    except psycopg.Error:
        if not connection.closed and in_transaction(connection):
            connection.execute("ROLLBACK")
        raise


class Locked(OperationError):
    """Somebody else holds a table of the target for longer than this job waits; it has let go of
    all that it held itself. To be tried again."""


def limit_waiting(connection: psycopg.Connection, milliseconds: int = LOCK_MS) -> None:
    """Have no statement of the session wait for a lock for longer than that."""
    connection.execute(f"SET lock_timeout TO {milliseconds}")


def briefly(connection: psycopg.Connection, statements: Iterable[str], *, limit: float) -> None:
    """Run statements that need a table for themselves, in one transaction, while others work with
    it. Everybody queues behind such a statement while it waits for the lock: so it waits for an
    instant only, again and again, until ``limit`` seconds are over. Raises Locked, with nothing
    done; psycopg.Error for what is no lock."""
    deadline = time.monotonic() + limit
    limited = compose("SET LOCAL lock_timeout TO {briefly_ms}", briefly_ms=BRIEFLY_MS)
    script = [limited, *statements]
    while True:
        try:
            commit_script(connection, script)
            return
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
            if time.monotonic() > deadline:
                raise lost(error, f"waiting {limit:g} s for a table") from error
        time.sleep(BRIEFLY_APART_SECONDS)


def lost(error: psycopg.Error, doing: str) -> OperationError:
    """What to raise when the target fails in mid-operation: the server's first line, no values
    (DETAIL and CONTEXT may hold patients' data), and that the run can be repeated."""
    if isinstance(error, (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected)):
        return Locked(
            f"a table of the target is locked by another session, found while {doing}",
            advice="nothing is lost; the command, run again, continues when the lock is gone "
            "(pg_locks and pg_stat_activity show who holds it)",
        )
    return OperationError(
        f"the target failed while {doing}: {_primary(error)}",
        advice="the source is untouched; correct the cause and run the same command again, "
        f"{GOES_ON}",
    )


@contextlib.contextmanager
def lost_while(doing: str) -> Iterator[None]:
    """Have what the target fails with in here raised as :func:`lost` tells it."""
    try:
        yield
    except psycopg.Error as error:
        raise lost(error, doing) from error


def unread(error: psycopg.Error) -> JobError:
    """What to raise when the target cannot be looked at by a command that changes nothing."""
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return InputError(
            f"expected a role that may read the target's tables, found: {_primary(error)}",
            advice="give the role that owns the tables (--target). Nothing was changed",
        )
    return OperationError(
        f"the target failed while it was read: {_primary(error)}",
        advice="nothing was changed; correct the cause and run the same command again",
    )


def _primary(error: psycopg.Error) -> str:
    """The server's first line, without values."""
    primary = getattr(error.diag, "message_primary", None) if error.diag else None
    return primary or (str(error).strip().splitlines() or [type(error).__name__])[0]
