"""``--schema existing`` by an owner who is no superuser, also on PostgreSQL 14."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from migration_job.embedded import EmbeddedPostgres
from migration_job.verify.definitions import read_definitions
from tests.integration.livestage import AS_REPLICA
from tests.integration.running import DIFFERS, DONE
from tests.integration.wholeway import Way

pytestmark = pytest.mark.postgres

PASSWORD = "for-this-test-alone"

SOURCE = """
CREATE TABLE child (id INTEGER PRIMARY KEY, parent INTEGER REFERENCES parent (id), note TEXT);
CREATE TABLE parent (id INTEGER PRIMARY KEY, name TEXT);
INSERT INTO parent VALUES (1, 'a'), (2, 'b');
INSERT INTO child VALUES (10, 2, 'kept'), (11, 1, NULL);
"""

TARGET = """
CREATE TABLE parent (id integer PRIMARY KEY, name text);
CREATE TABLE child (
    id integer PRIMARY KEY,
    parent integer CONSTRAINT its_parent REFERENCES parent (id) ON DELETE CASCADE,
    note text);
CREATE TABLE fired (what text);
CREATE FUNCTION fire() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO fired VALUES (TG_OP); RETURN NEW; END $$;
CREATE TRIGGER told AFTER INSERT OR UPDATE OR DELETE ON child
    FOR EACH ROW EXECUTE FUNCTION fire();
INSERT INTO parent VALUES (9, 'made by the application');
"""


@pytest.fixture
def owner(postgres_server: EmbeddedPostgres, postgres: str) -> Iterator[str]:
    """The connection string of a role that owns the application's tables, and is no superuser."""
    database = str(conninfo_to_dict(postgres)["dbname"])
    name = f"{database}_owner"
    postgres_server.create_role(name, PASSWORD)
    role = sql.Identifier(name)
    with psycopg.connect(postgres, autocommit=True) as server:
        server.execute(
            sql.SQL("GRANT ALL ON DATABASE {} TO {}").format(sql.Identifier(database), role)
        )
        server.execute(sql.SQL("GRANT ALL ON SCHEMA public TO {}").format(role))
        server.execute(sql.SQL("GRANT pg_signal_backend TO {}").format(role))
    yield make_conninfo(postgres, user=name, password=PASSWORD)
    with psycopg.connect(postgres, autocommit=True) as server:
        server.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(role))
    postgres_server.drop_database(database)
    with psycopg.connect(postgres_server.dsn, autocommit=True) as server:
        server.execute(sql.SQL("DROP ROLE {}").format(role))
    postgres_server.create_database(database)


def lend(superuser: str, owner: str) -> None:
    role = sql.Identifier(str(conninfo_to_dict(owner)["user"]))
    with psycopg.connect(superuser, autocommit=True) as server:
        server.execute(sql.SQL(AS_REPLICA).format(owner=role))


def definitions(dsn: str) -> tuple[str, ...]:
    with psycopg.connect(dsn) as target:
        return read_definitions(target, "public")


def test_the_whole_way_by_an_owner_who_is_lent_the_right(
    tmp_path: Path, postgres: str, owner: str
) -> None:
    """Nothing fires while rows are loaded and applied, and it comes back."""
    way = Way.of(tmp_path, owner, SOURCE)
    way.on_postgres(TARGET)
    lend(postgres, owner)
    before, source = definitions(owner), way.on_sqlite("SELECT * FROM child ORDER BY id")
    moved = way.migrate("--schema", "existing")
    assert moved.status == DONE, moved.said
    assert definitions(owner) == before
    way.on_sqlite("UPDATE child SET note = 'changed' WHERE id = 11")
    switched = way.command("switch")
    assert switched.status == DONE, switched.said
    assert way.on_postgres("SELECT * FROM fired") == []
    assert way.on_postgres("SELECT * FROM child ORDER BY id") == [source[0], (11, 1, "changed")]
    way.on_postgres("DELETE FROM parent WHERE id = 1")
    assert way.on_postgres("SELECT what FROM fired") == [("DELETE",)]
    way.back()
    assert way.on_sqlite("SELECT id FROM child") == [(10,)]


def test_an_owner_s_run_that_fails_is_undone(tmp_path: Path, postgres: str, owner: str) -> None:
    """What was there is put back, also where the right is only lent."""
    way = Way.of(tmp_path, owner, SOURCE)
    way.on_postgres(TARGET)
    lend(postgres, owner)
    before = definitions(owner)
    failed = way.migrate("--schema", "existing", "--proof", "false")
    assert failed.status != DONE, failed.said
    assert way.on_postgres("SELECT * FROM parent") == [(9, "made by the application")]
    assert way.on_postgres("SELECT count(*) FROM child") == [(0,)]
    assert way.on_postgres("SELECT * FROM fired") == []
    assert definitions(owner) == before


def test_an_owner_without_the_right_is_told_first(tmp_path: Path, owner: str) -> None:
    way = Way.of(tmp_path, owner, SOURCE)
    way.on_postgres(TARGET)
    refused = way.migrate("--schema", "existing")
    assert refused.status not in (DONE, DIFFERS), refused.said
    assert "privileges.act_as_replica()" in refused.said
    assert "Nothing was changed" in refused.said
    assert way.on_postgres("SELECT * FROM parent") == [(9, "made by the application")]
