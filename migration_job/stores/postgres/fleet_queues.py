"""Which of many runs have changes of PostgreSQL's that are still to come back, in few questions."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import psycopg

from migration_job.place import records_for
from migration_job.quoting import compose, joined, postgres_relation, postgres_text

AT_ONCE = 200
"""Runs in one statement, whose locks are no more than a server has room for by default."""

QUEUE = "reverse_log"

IN_THE_WAY = (
    psycopg.errors.LockNotAvailable,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.UndefinedTable,
)


def waiting(connection: psycopg.Connection, schemas: Sequence[str]) -> set[str]:
    """The schemas of runs in the session's database whose queue is not empty. Queues that somebody
    has locked, or removes at this moment, are left out with those that are asked for beside them:
    to be asked again."""
    found: set[str] = set()
    for some in _parts(schemas):
        there = _with_queue(connection, some)
        terms = [
            compose(
                "SELECT {schema} WHERE EXISTS (SELECT FROM {queue})",
                schema=postgres_text(schema),
                queue=postgres_relation(QUEUE, records_for(schema)),
            )
            for schema in there
        ]
        if terms:
            with contextlib.suppress(*IN_THE_WAY):
                rows = connection.execute(joined(" UNION ALL ", terms).encode()).fetchall()
                found.update(str(row[0]) for row in rows)
    return found


def in_use(connection: psycopg.Connection, databases: Sequence[str]) -> set[str]:
    """Those of the server's databases with a session that is none of this job's."""
    rows = connection.execute(
        "SELECT DISTINCT datname FROM pg_stat_activity WHERE datname = ANY (%s) "
        "AND application_name NOT LIKE 'migration-job%%' AND pid <> pg_backend_pid()",
        (list(databases),),
    ).fetchall()
    return {str(row[0]) for row in rows}


def _with_queue(connection: psycopg.Connection, schemas: Sequence[str]) -> list[str]:
    rows = connection.execute(
        "SELECT nspname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace "
        "WHERE relname = %s AND nspname = ANY (%s)",
        (QUEUE, [records_for(schema) for schema in schemas]),
    ).fetchall()
    there = {str(row[0]) for row in rows}
    return [schema for schema in schemas if records_for(schema) in there]


def _parts(schemas: Sequence[str]) -> Iterator[Sequence[str]]:
    for first in range(0, len(schemas), AT_ONCE):
        yield schemas[first : first + AT_ONCE]
