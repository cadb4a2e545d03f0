"""PostgreSQL's changes come back to SQLite as they are, whatever they were and whoever dies."""

from __future__ import annotations

import random
from pathlib import Path

import apsw
import psycopg
import pytest

from migration_job.errors import InputError
from migration_job.plan.model import ColumnPlan
from migration_job.plan.rules import NumericRule, WidenedTextRule
from migration_job.protocol import reverse_sync
from migration_job.protocol.catchup import catch_up
from migration_job.protocol.decision import take_decision
from migration_job.protocol.refusals import named_tables, require_way_back
from migration_job.protocol.reverse_sync import bring_back, differences
from migration_job.protocol.run_context import Pair, opened
from migration_job.stores.postgres import target_fence
from migration_job.stores.sqlite import fence
from tests.helpers import same_value
from tests.integration.livekit import PLAN, Migration, begin, fresh_source, uid
from tests.integration.running import DONE, USAGE, run
from tests.integration.test_catchup import both_sides

pytestmark = pytest.mark.postgres


def decide(pair: Pair, *one_way: str) -> None:
    """What a switch does, without what is around it."""
    catch_up(pair)
    with fence.writing(pair.source, limit=5):
        take_decision(pair.source, "certificate", one_way, pair.state().token)
    target_fence.open_fence(pair.target)


def drain(pair: Pair, rows: int = 20_000) -> None:
    while bring_back(pair, rows=rows).taken:
        pass


@pytest.fixture
def migration(tmp_path: Path, postgres: str) -> Migration:
    return begin(fresh_source(tmp_path), postgres)


def random_write(dice: random.Random, app: psycopg.Connection) -> None:
    user, note = uid(dice.randrange(30)), dice.randrange(40)
    email = dice.choice([None, f"{dice.randrange(20)}@example.org"])
    statement, values = dice.choice(
        [
            (
                "INSERT INTO users VALUES (%s, %s, random()) ON CONFLICT (id) DO UPDATE "
                "SET email = excluded.email, score = NULL",
                (user, email),
            ),
            ("UPDATE users SET email = %s WHERE id = %s", (email, user)),
            ("UPDATE users SET id = %s WHERE id = %s", (uid(dice.randrange(30, 90)), user)),
            ("DELETE FROM users WHERE id = %s", (user,)),
            ("INSERT INTO notes (user_id, body) SELECT id, %s FROM users LIMIT 2", ("a\tü\\",)),
            ("UPDATE notes SET body = NULL WHERE id %% 3 = %s", (note % 3,)),
            ("INSERT INTO progress VALUES (%s, %s, 'x') ON CONFLICT DO NOTHING", (user, note)),
            ("DELETE FROM progress WHERE note_id > %s", (note,)),
            ("INSERT INTO events (what, n) VALUES ('e', %s), ('f', NULL)", (note,)),
            ("UPDATE events SET n = n + 1 WHERE n < %s", (note,)),
            ("TRUNCATE events", None) if dice.random() < 0.1 else ("DELETE FROM events", None),
        ]
    )
    try:
        app.execute(statement, values)
    except psycopg.IntegrityError:
        return


@pytest.mark.parametrize("rows", [5, 20_000])
def test_random_changes_come_back(migration: Migration, rows: int) -> None:
    dice = random.Random(11)
    print("seed 11")
    writer = migration.writer()
    for number in range(20):
        writer.execute("INSERT INTO users VALUES (?, NULL, ?)", (uid(number), number / 3))
    with (
        opened(migration.source, migration.dsn) as pair,
        psycopg.connect(migration.dsn, autocommit=True) as app,
    ):
        decide(pair)
        for _ in range(25):
            for _ in range(dice.randrange(30)):
                random_write(dice, app)
            bring_back(pair, rows=rows)
        drain(pair, rows)
        assert differences(pair) == []
    source, target = both_sides(migration)
    assert source == target
    assert sum(map(len, source.values())) > 30


def test_values_that_swap_between_rows(migration: Migration) -> None:
    writer = migration.writer()
    writer.execute("INSERT INTO users VALUES (?, 'x', 1), (?, 'y', 2)", (uid(1), uid(2)))
    with (
        opened(migration.source, migration.dsn) as pair,
        psycopg.connect(migration.dsn, autocommit=True) as app,
    ):
        decide(pair)
        app.execute("UPDATE users SET email = 'z' WHERE email = 'x'")
        app.execute("UPDATE users SET email = 'x' WHERE email = 'y'")
        app.execute("UPDATE users SET email = 'y' WHERE email = 'z'")
        drain(pair, rows=1)
    source, target = both_sides(migration)
    assert source == target


def test_a_row_that_was_not_touched_keeps_its_place_and_bytes(migration: Migration) -> None:
    writer = migration.writer()
    for number in (3, 1, 2):
        writer.execute("INSERT INTO users VALUES (?, NULL, 0.1)", (uid(number),))
    before = writer.execute("SELECT rowid, * FROM users").fetchall()
    with (
        opened(migration.source, migration.dsn) as pair,
        psycopg.connect(migration.dsn, autocommit=True) as app,
    ):
        decide(pair)
        app.execute("UPDATE users SET score = 9 WHERE id = %s", (uid(1),))
        drain(pair)
    after = writer.execute("SELECT rowid, * FROM users").fetchall()
    assert [row[:3] for row in after] == [row[:3] for row in before]
    assert [row[3] for row in after] == [0.1, 9.0, 0.1]


def test_a_death_between_the_two_commits_changes_nothing(
    migration: Migration, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        opened(migration.source, migration.dsn) as pair,
        psycopg.connect(migration.dsn, autocommit=True) as app,
    ):
        decide(pair)
        app.execute("INSERT INTO events (what) VALUES ('a'), ('b')")

        def die(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(reverse_sync, "_note", die)
            with pytest.raises(KeyboardInterrupt):
                bring_back(pair)
        app.execute("DELETE FROM events WHERE what = 'a'")
        drain(pair)
    source, target = both_sides(migration)
    assert source == target
    assert len(source["events"]) == 1


def test_what_sqlite_cannot_hold_is_named_and_forgotten_once_it_is_mended(
    tmp_path: Path, postgres: str
) -> None:
    users = PLAN.tables[0]
    scores = ColumnPlan(
        source="score", target="score", type="numeric", rule=NumericRule(affinity="real")
    )
    table = users.model_copy(update={"columns": (*users.columns[:2], scores)})
    plan = PLAN.model_copy(update={"tables": (table, *PLAN.tables[1:])})
    migration = begin(fresh_source(tmp_path), postgres, plan)
    digits = "0.12345678901234567890"
    with (
        opened(migration.source, migration.dsn) as pair,
        psycopg.connect(migration.dsn, autocommit=True) as app,
    ):
        decide(pair)
        app.execute(
            "INSERT INTO users VALUES (%s, 'too many', %s), (%s, 'ok', 1)",
            (uid(1), digits, uid(2)),
        )
        drain(pair)
        (named,) = differences(pair)
        assert "score" in named
        assert uid(1) in named
        app.execute("UPDATE users SET score = 2 WHERE score = %s", (digits,))
        drain(pair)
        assert differences(pair) == []
    source, target = both_sides(migration)
    assert source == target


def test_a_value_of_the_ledger_is_what_it_was_until_the_target_changes_it(
    tmp_path: Path, postgres: str
) -> None:
    users = PLAN.tables[0]
    scores = ColumnPlan(
        source="score", target="score", type="text", rule=WidenedTextRule(), clean=False
    )
    table = users.model_copy(update={"columns": (*users.columns[:2], scores)})
    plan = PLAN.model_copy(update={"tables": (table, *PLAN.tables[1:])})
    migration = begin(fresh_source(tmp_path), postgres, plan)
    writer = migration.writer()
    writer.execute("INSERT INTO users VALUES (?, 'a', 1.5), (?, 'b', 2.5)", (uid(1), uid(2)))
    with (
        opened(migration.source, migration.dsn) as pair,
        psycopg.connect(migration.dsn, autocommit=True) as app,
    ):
        decide(pair)
        app.execute("UPDATE users SET email = 'other'  WHERE email = 'a'")
        app.execute("UPDATE users SET score = 'words' WHERE email = 'b'")
        drain(pair)
        left = app.execute("SELECT count(*) FROM migration.ledger").fetchone()
    assert writer.execute("SELECT email, score FROM users ORDER BY id").fetchall() == [
        ("other", 1.5),
        ("b", "words"),
    ]
    assert left == (1,)


def test_the_source_takes_nothing_while_it_is_open(migration: Migration) -> None:
    with opened(migration.source, migration.dsn) as pair:
        decide(pair)
        pair.target.execute("INSERT INTO migration.reverse_log (tab, key) VALUES (4, '{1}')")
        with fence.writing(pair.source, limit=5):
            fence.change_state(pair.source, closed=0)
        with pytest.raises(Exception, match="found it open"):
            bring_back(pair)
        assert isinstance(pair.source, apsw.Connection)


def test_a_table_that_only_the_application_can_write_stops_the_switch(
    tmp_path: Path, postgres: str
) -> None:
    """What PostgreSQL takes could not come back; found before the switch, not on the way back."""
    source = tmp_path / "app.db"
    with apsw.Connection(str(source)) as application:
        application.create_scalar_function("own", same_value, 1, deterministic=True)
        application.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT CHECK (own(a) <> ''))")
        application.execute("CREATE TABLE u(id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1, 'x')")
    options = ("--target", postgres, "--report", tmp_path / "report", "--state", tmp_path)
    assert run("migrate", source, "--live", *options).status == DONE
    with opened(source, postgres) as pair:
        with pytest.raises(InputError, match=r"changes to t could not come back.*own\(\)"):
            require_way_back(pair, ())
        require_way_back(pair, named_tables(pair, ("T",)))


def test_a_table_that_only_the_application_can_read_stops_a_live_migration(
    tmp_path: Path, postgres: str
) -> None:
    source = tmp_path / "app.db"
    with apsw.Connection(str(source)) as application:
        application.create_collation("own", lambda a, b: (a > b) - (a < b))
        application.execute("CREATE TABLE t(k TEXT COLLATE own PRIMARY KEY) WITHOUT ROWID")
        application.execute("INSERT INTO t VALUES ('x')")
    options = ("--target", postgres, "--report", tmp_path / "report")
    ended = run("migrate", source, "--live", *options, "--state", tmp_path)
    assert ended.status == USAGE, ended.said
    assert "the changes of table 't' cannot be followed: to read a row takes" in ended.err
    assert run("migrate", source, *options).status == DONE
