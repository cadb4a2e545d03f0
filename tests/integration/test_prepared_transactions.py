"""A prepared transaction belongs to no session: nothing ends it, so it is named before anybody is
held for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from migration_job.embedded import EmbeddedPostgres
from tests.integration.running import FAILED
from tests.integration.wholeway import Way
from tests.servers import MAJOR

pytestmark = pytest.mark.postgres

SCRIPT = "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1, 'a')"


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(
        major=MAJOR, fast=True, settings={"max_prepared_transactions": "5"}
    ) as server:
        yield server


def test_it_is_named_and_nobody_is_held(tmp_path: Path, server: EmbeddedPostgres) -> None:
    way = Way.of(tmp_path, server.create_database("prepared"), SCRIPT)
    way.there()
    # One that has only read is in nobody's way.
    way.on_postgres("BEGIN; SELECT * FROM t; PREPARE TRANSACTION 'reader'")
    assert "way back    the file is current" in way.status()
    way.on_postgres("BEGIN; UPDATE t SET v = 'b'; PREPARE TRANSACTION 'order 7'")
    words = "the prepared transaction has written and is open: order 7"
    assert words in way.status()
    assert "way back    the file is current" not in way.status()
    ended = way.command("rollback")
    assert ended.status == FAILED
    assert words in ended.err
    assert "ROLLBACK PREPARED" in ended.err
    assert "pg_stat_activity" not in ended.err
    assert "holding the application's queries" not in ended.out
    way.on_postgres("COMMIT PREPARED 'order 7'")
    way.back()
    assert way.on_sqlite("SELECT * FROM t") == [(1, "b")]
