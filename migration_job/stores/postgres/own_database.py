"""A database of the job's own making, one for each file of a fleet."""

from __future__ import annotations

import contextlib

import psycopg

from migration_job.errors import InputError
from migration_job.quoting import compose, postgres_name
from migration_job.stores.postgres.database import connect, describe


def make(server: str, name: str) -> None:
    """Make the database on the server of that connection string where it is not there. Raises
    InputError where the role may not."""
    with contextlib.closing(connect(server, purpose="migration-job fleet")) as connection:
        row = connection.execute(
            "SELECT true FROM pg_database WHERE datname = %s", (name,)
        ).fetchone()
        if row is not None:
            return
        try:
            # template1 may have what is no file's, and is busy whenever somebody looks at it.
            connection.execute(
                compose(
                    "CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'",
                    name=postgres_name(name),
                )
            )
        except (psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
            return
        except psycopg.errors.InsufficientPrivilege as error:
            raise InputError(
                f"expected a role that may create databases at {describe(server)}, found that it "
                f"may not create {name}",
                advice="ALTER ROLE ... CREATEDB, or make the databases beforehand",
            ) from error
