"""A target that somebody has worked with since its certificate: nothing of that is undone, and
such a target is never opened."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from migration_job.embedded import EmbeddedPostgres
from tests.conftest import MakeSqlite
from tests.integration.running import DIFFERS, DONE, USAGE, Ended, run
from tests.integration.wholeway import Way

pytestmark = pytest.mark.postgres

SOURCE = """
CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT);
CREATE TABLE u (id INTEGER PRIMARY KEY);
INSERT INTO t VALUES (1, 'x'), (2, 'y'), (3, 'z');
INSERT INTO u VALUES (1)
"""

ATTACKS = {
    "DELETE FROM t WHERE id = 2; VACUUM (FREEZE) t; SELECT pg_stat_reset(); TRUNCATE u": (
        "1 row of t fewer than were certified",
        "1 row of u fewer than were certified",
    ),
    "DELETE FROM t WHERE id = 2; INSERT INTO t VALUES (9, 'new'); UPDATE u SET id = id": (
        "rows of t that were written since",
        "rows of u that were written since",
    ),
    "DROP TABLE u; ALTER TABLE t DROP COLUMN a": (
        "no table u any more",
        "no column t.a (text) any more",
    ),
    "CREATE SCHEMA s; CREATE VIEW s.v AS SELECT * FROM t; CREATE TABLE s.c (t int REFERENCES t)": (
        "view s.v, which reads t, new since",
        "table s.c, which refers to t, new since",
    ),
}
"""Statements that a second run had undone, or dropped what it made, without a word."""


@pytest.fixture
def copies(postgres_server: EmbeddedPostgres) -> Iterator[list[str]]:
    """Copies of the database, one for each attack, made once it is asked for."""
    made = [f"touched_{number}" for number in range(len(ATTACKS))]
    yield made
    for name in made:
        postgres_server.drop_database(name)


def test_a_second_run_undoes_nothing(
    make_sqlite: MakeSqlite,
    postgres_server: EmbeddedPostgres,
    postgres: str,
    copies: list[str],
    tmp_path: Path,
) -> None:
    source = make_sqlite(SOURCE)

    def again(dsn: str, *options: str) -> Ended:
        report = ("--report", tmp_path / "r")
        return run("migrate", source, "--target", dsn, *report, *options)

    assert again(postgres).status == DONE
    assert again(postgres).status == DONE, "nothing was touched"
    # The source differs, so that another run would begin by dropping the tables.
    with sqlite3.connect(source) as connection:
        connection.execute("INSERT INTO u VALUES (2)")
    connection.close()
    template = str(conninfo_to_dict(postgres)["dbname"])
    for name, (attack, said) in zip(copies, ATTACKS.items(), strict=True):
        dsn = postgres_server.create_database(name, template=template)
        with psycopg.connect(dsn, autocommit=True) as target:
            for statement in attack.split("; "):
                target.execute(statement.encode())
        live = ("--live", "--state", str(tmp_path / "s"))
        ended = again(dsn, *(live if "DROP" in attack else ()))
        assert ended.status == USAGE, (attack, ended.said)
        missing = [words for words in said if words not in " ".join(ended.said.split())]
        assert not missing, (attack, ended.said)
    with sqlite3.connect(source) as connection:
        triggers = connection.execute("SELECT count(*) FROM sqlite_schema WHERE type = 'trigger'")
        assert triggers.fetchone() == (0,), "nothing was installed"
    connection.close()
    assert again(postgres).status == DONE, "the untouched one is filled again"


@pytest.mark.parametrize("schema", ["existing", "planned"])
def test_a_transaction_older_than_the_certificate_is_seen(
    make_sqlite: MakeSqlite, postgres: str, tmp_path: Path, schema: str
) -> None:
    if schema == "existing":
        with psycopg.connect(postgres) as target:
            target.execute("CREATE TABLE t (id bigint PRIMARY KEY, a text)")
    source = make_sqlite("CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT)")
    with sqlite3.connect(source) as connection:
        connection.execute("INSERT INTO t VALUES (1, 'x'), (2, 'y')")
    connection.close()

    def again() -> Ended:
        return run(
            *("migrate", source, "--target", postgres, "--schema", schema),
            *("--report", tmp_path / "r"),
        )

    with psycopg.connect(postgres) as old:
        old.execute("SELECT pg_current_xact_id()")
        assert again().status == DONE
        old.execute("DELETE FROM t WHERE id = 1")
        old.execute("INSERT INTO t VALUES (3, 'theirs')")
    ended = again()
    assert ended.status == USAGE, ended.said
    assert "found rows of t that were written since" in ended.said
    with psycopg.connect(postgres) as target:
        assert target.execute("SELECT id FROM t ORDER BY id").fetchall() == [(2,), (3,)]


def test_the_switch_of_a_plain_run_looks_at_the_target(postgres: str, tmp_path: Path) -> None:
    way = Way.of(tmp_path, postgres, SOURCE)
    ended = run("migrate", way.source, "--target", postgres, "--report", tmp_path / "report")
    assert ended.status == DONE, ended.said
    way.on_postgres("DELETE FROM t WHERE id = 2; INSERT INTO t VALUES (2, 'y')")
    ended = way.command("switch")
    assert ended.status == DIFFERS, ended.said
    assert "rows of t that were written since" in ended.said
    # That it is equal all the same is for a comparison to say.
    ended = run("verify", way.source, "--target", postgres, "--report", tmp_path / "report")
    assert ended.status == DONE, ended.said
    assert way.command("switch").status == DONE
