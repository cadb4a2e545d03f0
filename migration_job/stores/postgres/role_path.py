"""Where a role's sessions look for tables, by its settings on the server."""

from __future__ import annotations

import contextlib
import re

import psycopg

from migration_job.errors import JobError
from migration_job.place import DEFAULT_SCHEMA, schema_of
from migration_job.stores.postgres.database import connect

_FIRST = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([^\s",]+))')

PATHS = """
SELECT split_part(setting, '=', 2)
FROM pg_db_role_setting, unnest(setconfig) AS setting
WHERE setting LIKE 'search_path=%%'
    AND setrole IN (0, (SELECT oid FROM pg_roles WHERE rolname = %s))
    AND setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
ORDER BY setrole = 0, setdatabase = 0
LIMIT 1
"""


def elsewhere(dsn: str, role: str) -> str:
    """In words, that the role's sessions look for tables elsewhere than in the schema of the
    connection string; '' where they look there first, or nothing can be found out."""
    schema = schema_of(dsn)
    if schema == DEFAULT_SCHEMA:
        return ""
    try:
        with contextlib.closing(connect(dsn, purpose="migration-job fleet")) as target:
            row = target.execute(PATHS, (role,)).fetchone()
    except (JobError, psycopg.Error):
        return ""  # whatever it is, the command itself meets it
    first = _FIRST.match(str(row[0])) if row is not None else None
    found = None
    if first is not None:
        found = first[1].replace('""', '"') if first[1] is not None else first[2].lower()
    if found == schema:
        return ""
    looks = "has no search_path of its own" if found is None else f"looks into {found} first"
    return (
        f"role {role} {looks}: an application that does not name schema {schema} itself finds no "
        "tables there (docs/how-to/another-schema.md says how a role gets its search_path)"
    )
