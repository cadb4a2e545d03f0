"""One question about the queues of many runs."""

from __future__ import annotations

import contextlib

import psycopg
import pytest

from migration_job.stores.postgres import database, fleet_queues

pytestmark = pytest.mark.postgres

SCHEMAS = [f'o\'{number} "x"' for number in range(fleet_queues.AT_ONCE + 3)]


def queue(schema: str) -> str:
    return psycopg.sql.Identifier(f"migration_{schema}", "reverse_log").as_string(None)


def test_only_queues_with_rows_are_found(postgres: str) -> None:
    """Those that are locked or gone hold up none but the ones beside them."""
    there = [*SCHEMAS[:2], *SCHEMAS[-2:]]
    with psycopg.connect(postgres, autocommit=True) as other:
        for schema in there:
            named = psycopg.sql.Identifier(f"migration_{schema}").as_string(None)
            other.execute(f"CREATE SCHEMA {named}".encode())
            other.execute(f"CREATE TABLE {queue(schema)} (id integer)".encode())
        with contextlib.closing(database.connect(postgres)) as asking:
            database.limit_waiting(asking, 100)
            assert fleet_queues.waiting(asking, []) == set()
            assert fleet_queues.waiting(asking, SCHEMAS) == set()
            other.execute(f"INSERT INTO {queue(there[1])} VALUES (1)".encode())
            other.execute(f"INSERT INTO {queue(there[3])} VALUES (1), (2)".encode())
            assert fleet_queues.waiting(asking, SCHEMAS) == {there[1], there[3]}
            with other.transaction():
                other.execute(f"LOCK TABLE {queue(there[0])}".encode())
                assert fleet_queues.waiting(asking, SCHEMAS) == {there[3]}
            assert fleet_queues.waiting(asking, SCHEMAS) == {there[1], there[3]}


def test_databases_in_use_are_those_with_foreign_sessions(postgres: str) -> None:
    name = str(psycopg.conninfo.conninfo_to_dict(postgres)["dbname"])
    with contextlib.closing(database.connect(postgres)) as asking:
        assert fleet_queues.in_use(asking, [name, "no such"]) == set()
        with psycopg.connect(postgres):
            assert fleet_queues.in_use(asking, [name, "no such"]) == {name}
