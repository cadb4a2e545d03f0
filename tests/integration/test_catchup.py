"""The log's rows reach the target as they are on the source, whatever the statements were."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import apsw
import psycopg
import pytest

from migration_job.errors import BlockedError, OperationError, VerificationError
from migration_job.plan.model import ColumnPlan
from migration_job.plan.rules import WidenedTextRule
from migration_job.protocol.catchup import catch_up, catch_up_fully, trim_log
from migration_job.protocol.proof import TYPED_KEYS, prove_all_references, prove_references
from migration_job.protocol.run_context import opened
from migration_job.stores.postgres import records
from tests.integration.livekit import PLAN, Migration, begin, fresh_source, uid

pytestmark = pytest.mark.postgres


@pytest.fixture
def migration(tmp_path: Path, postgres: str) -> Migration:
    return begin(fresh_source(tmp_path), postgres)


def both_sides(migration: Migration) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
    writer = migration.writer()
    source = {
        "users": writer.execute("SELECT id, email, score FROM users ORDER BY id").fetchall(),
        "notes": writer.execute("SELECT id, user_id, body FROM notes ORDER BY id").fetchall(),
        "progress": writer.execute(
            "SELECT user_id, note_id, state FROM progress ORDER BY 1, 2"
        ).fetchall(),
        "events": writer.execute("SELECT what, n, rowid FROM events ORDER BY rowid").fetchall(),
    }
    writer.close()
    with psycopg.connect(migration.dsn) as target:
        arrived = {
            "users": target.execute("SELECT id::text, email, score FROM users ORDER BY id"),
            "notes": target.execute("SELECT id, user_id::text, body FROM notes ORDER BY id"),
            "progress": target.execute(
                "SELECT user_id::text, note_id, state FROM progress ORDER BY 1, 2"
            ),
            "events": target.execute("SELECT what, n, _migration_rowid FROM events ORDER BY 3"),
        }
        return source, {name: cursor.fetchall() for name, cursor in arrived.items()}


def random_write(dice: random.Random, db: apsw.Connection) -> None:
    user, note = uid(dice.randrange(40)), dice.randrange(60)
    email = dice.choice([None, f"{dice.randrange(30)}@example.org"])
    statement = dice.choice(
        [
            ("INSERT OR REPLACE INTO users VALUES (?, ?, ?)", (user, email, dice.random())),
            ("INSERT OR IGNORE INTO users VALUES (?, ?, 0.1)", (user, email)),
            ("UPDATE OR REPLACE users SET email = ? WHERE id = ?", (email, user)),
            ("DELETE FROM users WHERE id = ?", (user,)),
            ("INSERT INTO notes (user_id, body) VALUES (?, 'new\tline\\')", (None,)),
            ("INSERT OR REPLACE INTO notes VALUES (?, (SELECT max(id) FROM users), '')", (note,)),
            ("UPDATE OR IGNORE notes SET id = id + 7 WHERE id > ?", (note,)),
            ("DELETE FROM notes WHERE id = ?", (note,)),
            ("INSERT OR REPLACE INTO progress VALUES (?, ?, 'seen')", (user, note)),
            ("UPDATE progress SET state = NULL WHERE note_id < ?", (note,)),
            ("INSERT INTO events VALUES ('x', ?)", (note,)),
            ("DELETE FROM events WHERE n = ?", (note,)),
        ]
    )
    db.execute(*statement)


@pytest.mark.parametrize("entries", [7, 20_000])
def test_random_writes_arrive(migration: Migration, entries: int) -> None:
    dice = random.Random(5)
    writer = migration.writer()
    with opened(migration.source, migration.dsn) as pair:
        for _ in range(30):
            for _ in range(dice.randrange(40)):
                random_write(dice, writer)
            done = catch_up(pair, entries=entries)
            if dice.random() < 0.3:
                trim_log(pair, done.position)
        while catch_up(pair, entries=entries).behind:
            pass
        prove_all_references(pair)
    writer.close()
    source, target = both_sides(migration)
    assert source == target
    assert sum(map(len, source.values())) > 50


def test_a_unique_value_that_moves_between_batches(migration: Migration) -> None:
    writer = migration.writer()
    writer.execute("INSERT INTO users VALUES (?, 'x', 1), (?, 'z', 2)", (uid(1), uid(2)))
    with opened(migration.source, migration.dsn) as pair:
        catch_up(pair)
        writer.execute("UPDATE users SET score = 3 WHERE id = ?", (uid(2),))
        writer.execute("UPDATE users SET email = 'y' WHERE id = ?", (uid(1),))
        writer.execute("UPDATE users SET email = 'x' WHERE id = ?", (uid(2),))
        # The first entry alone brings user 2 with its present email, which user 1 still has.
        assert catch_up(pair, entries=1).behind == 0
    source, target = both_sides(migration)
    assert source == target


def test_a_value_that_cannot_be_carried_stops_and_says_where(migration: Migration) -> None:
    writer = migration.writer()
    writer.execute("INSERT INTO progress VALUES (?, 1, 'ok')", (uid(1),))
    with opened(migration.source, migration.dsn) as pair:
        catch_up(pair)
        writer.execute("UPDATE progress SET state = printf('%.30c', 'x')")
        with pytest.raises(BlockedError, match=r"progress\.state"):
            catch_up(pair)
        writer.execute("UPDATE progress SET state = 'short'")
        assert catch_up(pair).behind == 0
    source, target = both_sides(migration)
    assert source == target


def test_a_difference_on_the_target_is_found(migration: Migration) -> None:
    writer = migration.writer()
    writer.execute("INSERT INTO users VALUES (?, 'x', 1)", (uid(1),))
    with opened(migration.source, migration.dsn) as pair:
        # A trigger that fires even for a replica: somebody meddles with what is applied.
        pair.target.execute(
            "CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN NEW.email = 'y'; RETURN NEW; END $$;"
            "CREATE TRIGGER meddle BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION meddle();"
            "ALTER TABLE users ENABLE ALWAYS TRIGGER meddle"
        )
        with pytest.raises(VerificationError, match="email"):
            catch_up(pair)
        before = records.applied(pair.target)
        with pytest.raises(VerificationError):
            catch_up(pair)  # it does not count as compared
        assert records.applied(pair.target) == before


def test_orphans_written_with_foreign_keys_off_are_found(migration: Migration) -> None:
    writer = migration.writer()
    writer.execute("PRAGMA foreign_keys = OFF")
    writer.execute("INSERT INTO users VALUES (?, 'x', 1)", (uid(1),))
    writer.execute("INSERT INTO notes VALUES (1, ?, 'fine')", (uid(1),))
    with opened(migration.source, migration.dsn) as pair:
        catch_up(pair)
        prove_all_references(pair)
        users, notes = (
            next(n for n, (table, _) in pair.captured.items() if table.name == name)
            for name in ("users", "notes")
        )
        writer.execute("DELETE FROM users")
        catch_up(pair)
        with pytest.raises(VerificationError, match="notes_user"):
            prove_all_references(pair)
        with pytest.raises(VerificationError, match="notes_user"):
            prove_references(pair, {users: [(uid(1),)]})
        with pytest.raises(VerificationError, match="notes_user"):
            prove_references(pair, {notes: [(1,)]})
        prove_references(pair, {notes: [(2,)]})


def test_a_changed_schema_stops(migration: Migration) -> None:
    writer = migration.writer()
    with opened(migration.source, migration.dsn) as pair:
        writer.execute("CREATE INDEX more ON notes (body)")
        with pytest.raises(OperationError, match="schema has changed"):
            catch_up(pair)


def test_vacuum_stops_where_rows_have_no_key_but_their_number(migration: Migration) -> None:
    writer = migration.writer()
    with opened(migration.source, migration.dsn) as pair:
        writer.execute("VACUUM")
        with pytest.raises(OperationError, match="events"):
            catch_up(pair)


def test_a_source_put_back_to_an_older_state_is_noticed(migration: Migration) -> None:
    writer = migration.writer()
    writer.execute("INSERT INTO events VALUES ('a', 1)")
    with opened(migration.source, migration.dsn) as pair:
        catch_up(pair)
        writer.execute(
            "DELETE FROM _migration_log WHERE seq = (SELECT max(seq) FROM _migration_log)"
        )
        with pytest.raises(OperationError, match="older state"):
            catch_up(pair)


def test_a_log_that_was_trimmed_too_far_is_noticed(migration: Migration) -> None:
    writer = migration.writer()
    writer.execute("INSERT INTO events VALUES ('a', 1), ('b', 2), ('c', 3)")
    writer.execute("DELETE FROM _migration_log WHERE seq <= 2")
    with (
        opened(migration.source, migration.dsn) as pair,
        pytest.raises(OperationError, match="target was put back"),
    ):
        catch_up(pair)


def test_another_run_s_target_is_refused(migration: Migration) -> None:
    with psycopg.connect(migration.dsn) as target:
        target.execute("UPDATE migration.pair SET capture = 'another'")
    with (
        pytest.raises(OperationError, match="follow this source"),
        opened(migration.source, migration.dsn),
    ):
        pass


def test_writers_that_are_not_overtaken_end_it(migration: Migration) -> None:
    writer = migration.writer()
    writer.execute("INSERT INTO events VALUES ('a', 1)")
    with opened(migration.source, migration.dsn) as pair:
        assert catch_up_fully(pair, enough=0, limit=5).behind == 0
        writer.execute("INSERT INTO events VALUES ('a', 1), ('b', 2)")
        with pytest.raises(OperationError, match="still to come"):
            catch_up_fully(pair, enough=-1, limit=0)


def test_a_large_backlog_is_compared_as_text_and_differences_are_named(
    migration: Migration,
) -> None:
    writer = migration.writer()
    writer.execute("BEGIN")
    for number in range(TYPED_KEYS + 10):
        writer.execute("INSERT INTO users VALUES (?, ?, ?)", (uid(number), None, number / 7))
        writer.execute("INSERT INTO notes (body) VALUES (?)", (f"a\tb\\{number}\n",))
    writer.execute("COMMIT")
    with opened(migration.source, migration.dsn) as pair:
        assert catch_up(pair).behind == 0
        source, target = both_sides(migration)
        assert source == target
        pair.target.execute(
            "CREATE FUNCTION meddle() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN NEW.score = NEW.score + 1e-9; RETURN NEW; END $$;"
            "CREATE TRIGGER meddle BEFORE INSERT ON users FOR EACH ROW "
            "WHEN (NEW.email = 'meddled') EXECUTE FUNCTION meddle();"
            "ALTER TABLE users ENABLE ALWAYS TRIGGER meddle"
        )
        writer.execute("UPDATE users SET email = 'meddled' WHERE score = 1")
        writer.execute("UPDATE notes SET body = body || 'x'")
        with pytest.raises(VerificationError, match="score"):
            catch_up(pair)


def test_text_that_is_none_stops_with_its_row(migration: Migration) -> None:
    writer = migration.writer()
    writer.execute("INSERT INTO notes (id, body) VALUES (5, 'fine')")
    with opened(migration.source, migration.dsn) as pair:
        catch_up(pair)
        writer.execute("UPDATE notes SET body = CAST(x'ff61' AS TEXT)")
        with pytest.raises(BlockedError, match=r"notes\.body"):
            catch_up(pair)
        writer.execute("UPDATE notes SET body = 'nul' || char(0) || 'here'")
        with pytest.raises(BlockedError, match="NUL"):
            catch_up(pair)


def test_ledger_and_quarantine_follow_the_rows(tmp_path: Path, postgres: str) -> None:
    users = PLAN.tables[0]
    scores = ColumnPlan(
        source="score", target="score", type="text", rule=WidenedTextRule(), clean=False
    )
    plan = PLAN.model_copy(
        update={
            "tables": (
                users.model_copy(
                    update={
                        "columns": (*users.columns[:2], scores),
                        "quarantine": ("t.email = 'aside'",),
                    }
                ),
                *PLAN.tables[1:],
            )
        }
    )
    migration = begin(fresh_source(tmp_path), postgres, plan)
    writer = migration.writer()
    writer.execute("INSERT INTO users VALUES (?, 'aside', 1.5), (?, 'b', 2.5)", (uid(1), uid(2)))
    count = "SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM migration.quarantine), "
    count += "(SELECT count(*) FROM migration.ledger)"
    with opened(migration.source, migration.dsn) as pair:
        catch_up(pair)
        assert pair.target.execute(count).fetchone() == (1, 1, 1)
        writer.execute("UPDATE users SET email = 'a', score = 'text' WHERE email = 'aside'")
        catch_up(pair)
        assert pair.target.execute(count).fetchone() == (2, 0, 1)
        writer.execute("DELETE FROM users")
        catch_up(pair)
        assert pair.target.execute(count).fetchone() == (0, 0, 0)
