"""Tables that only their application can write."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from migration_job.stores.sqlite.apply import unwritable
from migration_job.stores.sqlite.catalogue import read_catalogue
from migration_job.stores.sqlite.database import reading
from tests.helpers import same_value


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("CREATE TABLE t(a TEXT UNIQUE, g AS (upper(a)) STORED, CHECK (a GLOB '*'))", ""),
        ("CREATE TABLE t(a TEXT COLLATE own UNIQUE)", "no such collation sequence: own"),
        ("CREATE TABLE t(a TEXT COLLATE own PRIMARY KEY, b) WITHOUT ROWID", "own"),
        ("CREATE TABLE t(a TEXT CHECK (own(a) <> 'x'))", "own()"),
        ("CREATE TABLE t(a TEXT, g AS (own(a)) STORED)", "own()"),
        ("CREATE TABLE t(a TEXT); CREATE INDEX i ON t(own(a))", "own()"),
    ],
)
def test_what_only_the_application_can_write(sql: str, says: str, tmp_path: Path) -> None:
    path = str(tmp_path / "a.db")
    with apsw.Connection(path) as application:
        application.create_collation("own", lambda a, b: (a > b) - (a < b))
        application.create_scalar_function("own", same_value, 1, deterministic=True)
        application.execute(f"{sql}; INSERT INTO t(a) VALUES ('one')")
    job = apsw.Connection(path)
    found = unwritable(job, read_catalogue(job).table("t"))
    assert says in found if says else found == ""
    job.close()
    with reading(path) as looking:
        assert looking.execute("SELECT count(*) FROM t").fetchone() == (1,)
