"""Helpers whose assertions are explained as those of tests are, and servers of their own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from migration_job.embedded import EmbeddedPostgres

pytest.register_assert_rewrite("running", "thirdway")


@pytest.fixture(scope="module")
def vectors(vector_server: EmbeddedPostgres) -> Iterator[psycopg.Connection[Any]]:
    """A session of a server with pgvector."""
    with psycopg.connect(vector_server.dsn, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        yield connection
