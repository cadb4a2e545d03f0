"""``--schema-name``: into a schema that is not ``public``, and several files into one database."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from migration_job.place import in_schema
from migration_job.quoting import postgres_name
from tests.integration.running import DONE, USAGE, run
from tests.integration.wholeway import Way

pytestmark = pytest.mark.postgres

SCHEMA = 'It\'s "Büro" %s'
"""What SQL quotes, and what psycopg reads as a parameter where a statement has any."""

NAMED = postgres_name(SCHEMA)

SOURCE = """
CREATE TABLE "migration.run" (id INTEGER PRIMARY KEY AUTOINCREMENT, "migration.pair" TEXT);
INSERT INTO "migration.run" VALUES (1, 'migration.run'), (2, '"migration.fence"'), (4, 'x');
CREATE TABLE pets (
    name TEXT PRIMARY KEY, owner INTEGER REFERENCES "migration.run" (id), tame BOOLEAN NOT NULL);
INSERT INTO pets VALUES ('Ada', 1, 1), ('Bo', 4, 0);
CREATE INDEX by_owner ON pets (owner);
CREATE TABLE loose (line TEXT);
INSERT INTO loose VALUES ('migration.ledger'), ('y');
CREATE VIEW tame AS SELECT name FROM pets WHERE tame;
"""


def schemas(dsn: str) -> dict[str, int]:
    """The schemas that are no server's, with how many tables each has."""
    with psycopg.connect(dsn) as target:
        rows = target.execute(
            "SELECT n.nspname, count(c.oid) FROM pg_namespace n LEFT JOIN pg_class c "
            "ON c.relnamespace = n.oid AND c.relkind = 'r' "
            "WHERE n.nspname !~ '^pg_|^information_schema$' GROUP BY 1"
        ).fetchall()
    return {str(name): int(count) for name, count in rows}


def test_two_files_live_in_one_database(tmp_path: Path, postgres: str) -> None:
    """Both are followed and switched, and come back one by one; neither disturbs the other."""
    ways = []
    for name, dsn in (("a", in_schema(postgres, SCHEMA)), ("b", postgres)):
        (tmp_path / name).mkdir()
        ways.append(Way.of(tmp_path / name, dsn, SOURCE))
    for way in ways:
        ended = way.migrate()
        assert ended.status == DONE, ended.said
    early = ways[0].command("rollback")
    assert early.status == DONE, early.said
    assert "nothing to roll back" in early.said
    assert not (ways[0].folder / "connection").exists()
    there = schemas(postgres)
    assert there["public"] == there[SCHEMA] == 3
    assert f"migration_{SCHEMA}" in there
    for way in ways:
        letter = way.folder.name
        way.on_sqlite(f"INSERT INTO \"migration.run\" VALUES (9, 'migration.applied {letter}')")
        way.on_sqlite(f"INSERT INTO loose VALUES ('{letter}')")
        ended = way.command("switch")
        assert ended.status == DONE, ended.said
        assert "closed" not in way.status().splitlines()[0]
    for way in ways:
        letter = way.folder.name
        rows = way.on_postgres("""SELECT "migration.pair" FROM "migration.run" ORDER BY id""")
        assert rows == [
            *(("migration.run",), ('"migration.fence"',), ("x",)),
            (f"migration.applied {letter}",),
        ]
        made = way.on_postgres(
            f"""INSERT INTO "migration.run" ("migration.pair")
            VALUES ('migration.reverse_log {letter}') RETURNING id"""
        )
        assert made == [(10,)]
        way.on_postgres("UPDATE pets SET tame = NOT tame; DELETE FROM loose WHERE line = 'y'")
    ways[1].back()
    assert not ways[1].closed()
    assert ways[0].closed()
    ways[0].back()
    for way in ways:
        letter = way.folder.name
        assert way.on_sqlite('SELECT * FROM "migration.run" WHERE id > 8') == [
            (9, f"migration.applied {letter}"),
            (10, f"migration.reverse_log {letter}"),
        ]
        assert way.on_sqlite("SELECT name FROM tame") == [("Bo",)]
        assert way.on_sqlite("SELECT line FROM loose") == [("migration.ledger",), (letter,)]


def test_an_existing_schema_is_filled_and_given_back(tmp_path: Path, postgres: str) -> None:
    way = Way.of(
        tmp_path,
        postgres,
        "CREATE TABLE t (id INTEGER PRIMARY KEY, on_at BOOLEAN);"
        "INSERT INTO t VALUES (1, 1), (2, 0)",
    )
    way.on_postgres(
        f"CREATE EXTENSION citext; CREATE SCHEMA {NAMED}; CREATE TABLE t (other text); "
        f"CREATE TABLE {NAMED}.t (id serial PRIMARY KEY, on_at boolean, own citext); "
        f"INSERT INTO {NAMED}.t VALUES (7)"
    )
    named = ("--schema", "existing", "--schema-name", SCHEMA)
    looked = run("inspect", way.source, "--target", postgres, *named)
    assert looked.status == DONE, looked.said
    ended = way.migrate(*named)
    assert ended.status == DONE, ended.said
    assert f"it is kept in migration_{SCHEMA}.replaced" in ended.said
    checked = run("check-target", "--target", postgres, *named)
    assert "holds a run of this project" in checked.out
    again = way.command("switch", "--schema-name", SCHEMA)
    assert again.status == DONE, again.said
    way.on_postgres(f"INSERT INTO {NAMED}.t (on_at, own) VALUES (true, 'mine')")
    assert way.on_postgres("SELECT count(*) FROM t") == [(0,)]
    back = way.command("rollback", "--schema-name", SCHEMA, "--accept-loss")
    assert back.status == DONE, back.said
    assert way.on_sqlite("SELECT * FROM t") == [(1, 1), (2, 0), (3, 1)]


def test_a_schema_that_is_made_goes_with_a_run_that_starts_clean(
    tmp_path: Path, postgres: str
) -> None:
    way = Way.of(tmp_path, postgres, "CREATE TABLE t (id INTEGER PRIMARY KEY)")
    options = ("migrate", way.source, "--target", postgres, "--report", tmp_path / "r")
    assert run(*options, "--schema-name", SCHEMA).status == DONE
    way.on_sqlite("CREATE TABLE u (id INTEGER PRIMARY KEY)")
    assert run(*options, "--schema-name", SCHEMA).status == DONE
    assert schemas(postgres)[SCHEMA] == 2
    verified = run(
        *("verify", way.source, "--target", postgres, "--report", tmp_path / "v"),
        *("--schema-name", SCHEMA),
    )
    assert verified.status == DONE, verified.said
    refused = run(*options, "--schema-name", "pg_temp")
    assert refused.status == USAGE
    assert "PostgreSQL or this job keeps for itself" in refused.said
