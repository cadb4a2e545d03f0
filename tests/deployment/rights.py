"""What each role of a stage may do and what it may not, as statements to be tried.

``test_roles.py`` tries them with real logins; ``make check`` on a running stage, as the superuser
who takes each role on.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from infra.names import Names

REFUSED = "42501"
"""The SQLSTATE of each refusal: insufficient_privilege."""

STRANGERS = (
    "SELECT rolpassword FROM pg_authid",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT lo_import('/etc/passwd')",
    "COPY (SELECT 1) TO PROGRAM 'cat'",
    "COPY (SELECT 1) TO '/tmp/stolen'",
    "CREATE ROLE stolen",
    "CREATE DATABASE stolen",
    "SET ROLE postgres",
    "ALTER SYSTEM RESET log_statement",
    "SELECT pg_reload_conf()",
    "LOAD '/tmp/stolen.so'",
    "CREATE FUNCTION pg_temp.stolen() RETURNS int LANGUAGE c AS '/tmp/stolen.so', 'stolen'",
)
"""What no role of a stage may do."""

NO_DDL = (
    "CREATE TABLE stolen (a int)",
    "CREATE TABLE public.stolen (a int)",
    "CREATE SCHEMA stolen",
    "CREATE EXTENSION dblink",
)
NO_SIGNALS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'postgres' LIMIT 1",
)
NO_REPLICA = "SET session_replication_role = replica"
LENT = "SELECT privileges.act_as_replica()"
"""How the job becomes one on PostgreSQL 14, where that right cannot be granted."""

OUTSIDE_TRANSACTIONS = ("CREATE DATABASE", "ALTER SYSTEM")
"""Statements that are refused inside one before anybody looks at rights."""


@dataclass(frozen=True)
class Rights:
    """One role: where it may connect, what it may do there, and what is refused to it."""

    name: str
    database: str
    may: tuple[str, ...]
    may_not: tuple[str, ...]
    closed_to: tuple[str, ...] = field(default=())
    """Databases in which it is not admitted."""


RECORDS = ("SELECT * FROM migration.ledger", "UPDATE migration.fence SET closed = false")
"""What only the job may do with what it keeps of a run."""
FLEET_RECORDS = ("SELECT * FROM _migration_fleet.ledger", "DELETE FROM _migration_fleet.file")
"""The same of a fleet."""


def of(
    names: Names,
    version: int,
    *,
    table: str = "public.cases",
    records: tuple[str, ...] = RECORDS,
) -> list[Rights]:
    """Every login of a stage; ``table`` is one of the application's tables, with its schema."""
    own, rest = names.database, ("postgres", names.pooler_database)
    lent = (LENT,) if version < 15 else ()
    owner = f"SET ROLE {names.owner_role}"
    rows = f"SELECT count(*) FROM {table}"
    writes = (
        f"INSERT INTO {table} SELECT * FROM {table} WHERE false",
        f"DELETE FROM {table} WHERE false",
    )
    no_writes = (*writes, f"TRUNCATE {table}")
    no_change = (
        f"TRUNCATE {table}",
        f"DROP TABLE {table}",
        f"ALTER TABLE {table} ADD COLUMN stolen int",
        f"CREATE INDEX ON {table} ((1))",
        f"CREATE TRIGGER stolen BEFORE INSERT ON {table} "
        "EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        f"ALTER TABLE {table} DISABLE TRIGGER ALL",
    )
    application = (
        *(*STRANGERS, *NO_DDL, *NO_SIGNALS, *no_change, *records),
        *(owner, NO_REPLICA, *lent),
    )
    return [
        Rights(
            names.migration_role,
            own,
            (
                "CREATE TABLE public.made (a int)",
                "CREATE SCHEMA made",
                f"ALTER TABLE {table} ADD COLUMN made int",
                LENT if version < 15 else NO_REPLICA,
            ),
            (*STRANGERS, *NO_SIGNALS, "CREATE EXTENSION dblink"),
            rest,
        ),
        *(
            Rights(login, own, (rows, *writes), application, rest)
            for login in (names.application_role, names.second_role)
        ),
        Rights(
            names.reader_role,
            own,
            (rows,),
            (*no_writes, "CREATE TEMPORARY TABLE stolen (a int)", *application),
            rest,
        ),
        Rights(
            names.monitor_role,
            "postgres",
            (
                "SELECT query FROM pg_stat_activity WHERE usename <> current_user",
                "SELECT setting FROM pg_settings WHERE name = 'data_directory'",
                f"SELECT pg_database_size('{own}')",
            ),
            (*STRANGERS, *NO_DDL, *NO_SIGNALS, owner, NO_REPLICA),
            (names.pooler_database,),
        ),
        Rights(
            names.monitor_role,
            own,
            ("SELECT sum(n_live_tup) FROM pg_stat_user_tables",),
            (rows, *no_writes, *no_change, *records),
        ),
        Rights(
            names.backup_role,
            "postgres",
            (
                "SELECT pg_create_restore_point('tried')",
                "SELECT setting FROM pg_settings WHERE name = 'data_directory'",
            ),
            (*STRANGERS, *NO_DDL, *NO_SIGNALS, owner, NO_REPLICA),
            (own, names.pooler_database),
        ),
        Rights(
            names.pooler_role,
            names.pooler_database,
            (f"SELECT password FROM pooler.lookup('{names.application_role}')",),
            (
                *(*STRANGERS, *NO_DDL, *NO_SIGNALS, owner, NO_REPLICA),
                "CREATE TABLE pooler.stolen (a int)",
                "CREATE OR REPLACE FUNCTION pooler.lookup(wanted text, OUT name text, "
                "OUT password text) RETURNS record LANGUAGE sql AS 'SELECT 1::text, 2::text'",
            ),
            (own, "postgres"),
        ),
    ]
