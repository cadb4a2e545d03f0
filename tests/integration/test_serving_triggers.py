"""While PostgreSQL serves, people switch its triggers off, drop them or give tables each other's
names: what was written past the way back comes home all the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import psycopg
import pytest

from migration_job.protocol import evolve
from migration_job.protocol.run_context import opened
from migration_job.protocol.status import status
from migration_job.protocol.sync import Sync
from migration_job.stores.postgres import capture
from tests.integration.running import DIFFERS
from tests.integration.test_serving_ddl import Serving, switched
from tests.integration.wholeway import Way

pytestmark = pytest.mark.postgres

SCRIPT = """
CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT);
CREATE TABLE u (id INTEGER PRIMARY KEY, t INTEGER REFERENCES t(id));
INSERT INTO t VALUES (1, 'a'), (2, 'b'); INSERT INTO u VALUES (1, 1)"""

LOAD = "INSERT INTO t VALUES (9, 'loaded'); UPDATE t SET v = 'B' WHERE id = 2; DELETE FROM u"
OWN = ("guard", "insert", "update", "delete", "truncate")


def each(words: str, table: str = "t") -> str:
    """One ALTER TABLE that does so to each trigger of the way back."""
    parts = (f"{words} TRIGGER {capture.PREFIX}{name}" for name in OWN)
    return f"ALTER TABLE {table} {', '.join(parts)}"


REPLICA = "SET session_replication_role = replica"
OFF, ON = (
    f"ALTER TABLE t {word} TRIGGER ALL; ALTER TABLE u {word} TRIGGER ALL"
    for word in ("DISABLE", "ENABLE")
)

UNSEEN = {
    # As `pg_restore --data-only --disable-triggers` and Rails' fixtures do.
    "switched off and on": f"{OFF}; {LOAD}; {ON}",
    "left off": f"{OFF}; {LOAD}",
    # ENABLE TRIGGER is less than ALWAYS: they do not fire in such a session any more.
    "on for ordinary sessions alone": f"{OFF}; {ON}; {REPLICA}; {LOAD}",
    "put back as they were": "; ".join(
        (
            *(each("DISABLE"), each("DISABLE", "u"), LOAD),
            *(each("ENABLE ALWAYS"), each("ENABLE ALWAYS", "u")),
        )
    ),
    "dropped": "; ".join(
        (*(f"DROP TRIGGER {capture.PREFIX}{n} ON {t}" for n in OWN for t in ("t", "u")), LOAD)
    ),
}


@pytest.mark.parametrize("words", UNSEEN)
@pytest.mark.parametrize("apart", [False, True], ids=["one transaction", "several"])
def test_what_no_trigger_saw_comes_home(
    tmp_path: Path, postgres: str, words: str, apart: bool
) -> None:
    way = Way.of(tmp_path, postgres, SCRIPT)
    way.there()
    with psycopg.connect(postgres, autocommit=True) as target:
        for statement in UNSEEN[words].split("; ") if apart else (UNSEEN[words],):
            target.execute(statement.encode())
    said = way.back().out
    assert way.on_sqlite("SELECT * FROM t") == [(1, "a"), (2, "B"), (9, "loaded")]
    assert way.on_sqlite("SELECT * FROM u") == []
    told = "table t: triggers of the way back were switched off or dropped on PostgreSQL"
    assert (told in said) == (words != "put back as they were")
    # Nobody writes to PostgreSQL any more either.
    for statement in ("INSERT INTO t VALUES (10, 'x')", "TRUNCATE u"):
        with pytest.raises(psycopg.Error, match="moved to SQLite"):
            way.on_postgres(f"{REPLICA}; {statement}")


@pytest.fixture
def serving(tmp_path: Path, postgres: str) -> Serving:
    return switched(tmp_path, postgres)


def whole(serving: Serving) -> Sequence[int]:
    """The tables that are queued with all their rows."""
    with psycopg.connect(serving.migration.dsn) as session:
        rows = session.execute("SELECT tab FROM migration.reverse_log WHERE key IS NULL ORDER BY 1")
        return [int(row[0]) for row in rows]


def test_all_rows_are_read_once(serving: Serving) -> None:
    Sync(serving.ends).run(once=True)
    serving.execute("ALTER TABLE notes DISABLE TRIGGER USER")
    with opened(serving.migration.source, serving.migration.dsn) as pair:
        assert capture.missing(pair.target, pair.plan) != []
        with pair.sides.target.transaction():
            assert evolve.follow_schema(pair)
        assert capture.missing(pair.target, pair.plan) == []
        number = next(n for n, t in capture.numbered(pair.plan) if t.target == "notes")
        assert whole(serving) == [number]
        with pair.sides.target.transaction():
            evolve.follow_schema(pair)  # the triggers that were put back are others
        assert whole(serving) == [number]
        with pair.sides.target.transaction():
            assert not evolve.follow_schema(pair)
    serving.come_back()


def test_a_record_of_an_earlier_release_reads_nothing_again(serving: Serving) -> None:
    Sync(serving.ends).run(once=True)
    serving.execute(
        "UPDATE migration.served SET shape = (shape::jsonb - 'triggers')::text",
        "UPDATE migration.schema_seen SET digest = 'of an earlier release'",
    )
    with opened(serving.migration.source, serving.migration.dsn) as pair:
        with pair.sides.target.transaction():
            assert evolve.follow_schema(pair)
        assert whole(serving) == []
        serving.execute(f"{each('DISABLE', 'notes')}", f"{each('ENABLE ALWAYS', 'notes')}")
        with pair.sides.target.transaction():
            assert evolve.follow_schema(pair)
        assert len(whole(serving)) == 1


def test_another_switch_reads_nothing_again(tmp_path: Path, postgres: str) -> None:
    way = Way.of(tmp_path, postgres, SCRIPT)
    way.there()
    way.back()
    way.on_postgres(f"{each('DISABLE')}; {each('ENABLE ALWAYS')}")
    assert way.command("switch").status == 0
    assert way.command("sync", "--once").status == 0
    assert way.on_postgres("SELECT * FROM migration.reverse_log") == []
    log = "SELECT count(*) FROM _migration_log"
    before = way.on_sqlite(log)
    assert "switched off" not in way.command("sync", "--once").said
    assert way.on_sqlite(log) == before


def test_a_table_whose_name_another_has_taken_is_told(tmp_path: Path, postgres: str) -> None:
    """What is written to the old one, which foreign keys still name, has no table on SQLite."""
    way = Way.of(tmp_path, postgres, SCRIPT)
    way.there()
    way.on_postgres(
        "ALTER TABLE t RENAME TO t_old; CREATE TABLE t (LIKE t_old INCLUDING ALL); "
        "INSERT INTO t SELECT * FROM t_old; INSERT INTO t VALUES (9, 'new')"
    )
    cause = "changes to table t_old do not come back: it was t until another table took its name"
    assert cause in way.command("sync", "--once").said
    assert cause in way.status()
    ended = way.command("rollback")
    assert ended.status == DIFFERS
    assert cause in ended.said
    way.on_postgres("ALTER TABLE u DROP CONSTRAINT u_t_fkey; DROP TABLE t_old")
    ended = way.command("sync", "--once")
    assert "table t_old is gone from PostgreSQL: it keeps nothing from going back" in ended.said
    assert "comes back again" not in ended.said
    way.back()
    assert way.on_sqlite("SELECT * FROM t") == [(1, "a"), (2, "b"), (9, "new")]


def test_the_file_is_not_called_current_where_writes_are_not_seen(serving: Serving) -> None:
    def said() -> str:
        return "\n".join(
            status(serving.migration.source, dsn=serving.migration.dsn, connection=None, state=None)
        )

    assert "way back    the file is current" in said()
    serving.execute("ALTER TABLE notes DISABLE TRIGGER USER")
    assert "way back    the file is current" not in said()
    assert "notes: triggers of the way back are switched off or dropped" in said()
    Sync(serving.ends).run(once=True)
    assert "way back    the file is current" in said()
