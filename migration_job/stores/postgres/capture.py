"""The way back on the target: triggers that log changed keys, and the fence that refuses writes.

What is promised
    While the fence is closed no transaction of the application's can commit a write to the tables
    of the plan. While it is open, every committed write has its rows' keys in
    ``migration.reverse_log``.

How
    A statement trigger locks the table ``migration.fence_lock`` in ROW SHARE mode, held to the end
    of the transaction, and only then looks at ``migration.fence``. Closing locks it in EXCLUSIVE
    mode, so it waits for every transaction that has written; a transaction that writes later sees
    the fence closed. A REPEATABLE READ transaction that began before might see it open still, in
    its old snapshot: so the sessions that are in a transaction when the fence closes are ended
    (:func:`end_sessions`).

    Only its owner can take either lock: it takes the right to write to that table. Who may read it
    (``pg_read_all_data``, ``pg_dump``) can take ACCESS SHARE alone, which is in nobody's way. An
    advisory lock, which any role can take, would let any role stop the application.

    The functions run with their owner's rights: the application's role needs none on this schema.
    Sessions of this job write with ``session_replication_role = replica``, under which the
    application's own triggers and the foreign keys' actions do not fire. These triggers do (ENABLE
    ALWAYS), since that setting can be had for a database, a role or the server. They let the
    session through that also has the fence's token, which only the owner of ``migration`` can
    read (:func:`take_token`).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import psycopg

from migration_job.errors import InputError, OperationError
from migration_job.plan.model import Plan, TablePlan
from migration_job.quoting import compose, postgres_name, postgres_relation, postgres_text
from migration_job.stores.postgres import records, shape
from migration_job.stores.postgres.database import (
    Statement,
    ask_if_there,
    briefly,
    commit_durably,
    commit_together,
    durably,
    lost,
)
from migration_job.values import fold

EARLIER_LOCK = 0x6D69_6772_6665_6E63
"""The advisory lock that targets switched by an earlier release have in place of the table."""

WRITERS, CLOSING = "ROW SHARE", "EXCLUSIVE"
"""The modes in which writers and the fence lock ``migration.fence_lock``: they exclude each other,
and neither can be had with the right to SELECT."""

MOVED = "moved to SQLite"
"""How the error of a refused write begins."""

SQLSTATE = "MIG01"
"""The SQLSTATE of a refused write."""

SESSION = "migration-job live"
"""``application_name`` of the sessions that act in the protocol; whoever takes over ends them."""

LOCKS_SECONDS = 30.0
"""How long an installation goes on asking for a table that others hold."""

PREFIX = "migration_job_"
EDITION = "the way back, always enabled,"
"""How the comment on ``migration.fence`` begins; an earlier release's triggers have another."""

TOKEN = "migration.token"  # noqa: S105  # the setting's name
"""The session's setting that holds the fence's token in sessions of this job."""

GUARD = {"guard": "BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE"}
LOGGING = {
    "insert": "AFTER INSERT",
    "update": "AFTER UPDATE",
    "delete": "AFTER DELETE",
    "truncate": "AFTER TRUNCATE",
}
"""Each trigger's name, after the prefix, and its event."""

_OWN_SESSION = compose(
    "current_setting('session_replication_role') = 'replica' AND "
    "current_setting('{token}', true) = (SELECT token FROM migration.fence_token)",
    token=TOKEN,
)
"""Whether a session is the job's own. The first half alone is what ordinary writes cost."""

POLL_SECONDS = 0.01

TABLES = """
CREATE TABLE IF NOT EXISTS migration.fence (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    closed boolean NOT NULL,
    changed_at timestamp with time zone NOT NULL DEFAULT clock_timestamp(),
    opened_at timestamp with time zone
);
INSERT INTO migration.fence (closed) VALUES (true) ON CONFLICT DO NOTHING;
CREATE TABLE IF NOT EXISTS migration.fence_lock ();
CREATE TABLE IF NOT EXISTS migration.fence_token (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    token text NOT NULL DEFAULT gen_random_uuid()::text
);
INSERT INTO migration.fence_token DEFAULT VALUES ON CONFLICT DO NOTHING;
COMMENT ON TABLE migration.fence_lock IS 'locked by writers (ROW SHARE) and the fence (EXCLUSIVE)';
COMMENT ON TABLE migration.fence_token IS 'what the job''s own sessions show to pass the fence';
CREATE TABLE IF NOT EXISTS migration.pair (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    capture text NOT NULL,
    verified bigint NOT NULL,
    token text NOT NULL,
    next_token text NOT NULL,
    whole_at timestamp with time zone NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE IF NOT EXISTS migration.reverse_log (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tab integer NOT NULL,
    key text[]
);
CREATE INDEX IF NOT EXISTS reverse_log_whole ON migration.reverse_log (tab) WHERE key IS NULL;
COMMENT ON TABLE migration.pair IS 'which capture of the source migration.applied counts in';
COMMENT ON COLUMN migration.pair.verified IS 'what was applied up to here was compared';
COMMENT ON COLUMN migration.pair.token IS 'of the source''s state; next_token is its next one';
COMMENT ON COLUMN migration.pair.whole_at IS 'when the capture was last seen whole, at verified';
CREATE TABLE IF NOT EXISTS migration.back_difference (
    tab text NOT NULL,
    key text NOT NULL,
    message text NOT NULL
);
COMMENT ON TABLE migration.back_difference IS 'rows that did not come back as they are here';
COMMENT ON COLUMN migration.reverse_log.key IS 'null: every row (TRUNCATE), or unknown';
"""

_FLOATING = ("double", "real", "float")
_SENSITIVE = ("time", "date", "interval", "bytea", *_FLOATING)
"""Types whose text depends on a session's settings, which are the application's."""

_SETTINGS = (
    "SET DateStyle = 'ISO, YMD' SET TimeZone = 'UTC' SET bytea_output = 'hex' "
    "SET extra_float_digits = 1 SET IntervalStyle = 'postgres'"
)


# ------------------------------------------------------------------------------ installing


def install(connection: psycopg.Connection, plan: Plan) -> None:
    """Create the fence (closed) and the way-back triggers; nothing where they are all there for
    this plan and enabled. Each table is needed for a moment, one at a time; an installation that
    was cut off is begun anew. The fence stays as it is where it is there already. The session
    passes the fence from then on. Raises OperationError."""
    mark = _mark(plan)
    try:
        found = connection.execute(
            "SELECT obj_description(to_regclass('migration.fence'), 'pg_class')"
        ).fetchone()
        if found is None or found[0] != mark or missing(connection, plan):
            for statements in install_sql(plan):
                briefly(connection, statements, limit=LOCKS_SECONDS)
            mark_installed(connection, plan)
        take_token(connection)
    except psycopg.Error as error:
        raise lost(error, "installing the way back") from error


def install_table(connection: psycopg.Connection, number: int, table: TablePlan) -> None:
    """The triggers of one table, anew. Raises Locked where the table is not to be had."""
    briefly(connection, _of_table(number, table), limit=LOCKS_SECONDS)


def log_without_keys(connection: psycopg.Connection, number: int, table: TablePlan) -> None:
    """Have the table's triggers, where they are there, log only that there was a change: columns
    of its key may be gone, and every write would fail."""
    connection.execute(_log_function(number, table.model_copy(update={"key": ()})).encode())


def mark_installed(connection: psycopg.Connection, plan: Plan) -> None:
    """Note that the triggers are those of this plan, which they are where the key's columns and
    types were not changed."""
    connection.execute(
        compose(
            "COMMENT ON TABLE migration.fence IS {mark}", mark=postgres_text(_mark(plan))
        ).encode()
    )


def _mark(plan: Plan) -> str:
    return f"{EDITION} of plan {plan.digest()}"


def missing(connection: psycopg.Connection, plan: Plan) -> list[str]:
    """``TABLE.TRIGGER`` of each trigger of the way back that is not there, or would not fire in
    every session."""
    rows = connection.execute(
        "SELECT c.relname, t.tgname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid "
        "WHERE c.relnamespace = 'public'::regnamespace AND t.tgenabled = 'A' "
        "AND NOT t.tgisinternal AND starts_with(t.tgname, %s)",
        (PREFIX,),
    ).fetchall()
    there = {(str(table), str(name)) for table, name in rows}
    return [
        f"{table.target}.{PREFIX}{name}"
        for table in plan.tables
        for name in (GUARD if table.source is None else {**GUARD, **LOGGING})
        if (table.target, PREFIX + name) not in there
    ]


# In one statement; its query is looked at only where there is a fence.
_TAKE = compose(
    "DO $take$ BEGIN IF to_regclass('migration.fence_token') IS NOT NULL THEN "
    "PERFORM set_config('{token}', token, false) FROM migration.fence_token; "
    "END IF; END $take$",
    token=TOKEN,
)
_REPLICA = "SET session_replication_role = replica"


def take_token(connection: psycopg.Connection) -> None:
    """Have this session pass the fence, where there is one; the token itself does not leave the
    server, so no log shows it. psycopg.Error where the role does not own the fence."""
    connection.execute(_TAKE.encode())


def enter(connection: psycopg.Connection) -> None:
    """:func:`act_as_replica` and :func:`take_token`, in one round trip where the role may set the
    first by itself. Raises as they do."""
    try:
        connection.execute(f"{_REPLICA}; {_TAKE}".encode())
    except psycopg.errors.InsufficientPrivilege:
        act_as_replica(connection)
        take_token(connection)


def installed(connection: psycopg.Connection) -> bool:
    """Whether the fence is there."""
    row = connection.execute("SELECT to_regclass('migration.fence') IS NOT NULL").fetchone()
    return row is not None and bool(row[0])


def remove(
    connection: psycopg.Connection, plan: Plan, *, limit: float, columns: Mapping[str, str]
) -> None:
    """Drop the triggers of each table and the column that ``columns`` has for it, one table at a
    time while the application works, then the functions, the fence and the log. Cut off, it is run
    again and goes on. Raises Locked where a table is not to be had within ``limit`` seconds."""
    for _, table in numbered(plan):
        if not _there(connection, table):
            continue
        name = postgres_relation(table.target)
        statements = [
            compose(
                "DROP TRIGGER IF EXISTS {trigger} ON {name}",
                trigger=postgres_name(trigger),
                name=name,
            )
            for trigger in _triggers_of(connection, table)
        ]
        if table.target in columns:
            unwanted = postgres_name(columns[table.target])
            statements.append(
                compose(
                    "ALTER TABLE {name} DROP COLUMN IF EXISTS {unwanted}",
                    name=name,
                    unwanted=unwanted,
                )
            )
        if statements:
            briefly(connection, statements, limit=limit)
    names = ("reverse_log", "fence", "fence_lock", "fence_token", "back_difference", *shape.NAMES)
    last = [
        compose(
            "DROP TABLE IF EXISTS {names}", names=", ".join(f"migration.{name}" for name in names)
        )
    ]
    last += [compose("DROP FUNCTION IF EXISTS migration.log_{n}()", n=n) for n, _ in numbered(plan)]
    briefly(connection, [*last, "DROP FUNCTION IF EXISTS migration.guard()"], limit=limit)


def _there(connection: psycopg.Connection, table: TablePlan) -> bool:
    row = connection.execute(
        "SELECT to_regclass(%s)", (postgres_relation(table.target),)
    ).fetchone()
    return row is not None and row[0] is not None


def _triggers_of(connection: psycopg.Connection, table: TablePlan) -> list[str]:
    rows = connection.execute(
        "SELECT tgname FROM pg_trigger WHERE tgrelid = to_regclass(%s) AND tgname = ANY(%s)",
        (postgres_relation(table.target), [PREFIX + name for name in (*GUARD, *LOGGING)]),
    )
    return [str(row[0]) for row in rows]


def numbered(plan: Plan) -> list[tuple[int, TablePlan]]:
    """The plan's tables and the numbers that stand for them in the log."""
    return list(enumerate(plan.tables, start=1))


def key_columns(table: TablePlan) -> tuple[str, ...]:
    """The target columns of the table's key, in the key's order."""
    targets = {fold(c.source): c.target for c in table.copied if c.source is not None}
    return tuple(targets[fold(name)] for name in table.key)


def install_sql(plan: Plan) -> Iterator[list[str]]:
    """The statements of :func:`install`, a transaction each: the fence, then table by table."""
    yield [TABLES.strip().rstrip(";"), _guard_function()]
    for number, table in numbered(plan):
        yield _of_table(number, table)


def _of_table(number: int, table: TablePlan) -> list[str]:
    statements = list(_triggers(table, GUARD, "migration.guard()"))
    if table.source is not None:
        statements.append(_log_function(number, table))
        statements += _triggers(table, LOGGING, f"migration.log_{number}()")
    return statements


def _guard_function() -> str:
    return compose(
        "CREATE OR REPLACE FUNCTION migration.guard() RETURNS trigger LANGUAGE plpgsql "
        "SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $guard$ BEGIN "
        "LOCK TABLE migration.fence_lock IN {writers} MODE; "
        "IF (SELECT closed FROM migration.fence) IS NOT FALSE THEN "
        "IF {own_session} THEN RETURN NULL; END IF; "
        "RAISE EXCEPTION {message} "
        "USING ERRCODE = '{sqlstate}'; END IF; RETURN NULL; END $guard$",
        writers=WRITERS,
        own_session=_OWN_SESSION,
        message=postgres_text(MOVED + ": this database takes no writes"),
        sqlstate=SQLSTATE,
    )


_TRANSITIONS = {
    "insert": " REFERENCING NEW TABLE AS fresh",
    "update": " REFERENCING OLD TABLE AS gone NEW TABLE AS fresh",
    "delete": " REFERENCING OLD TABLE AS gone",
}


def _triggers(table: TablePlan, events: dict[str, str], function: str) -> Iterator[str]:
    for name, event in events.items():
        trigger, target = postgres_name(PREFIX + name), postgres_relation(table.target)
        yield compose(
            "DROP TRIGGER IF EXISTS {trigger} ON {target}", trigger=trigger, target=target
        )
        yield (
            compose(
                "CREATE TRIGGER {trigger} {event} ON {target}{images} "
                "FOR EACH STATEMENT EXECUTE FUNCTION {function}",
                trigger=trigger,
                event=event,
                target=target,
                images=_TRANSITIONS.get(name, ""),
                function=function,
            )
        )
    enabled = ", ".join(f"ENABLE ALWAYS TRIGGER {postgres_name(PREFIX + name)}" for name in events)
    yield compose(
        "ALTER TABLE {table} {enabled}", table=postgres_relation(table.target), enabled=enabled
    )


def _log_function(number: int, table: TablePlan) -> str:
    columns = key_columns(table)
    types = {c.target: c.type.lower() for c in table.columns}
    settings = _SETTINGS if any(types[c].startswith(_SENSITIVE) for c in columns) else ""
    insert = "INSERT INTO migration.reverse_log (tab, key)"
    own = compose("IF {own} THEN RETURN NULL; END IF;", own=_OWN_SESSION)
    if not columns:
        # No key to say which rows: only that there was a change, once.
        body = compose(
            "BEGIN {own} {insert} SELECT {number}, NULL WHERE NOT EXISTS (SELECT FROM "
            "migration.reverse_log WHERE key IS NULL AND tab = {number}); RETURN NULL; END",
            own=own,
            insert=insert,
            number=number,
        )
    else:
        # A key's column may be called as a variable of PL/pgSQL's is: found, tg_op, new.
        old, new = (_key_of(image, table) for image in ("gone", "fresh"))
        body = compose(
            "#variable_conflict use_column\n"
            "BEGIN {own} IF TG_OP = 'INSERT' THEN {insert} SELECT {number}, {new} FROM fresh; "
            "ELSIF TG_OP = 'UPDATE' THEN {insert} SELECT {number}, {old} FROM gone "
            "UNION SELECT {number}, {new} FROM fresh; "
            "ELSIF TG_OP = 'DELETE' THEN {insert} SELECT {number}, {old} FROM gone; "
            "ELSE {insert} VALUES ({number}, NULL); END IF; RETURN NULL; END",
            own=own,
            insert=insert,
            number=number,
            new=new,
            old=old,
        )
    # The body holds names: a literal has no end that a name could hold.
    return compose(
        "CREATE OR REPLACE FUNCTION migration.log_{number}() RETURNS trigger LANGUAGE plpgsql "
        "SECURITY DEFINER SET search_path = pg_catalog, pg_temp {settings} "
        "AS {body}",
        number=number,
        settings=settings,
        body=postgres_text(body),
    )


def _key_of(image: str, table: TablePlan) -> str:
    """A row's key as an array of texts, from the transition table ``image``."""
    types = {c.target: c.type.lower() for c in table.columns}
    parts = (_as_text(f"{image}.{postgres_name(c)}", types[c]) for c in key_columns(table))
    return f"ARRAY[{', '.join(parts)}]"


def _as_text(column: str, kind: str) -> str:
    # boolean::text is 'true', while its output, which the rules read, is 't'.
    if kind.startswith("bool"):
        return f"CASE {column} WHEN true THEN 't' WHEN false THEN 'f' END"
    return f"{column}::text"


# ------------------------------------------------------------------------------- the fence


def is_closed(connection: psycopg.Connection) -> bool:
    """Whether the target refuses writes. Raises OperationError where there is no fence."""
    row = connection.execute("SELECT closed FROM migration.fence").fetchone()
    if row is None:
        raise OperationError(
            "expected the fence's row in migration.fence on the target, found none",
            advice="run the command again; it puts the fence back, closed",
        )
    return bool(row[0])


def open_fence(connection: psycopg.Connection) -> None:
    """Let the application write, durably from the return on."""
    commit_durably(
        connection,
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
        raise OperationError(
            f"expected open transactions on the target to end within {limit:g} s, found "
            f"{_writers(connection)} that have written and go on",
            advice="the application is served as before; end the long transactions (see "
            "pg_stat_activity) and run the command again",
        ) from None


def _lock_out_writers(connection: psycopg.Connection) -> None:
    """In a transaction: wait for the writers that are under way, and hold up those that come."""
    known = connection.execute("SELECT to_regclass('migration.fence_lock') IS NOT NULL").fetchone()
    if known is None or not known[0]:
        # Switched by an earlier release: its guard takes an advisory lock, until it is replaced.
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (EARLIER_LOCK,))
        connection.execute(TABLES)
        connection.execute(_guard_function().encode())
        take_token(connection)
    connection.execute(
        compose("LOCK TABLE migration.fence_lock IN {closing} MODE", closing=CLOSING)
    )


def _writers(connection: psycopg.Connection) -> int:
    row = connection.execute(
        "SELECT count(DISTINCT virtualtransaction) FROM pg_locks WHERE granted "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
        "AND relation = to_regclass('migration.fence_lock') AND mode = 'RowShareLock'"
    ).fetchone()
    return int(row[0]) if row is not None else 0


def end_sessions(connection: psycopg.Connection, *, limit: float) -> int:
    """End the sessions that are in a transaction, since their snapshots may be older than the
    closed fence; returns how many. Those that begin one later see it closed, and are not waited
    for: a role that goes on opening transactions would stop the way back. Raises OperationError
    where one cannot be ended within ``limit``."""
    # What pg_stat_activity says of another role's transactions only a member of pg_read_all_stats
    # sees. Everybody sees in pg_locks that each transaction holds its own number.
    first = _transactions(connection)
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
            "coalesce((SELECT nspowner FROM pg_namespace WHERE nspname = 'migration'), usesysid), "
            "'MEMBER')",
            (SESSION,),
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


# ------------------------------------------------------------------------------- the pair


@dataclass(frozen=True, slots=True)
class Identity:
    """By what the target knows the source again."""

    capture: str
    token: str
    """The source's state has this token, or"""
    next_token: str
    """this one, where a transaction of the job's was committed there and not noted here yet."""
    position: int
    """What was applied of the source's log, and"""
    log_token: str | None
    """the token of the log's row there."""
    verified: int
    """What was applied up to here was compared, too."""
    whole_at: str
    """ISO 8601, UTC: when a round last saw the capture whole."""


def set_pair(
    connection: psycopg.Connection,
    capture: str,
    position: int,
    *,
    token: str = "",
    log_token: str | None = None,
) -> None:
    """Bind the target to one capture of the source, and to a position in its log. ``token`` is that
    of the source's state (``capture`` where it has just been installed), ``log_token`` that of the
    log's row at the position."""
    with durably(connection):
        connection.execute(TABLES)
        connection.execute(
            "INSERT INTO migration.pair (capture, verified, token, next_token) "
            "VALUES (%s, %s, %s, %s) ON CONFLICT (one) DO UPDATE SET capture = excluded.capture, "
            "verified = excluded.verified, token = excluded.token, "
            "next_token = excluded.next_token, whole_at = clock_timestamp()",
            (capture, position, token or capture, token or capture),
        )
        connection.execute(
            "INSERT INTO migration.applied (position, token) VALUES (%s, %s) ON CONFLICT (one) "
            "DO UPDATE SET position = excluded.position, token = excluded.token, "
            "updated_at = clock_timestamp()",
            (position, log_token),
        )


def pair(connection: psycopg.Connection) -> str | None:
    """The capture of the source that the target follows; None where it follows none."""
    row = ask_if_there(connection, "migration.pair", "SELECT capture FROM migration.pair")
    return None if row is None else str(row[0])


REPLICA_FUNCTION = "privileges.act_as_replica"
"""What an administrator of PostgreSQL 14, where the right cannot be granted, may offer instead: a
SECURITY DEFINER function of a superuser that sets it for the session."""


def read_verified(connection: psycopg.Connection) -> int | None:
    """The position up to which what was applied has been compared; None where nothing was."""
    row = connection.execute("SELECT verified FROM migration.pair").fetchone()
    return None if row is None else int(row[0])


LAZILY: Statement = ("SET LOCAL synchronous_commit TO off", ())
"""First in a transaction whose commit need not be waited for."""


def verified_statement(position: int) -> Statement:
    """What records that everything up to ``position`` was compared and is the same. Lost in a
    crash, it means comparing once more."""
    return ("UPDATE migration.pair SET verified = $1, whole_at = clock_timestamp()", (position,))


def set_verified(connection: psycopg.Connection, position: int) -> None:
    """Record that; the commit is not waited for."""
    commit_together(connection, [LAZILY, verified_statement(position)])


_IDENTITY = (
    "SELECT p.capture, p.token, p.next_token, a.position, a.token, p.verified, "
    "to_char(p.whole_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') "
    "FROM migration.pair AS p, migration.applied AS a"
)


def read_identity(connection: psycopg.Connection) -> Identity | None:
    """What the target knows the source by; None where it follows none."""
    row = ask_if_there(connection, "migration.pair", _IDENTITY)
    if row is None:
        return None
    capture, token, next_token, position, log_token, verified, whole_at = row
    return Identity(
        capture=str(capture),
        token=str(token),
        next_token=str(next_token),
        position=int(position),
        log_token=log_token,
        verified=int(verified),
        whole_at=str(whole_at),
    )


_ANNOUNCED = (
    "UPDATE migration.pair SET token = %s, next_token = %s WHERE %s OR %s IN (token, next_token)"
)


def announce_token(
    connection: psycopg.Connection, present: str, next_token: str, *, anew: bool = False
) -> bool:
    """Note, durably, which token the source's state is about to be given by a transaction there.
    False, with nothing noted, where the target does not hold the ``present`` one, unless ``anew``:
    it was just brought up again."""
    announced = (_ANNOUNCED, (present, next_token, anew, present))
    return commit_durably(connection, announced) == [1]


def announce_decision(
    connection: psycopg.Connection, present: str, next_token: str, certificate: tuple[str, str]
) -> bool:
    """Note the same of the decision to switch, together with the certificate (its digest and body)
    that it goes by: whoever holds the token then holds that too."""
    announced = (_ANNOUNCED, (present, next_token, False, present))
    statements = records.certificate_statements(*certificate, "verified", told=next_token)
    return commit_durably(connection, announced, *statements)[0] == 1


def confirm_token(connection: psycopg.Connection) -> None:
    """Note that it was: from now on the one before is that of an older copy."""
    connection.execute("UPDATE migration.pair SET token = next_token WHERE token <> next_token")


def act_as_replica(connection: psycopg.Connection) -> None:
    """Have this session's writes fire no triggers and no foreign keys. Raises InputError where the
    role may not: without it a cascade could remove rows that the source still has."""
    try:
        connection.execute(_REPLICA)
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
