"""A call that outlasts its limit ends, whether or not the server answers."""

from __future__ import annotations

import time

import psycopg
import pytest

from migration_job.deadline import time_limit

pytestmark = pytest.mark.postgres


def test_a_call_that_takes_too_long_is_cut_off(postgres: str) -> None:
    connection = psycopg.connect(postgres, autocommit=True)
    start = time.monotonic()
    with pytest.raises(psycopg.OperationalError), time_limit(connection, 0.2):
        connection.execute("SELECT pg_sleep(30)")
    assert time.monotonic() - start < 10
    assert connection.closed


def test_a_call_within_its_limit_leaves_the_connection_as_it_was(postgres: str) -> None:
    connection = psycopg.connect(postgres, autocommit=True)
    with time_limit(connection, 30):
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert connection.execute("SELECT 2").fetchone() == (2,)
    connection.close()
