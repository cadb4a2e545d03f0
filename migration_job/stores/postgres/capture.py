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
    (:func:`.target_fence.end_sessions`).

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

from collections.abc import Iterator, Mapping

import psycopg

from migration_job.place import RECORDS, has_record, placed, record, records_of
from migration_job.plan.model import Plan, TablePlan
from migration_job.quoting import compose, postgres_name, postgres_text
from migration_job.stores.postgres import shape
from migration_job.stores.postgres.database import briefly, lost
from migration_job.values import fold

WRITERS, CLOSING = "ROW SHARE", "EXCLUSIVE"
"""The modes in which writers and the fence lock ``migration.fence_lock``: they exclude each other,
and neither can be had with the right to SELECT."""

MOVED = "moved to SQLite"
"""How the error of a refused write begins."""

SQLSTATE = "MIG01"
"""The SQLSTATE of a refused write."""

LOCKS_SECONDS = 30.0
"""How long an installation goes on asking for a table that others hold."""

PREFIX = shape.PREFIX
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

WAY_BACK_TABLES = (
    *("reverse_log", "fence", "fence_lock", "fence_token", "back_difference"),
    *shape.NAMES,
)
"""The tables that go when the way back is given up."""

_FLOATING = ("double", "real", "float")
_SENSITIVE = ("time", "date", "interval", "bytea", *_FLOATING)
"""Types whose text depends on a session's settings, which are the application's."""

_SETTINGS = (
    "SET DateStyle = 'ISO, YMD' SET TimeZone = 'UTC' SET bytea_output = 'hex' "
    "SET extra_float_digits = 1 SET IntervalStyle = 'postgres'"
)


# ------------------------------------------------------------------------------ installing


def install(connection: psycopg.Connection, plan: Plan, *, at_once: int = 1) -> None:
    """Create the fence (closed) and the way-back triggers; nothing where they are all there for
    this plan and enabled. Each table is needed for a moment, one at a time, or ``at_once`` where
    nobody works with them yet; an installation that was cut off is started over. The fence stays as
    it is where it is there already. The session passes the fence from then on. Raises
    OperationError."""
    mark = _mark(plan)
    try:
        found = connection.execute(
            "SELECT obj_description(to_regclass(%s), 'pg_class')", (record(connection, "fence"),)
        ).fetchone()
        if found is None or found[0] != mark or missing(connection, plan):
            several = list(install_sql(plan, records_of(connection)))
            for start in range(0, len(several), at_once):
                statements = [s for group in several[start : start + at_once] for s in group]
                briefly(connection, statements, limit=LOCKS_SECONDS)
            mark_installed(connection, plan)
        take_token(connection)
    except psycopg.Error as error:
        raise lost(error, "installing the way back") from error


def install_table(connection: psycopg.Connection, number: int, table: TablePlan) -> None:
    """The triggers of one table, again. Raises Locked where the table is not to be had."""
    briefly(connection, _of_table(number, table, records_of(connection)), limit=LOCKS_SECONDS)


def log_without_keys(connection: psycopg.Connection, number: int, table: TablePlan) -> None:
    """Have the table's triggers, where they are there, log only that there was a change: columns
    of its key may be gone, and every write would fail."""
    keyless = table.model_copy(update={"key": ()})
    connection.execute(_log_function(number, keyless, records_of(connection)).encode())


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
        "WHERE c.relnamespace = to_regnamespace(quote_ident(current_schema())) "
        "AND t.tgenabled = 'A' "
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


def unseen(connection: psycopg.Connection, plan: Plan) -> tuple[str, ...]:
    """Tables that should come back, and whose writes do not all meet a trigger."""
    lacking = {one.rpartition(".")[0] for one in missing(connection, plan)}
    return tuple(sorted(lacking - shape.read_causes(connection).keys()))


def take(connection: psycopg.Connection) -> str:
    """What :func:`take_token` sends: one statement, whose query is looked at only where there is a
    fence."""
    return compose(
        "DO $take$ BEGIN IF to_regclass({known}) IS NOT NULL THEN "
        "PERFORM set_config('{token}', token, false) FROM migration.fence_token; "
        "END IF; END $take$",
        known=postgres_text(record(connection, "fence_token")),
        token=TOKEN,
    )


def take_token(connection: psycopg.Connection) -> None:
    """Have this session pass the fence, where there is one; the token itself does not leave the
    server, so no log shows it. psycopg.Error where the role does not own the fence."""
    connection.execute(take(connection).encode())


def installed(connection: psycopg.Connection) -> bool:
    """Whether the fence is there."""
    return has_record(connection, "fence")


def remove(
    connection: psycopg.Connection, plan: Plan, *, limit: float, columns: Mapping[str, str]
) -> None:
    """Drop the triggers of each table and the column that ``columns`` has for it, one table at a
    time while the application works, then the functions, the fence and the log. Cut off, it is run
    again and goes on. Raises Locked where a table is not to be had within ``limit`` seconds."""
    for _, table in numbered(plan):
        if not _there(connection, table):
            continue
        name = table.relation
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
    names = ", ".join(f"migration.{name}" for name in WAY_BACK_TABLES)
    last = [compose("DROP TABLE IF EXISTS {names}", names=names)]
    last += [compose("DROP FUNCTION IF EXISTS migration.log_{n}()", n=n) for n, _ in numbered(plan)]
    briefly(connection, [*last, "DROP FUNCTION IF EXISTS migration.guard()"], limit=limit)


def _there(connection: psycopg.Connection, table: TablePlan) -> bool:
    row = connection.execute("SELECT to_regclass(%s)", (table.relation,)).fetchone()
    return row is not None and row[0] is not None


def _triggers_of(connection: psycopg.Connection, table: TablePlan) -> list[str]:
    rows = connection.execute(
        "SELECT tgname FROM pg_trigger WHERE tgrelid = to_regclass(%s) AND tgname = ANY(%s)",
        (table.relation, [PREFIX + name for name in (*GUARD, *LOGGING)]),
    )
    return [str(row[0]) for row in rows]


def numbered(plan: Plan) -> list[tuple[int, TablePlan]]:
    """The plan's tables and the numbers that stand for them in the log."""
    return list(enumerate(plan.tables, start=1))


def key_columns(table: TablePlan) -> tuple[str, ...]:
    """The target columns of the table's key, in the key's order."""
    targets = {fold(c.source): c.target for c in table.copied if c.source is not None}
    return tuple(targets[fold(name)] for name in table.key)


def install_sql(plan: Plan, records: str = RECORDS) -> Iterator[list[str]]:
    """The statements of :func:`install`, a transaction each: the fence, then table by table."""
    yield [TABLES.strip().rstrip(";"), guard_function()]
    for number, table in numbered(plan):
        yield _of_table(number, table, records)


def _of_table(number: int, table: TablePlan, records: str) -> list[str]:
    statements = list(_triggers(table, GUARD, "migration.guard()"))
    if table.source is not None:
        statements.append(_log_function(number, table, records))
        statements += _triggers(table, LOGGING, f"migration.log_{number}()")
    return statements


def guard_function() -> str:
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
        trigger, target = postgres_name(PREFIX + name), table.relation
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
    yield compose("ALTER TABLE {table} {enabled}", table=table.relation, enabled=enabled)


def _log_function(number: int, table: TablePlan, records: str) -> str:
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
        old, new = (key_of(image, table) for image in ("gone", "fresh"))
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
    # The body holds names: a literal has no end that a name could hold. So the session leaves it
    # as it is, and the place of the records is said here.
    return compose(
        "CREATE OR REPLACE FUNCTION migration.log_{number}() RETURNS trigger LANGUAGE plpgsql "
        "SECURITY DEFINER SET search_path = pg_catalog, pg_temp {settings} "
        "AS {body}",
        number=number,
        settings=settings,
        body=postgres_text(placed(body, records)),
    )


def key_of(image: str, table: TablePlan) -> str:
    """A row's key as the log has it, an array of texts: of a transition table or another alias,
    ``image``."""
    types = {c.target: c.type.lower() for c in table.columns}
    parts = (_as_text(f"{image}.{postgres_name(c)}", types[c]) for c in key_columns(table))
    return f"ARRAY[{', '.join(parts)}]"


def _as_text(column: str, kind: str) -> str:
    # boolean::text is 'true', while its output, which the rules read, is 't'.
    if kind.startswith("bool"):
        return f"CASE {column} WHEN true THEN 't' WHEN false THEN 'f' END"
    return f"{column}::text"
