"""Settings of the server, the database and its roles that a migration cannot stand.

Most settings are overridden for the job's own sessions (:data:`.database.SETTINGS`), and the
application's are its own affair. What is left is what would take effect without a word: triggers
that do not fire, and a side that takes no writes although it serves.
"""

from __future__ import annotations

import psycopg

from migration_job.errors import InputError

READ_ONLY = "default_transaction_read_only"
REPLICA = "session_replication_role"

_TRUE = ("on", "true", "tru", "tr", "t", "yes", "ye", "y", "1")

_STORED = """
SELECT coalesce(quote_ident(d.datname), ''), coalesce(quote_ident(r.rolname), ''),
       coalesce(r.rolname, ''), lower(split_part(entry, '=', 1)),
       lower(substr(entry, strpos(entry, '=') + 1))
FROM pg_db_role_setting s
CROSS JOIN unnest(s.setconfig) AS entry
LEFT JOIN pg_database d ON d.oid = s.setdatabase
LEFT JOIN pg_roles r ON r.oid = s.setrole
WHERE s.setdatabase = 0 OR d.datname = current_database()
ORDER BY 1, 2, 4
"""


def unfit(
    connection: psycopg.Connection, *, application: str | None = None
) -> list[tuple[str, str]]:
    """Each such setting, as what was found and the statement that mends it.

    ``application`` is the role that is to write after the switch; None where that is not known. The
    session may have changed the settings for itself: what counts is what new ones begin with.
    """
    found = []
    writers = ("", connection.info.user, application)
    for database, role, plain, name, value in connection.execute(_STORED).fetchall():
        if not _harmful(name, value, plain in writers):
            continue
        whose = f"role {role}" if role else "every role"
        where = f"in database {database}" if database else "in every database"
        reset = f"ALTER ROLE {role or 'ALL'}"
        if database:
            reset = f"{reset} IN DATABASE {database}" if role else f"ALTER DATABASE {database}"
        found.append((f"{name} = {value} for {whose} {where}", f"{reset} RESET {name}"))
    if found:
        return found
    # The server's own: its files, its command line, or what the connection string asks for.
    row = connection.execute(
        "SELECT (SELECT reset_val FROM pg_settings WHERE name = %s), "
        "(SELECT reset_val FROM pg_settings WHERE name = %s)",
        (REPLICA, READ_ONLY),
    ).fetchone()
    for name, value in zip((REPLICA, READ_ONLY), row or (), strict=False):
        if _harmful(name, str(value).lower(), True):
            found.append(
                (
                    f"{name} = {value} in the server's configuration",
                    f"take {name} out of the server's configuration and reload it, e.g. by "
                    f"ALTER SYSTEM RESET {name}",
                )
            )
    return found


def require_fit(connection: psycopg.Connection, *, application: str | None = None) -> None:
    """Raises InputError where :func:`unfit` finds anything."""
    found = unfit(connection, application=application)
    if found:
        raise InputError(
            "expected settings on the target under which its triggers fire and writes are taken, "
            f"found {'; '.join(what for what, _ in found)}",
            advice=f"{'; '.join(how for _, how in found)}; then run the command again. "
            "The application is served as before",
        )


def _harmful(name: str, value: str, writes: bool) -> bool:
    if name == REPLICA:
        return value == "replica"
    # A role that only reads may be held to it; the one that is to write may not, nor may all.
    return name == READ_ONLY and writes and value in _TRUE
