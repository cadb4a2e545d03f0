"""The schema of the application's tables, where a run makes it itself."""

from __future__ import annotations

import contextlib

import psycopg

from migration_job.quoting import compose, postgres_name
from migration_job.stores.postgres.database import enter

STEP = "schema"
"""The step of a run that has made its schema itself."""


def make(connection: psycopg.Connection, name: str) -> bool:
    """Make the schema of the tables where it is not there; whether it was not."""
    named = postgres_name(name)
    row = connection.execute("SELECT to_regnamespace(%s) IS NULL", (named,)).fetchone()
    if row is None or not row[0]:
        return False
    connection.execute(compose("CREATE SCHEMA {named}", named=named))
    enter(connection)
    return True


def drop(connection: psycopg.Connection, name: str) -> None:
    """Drop the schema, unless somebody else has put anything into it meanwhile."""
    with contextlib.suppress(psycopg.errors.DependentObjectsStillExist):
        connection.execute(compose("DROP SCHEMA IF EXISTS {name}", name=postgres_name(name)))
